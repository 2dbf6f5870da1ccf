"""Webhooks of the registry: told of what they asked for, signed as MLflow signs, never inside a network by stealth."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from promptlab import delivery, webhooks
from promptlab.delivery import Delivery
from promptlab.errors import InvalidParameter
from tests.promptlab.serving import serving

API = "/api/2.0/mlflow"
SECRET = "a secret of the two"


class Receiver:
    """Hears what it is told, and answers as it was told to: with each status in turn, then 200."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[dict[str, str], str]] = queue.Queue()
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.heard.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("content-length", "5")
                self.end_headers()
                self.wfile.write(b"heard")

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?a=1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def next(self) -> tuple[dict[str, str], dict[str, Any]]:
        """The next message's headers and body."""
        headers, body = self.heard.get(timeout=10)
        return headers, json.loads(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def inside(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that may tell webhooks inside the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhooks, "_LOOK", 0.05)
        with (
            serving(shared_url, tmp_path_factory.mktemp("artifacts"), private_webhooks=True) as address,
            httpx.Client(base_url=address) as client,
        ):
            yield client


def make(client: httpx.Client, url: str, *events: str, **fields: Any) -> dict[str, Any]:
    """A new webhook for events such as `PROMPT.CREATED`."""
    said = [dict(zip(("entity", "action"), event.split("."), strict=True)) for event in events]
    answer = client.post(f"{API}/webhooks", json={"name": "w", "url": url, "events": said, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["webhook"])


def call(client: httpx.Client, method: str, path: str, **fields: Any) -> dict[str, Any]:
    answer = client.request(method, f"{API}/{path}", json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


PROMPT = [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "team", "value": "a"}]
TEXT = [*PROMPT, {"key": "mlflow.prompt.text", "value": "Hi {{x}}"}]
#: A call, and what webhooks are told of it.
STEPS: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    (
        "POST",
        "registered-models/create",
        {"name": "m", "description": "d"},
        "registered_model.created",
        {"name": "m", "tags": {}, "description": "d"},
    ),
    (
        "POST",
        "model-versions/create",
        {"name": "m", "source": "s3://a/b", "tags": [{"key": "k", "value": "v"}]},
        "model_version.created",
        {
            "name": "m",
            "version": "1",
            "source": "s3://a/b",
            "run_id": None,
            "tags": {"k": "v"},
            "description": None,
        },
    ),
    (
        "POST",
        "model-versions/set-tag",
        {"name": "m", "version": "1", "key": "k", "value": "w"},
        "model_version_tag.set",
        {"name": "m", "version": "1", "key": "k", "value": "w"},
    ),
    (
        "DELETE",
        "model-versions/delete-tag",
        {"name": "m", "version": "1", "key": "k"},
        "model_version_tag.deleted",
        {"name": "m", "version": "1", "key": "k"},
    ),
    (
        "POST",
        "registered-models/alias",
        {"name": "m", "version": "1", "alias": "champion"},
        "model_version_alias.created",
        {"name": "m", "alias": "champion", "version": "1"},
    ),
    (
        "DELETE",
        "registered-models/alias",
        {"name": "m", "alias": "champion"},
        "model_version_alias.deleted",
        {"name": "m", "alias": "champion"},
    ),
    (
        "POST",
        "registered-models/create",
        {"name": "p", "tags": PROMPT},
        "prompt.created",
        {"name": "p", "tags": {"team": "a"}, "description": None},
    ),
    (
        "POST",
        "model-versions/create",
        {"name": "p", "source": "dummy-source", "tags": TEXT},
        "prompt_version.created",
        {"name": "p", "version": "1", "template": "Hi {{x}}", "tags": {"team": "a"}, "description": None},
    ),
    (
        "POST",
        "registered-models/set-tag",
        {"name": "p", "key": "a", "value": "b"},
        "prompt_tag.set",
        {"name": "p", "key": "a", "value": "b"},
    ),
    (
        "DELETE",
        "registered-models/delete-tag",
        {"name": "p", "key": "a"},
        "prompt_tag.deleted",
        {"name": "p", "key": "a"},
    ),
    (
        "POST",
        "registered-models/alias",
        {"name": "p", "version": "1", "alias": "production"},
        "prompt_alias.created",
        {"name": "p", "alias": "production", "version": "1"},
    ),
]
EVERY = [f"{event.entity.name}.{event.action.name}" for event in webhooks.EXAMPLES]


def test_it_is_told_of_models_and_prompts_in_mlflows_words(inside: httpx.Client, receiver: Receiver) -> None:
    made = make(inside, receiver.url, *EVERY, secret=SECRET)
    assert "secret" not in made
    for method, path, fields, event, data in STEPS:
        call(inside, method, path, **fields)
        headers, said = receiver.next()
        assert (f"{said['entity']}.{said['action']}", said["data"]) == (event, data)
    body = json.dumps(said)
    assert SECRET not in body
    assert headers["content-type"] == "application/json"
    call(inside, "DELETE", f"webhooks/{made['webhook_id']}")
    call(inside, "POST", "registered-models/set-tag", name="p", key="a", value="c")
    with pytest.raises(queue.Empty):
        receiver.heard.get(timeout=0.4)


def test_a_message_is_signed_as_mlflow_signs(inside: httpx.Client, receiver: Receiver) -> None:
    made = make(inside, receiver.url, "PROMPT.CREATED", secret=SECRET)
    result = call(inside, "POST", f"webhooks/{made['webhook_id']}/test")["result"]
    assert result == {"success": True, "response_status": 200, "response_body": "heard"}
    headers, body = receiver.heard.get(timeout=5)
    assert json.loads(body)["data"]["name"] == "example_prompt"
    delivery_id, at = headers["x-mlflow-delivery-id"], headers["x-mlflow-timestamp"]
    mac = hmac.new(SECRET.encode(), f"{delivery_id}.{at}.{body}".encode(), hashlib.sha256).digest()
    assert headers["x-mlflow-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    assert abs(int(at) - time.time()) < 60
    # Without a secret there is nothing to sign with.
    updated = call(inside, "PATCH", f"webhooks/{made['webhook_id']}", secret="", name="other")["webhook"]
    assert (updated["name"], updated["events"]) == ("other", made["events"])
    event = {"entity": "MODEL_VERSION", "action": "CREATED"}
    call(inside, "POST", f"webhooks/{made['webhook_id']}/test", event=event)
    headers, said = receiver.next()
    assert "x-mlflow-signature" not in headers
    assert said["data"]["source"] == "models:/123"
    call(inside, "DELETE", f"webhooks/{made['webhook_id']}")


def test_who_does_not_take_it_is_told_again(
    inside: httpx.Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks.random, "random", lambda: -1.0 + 0.05)  # waits of 0.05 s and more
    made = make(inside, receiver.url, "REGISTERED_MODEL.CREATED")
    receiver.statuses = [503, 429]
    call(inside, "POST", "registered-models/create", name=f"again-{made['webhook_id']}")
    bodies = [receiver.heard.get(timeout=10)[1] for _ in range(3)]
    assert len(set(bodies)) == 1
    receiver.statuses = [400]
    call(inside, "POST", "registered-models/create", name=f"refused-{made['webhook_id']}")
    receiver.heard.get(timeout=5)
    with pytest.raises(queue.Empty):
        receiver.heard.get(timeout=1.5)
    call(inside, "PATCH", f"webhooks/{made['webhook_id']}", status="DISABLED")
    call(inside, "POST", "registered-models/create", name=f"quiet-{made['webhook_id']}")
    with pytest.raises(queue.Empty):
        receiver.heard.get(timeout=0.4)
    call(inside, "DELETE", f"webhooks/{made['webhook_id']}")


def test_what_did_not_come_to_be_is_not_told(inside: httpx.Client, receiver: Receiver) -> None:
    made = make(inside, receiver.url, "REGISTERED_MODEL.CREATED")
    name = f"once-{made['webhook_id']}"
    call(inside, "POST", "registered-models/create", name=name)
    assert inside.post(f"{API}/registered-models/create", json={"name": name}).status_code == 400
    assert receiver.next()[1]["data"]["name"] == name
    with pytest.raises(queue.Empty):
        receiver.heard.get(timeout=0.4)
    call(inside, "DELETE", f"webhooks/{made['webhook_id']}")


def test_they_are_listed_in_pages(inside: httpx.Client, receiver: Receiver) -> None:
    made = [make(inside, receiver.url, "PROMPT.CREATED")["webhook_id"] for _ in range(3)]
    first = inside.get(f"{API}/webhooks", params={"max_results": 2}).json()
    assert [one["webhook_id"] for one in first["webhooks"]] == made[:0:-1]
    second = inside.get(f"{API}/webhooks", params={"page_token": first["next_page_token"]}).json()
    assert made[0] in [one["webhook_id"] for one in second["webhooks"]]
    assert inside.get(f"{API}/webhooks/{made[0]}").json()["webhook"]["status"] == "ACTIVE"
    for one in made:
        call(inside, "DELETE", f"webhooks/{one}")
    assert inside.get(f"{API}/webhooks/{made[0]}").status_code == 404


EVENT = [{"entity": "PROMPT", "action": "CREATED"}]
GOOD: dict[str, Any] = {"name": "w", "url": "http://127.0.0.1:9/x", "events": EVENT}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "-w"}, "must start and end with a letter or digit"),
        ({"name": "x" * 64}, "less than 63 characters"),
        ({"name": None}, "Missing value for required parameter 'name'"),
        ({"url": "ftp://127.0.0.1/x"}, "begins with https:// or http://"),
        ({"url": "https://"}, "begins with https:// or http://"),
        ({"url": "http://127.0.0.1:99999999/"}, "begins with https:// or http://"),
        ({"url": "http://a:b@127.0.0.1/"}, "user name or a password"),
        ({"url": "http://no-such-host.invalid/"}, "Cannot resolve Webhook URL hostname 'no-such-host.invalid'"),
        ({"url": "http://127.0.0.1/" + "x" * 500}, "url has at most 500"),
        ({"events": []}, "non-empty list of events"),
        ({"events": [{"entity": "PROMPT", "action": "SET"}]}, "Invalid action 'set' for entity 'prompt'"),
        ({"events": [{"entity": "MOON", "action": "SET"}]}, "events[0].entity"),
        ({"secret": "x" * 1001}, "secret has at most 1000"),
    ],
)
def test_what_is_wrong_is_named(inside: httpx.Client, change: dict[str, Any], said: str) -> None:
    answer = inside.post(f"{API}/webhooks", json={**GOOD, **change})
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["message"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "224.0.0.1", "100.64.0.1", "localhost", "2130706433"],
)  # fmt: skip
def test_an_address_inside_is_refused_unless_it_is_allowed(http: httpx.Client, host: str) -> None:
    answer = http.post(f"{API}/webhooks", json={**GOOD, "url": f"http://{host}/x"})
    assert answer.status_code == 400
    assert "no public address" in answer.json()["message"]
    assert "PROMPTYARD_PRIVATE_WEBHOOKS" in answer.json()["message"]
    assert Delivery().send(f"http://{host}/x", None, "{}").wrong is not None


def test_a_name_that_changes_between_look_and_call_gains_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])
    answers = iter([[(2, 1, 6, "", ("93.184.216.34", port))], [(2, 1, 6, "", ("127.0.0.1", port))]])
    monkeypatch.setattr(delivery.socket, "getaddrinfo", lambda *_, **__: next(answers))
    sending = Delivery()
    sending.check("http://rebound.example/x")
    with pytest.raises(InvalidParameter, match="no public address"):
        sending.check("http://rebound.example/x")
    assert receiver.heard.empty()


def test_nobody_there_is_said_without_more(tmp_path: Path) -> None:
    sent = Delivery(private=True).send("http://127.0.0.1:9/secret-path", SECRET, "{}")
    assert sent.wrong is not None
    assert "secret" not in sent.wrong
    assert sent.again
