"""SIGTERM lets what is under way end and takes nothing new; a second signal, or `drain`, cuts it short."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import httpx
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import ENDS_WITHIN, Server
from tests.services.streams import Streamed, opened, parsed
from tests.services.upstream import until

ANSWER = "one two three four five six"
FAKE = f"""\
providers:
  slow: {{type: fake, script: [{{answer: "{ANSWER}", pause: 0.4}}]}}
  endless: {{type: fake, script: [{{answer: "{ANSWER}", pause: 30}}]}}
routes:
  slow: {{deployments: [{{provider: slow, model: m}}]}}
  endless: {{deployments: [{{provider: endless, model: m}}]}}
"""
MESSAGES = [{"role": "user", "content": "x"}]


async def streamed(server: Server, model: str, *signals: tuple[signal.Signals, float]) -> Streamed:
    """What a stream comes to whose server gets `signals` once it has begun, each so many seconds after the last."""
    reader, writer = await opened(server, model)
    first = await reader.readuntil(b"data: ")
    for number, after in signals:
        await asyncio.sleep(after)
        server.process.send_signal(number)
    rest = await reader.read()
    writer.close()
    return parsed(first + rest)


def ended(server: Server) -> None:
    assert server.process.wait(ENDS_WITHIN) == 0
    assert server.descendants() == []
    assert "Traceback" not in server.stderr()


def test_what_is_under_way_ends_and_nothing_new_is_taken(start_server: StartServer) -> None:
    server = start_server(FAKE)
    server.wait_ready()
    with server.client() as kept:
        assert kept.get("/v1/models").status_code == 200  # a connection that stays open
        answer, refusals = asyncio.run(refused_while_draining(server, kept))
    assert (answer.status, answer.text.strip(), answer.whole) == (200, ANSWER, True)
    assert {path: (status, retry) for path, (status, retry, _) in refusals.items()} == dict.fromkeys(
        refusals, (503, "1")
    )
    shapes = {path: body for path, (_, _, body) in refusals.items()}
    for path in ("/v1/chat/completions", "/v1/responses", "/admin/usage"):
        assert shapes[path]["error"]["code"] == "stopping"
    assert shapes["/v1/messages"]["type"] == "error"
    assert "stopping" in shapes["/v1/messages"]["error"]["message"]
    for path in ("/gateway/slow/invocations", "/api/2.0/mlflow/experiments/search"):
        assert shapes[path]["error_code"] == "TEMPORARILY_UNAVAILABLE"
    ended(server)
    again = start_server(FAKE, data=server.data)
    with again.client() as http:
        # The stream is recorded as what it was; what was refused is not.
        total = http.get("/admin/usage").json()["total"]
    assert (total["calls"], total["failed"], total["output_tokens"]) == (1, 0, 6)


Refusals = dict[str, tuple[int, str | None, dict[str, dict[str, str]]]]


async def refused_while_draining(server: Server, kept: httpx.Client) -> tuple[Streamed, Refusals]:
    """The stream that was under way, and what every door says meanwhile: on a connection kept open, and on new ones."""
    reader, writer = await opened(server, "slow")
    first = await reader.readuntil(b"data: ")
    server.process.send_signal(signal.SIGTERM)
    refusals: Refusals = {}

    def ask() -> None:
        asked = {"model": "slow", "messages": MESSAGES, "max_tokens": 5}
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/gateway/slow/invocations"):
            body = {**asked, "input": "x"} if path == "/v1/responses" else asked
            body = {"messages": MESSAGES} if path.startswith("/gateway") else body
            answer = kept.post(path, json=body)
            refusals[path] = (answer.status_code, answer.headers.get("retry-after"), answer.json())
        for path in ("/admin/usage", "/api/2.0/mlflow/experiments/search"):
            answer = kept.get(path)
            refusals[path] = (answer.status_code, answer.headers.get("retry-after"), answer.json())
        ready = kept.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert kept.get("/health").status_code == 200

    await asyncio.to_thread(ask)
    rest = await reader.read()
    writer.close()
    return parsed(first + rest), refusals


TERM, INT = signal.SIGTERM, signal.SIGINT
CUT = {
    "once the time is over": (1.0, ((TERM, 0.0),)),
    "by a second SIGTERM": (30.0, ((TERM, 0.0), (TERM, 0.3))),
    "by Ctrl-C": (30.0, ((TERM, 0.0), (INT, 0.3))),
    "without any drain": (0.0, ((TERM, 0.0),)),
    "by Ctrl-C twice": (30.0, ((INT, 0.0), (INT, 0.3))),
}


@pytest.mark.parametrize(("drain", "signals"), CUT.values(), ids=CUT)
def test_what_does_not_end_is_cut(
    start_server: StartServer, drain: float, signals: tuple[tuple[signal.Signals, float], ...]
) -> None:
    server = start_server(FAKE, drain=drain)
    began = time.monotonic()
    answer = asyncio.run(streamed(server, "endless", *signals))
    ended(server)
    assert time.monotonic() - began < ENDS_WITHIN + drain % 30
    assert (answer.status, answer.whole) == (200, False)
    [*_, last] = [line for line in answer.raw.split(b"\n\n") if line.startswith(b"data: ") or b"data: " in line]
    assert json.loads(last.partition(b"data: ")[2].split(b"\r\n")[0].strip())["error"]["code"] == "overloaded"
    until(lambda: "503 chat/completions endless -> endless/m" in server.stderr())


def test_a_server_with_nothing_under_way_ends_at_once(start_server: StartServer) -> None:
    server = start_server(FAKE)
    with server.client() as http:
        http.get("/v1/models")
        server.process.send_signal(signal.SIGTERM)
        ended(server)
