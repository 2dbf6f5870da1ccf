"""Streams over real sockets: they really stream; however they end, the caller is told the truth and all is settled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, async_client, client, error_of, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import (
    DONE,
    STREAM,
    Answer,
    Asked,
    Peer,
    Upstream,
    chat,
    delta,
    event,
    head,
    piece,
    raw,
    running,
    silence,
    stream,
    until,
    usage_chunk,
    whole,
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Route `up` takes one call at once and a second of silence; `short` has a total, `safe` a fallback."""
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    up = "deployments: [{provider: up, model: m}], limits: {concurrency: 1}"
    try:
        yield servers(f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
  fake: {{type: fake, script: [{{answer: saved}}]}}
routes:
  up: {{{up}, timeouts: {{first_token: 1, idle: 1}}}}
  patient: {{{up}}}
  short: {{{up}, timeouts: {{total: 1}}}}
  safe: {{{up}, timeouts: {{first_token: 1, idle: 1}}, fallbacks: [rescue], cooldown: {{seconds: 0}}}}
  rescue: {{deployments: [{{provider: fake, model: m}}], limits: {{concurrency: 1}}}}
""")
    finally:
        servers.stop()


@pytest.fixture(autouse=True)
def _nothing_is_held(gateway: Server, upstream: Upstream) -> Iterator[None]:
    """After each test every route of one call at once answers, and no upstream is kept busy."""
    yield
    upstream.wait_idle()
    upstream.then(whole(chat()))
    with gateway.client() as http:
        for route in ("up", "patient", "short", "safe", "rescue"):
            assert ask(http, route).status_code == 200
    log = gateway.stderr()
    assert "Traceback" not in log, log[-3000:]
    assert "fault of ours" not in log, log[-3000:]


class Gate:
    """A stream that stops in its middle until a test lets it go on."""

    def __init__(self, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> None:
        self.opened = threading.Event()
        self._before, self._after = before, after

    async def __call__(self, asked: Asked, peer: Peer) -> None:
        await peer.send(head() + b"".join(map(piece, self._before)))
        await asyncio.to_thread(self.opened.wait, 20)
        await peer.send(b"".join(map(piece, self._after)) + b"0\r\n\r\n")


def events(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)


@contextlib.contextmanager
def streaming(server: Server, model: str = "up", **fields: Any) -> Iterator[httpx.Response]:
    body = {"model": model, "messages": MESSAGES, "stream": True, **fields}
    with server.client() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        yield response


def text(parts: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in parts)


def test_the_first_bytes_are_here_before_the_upstream_goes_on(gateway: Server, upstream: Upstream) -> None:
    gate = Gate(STREAM[:2], STREAM[2:])
    upstream.then(gate)
    with client(gateway) as ai:
        parts = iter(ai.chat.completions.create(model="patient", messages=MESSAGES, stream=True))
        first = [next(parts), next(parts)]
        assert text(first) == "Hel"
        gate.opened.set()
        assert text(parts) == "lo"


async def test_the_async_client_streams_too(gateway: Server, upstream: Upstream) -> None:
    gate = Gate(STREAM[:2], STREAM[2:])
    upstream.then(gate)
    async with async_client(gateway) as ai:
        parts = await ai.chat.completions.create(model="patient", messages=MESSAGES, stream=True)
        assert text([await anext(parts), await anext(parts)]) == "Hel"
        gate.opened.set()
        assert text([part async for part in parts]) == "lo"


def test_nobody_in_between_may_keep_a_stream(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM))
    with streaming(gateway) as response:
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-length" not in response.headers
        response.read()


LETTERS = delta("Grüße 🌍 ") + delta("日本語") + delta(finish="stop") + usage_chunk() + DONE


@pytest.mark.parametrize("size", [1, 3, 7, 50])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_cut_anywhere(gateway: Server, upstream: Upstream, size: int, newline: bytes) -> None:
    """In the middle of a letter, of a line end, of an event."""
    whole_stream = LETTERS.replace(b"\n", newline)
    upstream.then(stream(*(whole_stream[at : at + size] for at in range(0, len(whole_stream), size))))
    with streaming(gateway, stream_options={"include_usage": True}) as response:
        assert response.read() == whole_stream
    with client(gateway) as ai:
        parts = ai.chat.completions.create(model="up", messages=MESSAGES, stream=True)
        assert text(parts) == "Grüße 🌍 日本語"


def test_letters_arrive_one_by_one_over_real_time(gateway: Server, upstream: Upstream) -> None:
    data = "é".encode()
    start, _, end = delta("é").partition(data)
    upstream.then(stream(start + data[:1], 0.1, data[1:] + end, 0.1, delta(finish="stop"), DONE))
    with client(gateway) as ai:
        assert text(ai.chat.completions.create(model="up", messages=MESSAGES, stream=True)) == "é"


BEGUN = (*STREAM[:2], 0.1)
ENDS: dict[str, Answer] = {
    "cut": stream(*BEGUN, None),
    "cut in an event": stream(*BEGUN, STREAM[2][:20], None),
    "cut after its finish": stream(*BEGUN, STREAM[3], 0.1, None),
    "ends without a finish": stream(*BEGUN),
    "ends in an event": stream(*BEGUN, STREAM[2][:20]),
    "closes without a length": raw(head(close=True) + b"".join(STREAM[:2])),
    "garbage": stream(*BEGUN, b"data: {nonsense\n\n", DONE),
    "html": stream(*BEGUN, b"data: <html>\n\n", DONE),
    "a list": stream(*BEGUN, b"data: []\n\n", DONE),
    "an error": stream(*BEGUN, event({"error": {"message": "out of memory"}}), DONE),
    "a good event, an error and an end at once": stream(STREAM[0], 0.1, STREAM[1] + event({"error": "x"}) + DONE),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_stream_that_breaks_says_so(gateway: Server, upstream: Upstream, name: str) -> None:
    upstream.then(ENDS[name])
    with streaming(gateway) as response:
        assert response.status_code == 200
        said = response.read()
    assert said.startswith(b"".join(STREAM[:2]))
    assert b"[DONE]" not in said
    assert b'"stop"' not in said or name == "cut after its finish"
    assert said.rstrip().splitlines()[-1].startswith(b'data: {"error":{"message":"The provider')
    assert said.endswith(b"\n\n")
    record = usage_of(gateway, response)
    assert (record["status"], record["error"]) == (502, "upstream_failed")
    assert (record["input_tokens"] > 0, record["output_tokens"], record["estimated"]) == (True, 1, True)


def test_the_official_client_raises_for_a_broken_stream(gateway: Server, upstream: Upstream) -> None:
    upstream.then(ENDS["an error"])
    with client(gateway) as ai:
        parts = iter(ai.chat.completions.create(model="up", messages=MESSAGES, stream=True))
        assert text([next(parts), next(parts)]) == "Hel"
        with pytest.raises(openai.APIError, match="out of memory"):
            next(parts)


def test_a_stream_that_stalls_is_left(gateway: Server, upstream: Upstream) -> None:
    upstream.then(raw(head() + b"".join(map(piece, STREAM[:2])), close=False))
    with client(gateway) as ai:
        parts = ai.chat.completions.create(model="up", messages=MESSAGES, stream=True)
        assert text([next(parts), next(parts)]) == "Hel"
        with pytest.raises(openai.APIError, match="silent for 1 s") as caught:
            next(parts)
        assert caught.value.code == "upstream_timeout"
        upstream.wait_idle()
        record = usage_of(gateway, parts.response.headers["x-request-id"])
    assert (record["status"], record["error"]) == (504, "upstream_timeout")


def test_slow_is_not_silent(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(0.7, STREAM[0], 0.7, STREAM[1], 0.7, STREAM[2], 0.7, *STREAM[3:]))
    with client(gateway) as ai:
        assert text(ai.chat.completions.create(model="up", messages=MESSAGES, stream=True)) == "Hello"


def test_a_stream_over_its_total_is_cut(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(*[part for _ in range(100) for part in (delta("x"), 0.1)], DONE))
    begun = time.monotonic()
    with streaming(gateway, "short") as response:
        said = response.read()
    assert b"total timeout" in said
    assert b"[DONE]" not in said
    # Ten seconds of chunks, cut after one.
    assert 0 < said.count(b'"x"') < 50
    assert 0.9 < time.monotonic() - begun < 5


SILENT: dict[str, Answer] = {
    "no answer": silence,
    "headers only": raw(head(), close=False),
    "comments only": stream(*[part for _ in range(100) for part in (b": keep-alive\n\n", 0.1)]),
    "half an event": raw(head() + piece(b"data: {"), close=False),
}
FAILING: dict[str, tuple[Answer, str]] = {
    "ends at once": (stream(), "before its first event"),
    "ends after a comment": (stream(b": hi\n\n"), "before its first event"),
    "cut at once": (stream(None), "broke the connection off"),
    "cut in its first event": (stream(b"data: {", None), "broke the connection off"),
    "begins with an error": (stream(event({"error": {"message": "no GPU left"}}), DONE), "no GPU left"),
    "begins with garbage": (stream(b"data: <html>\n\n"), "not a JSON object"),
    "is no stream": (whole(chat()), "application/json, not with events"),
    "is HTML": (whole(b"<html>", kind="text/html"), "text/html, not with events"),
}


@pytest.mark.parametrize("name", SILENT)
def test_silence_before_the_first_event_is_a_504_or_a_fallback(gateway: Server, upstream: Upstream, name: str) -> None:
    upstream.then(SILENT[name])
    with gateway.client() as http:
        answer = ask(http, "up", stream=True)
        assert answer.status_code == 504
        assert error_of(answer)["code"] == "upstream_timeout"
        assert "within 1 s" in error_of(answer)["message"]
        assert usage_of(gateway, answer)["status"] == 504
    with client(gateway) as ai:
        assert text(ai.chat.completions.create(model="safe", messages=MESSAGES, stream=True)) == "saved"


@pytest.mark.parametrize("name", FAILING)
def test_a_stream_that_fails_at_once_is_a_502_or_a_fallback(gateway: Server, upstream: Upstream, name: str) -> None:
    bad, said = FAILING[name]
    upstream.then(bad)
    with gateway.client() as http:
        answer = ask(http, "up", stream=True)
        assert answer.status_code == 502, answer.text
        assert said in error_of(answer)["message"]
    with client(gateway) as ai:
        assert text(ai.chat.completions.create(model="safe", messages=MESSAGES, stream=True)) == "saved"


def test_after_the_first_event_nothing_is_sent_elsewhere(gateway: Server, upstream: Upstream) -> None:
    upstream.then(ENDS["cut"])
    with streaming(gateway, "safe") as response:
        said = response.read()
    assert b"saved" not in said
    assert b"upstream_failed" in said


def test_an_unstreamed_answer_that_never_comes_is_a_504(gateway: Server, upstream: Upstream) -> None:
    upstream.then(silence)
    with gateway.client() as http:
        answer = ask(http, "short")
    assert answer.status_code == 504
    assert "did not answer within 1 s" in error_of(answer)["message"]


def test_a_stream_that_has_ended_ends_even_if_its_upstream_stays(gateway: Server, upstream: Upstream) -> None:
    upstream.then(raw(head() + b"".join(map(piece, STREAM)), close=False))
    begun = time.monotonic()
    with streaming(gateway, "patient", stream_options={"include_usage": True}) as response:
        assert response.read() == b"".join(STREAM)
    assert time.monotonic() - begun < 5
    upstream.wait_idle()
    assert usage_of(gateway, response)["status"] == 200


def test_what_comes_after_the_end_is_nobodys(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM, 0.1, b"data: {nonsense\n\n"))
    with streaming(gateway, stream_options={"include_usage": True}) as response:
        assert response.read() == b"".join(STREAM)


def test_connections_are_used_again_after_a_stream(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    with gateway.client() as http:
        assert ask(http, "up").status_code == 200
        before = upstream.connections
        upstream.then(stream(*STREAM))
        for _ in range(10):
            assert ask(http, "up", stream=True).content.endswith(DONE)
    assert upstream.connections <= before + 1


def test_a_caller_who_leaves_a_stream_stops_the_upstream(gateway: Server, upstream: Upstream) -> None:
    upstream.then(raw(head() + b"".join(map(piece, STREAM[:3])), close=False))
    with streaming(gateway, "patient") as response:
        lines = events(response)
        for _ in range(3):
            next(lines)
        assert upstream.asked
        left = time.monotonic()
    upstream.wait_idle(5)
    assert time.monotonic() - left < 5
    record = usage_of(gateway, response)
    assert (record["status"], record["error"]) == (499, "client_closed_request")
    assert (record["output_tokens"], record["estimated"], record["stream"]) == (2, True, True)
    assert record["input_tokens"] > 0
    assert record["first_token"] is not None
    assert until(lambda: response.headers["x-request-id"] in gateway.stderr())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_caller_who_leaves_while_waiting_stops_the_upstream(
    gateway: Server, upstream: Upstream, streamed: bool
) -> None:
    upstream.then(silence)
    seen = len(gateway.stderr())
    with client(gateway, timeout=0.4) as ai, pytest.raises(openai.APITimeoutError):
        ai.chat.completions.create(model="patient", messages=MESSAGES, stream=streamed)
    upstream.wait_idle(1.0)
    line = until(lambda: next((each for each in gateway.stderr()[seen:].splitlines() if " 499 " in each), None))
    record = usage_of(gateway, line.rpartition("req_")[2].join(("req_", "")).partition(",")[0])
    assert (record["status"], record["output_tokens"], record["first_token"]) == (499, 0, None)
    assert record["input_tokens"] > 0


async def test_many_who_leave_at_once_leave_nothing_behind(gateway: Server, upstream: Upstream) -> None:
    upstream.then(raw(head() + b"".join(map(piece, STREAM[:3])), close=False))

    async def leave(ai: httpx.AsyncClient) -> None:
        body = {"model": "patient", "messages": MESSAGES, "stream": True}
        async with ai.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code in (200, 429)

    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=30) as ai:
        for _ in range(3):
            await asyncio.gather(*(leave(ai) for _ in range(20)))
    await asyncio.to_thread(upstream.wait_idle)
    assert len(upstream.asked) >= 3
