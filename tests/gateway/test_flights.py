"""Identical calls in flight share one: who comes late has all of it, who leaves or is slow costs the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway import flights
from gateway.cache import Cache, Wish
from gateway.cache_store import MemoryStore
from gateway.errors import Overloaded, RateLimited, UpstreamFailed
from gateway.routes import CachePolicy
from gateway.types import Answer
from gateway.usage import LEFT
from tests.gateway.caching import PIECES, POLICY, Source, ask, read, ticks, watched


@pytest.fixture
async def here() -> AsyncIterator[Cache]:
    async with watched(MemoryStore()) as made:
        yield made


async def test_a_late_comer_reads_from_the_start_what_still_comes(here: Cache) -> None:
    upstream = Source()
    upstream.gate(3)
    first, _ = await here.share(POLICY, "d", upstream.start, Wish.SHARED)
    assert first.chunks is not None
    assert [await anext(first.chunks) for _ in range(3)] == PIECES[:3]
    late, hit = await here.share(POLICY, "d", upstream.start, Wish.SHARED)
    assert hit
    assert late.chunks is not None
    assert [await anext(late.chunks) for _ in range(3)] == PIECES[:3]
    upstream.gate(3).set()
    assert await read(first) == await read(late) == PIECES[3:]
    assert upstream.asked == 1
    assert late.headers is not first.headers


async def test_who_wants_it_fresh_neither_joins_nor_is_joined(here: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    wishes = [Wish.FRESH, Wish.SHARED, Wish.FRESH, Wish.SHARED, Wish.UNKEPT]
    asked = [asyncio.create_task(ask(here, upstream, wish=wish)) for wish in wishes]
    await ticks()
    assert upstream.asked == 4
    upstream.go.set()
    assert [word for word, _ in await asyncio.gather(*asked)] == ["miss", "miss", "miss", "hit", "miss"]


async def test_who_asks_something_else_is_not_joined(here: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    asked = [asyncio.create_task(ask(here, upstream, digest=who)) for who in "ab"]
    await ticks()
    assert upstream.asked == 2
    upstream.go.set()
    assert [word for word, _ in await asyncio.gather(*asked)] == ["miss", "miss"]


@pytest.mark.parametrize("how", ["closed", "cancelled", "thrown", "unread"])
async def test_the_last_to_leave_a_stream_cancels_it(here: Cache, how: str) -> None:
    upstream = Source()
    upstream.gate(2)
    answer, _ = await here.share(POLICY, "d", upstream.start, Wish.SHARED)
    other, _ = await here.share(POLICY, "d", upstream.start, Wish.SHARED)
    assert answer.chunks is not None
    assert other.chunks is not None
    await other.chunks.aclose()
    await ticks()
    assert upstream.ends == []
    if how != "unread":
        assert await anext(answer.chunks) == PIECES[0]
    if how == "cancelled":
        reading = asyncio.create_task(read(answer))
        await ticks()
        reading.cancel(LEFT)
        await asyncio.wait([reading])
    elif how == "thrown":
        with pytest.raises(KeyError):
            await answer.chunks.athrow(KeyError("x"))
    else:
        await answer.chunks.aclose()
        await answer.chunks.aclose()
    await ticks()
    assert upstream.ends == [LEFT]
    assert await read(answer) == []


async def test_who_comes_as_the_last_leaves_begins_anew(here: Cache) -> None:
    upstream = Source()
    upstream.gate(1)
    answer, _ = await here.share(POLICY, "d", upstream.start, Wish.SHARED)
    assert answer.chunks is not None
    await answer.chunks.aclose()
    again = asyncio.create_task(ask(here, upstream))
    await ticks()
    upstream.gate(1).set()
    assert await again == ("miss", b"".join(PIECES))
    assert (upstream.asked, upstream.ends) == (2, [LEFT, "ended"])


async def test_leaving_at_the_moment_of_failure_leaves_nothing_unseen(here: Cache) -> None:
    leaving: list[asyncio.Task[object]] = []

    async def start() -> tuple[Answer, Callable[[], bool]]:
        asyncio.get_running_loop().call_soon(leaving[0].cancel, LEFT)
        raise UpstreamFailed("at once")

    leaving.append(asyncio.create_task(here.share(POLICY, "d", start, Wish.SHARED)))
    await asyncio.wait(leaving)
    assert leaving[0].cancelled()
    leaving.clear()


async def test_stopping_tells_who_waits(here: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    waiting = asyncio.create_task(ask(here, upstream))
    reading, _ = await here.share(POLICY, "other", Source().start, Wish.SHARED)
    await ticks()
    await here.close()
    with pytest.raises(Overloaded, match="stopping"):
        await waiting
    assert upstream.ends == [""]
    assert await read(reading) == PIECES


async def test_an_upstream_s_refusal_is_everybody_s(here: Cache) -> None:
    upstream = Source(status=429, body=b"slow down")
    upstream.go.clear()
    sharing = [asyncio.create_task(here.share(POLICY, "d", upstream.start, Wish.SHARED)) for _ in range(5)]
    await ticks()
    upstream.go.set()
    answers = [answer for answer, _ in await asyncio.gather(*sharing)]
    assert {(one.status, one.body, one.headers["retry-after"]) for one in answers} == {(429, b"slow down", "7")}
    assert upstream.asked == 1


async def test_a_stream_that_breaks_breaks_for_all_after_what_came(here: Cache) -> None:
    upstream = Source()
    upstream.breaks = UpstreamFailed("cut")
    upstream.gate(1)
    answers = [(await here.share(POLICY, "d", upstream.start, Wish.SHARED))[0] for _ in range(3)]
    upstream.gate(1).set()
    for answer in answers:
        assert answer.chunks is not None
        assert [await anext(answer.chunks) for _ in PIECES] == PIECES
        with pytest.raises(UpstreamFailed, match="cut"):
            await anext(answer.chunks)
        assert await read(answer) == []
    assert (await ask(here, Source()))[0] == "miss"


async def test_between_keys_a_refusal_is_of_the_one_who_asked(here: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    upstream.fails = [RateLimited("first"), RateLimited("second")]
    shared = CachePolicy(60, shared=True)
    asked = [asyncio.create_task(ask(here, upstream, shared)) for _ in range(5)]
    await ticks()
    upstream.go.set()
    first, second, *rest = await asyncio.gather(*asked, return_exceptions=True)
    assert (str(first), str(second)) == ("first", "second")
    assert [answer[0] for answer in rest if isinstance(answer, tuple)] == ["miss", "hit", "hit"]
    assert upstream.asked == 3


LONG = [b"%06d" % number * 100 for number in range(200)]
SMALL = CachePolicy(60, max_bytes=6000)


async def test_a_slow_reader_alone_holds_the_upstream_back_not_the_memory(here: Cache) -> None:
    upstream = Source(*LONG)
    answer, _ = await here.share(SMALL, "d", upstream.start, Wish.SHARED)
    assert answer.chunks is not None
    came = []
    async for piece in answer.chunks:
        came.append(piece)
        await ticks(2)
        assert here._flights.held <= 6000 + 600
        assert upstream.sent - len(came) <= 11
    assert came == LONG


async def test_a_slow_reader_does_not_hold_a_quick_one(here: Cache) -> None:
    upstream = Source(*LONG)
    upstream.gate(0)
    quick, _ = await here.share(SMALL, "d", upstream.start, Wish.SHARED)
    slow, _ = await here.share(SMALL, "d", upstream.start, Wish.SHARED)
    assert slow.chunks is not None
    upstream.gate(0).set()
    assert await anext(slow.chunks) == LONG[0]
    assert await read(quick) == LONG
    with pytest.raises(Overloaded, match="too slowly"):
        await read(slow)


async def test_one_too_long_to_be_kept_is_closed_to_late_comers(here: Cache) -> None:
    upstream = Source(*LONG)
    upstream.gate(20)
    first, _ = await here.share(SMALL, "d", upstream.start, Wish.SHARED)
    assert first.chunks is not None
    assert [await anext(first.chunks) for _ in range(20)] == LONG[:20]
    second, hit = await here.share(SMALL, "d", upstream.start, Wish.SHARED)
    assert not hit
    upstream.gate(20).set()
    assert await read(first) == LONG[20:]
    assert await read(second) == LONG


async def test_all_flights_together_hold_no_more_than_is_allowed(here: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "HELD", 50_000)
    monkeypatch.setattr(flights, "_LEAST", 1000)
    upstreams = [Source(*LONG) for _ in range(20)]
    answers = [
        (await here.share(POLICY, f"d{number}", upstream.start, Wish.SHARED))[0]
        for number, upstream in enumerate(upstreams)
    ]
    await ticks(500)
    assert here._flights.held <= 50_000 + 20 * (1000 + 600)
    assert [await read(answer) for answer in answers] == [LONG] * 20
