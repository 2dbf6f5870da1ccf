"""Connections are bounded before any application sees a request: heads, trailers, what is left of a body."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.api import http, protocol
from gateway.api.protocol import MAX_HEAD, BoundedProtocol

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
seen: list[tuple[str, bytes]] = []


async def ours(scope: http.Scope, send: http.Send) -> None:
    """What only the data plane does: it is called when its caller leaves, and answers in one go."""
    if scope["path"] == "/split":
        await http.answer(send, 200, {"x": "a\r\nx-made-up: b"}, b"")
        return
    http.when_gone(scope, lambda: seen.append(("/hooked", b"left")))
    await asyncio.sleep(0.3)
    await http.answer(send, 200, {}, b"late")


async def app(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Echoes a body; `/early` answers before it is read, `/slow` pauses in its answer, `/endless` never ends it.

    `/lazy` takes its time before it reads, `/hooked` has itself called when its caller leaves, `/split` would say two
    headers in one.
    """
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x" * 2**23, "more_body": True})
        # What is written to a connection that is gone is nobody's; only listening tells.
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.append(("/endless", b"left"))
        return
    if scope["path"] in ("/hooked", "/split"):
        await ours(scope, send)
        return
    if scope["path"] == "/early":
        await http.answer(send, 413, {}, b"too large")
        return
    if scope["path"] == "/lazy":
        await asyncio.sleep(1.0)
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            seen.append(("/left", body))
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen.append((scope["path"], body))
    if scope["path"] == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"cd"})
        return
    await http.answer(send, 200, {}, body)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Connections to a server whose callers have half a second."""
    monkeypatch.setattr(protocol, "PATIENCE", 0.5)
    monkeypatch.setattr(protocol, "STALLED", 0.5)
    monkeypatch.setattr(protocol, "PROGRESS", 0.4)
    seen.clear()
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None, server_header=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield opened
    for writer in writers:
        writer.transport.abort()
    server.close()
    await asyncio.sleep(0.01)
    for task in list(state.tasks):
        task.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes."""
    data = b""
    try:
        while part := await asyncio.wait_for(reader.read(65536), 10):
            data += part
    except ConnectionError:
        pass
    return data


async def answered(connect: Connect, *parts: bytes, pause: float = 0.05) -> bytes:
    """What the server says to `parts`, written one by one, until it closes."""
    reader, writer = await connect()
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause)
    return await rest(reader)


POST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def test_who_asks_nothing_is_let_go_without_a_word(connect: Connect) -> None:
    begun = time.monotonic()
    assert await answered(connect) == b""
    assert time.monotonic() - begun > 0.4


@pytest.mark.parametrize(
    "parts", [[b"G"], [b"GET / HTTP/1.1\r\nhost: x\r\n"], [b"GET / HTTP/1.1\r\n"] + [b"a: b\r\n"] * 4]
)
async def test_a_head_that_never_ends_is_a_408(connect: Connect, parts: list[bytes]) -> None:
    assert (await answered(connect, *parts)).startswith(b"HTTP/1.1 408 ")


async def test_a_later_head_that_never_ends_is_a_408_too(connect: Connect) -> None:
    said = await answered(connect, POST, b"GET / HTTP/1.1\r\nhost: x\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in said


async def test_a_slow_answer_and_a_quiet_connection_are_not_late(connect: Connect) -> None:
    reader, writer = await connect()
    for _ in range(2):
        writer.write(POST)
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.7)
    assert not reader.at_eof()


HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"
FLOODS = {
    "many headers": (HEAD, b"".join(b"x-%d: y\r\n" % n for n in range(10_000))),
    "an endless header": (HEAD, b"x: " + b"y" * 2 * MAX_HEAD),
    "an endless name": (HEAD, b"y" * 2 * MAX_HEAD),
    "an endless path": (b"GET /", b"y" * 2 * MAX_HEAD),
    "blank lines": (b"", b"\r\n" * MAX_HEAD),
    "trailers": (CHUNKED + b"0\r\n", b"".join(b"x-%d: y\r\n" % n for n in range(10_000))),
    "an endless trailer": (CHUNKED + b"0\r\nx: ", b"y" * 2 * MAX_HEAD),
    "an endless chunk extension": (CHUNKED + b"2;x=", b"y" * 2 * MAX_HEAD),
}


