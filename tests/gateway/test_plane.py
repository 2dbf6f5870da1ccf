"""One snapshot takes the place of another: who stays, who goes and when, what is remembered."""

from __future__ import annotations

import asyncio
import dataclasses
from types import MappingProxyType

import pytest

from gateway.errors import Overloaded
from gateway.plane import Plane, Snapshot
from gateway.providers.fake import FakeProvider
from gateway.routes import Config, Cooldown, Deployment, Fault, ProviderSpec, Route


class Noted(FakeProvider):
    """A fake that notes that it was started and closed."""

    def __init__(self, spec: ProviderSpec) -> None:
        super().__init__(spec)
        self.lives: list[str] = []

    async def start(self) -> None:
        self.lives.append("started")

    async def close(self) -> None:
        self.lives.append("closed")


def config(**models: str) -> Config:
    """One provider and one route for each name; another text is another entry of that provider."""
    specs = {name: ProviderSpec(name, "fake", options={"script": [{"answer": text}]}) for name, text in models.items()}
    routes = {name: Route(name, (Deployment(name, "m"),)) for name in models}
    return Config(MappingProxyType(specs), MappingProxyType(routes))


async def started(**models: str) -> Plane:
    plane = Plane(config(**models), "1", Noted)
    await plane.start()
    return plane


def provider(snapshot: Snapshot, name: str) -> Noted:
    found = snapshot.providers[name]
    assert isinstance(found, Noted)
    return found


async def rest() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_equal_provider_stays_and_another_takes_its_place() -> None:
    plane = await started(same="a", other="a", gone="a")
    before = plane.current
    await plane.swap(config(same="a", other="b", new="a"), "2")
    await rest()
    assert provider(plane.current, "same") is provider(before, "same")
    assert provider(before, "same").lives == ["started"]
    assert provider(before, "other").lives == provider(before, "gone").lives == ["started", "closed"]
    assert provider(plane.current, "other").lives == provider(plane.current, "new").lives == ["started"]
    assert plane.current.version == "2"


async def test_who_went_is_closed_with_its_last_call_and_no_sooner() -> None:
    plane = await started(gone="a", kept="a")
    first, second = plane.enter(), plane.enter()
    await plane.swap(config(kept="a"), "2")
    first.leave()
    await rest()
    assert first is second
    assert provider(first, "gone").lives == ["started"]
    assert plane.running == 1
    second.leave()
    await rest()
    assert provider(first, "gone").lives == ["started", "closed"]
    assert plane.running == 0


async def test_a_call_that_hangs_keeps_its_own_snapshot_alone() -> None:
    plane = await started(a="1")
    hanging = plane.enter()
    await plane.swap(config(b="1"), "2")
    later = plane.enter()
    await plane.swap(config(c="1"), "3")
    later.leave()
    await rest()
    assert provider(later, "b").lives == ["started", "closed"]
    assert provider(hanging, "a").lives == ["started"]
    await plane.close()
    assert provider(hanging, "a").lives == ["started", "closed"]


async def test_what_comes_back_while_a_call_still_uses_it_is_the_same() -> None:
    plane = await started(a="1")
    call = plane.enter()
    await plane.swap(config(b="1"), "2")
    await plane.swap(config(a="1"), "3")
    call.leave()
    await rest()
    assert provider(plane.current, "a") is provider(call, "a")
    assert provider(call, "a").lives == ["started"]


async def test_health_stays_where_the_provider_does_and_is_forgotten_elsewhere() -> None:
    plane = await started(same="a", other="a", gone="a")
    health, at_once = plane.current.router.health, Cooldown(failures=1, seconds=60)
    deployments = {name: Deployment(name, "m") for name in ("same", "other", "gone")}
    for one in deployments.values():
        health.of(one).failed(at_once, None)
    await plane.swap(config(same="a", other="b"), "2")
    assert plane.current.router.health is health
    assert [name for name, one in deployments.items() if health.of(one).rests()] == ["same"]


async def test_equal_faults_go_on_attempt_by_attempt_and_others_begin() -> None:
    def faulty(seed: int, model: str = "m") -> Config:
        found = config(a="a")
        route = Route("a", (Deployment("a", model),), fault=Fault(seed=seed, error=0.5))
        return dataclasses.replace(found, routes={"a": route})

    def drawn(plane: Plane, count: int) -> list[bool]:
        return [plane.current.router.fault(plane.current.config.routes["a"]) is not None for _ in range(count)]

    alone = Plane(faulty(3), "1", Noted)
    wanted = drawn(alone, 40)
    plane = Plane(faulty(3), "1", Noted)
    found = drawn(plane, 20)
    await plane.swap(faulty(3, "another"), "2")
    assert found + drawn(plane, 20) == wanted
    await plane.swap(faulty(4), "3")
    await plane.swap(faulty(3), "4")
    assert drawn(plane, 40) == wanted


async def test_no_more_calls_are_taken_once_it_stops() -> None:
    plane = await started(a="1")
    call = plane.enter()
    plane.stop()
    with pytest.raises(Overloaded) as refused:
        plane.enter()
    assert (refused.value.retry_after, plane.running) == (1, 1)
    call.leave()
    assert plane.running == 0
