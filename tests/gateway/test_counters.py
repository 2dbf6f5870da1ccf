"""Counters take all or none and never give out more than there is, in memory and in Redis alike."""

from __future__ import annotations

import asyncio

import pytest

from gateway.counters import Counters, MemoryCounters
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
