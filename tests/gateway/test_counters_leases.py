"""Leases: many processes admit from what they took ahead, and the sum of all is never more than there is, nor lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as redis

from gateway import counters_leases, counters_redis
from gateway import counters_scripts as scripts
from gateway.counters_leases import LeasedCounters
from gateway.types import Claim, Grant, Refusal, Rule, Unknown

HEX = "0123456789abcdef"
RULES = (Rule.RPM, Rule.TPM, Rule.RPD, Rule.TPD, Rule.CONCURRENCY, Rule.BUDGET)


def scope_of(rule: Rule) -> str:
    """Days and budgets have windows."""
    return "key:k@0" if rule in (Rule.RPD, Rule.TPD, Rule.BUDGET) else "key:k"


def claim(rule: Rule, limit: int, amount: int = 1) -> Claim:
    """A claim that knows what it takes."""
    return Claim(scope_of(rule), rule, limit, amount, amount)


@dataclass
class Processes:
    """Several processes at one Redis, and what all calls together have had."""

    url: str
    made: list[LeasedCounters] = field(default_factory=list)
    used: dict[Rule, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    most: dict[Rule, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    granted: int = 0

    async def start(self, count: int) -> None:
        """So many of them, started."""
        for _ in range(count):
            one = LeasedCounters(self.url, member=HEX[len(self.made)] * 32)
            self.made.append(one)
            await one.start()

    async def opened(self, *claims: Claim, used: int = 0) -> None:
        """With the windows of `claims` open."""
        for one in claims:
            if one.rule in (Rule.RPD, Rule.TPD, Rule.BUDGET):
                await self.made[0].open(one, used)

    def note(self, claims: Sequence[Claim], sign: int, used: int | None = None) -> None:
        """A call holds `claims`, or has ended and used so much of those that are settled."""
        for one in claims:
            counted = one.rule in (Rule.RPM, Rule.RPD)
            if sign > 0:
                self.used[one.rule] += one.amount
            elif not counted:
                self.used[one.rule] += (0 if one.rule is Rule.CONCURRENCY else used or 0) - one.amount
            self.most[one.rule] = max(self.most[one.rule], self.used[one.rule])

    async def call(self, counters: LeasedCounters, claims: Sequence[Claim], used: int, lasting: float) -> Any:
        """One call, from its claim to its settlement; what its claim got."""
        taken = await counters.take(claims)
        if isinstance(taken, Grant):
            self.granted += 1
            self.note(claims, 1)
            await asyncio.sleep(lasting)
            self.note(claims, -1, used)
            counters.settle(taken, used)
            counters.spend(taken.money, used)
        return taken

    async def in_redis(self, rule: Rule) -> tuple[int, int]:
        """What Redis counts of a limit, and what of it is held."""
        plain = self.made[0]
        refused = await plain._take_asking([Claim(scope_of(rule), rule, 0)], [0])
        assert isinstance(refused, Refusal)
        return refused.used, refused.held

    async def rest(self) -> None:
        """Return once nothing is ahead any more, and Redis knows."""
        for one in self.made:
            one._end_all(float("inf"))
        for _ in range(200):
            if not any(one._telling or one._live for one in self.made):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("Redis is not told")

    async def close(self) -> None:
        """Hang up."""
        for one in self.made:
            await one.close()


@pytest.fixture
async def processes(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Processes]:
    """On a busy machine Redis may take its time."""
    monkeypatch.setattr(counters_redis, "_PATIENCE", 30.0)
    monkeypatch.setattr(counters_leases, "_PATIENCE", 30.0)
    made = Processes(fresh_redis)
    yield made
    await made.close()


def counting(counters: LeasedCounters, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many claims Redis was asked for, one entry each."""
    asked: list[int] = []
    answer: Callable[..., Any] = counters._answer

    async def counted(*arguments: Any) -> Any:
        asked.append(1)
        return await answer(*arguments)

    monkeypatch.setattr(counters, "_answer", counted)
    return asked


