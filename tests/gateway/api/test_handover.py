"""A connection is handed over before its next request is read, with all that came of it, and answered by another."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.api import handover, http, protocol
from gateway.api.handover import Giver, HandingProtocol, TakenProtocol, Taker
from gateway.api.protocol import MAX_HEAD

CALL = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
OTHER = b"POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"


def echoing(name: bytes, size: int = 0) -> http.App:
    """Answers with its name, what was asked and the body; with so many bytes more."""

    async def app(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await http.answer(send, 200, {}, b"%b %b %b." % (name, scope["path"].encode(), body) + b"x" * size)

    return app


class Bench:
    """Two processes' worth of protocols in one: a worker's listener, and whoever takes over."""

    def __init__(self, size: int = 0) -> None:
        mine, theirs = socket.socketpair()
        self.giver = Giver(mine)
        self._make = functools.partial(HandingProtocol, self.giver.give)
        self.taker = Taker(
            theirs, lambda came: self._protocol(functools.partial(TakenProtocol, came), echoing(b"control"))
        )
        self._size = size

    def _protocol(self, make: object, app: http.App) -> asyncio.Protocol:
        config = uvicorn.Config(app, log_config=None)  # type: ignore[arg-type]  # it is ours
        config.load()
        state = ServerState()
        made: asyncio.Protocol = make(config=config, server_state=state, app_state={})  # type: ignore[operator]
        return made

    async def listen(self) -> asyncio.Server:
        """The worker's listener."""
        loop = asyncio.get_running_loop()
        worker = echoing(b"worker", self._size)
        return await loop.create_server(lambda: self._protocol(self._make, worker), "127.0.0.1", 0)


@pytest.fixture(params=[0, 2**23], ids=["short answers", "long answers"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, int]]:
    """Where the worker listens. What it answers may be more than the kernel takes at once."""
    bench = Bench(request.param)
    server = await bench.listen()
    yield server.sockets[0].getsockname()[:2]
    server.close()
    bench.giver.close()
    bench.taker.close()


async def said(place: tuple[str, int], *requests: list[bytes]) -> list[bytes]:
    """The answers to `requests`, each sent piece by piece once the one before was answered, without their filling."""
    reader, writer = await asyncio.open_connection(*place)
    answers = []
    for request in requests:
        for piece in request:
            writer.write(piece)
            await asyncio.sleep(0.03)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            answers.append((head + await reader.readexactly(size)).partition(b"\r\n\r\n"))
    writer.close()
    return [body.partition(b".")[0] if head.startswith(b"HTTP/1.1 200 ") else head for head, _, body in answers]


W, C = b"worker /v1/x hi", b"control /other hello"


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([[CALL]], [W]),
        ([[OTHER]], [C]),
        ([[b"\r\n\r\n" + OTHER]], [C]),
        ([[OTHER[:3], OTHER[3:9], OTHER[9:]]], [C]),
        ([[OTHER[:60], OTHER[60:]]], [C]),
        ([[CALL], [CALL], [OTHER]], [W, W, C]),
        ([[OTHER], [OTHER]], [C, C]),
        ([[OTHER], [CALL]], [C, b"control /v1/x hi"]),
        ([[b"GET http://some.host/other?a=/v1/b HTTP/1.1\r\nhost: x\r\n\r\n"]], [b"control /other "]),
        ([[b"GET /%76%31/y HTTP/1.1\r\nhost: x\r\n\r\n"]], [b"worker /v1/y "]),
        ([[b"GET /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n"]], [b"control /v1/traces "]),
        ([[b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"]], [b"worker /health "]),
        ([[b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n"]], [b"control /health/ready "]),
    ],
)
async def test_each_request_is_answered_by_the_one_it_is_for(
    place: tuple[str, int], requests: list[list[bytes]], expected: list[bytes]
) -> None:
    assert await said(place, *requests) == expected


async def test_a_large_body_arrives_whole(place: tuple[str, int]) -> None:
    head = b"PUT /other HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n"
    assert await said(place, [head + b"y" * 3_000_000]) == [b"control /other " + b"y" * 3_000_000]


@pytest.mark.parametrize("what", [b"nonsense\r\n\r\n", b"GET\r\n\r\n"])
async def test_what_is_no_request_is_refused_by_whoever_reads_it(place: tuple[str, int], what: bytes) -> None:
    assert (await said(place, [what]))[0].startswith(b"HTTP/1.1 400 ")


async def test_an_endless_first_line_is_a_431(place: tuple[str, int]) -> None:
    assert (await said(place, [b"GET /" + b"x" * MAX_HEAD]))[0].startswith(b"HTTP/1.1 431 ")


async def test_a_first_line_that_never_ends_is_let_go(place: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 0.3)
    monkeypatch.setattr(handover, "PATIENCE", 0.3)
    reader, writer = await asyncio.open_connection(*place)
    writer.write(CALL)
    await reader.readuntil(b"hi.")
    writer.write(b"GET /oth")
    async with asyncio.timeout(5):
        after = await reader.read()
    writer.close()
    assert after.strip(b"x") == b""  # no more than the rest of the long answer


async def test_what_is_sent_while_it_is_handed_over_does_not_overtake(place: tuple[str, int]) -> None:
    head, body = OTHER[:-5], OTHER[-5:]
    for pause in (0, 0.0002, 0.0005, 0.001, 0.002):
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*place)
            writer.write(head)
            await asyncio.sleep(pause)
            writer.write(body)
            async with asyncio.timeout(5):
                assert C in await reader.readuntil(b"hello.")
            writer.close()


async def test_many_are_handed_over_in_a_storm(place: tuple[str, int]) -> None:
    assert await asyncio.gather(*(said(place, [OTHER]) for _ in range(300))) == [[C]] * 300
