"""The one HTTP door, against real sockets: what goes up, what comes down, whatever the upstream does to it."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.lanes import Chunks
from gateway.providers import transport
from gateway.providers.transport import Transport
from gateway.types import Answer
from tests.services.process import free_port
from tests.services.upstream import Answer as Answering
from tests.services.upstream import Asked, Peer, Upstream, hang_up, head, piece, raw, running, silence, stream, whole


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()
    await asyncio.sleep(0)


async def post(door: Transport, upstream: Upstream, body: bytes = b"{}", **options: Any) -> Answer:
    options = {"headers": {"content-type": "application/json"}, "stream": False, **options}
    async with asyncio.timeout(5):
        return await door.post(f"{upstream.url}/x", body, connect=2, **options)


async def read(answer: Answer) -> bytes:
    assert answer.chunks is not None
    async with asyncio.timeout(5):
        return b"".join([chunk async for chunk in answer.chunks])


async def test_what_goes_up(door: Transport, upstream: Upstream) -> None:
    upstream.then(whole(b"{}", 201, retry_after="7", x_other="secret", set_cookie="a=b"))
    body = bytes(range(256)) * 10
    answer = await post(door, upstream, body, headers={"content-type": "x/y", "authorization": "Bearer k", "a": "é"})
    assert (answer.status, answer.body, answer.chunks) == (201, b"{}", None)
    assert answer.headers == {"content-type": "application/json", "retry-after": "7"}
    asked = upstream.last
    assert (asked.method, asked.path, asked.body) == ("POST", "/v1/x", body)
    assert dict(asked.headers) == {
        "host": f"127.0.0.1:{upstream.port}",
        "content-type": "x/y",
        "authorization": "Bearer k",
        "a": "é",
        "accept-encoding": "identity",
        "content-length": "2560",
    }
    await post(door, upstream)
    assert "cookie" not in dict(upstream.last.headers)


async def test_no_header_begins_another(door: Transport, upstream: Upstream) -> None:
    upstream.then(whole(b"{}"))
    for value in ("a\r\nx: y", "a\nx: y", "a\rb", "\u2603"):
        with pytest.raises(UpstreamFailed, match="A header for the provider"):
            await post(door, upstream, headers={"a": value})
    assert not upstream.asked


async def test_a_lane_takes_what_it_wants_in_order_and_nothing_of_the_next_answer(
    door: Transport, upstream: Upstream
) -> None:
    said = [b"a0", b"l1", b"l2", b"a3", b"l4", b"l5", b"a6"]
    upstream.then(stream(*[part for one in said for part in (one, 0.03)]), stream(*said, b"end"))
    answer = await post(door, upstream, stream=True)
    assert isinstance(answer.chunks, Chunks)
    taken: list[bytes] = []

    def take(chunk: bytes) -> bool:
        if not chunk.startswith(b"l"):
            return False
        taken.append(chunk)
        return True

    answer.chunks.divert(take)
    async with asyncio.timeout(5):
        came = [(chunk, len(taken)) async for chunk in answer.chunks]
    assert (came, taken) == ([(b"a0", 0), (b"a3", 2), (b"a6", 4)], [b"l1", b"l2", b"l4", b"l5"])
    assert await read(await post(door, upstream, stream=True)) == b"".join(said) + b"end"
    assert (upstream.connections, len(taken)) == (1, 4)


@pytest.mark.parametrize("size", [0, 1, 100_000, 300_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_large_answers_one_after_the_other_on_one_connection(
    door: Transport, upstream: Upstream, size: int, chunked: bool
) -> None:
    data = bytes(index % 251 for index in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    parts = [data[at : at + 70_000] for at in range(0, size, 70_000)]
    upstream.then(stream(*parts) if chunked else whole(data))
    for streamed in (False, True, False, True):
        answer = await post(door, upstream, data, stream=streamed)
        assert (await read(answer) if streamed else answer.body) == data
    assert upstream.connections == 1


async def test_a_slow_reader_slows_the_upstream_and_not_our_memory(door: Transport, upstream: Upstream) -> None:
    sent = 0

    async def endless(asked: Asked, peer: Peer) -> None:
        nonlocal sent
        await peer.send(head())
        while True:
            await peer.send(piece(b"x" * 65536))
            sent += 65536

    upstream.then(endless)
    answer = await post(door, upstream, stream=True)
    assert answer.chunks is not None
    await anext(answer.chunks)
    await asyncio.sleep(0.5)
    assert sent < 64 * 2**20
    await answer.chunks.aclose()
    await asyncio.to_thread(upstream.wait_idle)


async def test_an_answer_without_end_is_refused(
    door: Transport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 2**20)

    async def endless(asked: Asked, peer: Peer) -> None:
        await peer.send(head())
        while True:
            await peer.send(piece(b"x" * 65536))

    upstream.then(endless)
    with pytest.raises(UpstreamFailed, match="larger than 1 MiB"):
        await post(door, upstream)
    await asyncio.to_thread(upstream.wait_idle)
    upstream.then(whole(b"x" * 2**22))
    with pytest.raises(UpstreamFailed, match="larger than 1 MiB"):
        await post(door, upstream)
    # Its last piece, and its end, come with the one that is too much.
    monkeypatch.setattr(transport, "MAX_ANSWER", 1000)
    upstream.then(whole(b"x" * 1001))
    with pytest.raises(UpstreamFailed, match="larger"):
        await post(door, upstream)


BROKEN: dict[str, Answering] = {
    "hangs up": hang_up,
    "half a status": raw(b"HTTP/1.1 2"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "garbage": raw(b"\x16\x03\x01\x00\xff\r\n\r\n"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "an error of HTTP/0.9": raw(b"<html>hi</html>"),
    "a head without end": raw(b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 50_000 + b"\r\n"] * 20, close=False),
    "a header without end": raw(b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 100_000] * 10, close=False),
    "a bad length": raw(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"),
    "a bad chunk": raw(head(), piece(b"{"), b"zz\r\n", close=False),
    "half a chunk": raw(head() + b"ff\r\nabc"),
    "no last chunk": raw(head() + piece(b"{}")),
    "half a body": raw(head(length=1000) + b"{}"),
    "switches protocols": raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc"),
    "a prelude only": raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_breaks_is_a_failure_at_once(door: Transport, upstream: Upstream, name: str, streamed: bool) -> None:
    upstream.then(BROKEN[name])

    async def all_of_it() -> None:
        answer = await post(door, upstream, stream=streamed)
        await read(answer)

    with pytest.raises(UpstreamFailed) as caught:
        await all_of_it()
    assert type(caught.value) is UpstreamFailed
    assert caught.value.message.startswith("The provider")
    assert str(upstream.port) not in caught.value.message
    await asyncio.to_thread(upstream.wait_idle)
    upstream.then(whole(b"{}"))
    assert (await post(door, upstream)).body == b"{}"
    assert upstream.connections == 1


ENDS: dict[str, Answering] = {
    "its length": whole(b"{}"),
    "its chunks": stream(b"{", b"}"),
    "its connection": raw(head(close=True) + b"{}"),
    "its connection, unannounced": raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}"),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n{}"),
    "after a prelude": raw(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + head(length=2) + b"{}"),
    "one byte at a time": raw(*(bytes([each]) for each in head(length=2) + b"{}")),
    "trailers": raw(head() + piece(b"{}") + b"0\r\nx: y\r\n\r\n"),
    "more than was asked for": raw(head(length=2) + b"{}" + head(500, length=3) + b"abc"),
    "more after a while": raw(head(length=2) + b"{}", head(500, length=3) + b"abc"),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_way_an_answer_ends(door: Transport, upstream: Upstream, name: str, streamed: bool) -> None:
    upstream.then(ENDS[name])
    answer = await post(door, upstream, stream=streamed)
    assert (answer.status, await read(answer) if streamed else answer.body) == (200, b"{}")
    await asyncio.sleep(0.05)
    upstream.then(whole(b"[]"))
    assert (await post(door, upstream)).body == b"[]"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_wait_hangs_up(door: Transport, upstream: Upstream, streamed: bool) -> None:
    upstream.then(silence)
    task = asyncio.create_task(post(door, upstream, stream=streamed))
    await asyncio.to_thread(upstream.wait_asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(upstream.wait_idle)


async def test_a_cancelled_body_hangs_up(door: Transport, upstream: Upstream) -> None:
    upstream.then(raw(head(length=100) + b"x", close=False))
    task = asyncio.create_task(post(door, upstream))
    await asyncio.to_thread(upstream.wait_asked)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(upstream.wait_idle)


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_stream_closed_early_hangs_up_even_if_it_was_never_read(
    door: Transport, upstream: Upstream, taken: int
) -> None:
    upstream.then(raw(head() + piece(b"a"), close=False))
    for _ in range(10):
        answer = await post(door, upstream, stream=True)
        assert answer.chunks is not None
        for _ in range(taken):
            assert await anext(answer.chunks) == b"a"
        await answer.chunks.aclose()
        await answer.chunks.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(answer.chunks)
    await asyncio.to_thread(upstream.wait_idle)
    assert upstream.connections == 0


async def test_connections_are_kept_and_let_go(
    door: Transport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE", {"http": 0.3, "https": 0.3})
    upstream.then(whole(b"{}"))
    await asyncio.gather(*(post(door, upstream) for _ in range(5)))
    many = upstream.connections
    for _ in range(5):
        await post(door, upstream)
    assert 1 <= upstream.connections == many <= 5
    await asyncio.sleep(0.8)
    assert upstream.connections == 0
    await post(door, upstream)


async def test_a_connection_in_use_is_not_let_go(
    door: Transport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE", {"http": 0.1, "https": 0.1})
    upstream.then(whole(b"{}"), stream(b"one", 0.4, b"two"), whole(b"{}"))
    await post(door, upstream)
    answer = await post(door, upstream, stream=True)
    await asyncio.gather(post(door, upstream), asyncio.sleep(0.3))
    assert await read(answer) == b"onetwo"


async def test_a_connection_the_upstream_closed_is_not_used_again(door: Transport, upstream: Upstream) -> None:
    upstream.then(raw(head(length=2) + b"{}"))
    for _ in range(5):
        assert (await post(door, upstream)).body == b"{}"
        await asyncio.sleep(0.05)


async def test_nothing_is_sent_twice(door: Transport, upstream: Upstream) -> None:
    upstream.then(whole(b"{}"), hang_up, whole(b"{}"))
    await post(door, upstream)
    with pytest.raises(UpstreamFailed):
        await post(door, upstream)
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{free}/v1", "refused"),
        ("http://nowhere.invalid/v1", "not known"),
        ("ftp://127.0.0.1/v1", "usable address"),
        ("http://127.0.0.1:99999/v1", "usable address"),
        ("http://", "usable address"),
        ("http://[::1", "usable address"),
        ("http://a b/", "The provider"),
        ("http://" + "x" * 300 + ".invalid/", "The provider"),
        ("http://" + "x." * 300 + "invalid/", "The provider"),
        ("http://127.0.0.1:{free}/\r\nevil: 1", "The provider"),
    ],
)
async def test_who_cannot_be_reached(door: Transport, url: str, said: str) -> None:
    with pytest.raises(UpstreamFailed, match=said) as caught:
        await door.post(url.format(free=free_port()), b"{}", {}, 2, stream=False)
    assert "127.0.0.1" not in caught.value.message


async def test_who_takes_a_connection_and_says_nothing_of_tls_is_late(door: Transport, upstream: Upstream) -> None:
    # An upstream that waits for a request of ours says nothing to a TLS handshake.
    with pytest.raises(UpstreamTimeout, match="in time"):
        await door.post(f"https://127.0.0.1:{upstream.port}/", b"{}", {}, 0.3, stream=False)


async def test_certificates_are_read_once_and_not_on_the_loop(
    door: Transport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, read = [], ssl.create_default_context

    def noted(cafile: Path | None) -> ssl.SSLContext:
        reading.append(threading.current_thread())
        return read(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", noted)
    url = f"https://127.0.0.1:{upstream.port}/"
    calls = [asyncio.create_task(door.post(url, b"{}", {}, 0.3, stream=False)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError, UpstreamTimeout, UpstreamTimeout]
    assert len(reading) == 1
    assert reading[0] is not threading.current_thread()


async def test_a_certificate_nobody_signed_is_refused(door: Transport, signed_by_nobody: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*signed_by_nobody)
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"{}"))
        writer.write(head(length=2) + b"{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    with pytest.raises(UpstreamFailed, match="TLS"):
        await door.post(url, b"{}", {}, 2, stream=False)
    assert not asked
    trusting = door.through(None, signed_by_nobody[0])
    assert (await trusting.post(url, b"{}", {}, 2, stream=False)).body == b"{}"
    assert door.through(None, signed_by_nobody[0]) is trusting
    os.utime(signed_by_nobody[0], (1, 1))
    assert door.through(None, signed_by_nobody[0]) is not trusting
    assert door.through(None, None) is door
    assert asked
    server.close()
