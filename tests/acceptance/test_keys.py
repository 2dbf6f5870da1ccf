"""Keys and usage across processes: a running server knows what the command line changed, no answered call is lost."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest

from tests.acceptance.test_cli import data
from tests.conftest import StartServer
from tests.services.promptyard import Server, environment

ROUTES = """\
providers:
  fake: {type: fake}
  slow: {type: fake, script: [{answer: one two three four five six seven eight, pause: 0.5}]}
routes:
  chat: {deployments: [{provider: fake, model: echo}]}
  other: {deployments: [{provider: fake, model: echo}]}
  slow: {deployments: [{provider: slow, model: echo}]}
"""
# The promise is a second, which `gateway.keys.WATCH` keeps; a busy machine gets more to show it.
REACHES_WITHIN = 5.0


def asked(model: str = "chat", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "one two"}], **more}


def status(server: Server, key: str) -> int:
    with server.client(key) as client:
        return client.get("/v1/models").status_code


def until(server: Server, key: str, wanted: int) -> None:
    """Wait until a server answers `key` so, within a few looks at the database."""
    deadline = time.monotonic() + REACHES_WITHIN
    while (seen := status(server, key)) != wanted:
        assert time.monotonic() < deadline, f"still {seen} instead of {wanted} after {REACHES_WITHIN} s"
        time.sleep(0.02)


def test_a_change_by_the_command_line_reaches_a_running_server(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    home = server.data.parent
    created = data("keys", "create", "--name", "bot", "--data", str(server.data), cwd=home)
    until(server, created["key"], 200)
    data("keys", "revoke", created["id"], "--data", str(server.data), cwd=home)
    until(server, created["key"], 401)


def test_a_key_is_changed_on_the_command_line(start_server: StartServer) -> None:
    server = start_server(ROUTES)

    def keys(*said: str) -> Any:
        return data("keys", *said, "--data", str(server.data), cwd=server.data.parent)

    terms = ["--routes", "ch*,other", "--deny", "other", "--rpm", "5", "--tags", "a,b", "--metadata", "owner=a=b"]
    created = keys("create", "--name", "bot", "--max-budget", "1.5", "--budget-duration", "1mo", *terms)
    assert created["denied_routes"] == ["other"]
    assert (created["tags"], created["metadata"]) == (["a", "b"], {"owner": "a=b"})
    changed = keys("update", created["id"], "--name", "b", "--rpm", "none", "--tpm", "9", "--deny", "none")
    secret = created.pop("key")
    assert changed == created | {"name": "b", "rpm": None, "tpm": 9, "denied_routes": []}
    assert keys("block", created["id"])["state"] == "blocked"
    until(server, secret, 401)
    assert keys("unblock", created["id"])["state"] == "active"
    until(server, secret, 200)
    second = keys("rotate", created["id"], "--grace", "1h")["key"]
    until(server, second, 200)
    assert status(server, secret) == 200
    third = keys("rotate", created["id"])["key"]
    until(server, secret, 401)
    assert (status(server, second), status(server, third)) == (401, 200)
    assert [one["id"] for one in keys("list", "--tag", "a")] == [created["id"]]
    assert keys("list", "--tag", "c") == []


def test_a_change_reaches_every_server_of_one_database(start_server: StartServer, fresh_postgres: str) -> None:
    first, second = (start_server(ROUTES, database_url=fresh_postgres) for _ in range(2))
    home = first.data.parent
    created = data("keys", "create", "--name", "bot", cwd=home, DATABASE_URL=fresh_postgres)
    until(first, created["key"], 200)
    until(second, created["key"], 200)
    with first.client() as admin, second.client() as other:
        assert [key["id"] for key in other.get("/admin/keys").json()["data"]] == [created["id"]]
        assert admin.delete(f"/admin/keys/{created['id']}").status_code == 200
        until(second, created["key"], 401)
        another = other.post("/admin/keys", json={"name": "another"}).json()
        until(first, another["key"], 200)
        for server in (first, second):
            with server.client(another["key"]) as client:
                assert client.post("/v1/chat/completions", json=asked()).status_code == 200
    # Both journals end in the one table.
    deadline = time.monotonic() + 5
    while (rows := data("usage", "--by", "key", cwd=home, DATABASE_URL=fresh_postgres)) != [
        {
            "key": "another",
            "calls": 2,
            "failed": 0,
            "refused": 0,
            "input_tokens": 4,
            "output_tokens": 6,
            "cost_usd": 0.0,
        }
    ]:
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)


def test_every_way_to_send_a_key(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    key = data("keys", "create", "--name", "bot", "--data", str(server.data), cwd=server.data.parent)["key"]
    until(server, key, 200)
    pair = base64.b64encode(f"anybody:{key}".encode()).decode()
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"x-api-key": key},
                    {"authorization": f"Basic {pair}"}, {"Authorization": f"BASIC {pair}"}):  # fmt: skip
        for path in ("/v1/models", "/api/2.0/mlflow/experiments/get?experiment_id=0"):
            assert httpx.get(f"{server.url}{path}", headers=headers).status_code == 200, (path, headers)


def test_protected_mode_honours_a_key_it_knows(start_server: StartServer) -> None:
    server = start_server(ROUTES, admin_key=None)
    with server.client() as admin:
        limited = admin.post("/admin/keys", json={"name": "limited", "routes": ["chat"], "rpm": 1}).json()
    with server.client(limited["key"]) as client:
        assert [route["id"] for route in client.get("/v1/models").json()["data"]] == ["chat"]
        assert client.post("/v1/chat/completions", json=asked()).status_code == 200
        assert client.post("/v1/chat/completions", json=asked()).status_code == 429
        assert client.get("/admin/keys").status_code == 403
    with server.client("sk-py-unknown") as client:
        assert client.get("/v1/models").status_code == 401
    for ignored in ("not needed", "sk-proj-of-somebody-else"):
        assert status(server, ignored) == 200


FOREIGN = [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://["},
           {"sec-fetch-site": "cross-site"}]  # fmt: skip
PATHS = ["/v1/models", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/version", "/admin/keys", "/docs", "/lab/"]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_protected_mode_refuses_foreign_pages_on_every_face(protected_server: Server, headers: dict[str, str]) -> None:
    for path in PATHS:
        answer = httpx.get(f"{protected_server.url}{path}", headers=headers)
        assert answer.status_code == 403, path
        body = answer.json()
        if path.startswith(("/api/", "/version")):
            assert body["error_code"] == "PERMISSION_DENIED"
        else:
            assert body["error"]["code"] in {"foreign_host", "foreign_origin"}
    answer = httpx.post(f"{protected_server.url}/admin/keys", headers=headers, json={"name": "theirs"})
    assert answer.status_code == 403


# The import alone takes seconds: one process for all credentials, which the client reads for each request.
MLFLOW = """
import json, os, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
for credential in json.loads(sys.argv[2]):
    os.environ.update(credential)
    try:
        mlflow.set_experiment("with a key")
        with mlflow.start_run() as run:
            mlflow.log_param("a", 1)
            mlflow.log_text("hello", "hello.txt")
        text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/hello.txt")
        said = f"{text} {mlflow.get_run(run.info.run_id).data.params}"
    except mlflow.exceptions.MlflowException as error:
        said = f"refused: {error}"
    print("said", json.dumps(said))
    for name in credential:
        del os.environ[name]
