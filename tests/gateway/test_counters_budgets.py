"""What is held and spent of budgets, in memory and in Redis alike: never beyond the limit, and settled once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import counters_redis
from gateway.counters import Counters
from gateway.counters_redis import RedisCounters
from gateway.errors import BudgetUnavailable
from gateway.types import Claim, Grant, Refusal, Rule, Unknown
from tests.services import redis as redis_service

ONE = "key:a@86400"


def money(amount: int, limit: int = 100, scope: str = ONE) -> Claim:
    return Claim(scope, Rule.BUDGET, limit, amount, amount)


async def spend(counters: Counters, grant: Grant, cost: int) -> None:
    counters.spend(grant.money, cost)
    telling = getattr(counters, "_telling", set())  # Redis is told in the background
    if telling:
        await asyncio.wait(telling)


async def taken(counters: Counters, *claims: Claim) -> Grant:
    grant = await counters.take(claims)
    assert isinstance(grant, Grant), grant
    return grant


async def refused(counters: Counters, *claims: Claim) -> tuple[int, int]:
    refusal = await counters.take(claims)
    assert isinstance(refusal, Refusal), refusal
    return refusal.used, refusal.held


async def test_nothing_is_taken_of_a_budget_before_it_is_known_what_was_spent(counters: Counters) -> None:
    requests = Claim("key:a", Rule.RPM, 1)
    assert await counters.take([requests, money(1)]) == Unknown(money(1))
    await counters.open(money(1), 40)
    await taken(counters, requests, money(60))
    assert await refused(counters, money(1)) == (100, 60)


async def test_what_is_held_comes_back_but_for_its_cost(counters: Counters) -> None:
    await counters.open(money(1), 0)
    first = await taken(counters, money(70))
    assert await refused(counters, money(40)) == (70, 70)
    await spend(counters, first, 10)
    second = await taken(counters, money(90))
    assert await refused(counters, money(1)) == (100, 90)
    await spend(counters, second, 90)
    assert await refused(counters, money(1)) == (100, 0)


async def test_a_cost_beyond_what_was_held_is_counted_whole(counters: Counters) -> None:
    await counters.open(money(1), 0)
    await spend(counters, await taken(counters, money(10)), 95)
    assert await refused(counters, money(6)) == (95, 0)


async def test_a_refused_call_has_taken_nothing_of_any_budget(counters: Counters) -> None:
    route = "route:r@0"
    await counters.open(money(1), 0)
    await counters.open(money(1, scope=route), 95)
    for _ in range(3):
        assert await refused(counters, money(10), money(10, scope=route)) == (95, 0)
    await taken(counters, money(100))


async def test_what_was_said_first_holds(counters: Counters) -> None:
    await counters.open(money(1), 10)
    await taken(counters, money(50))
    await counters.open(money(1), 0)
    assert await refused(counters, money(50)) == (60, 50)


async def test_windows_follow_each_other_and_late_calls_settle_in_their_own(counters: Counters) -> None:
    before, after = "key:b@0", "key:b@86400"
    await counters.open(money(1, scope=before), 0)
    late = await taken(counters, money(60, scope=before))
    await counters.open(money(1, scope=after), 0)
    await taken(counters, money(100, scope=after))
    await spend(counters, late, 30)
    assert await refused(counters, money(80, scope=before)) == (30, 0)
    assert await refused(counters, money(1, scope=after)) == (100, 100)


async def test_of_200_at_once_exactly_as_many_pass_as_there_is_money_for(counters: Counters) -> None:
    await counters.open(money(1), 0)
    answers = await asyncio.gather(*(counters.take([money(3)]) for _ in range(200)))
    assert sum(isinstance(one, Grant) for one in answers) == 33


async def test_sums_of_many_digits_are_exact(counters: Counters) -> None:
    most = 9 * 10**15
    await counters.open(money(1), most - 10**15 - 1)
    grant = await taken(counters, money(10**15, most))
    await spend(counters, grant, 10**15)
    assert await refused(counters, money(2, most)) == (most - 1, 0)
    await taken(counters, money(1, most))


async def test_without_redis_budgets_refuse_and_limits_go_on() -> None:
    counters = RedisCounters("redis://127.0.0.1:9/0")
    try:
        with pytest.raises(BudgetUnavailable):
            await counters.take([Claim("key:a", Rule.RPM, 1), money(1)])
        with pytest.raises(BudgetUnavailable):
            await counters.open(money(1), 0)
        await taken(counters, Claim("key:a", Rule.RPM, 1))
    finally:
        await counters.close()


async def test_a_redis_that_was_emptied_counts_what_was_under_way(
    fresh_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two processes have it, of which one alone asks again."""
    monkeypatch.setattr(counters_redis, "_WAIT", 0.5)
    monkeypatch.setattr(counters_redis, "_WATCH", 0.05)
    first, second = RedisCounters(fresh_redis), RedisCounters(fresh_redis)
    try:
        await first.start()
        await second.start()
        await first.open(money(1), 20)
        mine, theirs, settled = (
            await taken(first, money(30)),
            await taken(second, money(15)),
            await taken(second, money(9)),
        )
        redis_service.empty(fresh_redis)
        second.spend(settled.money, 4)  # SQL has it by the time that the window is opened again
        with pytest.raises(BudgetUnavailable):
            await first.take([money(1)])
        while True:
            try:
                assert await first.take([money(1)]) == Unknown(money(1))
                break
            except BudgetUnavailable:
                await asyncio.sleep(0.05)
        await first.open(money(1), 24)
        assert await refused(second, money(50)) == (24 + 45, 45)
        await spend(first, mine, 10)
        assert await refused(second, money(60)) == (34 + 15, 15)
        await spend(second, theirs, 15)
        assert await refused(first, money(60)) == (49, 0)
    finally:
        await first.close()
        await second.close()


async def test_a_new_redis_has_nobody_wait(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.open(money(1), 20)
        await taken(counters, money(50))
    finally:
        await counters.close()


async def test_what_is_put_back_twice_is_held_once(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.open(money(1), 20)
        grant = await taken(counters, money(50))
        counters._epoch = "another"  # as if it had been emptied, and filled by somebody
        await counters._met()
        while True:
            try:
                assert await refused(counters, money(99)) == (70, 50)
                break
            except BudgetUnavailable:
                await asyncio.sleep(0.1)
        await spend(counters, grant, 30)
        await spend(counters, grant, 30)
        assert await refused(counters, money(99)) == (50, 0)
    finally:
        await counters.close()


async def test_a_claim_whose_answer_was_lost_holds_nothing(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.open(money(1), 20)
        take = counters._take

        async def lost(**arguments: Any) -> Any:
            await take(**arguments)
            raise TimeoutError

        monkeypatch.setattr(counters, "_take", lost)
        with pytest.raises(BudgetUnavailable):
            await counters.take([money(50)])
        monkeypatch.setattr(counters, "_take", take)
        await asyncio.wait_for(counters._there.wait(), 10)
        await asyncio.wait(counters._telling)
        assert await refused(counters, money(99)) == (20, 0)
    finally:
        await counters.close()


async def test_what_nothing_was_held_for_is_counted_where_a_window_is_open(counters: Counters) -> None:
    counters.charge(ONE, 7)
    if telling := getattr(counters, "_telling", None):
        await asyncio.wait(telling)
    assert await counters.take([money(1)]) == Unknown(money(1))
    await counters.open(money(1), 20)
    counters.charge(ONE, 7)
    if telling := getattr(counters, "_telling", None):
        await asyncio.wait(telling)
    assert await refused(counters, money(99)) == (27, 0)
