"""Limits a day, in memory and in Redis alike: opened with what was used before, and nothing leaves by itself."""

from __future__ import annotations

import asyncio

from gateway.counters import Counters
from gateway.counters_redis import RedisCounters
from gateway.types import Claim, Grant, Refusal, Rule, Unknown
from tests.services import redis as redis_service

ONE = "key:a@86400"


def calls(limit: int = 5, scope: str = ONE) -> Claim:
    return Claim(scope, Rule.RPD, limit)


def tokens(amount: int, limit: int = 100, least: int | None = None) -> Claim:
    return Claim(ONE, Rule.TPD, limit, amount, amount if least is None else least)


async def settle(counters: Counters, grant: Grant, used: int, scope: str | None = None) -> None:
    counters.settle(grant, used, scope)
    telling = getattr(counters, "_telling", set())  # Redis is told in the background
    if telling:
        await asyncio.wait(telling)


async def taken(counters: Counters, *claims: Claim) -> Grant:
    grant = await counters.take(claims)
    assert isinstance(grant, Grant), grant
    return grant


async def used(counters: Counters, claim: Claim) -> int:
    refusal = await counters.take([claim._replace(amount=10**6, least=10**6)])
    assert isinstance(refusal, Refusal), refusal
    return refusal.used


async def test_a_day_goes_on_from_what_was_used_before(counters: Counters) -> None:
    assert await counters.take([calls(), tokens(1)]) == Unknown(calls())
    await counters.open(calls(), 3)
    assert await counters.take([calls(), tokens(1)]) == Unknown(tokens(1))
    await counters.open(tokens(1), 90)
    grant = await taken(counters, calls(), tokens(10))
    assert [(one.claim.rule, one.left) for one in grant.standings] == [(Rule.RPD, 1), (Rule.TPD, 0)]
    assert isinstance(await counters.take([calls(), tokens(1)]), Refusal)
    assert await used(counters, calls()) == 4  # the refused call has taken nothing
    await counters.open(calls(), 0)  # what was said first holds
    assert await used(counters, calls()) == 4


async def test_tokens_are_corrected_and_requests_stay(counters: Counters) -> None:
    await counters.open(calls(), 0)
    await counters.open(tokens(1), 0)
    first = await taken(counters, calls(), tokens(70))
    second = await taken(counters, tokens(70, least=10))
    assert await used(counters, tokens(1)) == 100
    await settle(counters, first, 20)
    await settle(counters, first, 20)
    await settle(counters, second, 45, scope="key:b@86400")
    assert await used(counters, tokens(1)) == 50
    await settle(counters, second, 45, scope=ONE)
    assert (await used(counters, tokens(1)), await used(counters, calls())) == (65, 1)


async def test_of_200_at_once_exactly_as_many_pass_as_there_are(counters: Counters) -> None:
    await counters.open(calls(), 0)
    answers = await asyncio.gather(*(counters.take([calls(50)]) for _ in range(200)))
    assert sum(isinstance(one, Grant) for one in answers) == 50


async def test_days_follow_each_other(counters: Counters) -> None:
    for scope in ("key:b@0", "key:b@86400"):
        await counters.open(calls(1, scope), 0)
        await taken(counters, calls(1, scope))
        assert isinstance(await counters.take([calls(1, scope)]), Refusal)


async def test_without_redis_each_process_goes_on_from_what_the_ledger_says() -> None:
    counters = RedisCounters("redis://127.0.0.1:9/0")
    try:
        assert await counters.take([calls(2)]) == Unknown(calls(2))
        await counters.open(calls(2), 1)
        await taken(counters, calls(2))
        assert isinstance(await counters.take([calls(2)]), Refusal)
    finally:
        await counters.close()


async def test_a_redis_that_is_back_is_believed_again(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.open(calls(9), 4)
        counters._gone(ConnectionError())
        assert await counters.take([calls(9)]) == Unknown(calls(9))
        await counters.open(calls(9), 4)
        await taken(counters, calls(9))
        await asyncio.wait_for(counters._there.wait(), 10)
        assert await used(counters, calls(9)) == 5  # that of the outage too
        redis_service.empty(fresh_redis)
        assert await counters.take([calls(9)]) == Unknown(calls(9))
        counters._gone(ConnectionError())
        assert await counters.take([calls(9)]) == Unknown(calls(9))  # and not what was counted in the outage before
    finally:
        await counters.close()


async def test_a_share_of_a_day_is_of_what_was_left_of_it(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.take([calls(9)])
        counters.members = 2
        await counters._open_here(calls(9), 4)
        taken = [await counters._take_here([calls(9)]) for _ in range(3)]
        assert [type(one) for one in taken] == [Grant, Grant, Refusal]
    finally:
        await counters.close()


async def test_tokens_of_a_call_that_ran_while_redis_was_emptied_are_counted_whole(fresh_redis: str) -> None:
    counters = RedisCounters(fresh_redis)
    try:
        await counters.open(tokens(1), 10)
        grant = await taken(counters, tokens(70))
        redis_service.empty(fresh_redis)
        assert await counters.take([tokens(1)]) == Unknown(tokens(1))
        await counters.open(tokens(1), 10)
        await settle(counters, grant, 20)
        assert await used(counters, tokens(1)) == 30
    finally:
        await counters.close()
