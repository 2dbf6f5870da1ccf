"""What a killed process held of budgets in Redis is let go once it runs again, and nothing is given out twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway import counters_redis
from gateway.counters_redis import RedisCounters
from gateway.errors import BudgetUnavailable
from gateway.types import Claim, Grant, Refusal, Rule, Unknown

MEMBER, OTHER = "a" * 32, "b" * 32


def money(amount: int, limit: int = 100, scope: str = "key:k@0") -> Claim:
    """A claim of a budget."""
    return Claim(scope, Rule.BUDGET, limit, amount, amount)


class Lives:
    """Processes at one Redis; those that are not closed were killed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.made: list[RedisCounters] = []

    def live(self, member: str = MEMBER) -> RedisCounters:
        """One more life of a process."""
        self.made.append(RedisCounters(self._url, member=member))
        return self.made[-1]


@pytest.fixture
async def lives(fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lives]:
    """Waits are short here."""
    monkeypatch.setattr(counters_redis, "_WAIT", 0.3)
    made = Lives(fresh_redis)
    yield made
    for one in made.made:
        await one.close()


async def test_it_is_let_go_and_what_others_hold_stays(lives: Lives) -> None:
    killed, other = lives.live(), lives.live(OTHER)
    await killed.open(money(1), 10)
    assert isinstance(await killed.take([money(40)]), Grant)
    theirs = await other.take([money(30)])
    assert isinstance(theirs, Grant)
    assert isinstance(await other.take([money(30)]), Refusal)

    again = lives.live()
    with pytest.raises(BudgetUnavailable):  # until everybody's records are in SQL
        await again.take([money(1)])
    await other.open(money(1), 10)  # somebody asked before: too early to say
    with pytest.raises(BudgetUnavailable):
        await other.take([money(1)])
    await asyncio.sleep(0.4)
    assert isinstance(await other.take([money(1)]), Unknown)
    await other.open(money(1), 25)  # the ledger has settled what was cut short: 15
    refused = await again.take([money(46)])
    assert isinstance(refused, Refusal)
    assert (refused.used, refused.held) == (55, 30)
    other.spend(theirs.money, 5)
    assert isinstance(await again.take([money(45)]), Grant)


async def test_who_holds_nothing_closes_nothing(lives: Lives) -> None:
    first, other = lives.live(), lives.live(OTHER)
    await first.open(money(1), 0)
    taken = await first.take([money(40)])
    assert isinstance(taken, Grant)
    first.spend(taken.money, 40)
    await first.close()
    again = lives.live()
    refused = await again.take([money(61)])
    assert isinstance(refused, Refusal)
    assert refused.used == 40
    assert isinstance(await other.take([money(60)]), Grant)


async def test_a_budget_it_held_nothing_of_goes_on(lives: Lives) -> None:
    killed, other = lives.live(), lives.live(OTHER)
    for scope in ("key:k@0", "key:other@0"):
        await killed.open(money(1, scope=scope), 0)
    assert isinstance(await killed.take([money(40)]), Grant)
    again = lives.live()
    assert isinstance(await again.take([money(40, scope="key:other@0")]), Grant)
    assert isinstance(await other.take([money(40, scope="key:other@0")]), Grant)
    with pytest.raises(BudgetUnavailable):
        await other.take([money(1)])
