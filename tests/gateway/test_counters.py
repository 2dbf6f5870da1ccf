"""Counters take all or none and never give out more than there is, in memory and in Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway import counters_redis
from gateway.counters import Counters, MemoryCounters
from gateway.counters_redis import RedisCounters
from gateway.errors import ConfigError
from gateway.types import Claim, Grant, Refusal, Rule, Unknown


async def settle(counters: Counters, grant: Grant, tokens: int, scope: str | None = None) -> None:
    counters.settle(grant, tokens, scope)
    telling = getattr(counters, "_telling", set())  # Redis is told in the background
    if telling:
        await asyncio.wait(telling)


def rpm(limit: int, scope: str = "key:a") -> Claim:
    return Claim(scope, Rule.RPM, limit)


def tpm(limit: int, amount: int, least: int | None = None, scope: str = "key:a") -> Claim:
    return Claim(scope, Rule.TPM, limit, amount, amount if least is None else least)


def at_once(limit: int, scope: str = "key:a") -> Claim:
    return Claim(scope, Rule.CONCURRENCY, limit)


async def test_what_came_before_the_refused_claim_is_given_back(counters: Counters) -> None:
    before = [rpm(2), at_once(2), tpm(100, 60)]
    for _ in range(3):
        refused = await counters.take([*before, rpm(0, "route:r")])
        assert isinstance(refused, Refusal)
        assert refused.claim.scope == "route:r"
    first = await counters.take(before)
    assert isinstance(first, Grant)
    assert [standing.left for standing in first.standings] == [1, 40]
    assert isinstance(await counters.take([rpm(2), at_once(2), tpm(100, 40)]), Grant)


async def test_of_200_at_once_exactly_50_pass(counters: Counters) -> None:
    taken = await asyncio.gather(*(counters.take([rpm(50)]) for _ in range(200)))
    assert sum(isinstance(one, Grant) for one in taken) == 50
    refused = next(one for one in taken if isinstance(one, Refusal))
    assert refused.used == 50
    assert 59 < refused.retry_after <= 60.1


async def test_a_refused_call_has_taken_nothing(counters: Counters) -> None:
    assert isinstance(await counters.take([rpm(2), tpm(100, 80)]), Grant)
    refused = await counters.take([rpm(2), tpm(100, 30)])
    assert isinstance(refused, Refusal)
    assert refused.claim.rule is Rule.TPM
    assert isinstance(await counters.take([rpm(2), tpm(100, 20)]), Grant)
    last = await counters.take([rpm(2), tpm(100, 0, 0)])
    assert isinstance(last, Refusal)
    assert last.claim.rule is Rule.RPM


async def test_concurrency_is_given_back_once(counters: Counters) -> None:
    first = await counters.take([at_once(1)])
    assert isinstance(first, Grant)
    refused = await counters.take([at_once(1)])
    assert isinstance(refused, Refusal)
    assert refused.retry_after == 1.0
    await settle(counters, first, 0)
    await settle(counters, first, 0)
    assert isinstance(await counters.take([at_once(1)]), Grant)
    assert isinstance(await counters.take([at_once(1)]), Refusal)


@pytest.mark.parametrize(("used", "left"), [(0, 100), (10, 90), (60, 40), (75, 25)])
async def test_tokens_are_corrected_to_what_was_used(counters: Counters, used: int, left: int) -> None:
    grant = await counters.take([tpm(100, 60)])
    assert isinstance(grant, Grant)
    assert grant.standings[0].left == 40
    await settle(counters, grant, used)
    assert isinstance(await counters.take([tpm(100, left + 1)]), Refusal)
    assert isinstance(await counters.take([tpm(100, left)]), Grant)


async def test_an_open_claim_takes_what_is_left(counters: Counters) -> None:
    assert isinstance(await counters.take([tpm(100, 70)]), Grant)
    grant = await counters.take([tpm(100, 4000, 10)])
    assert isinstance(grant, Grant)
    assert grant.standings[0].left == 0
    assert isinstance(await counters.take([tpm(100, 4000, 10)]), Refusal)
    await settle(counters, grant, 5)
    assert isinstance(await counters.take([tpm(100, 25)]), Grant)


async def test_one_scope_can_be_settled_alone(counters: Counters) -> None:
    grant = await counters.take([at_once(1), at_once(1, "route:r"), tpm(10, 10, scope="route:r"), tpm(10, 10)])
    assert isinstance(grant, Grant)
    await settle(counters, grant, 0, "route:r")
    assert isinstance(await counters.take([at_once(1, "route:r"), tpm(10, 10, scope="route:r")]), Grant)
    assert isinstance(await counters.take([at_once(1)]), Refusal)
    assert isinstance(await counters.take([tpm(10, 1)]), Refusal)
    await settle(counters, grant, 0)
    assert isinstance(await counters.take([at_once(1), tpm(10, 10)]), Grant)


async def test_keys_do_not_share_limits(counters: Counters) -> None:
    assert isinstance(await counters.take([rpm(1, "key:a")]), Grant)
    assert isinstance(await counters.take([rpm(1, "key:b")]), Grant)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_minute_slides_exactly() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    for at, admitted in [
        (0.0, True), (30.0, True), (30.5, False), (59.9, False), (60.02, True), (60.03, False), (90.0, False),
        (90.02, True), (120.0, False), (121.0, True),
    ]:  # fmt: skip
        clock.now = 1000.0 + at
        assert isinstance(await counters.take([rpm(2)]), Grant) is admitted, at


async def test_waiting_as_told_is_enough() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    for step in range(20):
        clock.now += 1.7
        await counters.take([tpm(100, 7 + step % 5)])
    refused = await counters.take([tpm(100, 90)])
    assert isinstance(refused, Refusal)
    clock.now += refused.retry_after - 0.02
    assert isinstance(await counters.take([tpm(100, 90)]), Refusal)
    clock.now += 0.03
    assert isinstance(await counters.take([tpm(100, 90)]), Grant)


async def test_what_expired_before_it_was_settled_is_not_taken_off_twice() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    grant = await counters.take([tpm(100, 100)])
    assert isinstance(grant, Grant)
    clock.now += 61
    assert isinstance(await counters.take([tpm(100, 100)]), Grant)
    counters.settle(grant, 0)
    assert isinstance(await counters.take([tpm(100, 1)]), Refusal)


@pytest.mark.parametrize("looked_at_between", [True, False])
async def test_what_a_call_longer_than_a_minute_used_beyond_its_claim_counts_from_its_end(
    looked_at_between: bool,
) -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    grant = await counters.take([rpm(10), at_once(1), tpm(100, 30)])
    assert isinstance(grant, Grant)
    clock.now += 61
    if looked_at_between:
        await counters.take([tpm(100, 0, 0)])
    counters.settle(grant, 70)
    counters.settle(grant, 70)
    clock.now += 59
    refused = await counters.take([tpm(100, 61)])
    assert isinstance(refused, Refusal)
    assert refused.used == 40
    clock.now += 2
    assert isinstance(await counters.take([tpm(100, 100)]), Grant)


async def test_a_window_keeps_a_bounded_number_of_entries() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    for _ in range(50_000):
        clock.now += 0.0001
        await counters.take([rpm(10**9)])
    (window,) = counters._windows.values()
    assert len(window.entries) <= 510


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


async def test_two_processes_share_redis(fresh_redis: str) -> None:
    first, second = RedisCounters(fresh_redis), RedisCounters(fresh_redis)
    try:
        taken = await asyncio.gather(*(one.take([rpm(50)]) for one in [first, second] * 100))
        assert sum(isinstance(one, Grant) for one in taken) == 50
    finally:
        await first.close()
        await second.close()


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


async def test_what_was_not_claimed_of_a_scope_stays_held_when_it_is_settled(counters: Counters) -> None:
    """A fallback gives back its first route's claims, of which there may be none."""
    one = Claim("key:a", Rule.CONCURRENCY, 1)
    grant = await counters.take([one])
    assert isinstance(grant, Grant)
    counters.settle(grant, 0, scope="route:r")
    assert isinstance(await counters.take([one]), Refusal)
    counters.settle(grant, 0)
    if telling := getattr(counters, "_telling", None):  # Redis is told in the background
        await asyncio.wait(telling)
    assert isinstance(await counters.take([one]), Grant)


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