"""


def mlflow(server: Server, credentials: Sequence[Mapping[str, str]]) -> list[str]:
    """What the stock client says with each of `credentials`, knowing nothing else but the address."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MLFLOW, server.url, json.dumps(credentials)],
        env=environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}, "mlflow"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("said ")]


def test_the_stock_mlflow_client_with_a_key(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    with server.client() as admin:
        key = admin.post("/admin/keys", json={"name": "data scientist", "scopes": ["tracking"]}).json()["key"]
        wrong = admin.post("/admin/keys", json={"name": "application", "scopes": ["inference"]}).json()["key"]
    good = [{"MLFLOW_TRACKING_TOKEN": key}, {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": key}]
    bad = [{}, {"MLFLOW_TRACKING_TOKEN": "sk-py-no"}, {"MLFLOW_TRACKING_TOKEN": wrong}]
    *known, nothing, unknown, another = mlflow(server, [*good, *bad])
    assert known == ["hello {'a': '1'}"] * 2
    for said, code in ((nothing, "UNAUTHENTICATED"), (unknown, "UNAUTHENTICATED"), (another, "PERMISSION_DENIED")):
        assert said.startswith("refused: ")
        assert code in said


def test_a_key_that_may_only_look(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    tracking = "/api/2.0/mlflow"
    with server.client() as admin:
        key = admin.post("/admin/keys", json={"name": "reader", "scopes": ["tracking:read"]}).json()["key"]
        admin.post(f"{tracking}/experiments/create", json={"name": "e"}).raise_for_status()
    with server.client(key) as reader:
        assert reader.get(f"{tracking}/experiments/get-by-name", params={"experiment_name": "e"}).status_code == 200
        assert reader.post(f"{tracking}/experiments/search", json={"max_results": 10}).status_code == 200
        assert reader.post(f"{tracking}/runs/search", json={"experiment_ids": ["0"]}).status_code == 200
        for method, path in (
            ("POST", f"{tracking}/experiments/create"),
            ("POST", f"{tracking}/runs/log-metric"),
            ("DELETE", f"{tracking}/registered-models/delete"),
            ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x"),
            ("POST", "/v1/traces"),
        ):
            refused = reader.request(method, path, json={"name": "f"})
            assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED"), path
            assert "This key has no scope 'tracking'; it has: tracking:read." in refused.json()["message"]
        assert reader.get("/v1/models").status_code == 403


def records(server: Server) -> list[str]:
    """The request ids in SQL, read past the server."""
    with sqlite3.connect(server.data / "gateway.db") as connection:
        return [row[0] for row in connection.execute("SELECT request_id FROM gateway_usage")]


def callers(server: Server, enough: Callable[[int], bool], then: Callable[[], None]) -> list[str]:
    """Call from eight threads, do `then` in the midst, and return the ids of the calls whose answer was whole."""
    answered: list[str] = []
    going = threading.Event()

    def call() -> None:
        with server.client() as client:
            while not going.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=asked(stream=len(answered) % 2 == 0))
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                answered.append(answer.headers["x-request-id"])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not enough(len(answered)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    then()
    going.set()
    for thread in threads:
        thread.join()
    return answered


def test_every_answered_call_is_in_sql_once_after_a_kill(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    answered: list[str] = []
    for _ in range(3):
        seen = len(answered)
        answered += callers(server, lambda count: count > 150, server.kill)
        assert len(answered) > seen
        server.reap()
        server = start_server(ROUTES, data=server.data)
        with server.client() as client:
            total = client.get("/admin/usage", params={"group_by": ""}).json()["total"]
        kept = records(server)
        assert set(answered) <= set(kept)
        assert len(kept) == len(set(kept)) == total["calls"]
        # At most the calls that were under way, one a thread, are there beyond the answered.
        assert len(kept) <= len(answered) + 8 * 3


def test_a_stream_cut_by_a_kill_leaves_the_server_usable(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    with (
        server.client() as client,
        client.stream("POST", "/v1/chat/completions", json=asked("slow", stream=True)) as cut,
    ):
        next(cut.iter_bytes())
        server.kill()
    server.reap()
    server = start_server(ROUTES, data=server.data)
    with server.client() as client:
        done = client.post("/v1/chat/completions", json=asked())
        assert client.get(f"/admin/usage/{done.headers['x-request-id']}").json()["status"] == 200


def test_a_torn_line_is_left_out_and_nothing_else(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    answered = callers(server, lambda count: count > 20, server.kill)
    server.reap()
    (segment,) = (server.data / "journal").glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"request_id": "req_torn", "time": 17')
    server = start_server(ROUTES, data=server.data)
    with server.client() as client:
        after = client.post("/v1/chat/completions", json=asked()).headers["x-request-id"]
        assert client.get(f"/admin/usage/{after}").status_code == 200
    kept = records(server)
    assert {*answered, after} <= set(kept)
    assert "req_torn" not in kept


def test_a_stop_leaves_nothing_in_the_journal_alone(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    with server.client() as client:
        ids = [client.post("/v1/chat/completions", json=asked()).headers["x-request-id"] for _ in range(20)]
    server.stop()
    assert sorted(records(server)) == sorted(ids)


def test_usage_on_the_command_line(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    home, folder = server.data.parent, str(server.data)
    assert data("usage", "--data", folder, cwd=home) == []
    with server.client() as client:
        for model in ("chat", "chat", "other", "nowhere"):
            client.post("/v1/chat/completions", json=asked(model))
        client.get("/admin/usage")  # returns once all of it is in SQL
    today = time.strftime("%Y-%m-%d", time.gmtime())
    rows = data("usage", "--by", "day,route", "--since", today, "--data", folder, cwd=home)
    assert [(row["day"], row["route"], row["calls"], row["failed"]) for row in rows] == [
        (today, "", 1, 1),
        (today, "chat", 2, 0),
        (today, "other", 1, 0),
    ]
    assert data("usage", "--until", "2000-01-01", "--data", folder, cwd=home) == []
    with server.client() as client:
        assert client.get("/admin/usage", params={"group_by": "day,route"}).json()["data"] == rows


def test_no_secret_in_database_journal_or_log(start_server: StartServer) -> None:
    server = start_server(ROUTES, log_level="debug")
    with server.client() as admin:
        secret = admin.post("/admin/keys", json={"name": "bot"}).json()["key"]
    with server.client(secret) as client:
        assert client.post("/v1/chat/completions", json=asked()).status_code == 200
        assert client.post("/v1/chat/completions", json=asked("nowhere")).status_code == 404
        assert client.get("/admin/keys").status_code == 403
    server.kill()  # before the journal is let go
    files = [path for path in server.data.rglob("*") if path.is_file()]
    assert any(b"chat/completions" in path.read_bytes() for path in files)
    for hidden in (secret.removeprefix("sk-py-"), server.admin_key or ""):
        assert not [path for path in files if hidden.encode() in path.read_bytes()]
        assert hidden not in server.stdout() + server.stderr()


def test_a_listing_is_json_whatever_a_key_is_called(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    name = "né 'O\"Brien' \\ 🔑 {{x}} %s"
    created = data("keys", "create", "--name", name, "--data", str(server.data), cwd=server.data.parent)
    until(server, created["key"], 200)
    with server.client() as client:
        assert client.get("/admin/keys").json()["data"][0]["name"] == name
    with server.client(created["key"]) as client:
        used = client.post("/v1/chat/completions", json=asked()).headers["x-request-id"]
        assert client.get(f"/admin/usage/{used}").json()["key_name"] == name
