"""What is Redis's own of the counters there: its loss, its silence, its return, and several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway import counters_redis
from gateway.counters_redis import RedisCounters
from gateway.errors import ConfigError
from gateway.types import Grant, Refusal
from tests.gateway.test_counters import at_once, rpm, settle, tpm


async def test_without_redis_limits_go_on_here_and_say_so(unused_tcp_port: int) -> None:
    counters = RedisCounters(f"redis://127.0.0.1:{unused_tcp_port}/0")
    taken = [await counters.take([rpm(3), at_once(10)]) for _ in range(5)]
    assert [isinstance(one, Grant) for one in taken] == [True, True, True, False, False]
    assert "redis is gone" in counters.status()
    for one in taken:
        if isinstance(one, Grant):
            counters.settle(one, 0)
    await counters.close()


async def test_a_caller_who_leaves_while_claiming_holds_nothing(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.take([rpm(100)])  # connected
        leaving = asyncio.create_task(counters.take([at_once(1), tpm(10, 10)]))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        for _ in range(100):
            taken = await counters.take([at_once(1), tpm(10, 10)])
            if isinstance(taken, Grant):
                break
            await asyncio.sleep(0.01)
        assert isinstance(taken, Grant)
    finally:
        await counters.close()


async def test_two_processes_share_redis(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_redis, "_PATIENCE", 30.0)  # a busy machine is not a Redis that is gone
    first, second = RedisCounters(fresh_redis), RedisCounters(fresh_redis)
    try:
        taken = await asyncio.gather(*(one.take([rpm(50)]) for one in [first, second] * 100))
        assert sum(isinstance(one, Grant) for one in taken) == 50
    finally:
        await first.close()
        await second.close()


async def test_without_redis_each_process_has_its_share(fresh_redis: str) -> None:
    members = [RedisCounters(fresh_redis) for _ in range(3)]
    try:
        for one in members:
            await one.take([rpm(100)])
        await members[0]._met()
        assert members[0].members == 3
        members[0]._gone(ConnectionError())
        assert members[0].status() == "redis is gone: limits are kept by this process, 1/3 of each"
        alone = members[0]._local
        taken = [await members[0]._take_here([rpm(10), tpm(7, 2, 2)]) for _ in range(3)]
        assert [type(one) for one in taken] == [Grant, Refusal, Refusal]
        assert taken[1].claim == tpm(7, 2, 2)  # type: ignore[union-attr]  # it was just looked at
        assert isinstance(await alone.take([rpm(3)]), Grant)  # two more of the three that a third of ten is
        await members[1].close()
        await members[2].close()
        await until(lambda: members[0].status() == "redis")
        await members[0]._met()
        assert members[0].members == 1
    finally:
        for one in members:
            await one.close()


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.02)
    pytest.fail("It has not come about.")


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


async def test_a_silent_redis_is_looked_for_beside_the_calls(
    silent: tuple[str, list[asyncio.StreamWriter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_redis, "_REST", 0.1)
    url, taken = silent
    counters = RedisCounters(url)
    try:
        assert isinstance(await counters.take([rpm(1000)]), Grant)
        assert "redis is gone" in counters.status()
        for _ in range(20):
            before = len(taken)
            await asyncio.gather(*(counters.take([rpm(1000)]) for _ in range(20)))
            await asyncio.sleep(0.05)
            assert len(taken) - before <= 2
        assert len(taken) > 1
    finally:
        await counters.close()


async def test_starting_does_not_wait_for_redis(silent: tuple[str, list[asyncio.StreamWriter]]) -> None:
    counters = RedisCounters(silent[0])
    starting = asyncio.create_task(counters.start())
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        assert starting.done()
        await until(lambda: "redis is gone" in counters.status())
    finally:
        await starting
        await counters.close()


@pytest.mark.parametrize("steps", range(12))
async def test_closing_ends_at_whatever_step_its_tasks_are(
    silent: tuple[str, list[asyncio.StreamWriter]], steps: int
) -> None:
    counters = RedisCounters(silent[0])
    await counters.start()
    for _ in range(steps):
        await asyncio.sleep(0)
    closing = asyncio.create_task(counters.close())
    await asyncio.wait([closing], timeout=10)
    assert closing.done()


async def test_a_crowd_is_not_taken_for_a_loss(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_CONNECTIONS": 1, "_QUEUE": 0.05, "_PATIENCE": 10.0}.items():
        monkeypatch.setattr(counters_redis, name, value)
    counters, other = RedisCounters(fresh_redis), RedisCounters(fresh_redis)
    try:
        await counters.take([rpm(100)])
        await other._redis.execute_command("CLIENT", "PAUSE", 300)
        await asyncio.gather(*(counters.take([rpm(100)]) for _ in range(20)))
        assert counters.status() == "redis"
    finally:
        await counters.close()
        await other.close()


async def test_after_an_outage_redis_is_told_what_ended_and_what_still_runs(
    fresh_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_redis, "_PATIENCE", 0.2)
    counters = RedisCounters(fresh_redis)
    watching = RedisCounters(fresh_redis)
    try:
        ended, running = await counters.take([at_once(1)]), await counters.take([at_once(1, "key:b")])
        assert isinstance(ended, Grant)
        assert isinstance(running, Grant)
        # As if the outage outlasted its lease.
        await watching._redis.delete(watching._key(at_once(1, "key:b")))
        await watching._redis.execute_command("CLIENT", "PAUSE", 700)
        assert isinstance(await counters.take([at_once(1)]), Grant)
        assert "redis is gone" in counters.status()
        counters.settle(ended, 0)
        await until(lambda: counters.status() == "redis")
        await until(lambda: not counters._telling)
        assert isinstance(await counters.take([at_once(1)]), Grant)
        assert isinstance(await counters.take([at_once(1, "key:b")]), Refusal)
        await settle(counters, running, 0)
        assert isinstance(await counters.take([at_once(1, "key:b")]), Grant)
    finally:
        await counters.close()
        await watching.close()


@pytest.mark.parametrize("pruned", [True, False])
async def test_what_was_used_beyond_an_expired_claim_counts_now(fresh_redis: str, pruned: bool) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        grant = await counters.take([tpm(100, 10)])
        assert isinstance(grant, Grant)
        key = counters._key(tpm(100, 10))
        [(member, at)] = await counters._redis.zrange(key, 0, -1, withscores=True)
        await counters._redis.zadd(key, {member: at - 61e6})
        if pruned:
            assert isinstance(await counters.take([tpm(100, 1)]), Grant)
        await settle(counters, grant, 70)
        assert isinstance(await counters.take([tpm(100, 41 - pruned)]), Refusal)
        assert isinstance(await counters.take([tpm(100, 40 - pruned)]), Grant)
    finally:
        await counters.close()


@pytest.mark.parametrize("query", ["db=x", "max_connections=hunter2", "hunter2=1"])
def test_an_option_redis_does_not_know_is_refused_unseen(query: str) -> None:
    with pytest.raises(ConfigError, match=r"^The Redis address cannot be used") as caught:
        RedisCounters(f"redis://127.0.0.1/?{query}")
    assert "hunter2" not in str(caught.value)
