"""The configuration changes under a running server: calls under way end as they began, a bad file changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import Server
from tests.services.streams import Streamed, stream
from tests.services.upstream import Upstream, chat, running, until, whole

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
STREAMS, SECONDS, EVERY, PAUSE = (200, 30.0, 1.0, 0.2) if SOAK else (20, 3.0, 0.2, 0.02)
FIRST, SECOND = "one two three four " * 5, "eins zwei drei vier " * 5


def flipping(text: str) -> str:
    return f"""\
providers:
  fake: {{type: fake, script: [{{answer: "{text}", pause: {PAUSE}}}]}}
  same: {{type: fake}}
routes:
  fake: {{deployments: [{{provider: fake, model: m}}]}}
  same: {{deployments: [{{provider: same, model: m}}]}}
"""


BAD = "providers: {}\nroutes: {fake: {deployments: [{provider: nobody, model: m}]}}\n"


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_no_stream_is_dropped_while_the_file_flips(start_server: StartServer) -> None:
    server = start_server(flipping(FIRST))
    server.wait_ready()
    answers, refused = asyncio.run(streams_while_flipping(server))
    seen = Counter(answer.text.strip() for answer in answers)
    assert {answer.status for answer in answers} == {200}
    assert set(seen) == {FIRST.strip(), SECOND.strip()}
    assert all(answer.whole for answer in answers)
    assert len(answers) > STREAMS
    # A bad file was there several times: told to whoever asked, and in the log.
    assert refused
    assert all("'nobody' is not a provider" in one or "must not be empty" in one for one in refused)
    assert "cannot be taken over" in server.stderr()
    assert "Traceback" not in server.stderr()
    with server.client() as http:
        assert http.get("/admin/config").json()["routes"].keys() == {"fake", "same"}
        assert http.get("/admin/usage").json()["total"]["calls"] == len(answers)


async def streams_while_flipping(server: Server) -> tuple[list[Streamed], list[str]]:
    """What every stream came to, and every refusal of a bad file."""
    began, answers, refused = time.monotonic(), [], []

    def goes_on() -> bool:
        left = began + SECONDS - time.monotonic()
        # A busy machine may take longer until it has answered by both.
        return left > 0 or (left > -30 and len({answer.text for answer in answers}) < 2)

    async def caller() -> None:
        while goes_on():
            answers.append(await stream(server, "fake"))

    async def flip() -> None:
        async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=30) as http:
            for text in itertools.cycle((flipping(SECOND), BAD, flipping(FIRST))):
                if not goes_on():
                    return
                server.config.write_text(text)
                await asyncio.sleep(EVERY / 2)
                if text == BAD:
                    answer = await http.post("/admin/reload")
                    assert answer.status_code == 400
                    refused.extend(problem["message"] for problem in answer.json()["error"]["problems"])
                await asyncio.sleep(EVERY / 2)

    await asyncio.gather(flip(), *(caller() for _ in range(STREAMS)))
    server.config.write_text(flipping(FIRST))
    return answers, refused


def version(http: httpx.Client) -> str:
    return str(http.get("/admin/config").json()["version"])


def models(http: httpx.Client) -> list[str]:
    return [model["id"] for model in http.get("/v1/models").json()["data"]]


def ask(http: httpx.Client, model: str) -> httpx.Response:
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    return http.post("/v1/chat/completions", json=asked)


SMALL = """\
providers:
  up: {{type: openai_compatible, base_url: "{url}", api_key: "${{file:secret.txt}}"}}
routes:
  first: {{deployments: [{{provider: up, model: m}}], limits: {{rpm: 100}}}}