@pytest.mark.parametrize("size", [1000, 10**9], ids=["in pieces", "at once"])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_anything_but_a_body_is_a_431(connect: Connect, name: str, size: int) -> None:
    start, flood = FLOODS[name]
    pieces = [flood[at : at + size] for at in range(0, len(flood), size)]
    said = await answered(connect, start, *pieces, pause=0.001)
    assert said.startswith(b"HTTP/1.1 431 ") or not said


async def test_a_head_of_just_the_size_and_a_body_far_larger_pass(connect: Connect) -> None:
    size = 20 * MAX_HEAD
    head = b"POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\nx: %b\r\n\r\n"
    said = await answered(connect, head % (size, b"y" * (MAX_HEAD - 200)) + b"z" * size)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert [("/x", b"z" * size)] == seen


async def test_a_body_of_tiny_chunks_is_a_body(connect: Connect) -> None:
    chunks = b"1\r\nz\r\n" * MAX_HEAD
    head = b"POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [chunks[at : at + 50_000] for at in range(0, len(chunks), 50_000)]
    await answered(connect, head, *pieces, b"0\r\nx: a trailer\r\n\r\n", pause=0.01)
    assert seen == [("/x", b"z" * MAX_HEAD)]


@pytest.mark.parametrize("between", [0.0, 0.05])
async def test_what_is_left_of_a_refused_body_is_not_the_next_request(connect: Connect, between: float) -> None:
    early = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    said = await answered(connect, early, b"GET /evil HTTP/1.1\r\n\r\n".ljust(100), LAST, pause=between)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert said.count(b"HTTP/1.1 200 ") == 1
    assert seen == [("/last", b"")]


@pytest.mark.parametrize("more", [b"", b"x", b"x" * 100_000])
async def test_a_refused_body_that_never_ends_is_left(connect: Connect, more: bytes) -> None:
    reader, writer = await connect()
    writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\nx")
    assert (await reader.readuntil(b"too large")).startswith(b"HTTP/1.1 413 ")
    for _ in range(12 if more else 0):
        writer.write(more)
        await asyncio.sleep(0.1)
    writer.write(b"x")
    assert await rest(reader) == b""


