"""A deployment that fails rests, one call tries it again; one that is full makes the next wait, not for ever."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Overloaded
from gateway.health import Condition
from gateway.routes import Cooldown, Deployment, Queue

ONE = Deployment("p", "m", concurrency=1, queue=Queue(size=2, timeout=0.2))
COOLDOWN = Cooldown(failures=3, seconds=30)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def condition(clock: Clock) -> Condition:
    return Condition(clock)


async def asked(condition: Condition, *, well: bool) -> None:
    await condition.enter(Deployment("p", "m"))
    condition.leave()
    if well:
        condition.answered(0.1)
    else:
        condition.failed(COOLDOWN, None)


async def test_it_rests_after_failures_in_a_row_and_then_one_call_tries_it(condition: Condition, clock: Clock) -> None:
    for well in (False, False, True, False, False):
        await asked(condition, well=well)
        assert condition.rests() == 0
    await asked(condition, well=False)
    assert condition.rests() == 30
    clock.now += 30
    assert condition.rests() == 0
    await condition.enter(Deployment("p", "m"))
    assert condition.rests() > 0  # the others wait for what that one call learns
    condition.failed(COOLDOWN, None)
    assert condition.rests() == 30  # one failure is enough now
    clock.now += 30
    await asked(condition, well=True)
    await asked(condition, well=False)
    assert condition.rests() == 0


async def test_a_probe_that_learns_nothing_leaves_the_next_to_try(condition: Condition, clock: Clock) -> None:
    condition.failed(COOLDOWN, 5.0)
    assert condition.rests() == 5
    clock.now += 5
    await condition.enter(Deployment("p", "m"))
    condition.forsaken()
    assert condition.rests() == 0


async def test_without_a_cooldown_it_never_rests(condition: Condition) -> None:
    for _ in range(100):
        condition.failed(None, 60.0)
    assert condition.rests() == 0


def test_latency_is_the_worst_of_late_and_fades(condition: Condition, clock: Clock) -> None:
    assert condition.latency == 0
    condition.answered(0.1)
    condition.answered(2.0)
    assert condition.latency == pytest.approx(2.0)
    condition.answered(0.1)
    assert condition.latency == pytest.approx(2.0)
    clock.now += 10
    assert condition.latency == pytest.approx(2.0 / 2.718, rel=0.01)
    condition.answered(0.1)
    assert 0.7 < condition.latency < 0.9


async def test_who_waits_longest_is_next_and_the_queue_has_an_end(condition: Condition) -> None:
    await condition.enter(ONE)
    order: list[str] = []

    async def wait(name: str) -> None:
        await condition.enter(ONE)
        order.append(name)

    waiting = [asyncio.create_task(wait(name)) for name in ("first", "second")]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls wait for it already") as full:
        await condition.enter(ONE)
    assert full.value.retry_after == 1
    for _ in range(3):
        condition.leave()
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["first", "second"]
    assert condition.running == 0


async def test_a_reload_changes_how_many_run_at_once(condition: Condition) -> None:
    three, one, two = (Deployment("p", "m", concurrency=most) for most in (3, 1, 2))
    for _ in range(3):
        await condition.enter(three)
    first, second = (asyncio.create_task(condition.enter(one)) for _ in range(2))
    await asyncio.sleep(0)
    for left in (2, 1):
        condition.leave()
        await asyncio.sleep(0)
        assert (condition.running, first.done()) == (left, False)
    third = asyncio.create_task(condition.enter(two))
    await asyncio.sleep(0)
    await first
    assert (condition.running, second.done(), third.done()) == (2, False, False)
    condition.leave()
    condition.leave()
    await asyncio.gather(second, third)
    for _ in range(2):
        condition.leave()
    assert condition.running == 0


async def test_a_wait_ends_in_time_and_leaves_nothing_behind(condition: Condition) -> None:
    await condition.enter(ONE)
    with pytest.raises(Overloaded, match=r"no room within 0\.2 s"):
        await condition.enter(ONE)
    leaving = asyncio.create_task(condition.enter(ONE))
    await asyncio.sleep(0)
    leaving.cancel()
    # Room comes in the same moment: it must not be lost with the one who goes.
    condition.leave()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert condition.running == 0
    await condition.enter(ONE)
    assert condition.running == 1