"""


def test_each_way_to_reload(start_server: StartServer, tmp_path: Path) -> None:
    with running() as upstream:
        upstream.then(whole(chat()))
        (tmp_path / "secret.txt").write_text("first-secret")
        path = tmp_path / "routes.yaml"
        path.write_text(SMALL.format(url=upstream.url))
        server = start_server(path)
        with server.client() as http:
            by_file(http, path)
            by_secret(http, upstream, tmp_path / "secret.txt")
            by_signal(server, http, path)
            by_request(server, http, path)
            bad(server, http, path)
            prices(http, tmp_path)


def by_file(http: httpx.Client, path: Path) -> None:
    before = version(http)
    path.write_text(
        path.read_text().replace("  first:", "  second: {deployments: [{provider: up, model: m}]}\n  first:")
    )
    until(lambda: models(http) == ["second", "first"])
    assert version(http) != before
    assert http.get("/api/2.0/endpoints/").json()["endpoints"][0]["name"] == "second"
    assert ask(http, "second").status_code == 200


def by_secret(http: httpx.Client, upstream: Upstream, secret: Path) -> None:
    assert upstream.last.header("authorization") == "Bearer first-secret"
    before = version(http)
    secret.write_text("second-secret\n")

    def sent() -> str | None:
        assert ask(http, "first").status_code == 200
        return upstream.last.header("authorization")

    until(lambda: sent() == "Bearer second-secret")
    assert version(http) == before  # of the texts, of which the secret is none


def by_signal(server: Server, http: httpx.Client, path: Path) -> None:
    path.write_text(path.read_text().replace("second:", "third:"))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: models(http) == ["third", "first"])
    server.process.send_signal(signal.SIGHUP)  # where nothing changed nothing happens
    assert ask(http, "third").status_code == 200


def by_request(server: Server, http: httpx.Client, path: Path) -> None:
    ask(http, "first")
    path.write_text(path.read_text().replace("rpm: 100", "rpm: 2").replace("  third:", "  fourth:"))
    told = http.post("/admin/reload").json()
    if told["changes"]:  # else the watch came first
        fields = [{"name": "limits.rpm", "before": 100, "after": 2}]
        assert {"kind": "route", "name": "first", "change": "changed", "fields": fields} in told["changes"]
    # What was counted stays counted.
    assert ask(http, "first").status_code == 429
    assert http.post("/admin/reload").json()["changes"] == []
    assert ask(http, "third").status_code == 404
    key = http.post("/admin/keys", json={"name": "no admin"}).json()["key"]
    for method, address in (("POST", "/admin/reload"), ("GET", "/admin/config"), ("GET", "/admin/explain?model=first")):
        assert httpx.request(method, server.url + address, headers={"x-api-key": key}).status_code == 403


def bad(server: Server, http: httpx.Client, path: Path) -> None:
    good, before = path.read_text(), version(http)
    path.write_text(good + "  fifth: {deployments: [{provider: nobody, model: m}], limits: {rpm: no}}\n")
    answer = http.post("/admin/reload")
    assert answer.status_code == 400
    problems = answer.json()["error"]["problems"]
    assert {(one["file"], one["line"], one["key"]) for one in problems} == {
        (str(path), 6, "routes.fifth.deployments[0].provider"),
        (str(path), 6, "routes.fifth.limits.rpm"),
    }
    served = http.get("/admin/config").json()
    assert served["version"] == before
    assert served["refused"] == problems
    assert "fifth" not in models(http)
    assert "routes.fifth.deployments[0].provider: 'nobody' is not a provider" in server.stderr()
    path.write_text(good)
    assert http.post("/admin/reload").status_code == 200
    assert http.get("/admin/config").json()["refused"] is None
    shown = http.get("/admin/config").text
    assert "second-secret" not in shown
    assert '"api_key":"***"' in shown


def prices(http: httpx.Client, folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config" / "prices.yaml").write_text("prices: {up/m: {input: 1, output: 2}}\n")

    def listing() -> dict[str, float]:
        routes = http.get("/admin/config").json()["routes"]
        found: dict[str, float] = routes["first"]["deployments"]["up/m"]["listing"]
        return found

    until(lambda: listing().get("output") == 2.0)


FAKE = "providers:\n  fake: {type: fake}\n"
ROUTES = "routes:\n  fake: {deployments: [{provider: fake, model: m}]}\n"


def test_the_embedded_model_comes_stays_and_goes(start_server: StartServer) -> None:
    server = start_server(FAKE + ROUTES, admin_key=None)

    def children() -> list[psutil.Process]:
        return server.descendants()

    with server.client() as http:
        local, route = "  local: {type: embedded}\n", "  chat: {deployments: [{provider: local, model: smollm2}]}\n"
        server.config.write_text(FAKE + local + ROUTES + route)
        until(lambda: "chat" in models(http))
        assert ask(http, "chat").status_code == 200
        [child] = children()
        server.config.write_text(FAKE + local + ROUTES + route + route.replace("chat", "talk"))
        until(lambda: "talk" in models(http))
        assert ask(http, "talk").status_code == 200
        assert children() == [child]
        server.config.write_text(FAKE + ROUTES)
        until(lambda: models(http) == ["fake"])
        until(lambda: not children())
        assert ask(http, "fake").status_code == 200
