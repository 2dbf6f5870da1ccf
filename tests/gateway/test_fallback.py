"""One call is sent until somebody answers: once to each, in the drawn order, nothing held of routes left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from gateway import tokens
from gateway.budgets import Budgets
from gateway.counters import MemoryCounters
from gateway.database import open_database
from gateway.errors import BadRequest, RateLimited, UpstreamFailed, UpstreamSilent
from gateway.fallback import Way, send
from gateway.health import Health
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.owners import Key, Scope
from gateway.providers.fake import FakeProvider
from gateway.routes import Config, Deployment, Limits, ProviderSpec, Route, Strategy, Task, Timeouts
from gateway.routing import Router
from gateway.store import migrations
from gateway.store.usage import UsageStore
from gateway.types import Answer, Call, Request, UpstreamRequest, UsageFilter
from gateway.usage import Meter

KEY = Key("key_1", "one", frozenset(Scope), limits=Limits(concurrency=10, tpm=100_000))
BODY = {"model": "first", "messages": [{"role": "user", "content": "hi"}]}
ONE = Limits(concurrency=1, tpm=50_000)


class Recorder(FakeProvider):
    """A fake that remembers what it was asked."""

    def __init__(self, name: str, *steps: Mapping[str, Any]) -> None:
        super().__init__(ProviderSpec(name, "fake", options={"script": list(steps)} if steps else {}))
        self.asked: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Answer:
        self.asked.append(request)
        return await super().send(request)


class ChatOnly(Recorder):
    """One whose answers to others have to be translated."""

    def speaks(self, task: Task, model: str) -> bool:
        return task is Task.CHAT


class Bench:
    """Routes over fakes, real counters and a real journal."""

    ledger: ClassVar[Ledger]

    def __init__(self, routes: list[Route], providers: list[Recorder]) -> None:
        named = {provider.name: provider for provider in providers}
        self.router = Router(Config({}, {route.name: route for route in routes}), named, Health())
        self.counters = MemoryCounters()
        self.limiter = Limiter(self.counters, Budgets(self.counters, self.ledger))
        self.meter = Meter(self.ledger, self.limiter)
        self.routes = {route.name: route for route in routes}

    async def admit(self, name: str = "first", *, streamed: bool = False, **body: Any) -> Call:
        request = Request("req_1", Task.CHAT, name, {**BODY, **body}, streamed, {"accept": "x"})
        return await self.limiter.admit(KEY, self.routes[name], request)

    async def send(self, call: Call) -> Answer:
        return await send(Way(self.router, self.limiter, call), self.meter)

    async def said(self, call: Call) -> str:
        answer = await self.send(call)
        return str(orjson.loads(answer.body)["choices"][0]["message"]["content"])


@pytest.fixture(autouse=True)
async def journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    database = open_database(f"sqlite:///{tmp_path / 'usage.db'}")
    migrations.migrate(database)
    ledger = Ledger(Journal(tmp_path / "journal"), UsageStore(database))
    monkeypatch.setattr(Bench, "ledger", ledger, raising=False)
    yield
    await ledger.close()
    database.close()


def route(name: str, *providers: str, **fields: Any) -> Route:
    fields = {"limits": ONE, "timeouts": Timeouts(total=0.2, first_token=0.2), **fields}
    return Route(name, tuple(Deployment(provider, f"{provider}-model") for provider in providers), **fields)


BAD: list[Mapping[str, Any]] = [
    {"error": {"status": 500}},
    {"error": {"status": 429}},
    {"error": {"status": 401}},
    {"html": True},
    {"garbage": True},
    {"cut": 0},
    {"delay": 60},
    {"stall": 0},
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_next_one_is_asked_the_same(bad: Mapping[str, Any], streamed: bool) -> None:
    if streamed and bad == {"garbage": True}:
        bad = {"raw": "data: {"}
    broken, good = Recorder("broken", bad), Recorder("good")
    bench = Bench([route("first", "broken", fallbacks=("second",)), route("second", "good")], [broken, good])
    call = await bench.admit(streamed=streamed)
    answer = await bench.send(call)
    assert answer.status == 200
    [one], [other] = broken.asked, good.asked
    assert (one.body, one.headers, one.stream, one.task) == (other.body, other.headers, other.stream, other.task)
    assert (one.model, other.model) == ("broken-model", "good-model")
    assert call.attempt is not None
    assert call.attempt.deployment.provider == "good"
    assert call.attempt.first_token is not None
    # Of the first route nothing is held any more: another call may begin there.
    again = await bench.admit()
    for each in (call, again):
        bench.limiter.settle(each, 5)
    assert bench.counters.running() == 0
    if answer.chunks is not None:
        await answer.chunks.aclose()
    assert call.request.body == BODY


async def test_every_deployment_is_asked_once_and_the_last_failure_is_told() -> None:
    providers = [Recorder(name, {"error": {"status": 503, "message": name}}) for name in ("a", "b", "c", "d")]
    bench = Bench([route("first", "a", "b", "c", fallbacks=("second",)), route("second", "d")], providers)
    answer = await bench.send(await bench.admit())
    assert orjson.loads(answer.body)["error"]["message"] == "d"
    assert [len(provider.asked) for provider in providers] == [1, 1, 1, 1]


async def test_every_attempt_is_recorded_and_the_call_once() -> None:
    """A silent upstream may have read the prompt, and bills it; one that said that it failed has not."""
    slow, down = Recorder("slow", {"delay": 60}), Recorder("down", {"error": {"status": 503}})
    first = route("first", "slow", "down", strategy=Strategy.PRIORITY, fallbacks=("second",))
    bench = Bench([first, route("second", "good")], [slow, down, Recorder("good")])
    call = await bench.admit()
    bench.meter.metered(call, await bench.send(call))
    by = {row.group["deployment"]: row for row in await bench.ledger.sums(["deployment"], UsageFilter())}
    prompt = tokens.likely(call.request.body)
    assert by["slow/slow-model"].input_tokens == prompt
    assert by["down/down-model"].input_tokens == 0
    assert {name: row.calls for name, row in by.items()} == {
        "slow/slow-model": 0,
        "down/down-model": 0,
        "good/good-model": 1,
    }
    [total] = await bench.ledger.sums([], UsageFilter())
    assert (total.calls, total.failed) == (1, 0)
    assert call.wasted == prompt
    assert bench.counters.running() == 0


async def test_what_an_answer_used_that_cannot_be_passed_on_is_recorded() -> None:
    """Its provider bills it."""
    odd = {"raw": '{"choices": "many", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}'}
    routes = [route("first", "odd", fallbacks=("second",)), route("second", "good")]
    bench = Bench(routes, [ChatOnly("odd", odd), Recorder("good")])
    request = Request("req_1", Task.MESSAGES, "first", {**BODY, "max_tokens": 9}, False, {})
    call = await bench.limiter.admit(KEY, bench.routes["first"], request)
    bench.meter.metered(call, await bench.send(call))
    by = {row.group["deployment"]: row for row in await bench.ledger.sums(["deployment"], UsageFilter())}
    assert (by["odd/odd-model"].input_tokens, by["odd/odd-model"].output_tokens) == (7, 3)


async def test_a_silent_upstream_that_was_the_last_is_counted_once() -> None:
    bench = Bench([route("first", "slow")], [Recorder("slow", {"delay": 60})])
    call = await bench.admit()
    with pytest.raises(UpstreamSilent) as silent:
        await bench.send(call)
    bench.meter.close(call, silent.value)
    [total] = await bench.ledger.sums([], UsageFilter())
    assert (total.calls, total.failed, total.input_tokens) == (1, 1, tokens.likely(call.request.body))


@pytest.mark.parametrize(
    ("bad", "kind"),
    [({"cut": 0}, UpstreamFailed), ({"delay": 60}, UpstreamSilent), ({"garbage": True}, UpstreamFailed)],
)
async def test_a_last_failure_without_an_answer_is_raised(bad: Mapping[str, Any], kind: type[UpstreamFailed]) -> None:
    bench = Bench([route("first", "a")], [Recorder("a", bad)])
    with pytest.raises(UpstreamFailed) as caught:
        await bench.send(await bench.admit())
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_the_callers_fault_is_sent_nowhere_else(status: int) -> None:
    good = Recorder("good")
    providers = [Recorder("a", {"error": {"status": status}}), good]
    bench = Bench([route("first", "a", fallbacks=("second",)), route("second", "good")], providers)
    assert (await bench.send(await bench.admit())).status == status
    assert not good.asked


async def test_a_full_fallback_is_passed_over_and_the_first_failure_stays() -> None:
    providers = [Recorder("a", {"error": {"status": 503}}), Recorder("b"), Recorder("c")]
    routes = [route("first", "a", fallbacks=("second", "third")), route("second", "b"), route("third", "c")]
    bench = Bench(routes, providers)
    taken = [await bench.admit("second")]
    call = await bench.admit()
    assert await bench.said(call) == "echo: hi"
    assert not providers[1].asked
    taken.append(call)
    again = await bench.admit()
    assert (await bench.send(again)).status == 503
    assert len(providers[2].asked) == 1
    for each in (*taken, again):
        bench.limiter.settle(each, 0)
    assert bench.counters.running() == 0


async def test_a_fallback_too_small_is_passed_over() -> None:
    providers = [Recorder("a", {"error": {"status": 503}}), Recorder("b"), Recorder("c")]
    small = route("second", "b", limits=Limits(tpm=10))
    bench = Bench([route("first", "a", fallbacks=("second", "third")), small, route("third", "c")], providers)
    assert await bench.said(await bench.admit()) == "echo: hi"
    assert not providers[1].asked
    with pytest.raises(BadRequest, match="never be let in"):
        await bench.admit("second")


async def test_leaving_while_a_provider_is_silent_cancels_it() -> None:
    bench = Bench([route("first", "a", timeouts=Timeouts(), fallbacks=("b",)), route("b", "b")],
                  [Recorder("a", {"stall": 0}), Recorder("b")])  # fmt: skip
    call = await bench.admit()
    task = asyncio.create_task(bench.send(call))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RateLimited):
        await bench.admit()
    bench.limiter.settle(call, 0)
    assert bench.counters.running() == 0


@pytest.mark.parametrize(("asked", "sent"), [(None, 7), (3, 3), (9, 7)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_routes_cap_is_sent_where_the_caller_set_none_or_more(asked: int | None, sent: int, name: str) -> None:
    good = Recorder("good")
    capped = route("second", "good", max_output_tokens=7)
    bench = Bench([route("first", "a", fallbacks=("second",)), capped], [Recorder("a", {"cut": 0}), good])
    fields: dict[str, Any] = {} if asked is None else {name: asked}
    await bench.said(await bench.admit(**fields))
    assert {key: value for key, value in good.asked[0].body.items() if key not in BODY} == {
        name if asked else "max_tokens": sent
    }


async def test_a_routes_cap_is_set_on_every_name_the_caller_gave() -> None:
    good = Recorder("good")
    capped = route("second", "good", max_output_tokens=7)
    bench = Bench([route("first", "a", fallbacks=("second",)), capped], [Recorder("a", {"cut": 0}), good])
    await bench.said(await bench.admit(max_completion_tokens=5, max_tokens=900))
    sent = good.asked[0].body
    assert (sent["max_completion_tokens"], sent["max_tokens"]) == (5, 7)


def test_the_first_is_drawn_by_weight_and_then_the_next() -> None:
    weights = {"a": 70.0, "b": 20.0, "c": 10.0, "resting": 0.0}
    one = Route("first", tuple(Deployment(name, "m", weight) for name, weight in weights.items()))
    router = Router(Config({}, {"first": one}), {}, Health())
    orders = Counter("".join(each.provider for each in router.order(one)) for _ in range(20_000))
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    first, second = Counter[str](), Counter[str]()
    for order, count in orders.items():
        first[order[0]] += count
        second[order[:2]] += count
    # Bounds of six standard deviations.
    for name, share in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
        assert abs(first[name] / 20_000 - share) < 6 * (share * (1 - share) / 20_000) ** 0.5
    assert abs(second["ab"] / first["a"] - 2 / 3) < 0.03