async def test_blank_lines_do_not_keep_a_connection(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(POST)
    await reader.readuntil(b"hi")
    for _ in range(8):
        writer.write(b"\r\n")
        await asyncio.sleep(0.1)
    assert not (await rest(reader)).startswith(b"HTTP/1.1 200 ")


async def test_a_refusal_never_lands_in_the_middle_of_an_answer(connect: Connect) -> None:
    slow = POST.replace(b"/x", b"/slow")
    said = await answered(connect, slow, b"\x00garbage")
    assert b"400 Bad Request" not in said
    assert said.endswith((b"ab", b"abcd"))


async def test_a_caller_who_does_not_read_is_let_go(connect: Connect) -> None:
    _, writer = await connect()
    writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(1.5)
    assert seen == [("/endless", b"left")]


async def test_a_caller_who_reads_slowly_is_not(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
    for _ in range(60):
        assert await reader.read(2**20)
        await asyncio.sleep(0.02)
    assert not seen


async def test_garbage_after_a_good_request_is_a_400(connect: Connect) -> None:
    assert b"HTTP/1.1 400 Bad Request" in await answered(connect, POST, b"\x00garbage")


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.mark.parametrize("offer", [OFFER, OFFER.lower(), OFFER.upper()])
async def test_an_offer_to_upgrade_is_not_taken_and_loses_no_body(connect: Connect, offer: bytes) -> None:
    body = b"\r\nUpgrade: none, this is the body"
    head = b"POST /x HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (offer, len(body))
    said = await answered(connect, head + body, head, body, LAST)
    assert seen == [("/x", body), ("/x", body), ("/last", b"")]
    assert said.count(b"HTTP/1.1 200 ") == 3


async def test_what_is_no_header_is_not_made_one(connect: Connect) -> None:
    assert (await answered(connect, HEAD + b"upgrade : x\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


WAYS = {"an offer": OFFER + b"content-length: 2\r\n", "no offer": b"x-upgrade-not: 1\r\ncontent-length: 2\r\n"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_head_may_come_in_any_two_pieces(connect: Connect, way: str) -> None:
    """An offer to upgrade is found, and the body untouched, wherever the network has split them."""
    body = b"\r\nUpgrade: body\r\n\r\n"
    head = b"POST /x HTTP/1.1\r\nhost: x\r\n" + WAYS[way].replace(b"length: 2", b"length: %d" % len(body)) + b"\r\n"
    request = head + body
    reader, writer = await connect()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(1, len(request)):
        writer.write(request[:at])
        await asyncio.sleep(0.003)
        writer.write(request[at:])
        said = await asyncio.wait_for(reader.readuntil(body), 5)
        assert said.startswith(b"HTTP/1.1 200 "), at
    assert seen == [("/x", body)] * (len(request) - 1)


async def test_an_offer_to_upgrade_that_was_overlooked_is_refused(connect: Connect) -> None:
    said = await answered(connect, POST + b"POST /x HTTP/1.1\r\n%bcontent-length: 2\r\n\r\nhi" % OFFER)
    assert b"HTTP/1.1 400 " in said
    assert ("/x", b"") not in seen


@pytest.mark.parametrize("begun", [b"", b"x"])
@pytest.mark.parametrize("way", [b"content-length: 100\r\n\r\n%b", b"transfer-encoding: chunked\r\n\r\n64\r\n%b"])
async def test_a_body_that_never_ends_is_a_408(connect: Connect, way: bytes, begun: bytes) -> None:
    said = await answered(connect, b"POST /x HTTP/1.1\r\nhost: x\r\n" + way % begun)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert seen == [("/left", begun)]


async def test_a_body_that_comes_slowly_is_waited_for(connect: Connect) -> None:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n"
    assert (await answered(connect, head, *[b"z"] * 10, pause=0.15)).startswith(b"HTTP/1.1 200 ")
    assert seen == [("/x", b"z" * 10)]


@pytest.mark.parametrize("size", [10, 2**23])
async def test_a_body_that_nobody_reads_yet_is_not_late(connect: Connect, size: int) -> None:
    head = b"POST /lazy HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (size + 1)
    reader, writer = await connect()
    writer.write(head + b"z" * size)
    await asyncio.sleep(1.1)
    writer.write(b"z")
    assert (await rest(reader)).startswith(b"HTTP/1.1 200 ")
    assert [(path, len(body)) for path, body in seen] == [("/lazy", size + 1)]


@pytest.mark.parametrize("leaves", [True, False])
async def test_who_asked_for_it_is_called_when_the_caller_leaves_and_only_then(connect: Connect, leaves: bool) -> None:
    reader, writer = await connect()
    writer.write(b"GET /hooked HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.sleep(0.05)
    if leaves:
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert seen == [("/hooked", b"left")]
    else:
        await reader.readuntil(b"late")
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert seen == []


async def test_who_waits_behind_another_request_does_not_hide_that_its_caller_left(connect: Connect) -> None:
    _, writer = await connect()
    writer.write(b"GET /hooked HTTP/1.1\r\nhost: x\r\n\r\n" + LAST)
    await asyncio.sleep(0.05)
    # What waits stops the reading; whoever listens for the caller's end reads on.
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert ("/hooked", b"left") in seen


async def test_two_requests_in_a_packet_are_answered_in_turn(connect: Connect) -> None:
    said = await answered(connect, POST.replace(b"/x", b"/slow") + LAST)
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.index(b"abcd" if b"abcd" in said else b"ab") < said.rindex(b"HTTP/1.1 200 ")
    assert [path for path, _ in seen] == ["/slow", "/last"]


async def test_a_header_never_becomes_two(connect: Connect) -> None:
    said = await answered(connect, b"GET /split HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"made-up" not in said


async def test_an_answer_to_head_has_no_body(connect: Connect) -> None:
    said = await answered(connect, LAST.replace(b"GET", b"HEAD"))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\n")
