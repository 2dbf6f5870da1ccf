"""What the tests of the cache ask, and how they read what comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from gateway.cache import HEADER, Cache, Wish
from gateway.cache_store import Store
from gateway.routes import CachePolicy
from gateway.types import Answer

POLICY = CachePolicy(ttl=60)
PIECES = [b"data: {}\n\n", b"", b"data: two\r\n\r\ndata: three\n", b"\n", b"data: [DONE]\n\n"]


class Source:
    """What a flight asks: answers as told, counts how often it was, and notes how each call ended.

    `go` holds back everything, `gates` the piece of that number.
    """

    def __init__(self, *pieces: bytes, status: int = 200, good: bool = True, body: bytes | None = None) -> None:
        self.pieces, self.status, self.good, self.body = pieces or tuple(PIECES), status, good, body
        self.fails: list[Exception] = []
        self.breaks: Exception | None = None
        self.asked = 0
        self.sent = 0
        self.ends: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.gates: dict[int, asyncio.Event] = {}

    async def start(self) -> tuple[Answer, Callable[[], bool]]:
        self.asked += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError as error:
            self.ends.append(str(*error.args))
            raise
        if self.fails:
            raise self.fails.pop(0)
        headers = {"content-type": "text/event-stream", "retry-after": "7", "x-promptyard-deployment": "p/m"}
        if self.body is not None:
            return Answer(self.status, headers, self.body, document={"a": 1}), lambda: self.good
        ended: list[bool] = []
        return Answer(self.status, headers, chunks=self._chunks(ended)), lambda: self.good and bool(ended)

    async def _chunks(self, ended: list[bool]) -> AsyncGenerator[bytes, None]:
        try:
            for number, piece in enumerate(self.pieces):
                if number in self.gates:
                    await self.gates[number].wait()
                self.sent += 1
                if number == len(self.pieces) - 1 and self.breaks is None:
                    ended.append(True)  # as the meter settles: before the last byte goes out
                yield piece
            if len(self.pieces) in self.gates:
                await self.gates[len(self.pieces)].wait()
            if self.breaks is not None:
                raise self.breaks
        except asyncio.CancelledError as error:
            self.ends.append(str(*error.args))
            raise
        except GeneratorExit:
            self.ends.append("closed")
            raise
        self.ends.append("ended")

    def gate(self, number: int) -> asyncio.Event:
        return self.gates.setdefault(number, asyncio.Event())


async def ticks(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def until(met: Callable[[], bool]) -> None:
    for _ in range(2000):
        if met():
            return
        await asyncio.sleep(0.005)
    pytest.fail("It has not come about.")


async def read(answer: Answer) -> list[bytes]:
    assert answer.chunks is not None
    return [piece async for piece in answer.chunks]


async def ask(
    cache: Cache, upstream: Source, policy: CachePolicy = POLICY, wish: Wish = Wish.SHARED, digest: str = "d"
) -> tuple[str, bytes]:
    """What the header says, and the whole answer."""
    answer, hit = await cache.share(policy, digest, upstream.start, wish)
    assert answer.headers[HEADER] == ("hit" if hit else "miss")
    body = answer.body if answer.chunks is None else b"".join(await read(answer))
    await until(lambda: digest not in cache._flights._open)
    return answer.headers[HEADER], body


@contextlib.asynccontextmanager
async def watched(store: Store) -> AsyncIterator[Cache]:
    """A cache on `store` that afterwards has held nothing back, and left no failure that nobody looked at."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    cache = Cache(store)
    yield cache
    await ticks()
    assert not cache._flights._open
    assert not cache._flights._tasks
    assert cache._flights.held == 0
    await cache.close()
    gc.collect()
    await ticks()
    assert complaints == []