async def test_memory_forgets_whoever_does_not_come_again() -> None:
    now = 0.0
    counters = MemoryCounters(lambda: now)
    running = await counters.take([tpm(100, 10, scope="user:key:a/first")])
    assert isinstance(running, Grant)
    await counters.open(Claim("key:a@0", Rule.BUDGET, 100), 0)
    held = await counters.take([Claim("key:a@0", Rule.BUDGET, 100, 40, 40)])
    assert isinstance(held, Grant)
    await counters.open(Claim("user:key:a/x@0", Rule.RPD, 5), 2)
    for number in range(10_000):
        now += 0.1
        assert isinstance(await counters.take([rpm(5, f"user:key:a/{number}")]), Grant)
    assert len(counters._windows) < 1500  # 600 of them are of the last minute
    # What was used beyond a claim that is forgotten counts in the window there is.
    counters.settle(running, 70)
    assert isinstance(await counters.take([tpm(100, 41, scope="user:key:a/first")]), Refusal)
    now += 3 * 86400
    for number in range(3000):
        await counters.take([rpm(5, f"user:key:b/{number}")])
        now += 0.1
    assert isinstance(await counters.take([Claim("user:key:a/x@0", Rule.RPD, 5)]), Unknown)  # to be asked of the ledger
    refused = await counters.take([Claim("key:a@0", Rule.BUDGET, 100, 61, 61)])
    assert isinstance(refused, Refusal)
    assert refused.held == 40