async def test_most_calls_ask_nobody(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    await processes.start(1)
    counters = processes.made[0]
    claims = [claim(rule, 10**9, 7 if rule in (Rule.TPM, Rule.BUDGET) else 1) for rule in RULES]
    await processes.opened(*claims)
    asked = counting(counters, monkeypatch)
    for _ in range(600):
        assert isinstance(await processes.call(counters, claims, 3, 0), Grant)
    assert len(asked) < 60
    await processes.rest()
    assert await processes.in_redis(Rule.RPM) == (600, 0)
    assert await processes.in_redis(Rule.RPD) == (600, 0)
    assert await processes.in_redis(Rule.TPM) == (1800, 0)
    assert await processes.in_redis(Rule.TPD) == (1800, 0)
    assert await processes.in_redis(Rule.CONCURRENCY) == (0, 0)
    assert await processes.in_redis(Rule.BUDGET) == (1800, 0)


async def test_whoever_asks_rarely_takes_nothing_ahead(processes: Processes) -> None:
    await processes.start(1)
    claims = [claim(Rule.RPM, 10**6)]
    for _ in range(3):
        await processes.call(processes.made[0], claims, 0, 0)
        await asyncio.sleep(0.12)
    assert (await processes.in_redis(Rule.RPM))[0] == 3


@pytest.mark.parametrize("seed", range(4))
async def test_the_sum_of_all_never_exceeds_what_there_is(processes: Processes, seed: int) -> None:
    draw = random.Random(seed)
    await processes.start(3)
    limits = {rule: draw.randint(200, 1500) for rule in RULES} | {Rule.CONCURRENCY: draw.randint(5, 30)}
    limits[Rule.BUDGET] *= 10
    every = [claim(rule, limits[rule]) for rule in RULES]
    await processes.opened(*every)

    async def caller(counters: LeasedCounters) -> None:
        for _ in range(60):
            of = draw.sample(RULES, draw.randint(1, len(RULES)))
            amounts = {Rule.TPM: draw.randint(1, 9), Rule.TPD: draw.randint(1, 9), Rule.BUDGET: draw.randint(1, 99)}
            claims = [claim(rule, limits[rule], amounts.get(rule, 1)) for rule in of]
            least = min(one.amount for one in claims)
            await processes.call(counters, claims, draw.randint(0, least), draw.choice((0, 0, 0.001, 0.01)))

    await asyncio.gather(*(caller(one) for one in processes.made for _ in range(8)))
    for rule in RULES:
        assert processes.most[rule] <= limits[rule], rule
    await processes.rest()
    for rule in RULES:
        assert await processes.in_redis(rule) == (processes.used[rule], 0), rule


@pytest.mark.parametrize("rule", [Rule.RPM, Rule.RPD, Rule.TPM, Rule.BUDGET])
async def test_all_there_is_gets_through(processes: Processes, rule: Rule) -> None:
    await processes.start(3)
    claims = [claim(rule, 2000)]
    await processes.opened(*claims)

    async def caller(counters: LeasedCounters) -> None:
        patience = 3
        while patience:
            if isinstance(await processes.call(counters, claims, 1, 0), Grant):
                continue
            patience -= 1
            await asyncio.sleep(0.3)

    await asyncio.gather(*(caller(one) for one in processes.made for _ in range(5)))
    assert processes.granted == 2000


async def test_a_place_that_is_free_is_kept_where_there_are_many_and_given_back_soon(processes: Processes) -> None:
    await processes.start(2)
    first, second = processes.made
    many, few = [claim(Rule.CONCURRENCY, 100)], [claim(Rule.CONCURRENCY, 1)]
    for claims, at_once in ((many, 1), (few, 0)):
        await processes.call(first, claims, 0, 0)
        await asyncio.sleep(0.05)
        assert (await processes.in_redis(Rule.CONCURRENCY))[0] == at_once
        await asyncio.sleep(0.8)
        assert (await processes.in_redis(Rule.CONCURRENCY))[0] == 0
    for one in (first, second, first, second):
        assert isinstance(await processes.call(one, few, 0, 0), Grant)
        await asyncio.sleep(0.05)


async def test_another_limit_is_not_met_from_a_lease_of_the_one_before(processes: Processes) -> None:
    await processes.start(1)
    counters = processes.made[0]
    for _ in range(20):
        await processes.call(counters, [claim(Rule.RPM, 1000)], 0, 0)
    assert counters._leases
    taken = [await counters.take([claim(Rule.RPM, 25)]) for _ in range(10)]
    assert [isinstance(one, Grant) for one in taken] == [True] * 5 + [False] * 5


async def test_a_redis_that_is_emptied_knows_soon_what_calls_hold_and_nothing_else(processes: Processes) -> None:
    await processes.start(1)
    counters = processes.made[0]
    claims = [claim(Rule.BUDGET, 10**6, 10), claim(Rule.TPM, 10**6, 10)]
    await processes.opened(*claims)
    for _ in range(50):
        await processes.call(counters, claims, 4, 0)
    running = [await counters.take(claims) for _ in range(5)]
    client = redis.Redis.from_url(processes.url)
    await client.flushdb()
    for _ in range(100):
        if await client.exists("{promptyard}:epoch"):
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    await client.delete("{promptyard}:wait")
    assert isinstance(await counters.take(claims), Unknown)
    await processes.opened(claims[0], used=200)
    assert await processes.in_redis(Rule.BUDGET) == (250, 50)
    for one in running:
        assert isinstance(one, Grant)
        counters.settle(one, 7)
        counters.spend(one.money, 7)
    await processes.rest()
    assert await processes.in_redis(Rule.BUDGET) == (235, 0)
    await client.aclose()


async def test_what_was_told_twice_counts_once(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "AHEAD", 60.0)
    await processes.start(1)
    counters = processes.made[0]
    claims = [claim(Rule.BUDGET, 10**6, 10)]
    await processes.opened(*claims)
    first = await counters._take_asking(claims, [100])
    held = await counters.take(claims)
    assert isinstance(first, Grant)
    assert isinstance(held, Grant)
    (lease,) = counters._live
    counters.spend(first.money, 4)
    counters._end(lease)
    for _ in range(3):  # as if its answers had been lost
        counters._tell_of(lease)
        await asyncio.sleep(0.05)
    assert await processes.in_redis(Rule.BUDGET) == (14, 10)
    counters.spend(held.money, 1)
    await processes.rest()
    assert await processes.in_redis(Rule.BUDGET) == (5, 0)


async def test_a_lease_is_never_counted_too_early(processes: Processes) -> None:
    await processes.start(1)
    counters = processes.made[0]
    for _ in range(20):
        await processes.call(counters, [claim(Rule.RPM, 10**6)], 0, 0)
    client = redis.Redis.from_url(processes.url)
    seconds, micros = await client.time()
    found = await client.zrange("{promptyard}:rpm:key:k", 0, -1, withscores=True)
    times = [score / 1e6 - seconds - micros / 1e6 for _, score in found]
    assert 0 < max(times) <= scripts.AHEAD
    await client.aclose()
