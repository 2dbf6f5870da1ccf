"""Where answers are kept: bounded in memory, and never waited for where Redis is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway import cache_redis
from gateway.cache import Cache
from gateway.cache_redis import RedisStore
from gateway.cache_store import MemoryStore
from tests.gateway.caching import PIECES, Source, ask


async def test_memory_is_bounded_and_the_least_used_leaves() -> None:
    store = MemoryStore(most=10_000)
    for name in "abcd":
        await store.put(name, b"x" * 2000, 60)
    assert await store.get("a")
    await store.put("e", b"x" * 2000, 60)
    assert [name for name in "abcde" if await store.get(name)] == ["a", "c", "d", "e"]
    await store.put("a", b"y" * 9000, 60)
    assert [name for name in "abcde" if await store.get(name)] == ["a"]
    await store.put("a", b"z" * 10_000, 60)
    assert await store.get("a") is None
    assert store._size == 0


@pytest.fixture
async def silent() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """The URL of a Redis that takes connections and never says a word, and those connections."""
    taken: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", taken
    server.close()
    for writer in taken:
        writer.transport.abort()


async def test_a_silent_redis_is_a_miss_and_nobody_queues_for_it(
    silent: tuple[str, list[asyncio.StreamWriter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_redis, "_PATIENCE", 0.1)
    monkeypatch.setattr(cache_redis, "_REST", 0.1)
    url, taken = silent
    cache = Cache(RedisStore(url))
    answers = await asyncio.gather(*(ask(cache, Source(body=b"x"), digest=str(number)) for number in range(100)))
    assert set(answers) == {("miss", b"x")}
    assert len(taken) < 30
    for _ in range(5):
        before = len(taken)
        await asyncio.gather(*(ask(cache, Source(body=b"x"), digest=str(number)) for number in range(20)))
        assert len(taken) - before <= 2
        await asyncio.sleep(0.05)
    await cache.close()


async def test_redis_that_comes_back_is_used_again(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_redis, "_PATIENCE", 0.4)
    monkeypatch.setattr(cache_redis, "_REST", 0.05)
    cache, other = Cache(RedisStore(fresh_redis)), RedisStore(fresh_redis)
    try:
        await ask(cache, Source(body=b"x"))
        await other._redis.execute_command("CLIENT", "PAUSE", 600)
        assert (await ask(cache, Source(body=b"y")))[0] == "miss"
        for _ in range(100):
            if (await ask(cache, Source(body=b"z")))[0] == "hit":
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("Redis is not used again.")
        assert [(await ask(cache, Source()))[0] for _ in range(3)] == ["hit"] * 3
    finally:
        await cache.close()
        await other.close()


async def test_two_processes_share_what_is_kept(fresh_redis: str) -> None:
    first, second = Cache(RedisStore(fresh_redis)), Cache(RedisStore(fresh_redis))
    await ask(first, Source())
    assert await ask(second, Source(b"other")) == ("hit", b"".join(PIECES))
    await first.close()
    await second.close()
