"""What an attempt holds of budgets, and that all of it comes back but for its cost, however the call goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import limits, tokens
from gateway.budgets import Budgets, Now
from gateway.counters import MemoryCounters
from gateway.database import open_database
from gateway.errors import BadRequest, BudgetExceeded, GatewayError, Overloaded, RateLimited
from gateway.fallback import Way, send
from gateway.health import Health
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.money import FREE, Listing, Price, Rates, Tokens
from gateway.owners import Key, Scope
from gateway.providers.fake import FakeProvider
from gateway.rescue import TextRescue
from gateway.routes import Budget, Config, Cooldown, Deployment, Limits, ProviderSpec, Retries, Route, Strategy, Task
from gateway.routing import Router
from gateway.store import migrations
from gateway.store.usage import UsageStore
from gateway.types import Answer, Attempt, Call, Claim, Grant, Refusal, Request, Rule, UsageFilter
from gateway.usage import Meter
from gateway.windows import window

#: A dollar a token: sums are told in dollars.
PRICE = Price(Rates(Decimal(1), Decimal(1)))
DOLLAR = 10**9
BODY = {"model": "first", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
GOOD: Mapping[str, Any] = {"answer": "one two three", "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
BAD: Mapping[str, Any] = {"error": {"status": 503}}
LISTED = Listing(PRICE, max_output_tokens=20)


def deployment(provider: str, listing: Listing = LISTED) -> Deployment:
    return Deployment(provider, "m", listing=listing)


class Bench:
    """Routes over fakes, real counters, a real ledger; a key of a thousand dollars."""

    def __init__(self, ledger: Ledger, scripts: Mapping[str, list[Mapping[str, Any]]]) -> None:
        self.ledger = ledger
        self.counters = MemoryCounters()
        self.limiter = Limiter(self.counters, Budgets(self.counters, ledger))
        self.meter = Meter(ledger, self.limiter)
        self.providers = {
            name: FakeProvider(ProviderSpec(name, "fake", options={"script": script}))
            for name, script in scripts.items()
        }

    async def call(
        self, *routes: Route, most: int = 1000, streamed: bool = False, **body: Any
    ) -> tuple[Answer | GatewayError, bytes]:
        """How one call ends: its answer or error, and what a stream said."""
        router = Router(Config({}, {route.name: route for route in routes}), self.providers, Health())
        self.key = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(most * DOLLAR)))
        request = Request("req_1", Task.CHAT, routes[0].name, {**BODY, **body}, streamed, {})
        call = await self.limiter.admit(self.key, routes[0], request)
        way = Way(router, self.limiter, call)
        try:
            answer = await send(way, self.meter)
            rescue = TextRescue(way, self.meter) if routes[0].rescue else None
            answer = self.meter.metered(call, answer, rescue)
        except GatewayError as error:
            self.meter.close(call, error)
            return error, b""
        said = b"".join([chunk async for chunk in answer.chunks]) if answer.chunks is not None else b""
        return answer, said

    async def standing(self, most: int = 1000) -> tuple[float, float]:
        """Dollars spent, by the counters and by the ledger, with nothing held."""
        refusal = await self.counters.take(
            [Claim("key:k@0", Rule.BUDGET, most * DOLLAR, most * DOLLAR + 1, most * DOLLAR + 1)]
        )
        assert isinstance(refusal, Refusal)
        assert refusal.held == 0
        [total] = await self.ledger.sums([], UsageFilter())
        assert refusal.used == total.cost
        return refusal.used / DOLLAR, total.calls


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    database = open_database(f"sqlite:///{tmp_path / 'usage.db'}")
    migrations.migrate(database)
    made = Ledger(Journal(tmp_path / "journal"), UsageStore(database))
    yield made
    await made.close()
    database.close()


async def held_by(bench: Bench, route: Route, **body: Any) -> tuple[int, float]:
    """The estimate of a call's input, and the dollars it holds when it is admitted."""
    key = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(10**6 * DOLLAR)))
    fields = {name: value for name, value in {**BODY, **body}.items() if value is not None}
    call: Call = await bench.limiter.admit(key, route, Request("req_1", Task.CHAT, "first", fields, False, {}))
    grant: Grant = call.grants[0]
    assert call.reservation == grant.money
    bench.meter.close(call, RateLimited("over"))
    assert not call.reservation
    return call.input_estimate, sum(note[1] for note in grant.money if isinstance(note, tuple)) / DOLLAR


@pytest.mark.parametrize(
    ("body", "fields", "written"),
    [
        ({}, {}, 10),
        ({"n": 3}, {}, 30),
        ({"max_tokens": None}, {"max_output_tokens": 15}, 15),
        ({"max_tokens": None}, {}, 20),
        ({"max_tokens": None, "max_completion_tokens": 7}, {}, 7),
    ],
)
async def test_an_attempt_holds_its_input_and_the_most_it_may_write(
    ledger: Ledger, body: dict[str, Any], fields: dict[str, Any], written: int
) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    estimate, held = await held_by(bench, Route("first", (deployment("a"),), **fields), **body)
    assert held == estimate + written


async def test_the_dearest_deployment_counts_and_tiers_do(ledger: Ledger) -> None:
    dear = Price(Rates(Decimal(1), Decimal(2), reasoning=Decimal(5)), ((10, Rates(Decimal(3), Decimal(1))),))
    assert dear.most(5, 10) == 55 * DOLLAR
    assert dear.most(100, 10) == 310 * DOLLAR
    assert dear.cost(Tokens(100, 10)) <= dear.most(100, 10)
    bench = Bench(ledger, {"a": [GOOD], "b": [GOOD]})
    route = Route("first", (deployment("a"), deployment("b", Listing(dear))))
    estimate, held = await held_by(bench, route)
    assert held == 3 * estimate + 10


async def test_a_worst_case_that_no_column_holds_is_journalled_as_the_most_that_one_does(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    route = Route("first", (deployment("a"),))
    router = Router(Config({}, {"first": route}), bench.providers, Health())
    body = {**BODY, "max_tokens": 10**15}  # a dollar each
    call = await bench.limiter.admit(
        Key("k", "k", frozenset(Scope)), route, Request("req_1", Task.CHAT, "first", body, False, {})
    )
    answer = bench.meter.metered(call, await send(Way(router, bench.limiter, call), bench.meter))
    assert answer.status == 200


@pytest.mark.parametrize("duration", ["1h", "1d", "1mo"])
async def test_a_clock_that_jumps_finds_each_window_as_it_was(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, duration: str
) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    route = Route("first", (deployment("a"),))
    router = Router(Config({}, {"first": route}), bench.providers, Health())
    key = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(100 * DOLLAR, duration)))
    edge = 1_835_395_200  # 2028-02-29 00:00 UTC, a leap day
    edge = edge + 86400 if duration == "1mo" else edge
    spent = {-1: 0, 1: 0}
    for side in (-1, 1, -1, -1, 1, 1, -1):  # half an hour before the edge, and behind it
        monkeypatch.setattr(limits.time, "time", lambda side=side: edge + side * 1800.0)
        asked = Request(f"req_{sum(spent.values())}", Task.CHAT, "first", BODY, False, {})
        call = await bench.limiter.admit(key, route, asked)
        bench.meter.metered(call, await send(Way(router, bench.limiter, call), bench.meter))
        spent[side] += 5
        for other, dollars in spent.items():
            of = window(duration, edge + other * 1800.0)
            assert await ledger.used(Rule.BUDGET, "key:k", float(of.start), of.end) == dollars * DOLLAR
        here = window(duration, edge + side * 1800.0)
        refusal = await bench.counters.take([Claim(f"key:k@{here.start}", Rule.BUDGET, 10**12, 10**13, 10**13)])
        assert isinstance(refusal, Refusal)
        assert (refusal.used, refusal.held) == (spent[side] * DOLLAR, 0)


async def test_what_is_free_needs_no_bound(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    _, held = await held_by(bench, Route("first", (deployment("a", Listing(FREE)),)), max_tokens=None)
    assert held == 0


async def test_a_call_costs_what_it_used(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    await bench.call(Route("first", (deployment("a"),)))
    assert await bench.standing() == (5, 1)


async def test_attempts_that_failed_give_back_what_they_held(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [BAD], "b": [BAD], "c": [GOOD]})
    first = Route("first", (deployment("a"), deployment("b")), retries=Retries(1, 0.001), fallbacks=("second",))
    answer, _ = await bench.call(first, Route("second", (deployment("c"),)))
    assert isinstance(answer, Answer)
    assert await bench.standing() == (5, 1)


async def test_a_call_that_fails_everywhere_costs_nothing(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [BAD], "b": [BAD]})
    answer, _ = await bench.call(Route("first", (deployment("a"), deployment("b"))))
    assert isinstance(answer, Answer)
    assert answer.status == 503
    assert await bench.standing() == (0, 1)


async def test_both_attempts_of_a_hedge_hold_and_settle_their_own(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [{**GOOD, "delay": 5}], "b": [GOOD]})
    first = Route("first", (deployment("a"), deployment("b")), hedge=0.05, strategy=Strategy.PRIORITY)
    await bench.call(first)
    # The loser pays its prompt.
    assert await bench.standing() == (5 + tokens.likely(BODY), 1)


async def test_without_money_for_a_second_attempt_the_first_is_waited_for(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [{**GOOD, "delay": 0.3}]})
    first = Route("first", (deployment("a"),), hedge=0.05)
    answer, _ = await bench.call(first, most=60)
    assert isinstance(answer, Answer)
    assert await bench.standing(60) == (5, 1)


async def test_a_stream_that_is_rescued_pays_both_attempts(ledger: Ledger) -> None:
    cut = {"chunks": ["one ", "two "], "cut": 2}
    bench = Bench(ledger, {"a": [cut], "b": [GOOD]})
    first = Route("first", (deployment("a"),), rescue=True, fallbacks=("second",))
    answer, said = await bench.call(first, Route("second", (deployment("b"),)), streamed=True, stream=True)
    assert b"three" in said
    assert isinstance(answer, Answer)
    spent, _ = await bench.standing()
    assert spent > 5


async def test_a_deployment_without_a_price_is_passed_over(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD], "b": [GOOD]})
    first = Route("first", (deployment("a", Listing()), deployment("b")))
    for _ in range(6):
        answer, _ = await bench.call(first)
        assert isinstance(answer, Answer)
    assert await bench.standing() == (30, 6)
    with pytest.raises(BadRequest, match="nobody knows what a/m costs"):
        await bench.call(Route("first", (deployment("a", Listing()),)))


async def test_a_refused_call_holds_nothing(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    first = Route("first", (deployment("a"),))
    with pytest.raises(BadRequest, match="can never be let in"):
        await bench.call(first, most=11)
    refusals = []
    for _ in range(12):
        try:
            await bench.call(first, most=60)
        except BudgetExceeded as error:
            refusals.append(error.message)
    spent, calls = await bench.standing(60)
    assert (spent, calls) == (5 * calls, 12 - len(refusals))
    assert f"${spent:.0f} are spent" in refusals[-1]


async def test_a_fallback_spends_its_own_routes_budget_though_nobody_was_asked_before(ledger: Ledger) -> None:
    """Where the first route rests, the call's first attempt is its fallback's: what is held is of another route."""
    bench = Bench(ledger, {"a": [GOOD], "b": [GOOD]})
    other = Route("other", (deployment("b"),), limits=Limits(budget=Budget(50 * DOLLAR)))
    first = Route("first", (deployment("a"),), fallbacks=("other",), cooldown=Cooldown(1, 60))
    config = Config({}, {"first": first, "other": other})
    router = Router(config, bench.providers, Health())
    router.health.of(first.deployments[0]).failed(Cooldown(1, 60), None)
    ends = []
    for number in range(15):
        key = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(1000 * DOLLAR)))
        request = Request(f"req_{number}", Task.CHAT, "first", {**BODY, "max_tokens": 1}, False, {})
        call = await bench.limiter.admit(key, first, request)
        try:
            answer = bench.meter.metered(call, await send(Way(router, bench.limiter, call), bench.meter))
            ends.append(answer.status)
        except GatewayError as error:
            bench.meter.close(call, error)
            ends.append(error.status)
    assert ends[0] == 200
    assert ends[-1] == 429, ends
    spent = await ledger.used(Rule.BUDGET, "route:other", 0.0, None)
    assert spent <= 50 * DOLLAR
    refusal = await bench.counters.take([Claim("route:other@0", Rule.BUDGET, 1, 10, 10)])
    assert isinstance(refusal, Refusal)
    assert (refusal.used, refusal.held) == (spent, 0)
    mine = await bench.counters.take([Claim("key:k@0", Rule.BUDGET, 1, 10, 10)])
    assert isinstance(mine, Refusal)
    assert (mine.used, mine.held) == (spent, 0)


async def test_a_deployment_whose_answer_has_no_bound_is_passed_over(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD], "b": [GOOD]})
    route = Route("first", (deployment("a", Listing(PRICE)), deployment("b")), strategy=Strategy.PRIORITY)
    answer, _ = await bench.call(route, max_tokens=None)
    assert isinstance(answer, Answer)
    router = Router(Config({}, {"first": route}), bench.providers, Health())
    assert [one.provider for one in router.order(route)] == ["a", "b"]
    [row] = await ledger.sums(["deployment"], UsageFilter())
    assert row.group["deployment"] == "b/m"


async def test_counting_tokens_needs_no_money(ledger: Ledger) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    route = Route("first", (deployment("a"),))
    key = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(DOLLAR)))
    call = await bench.limiter.admit(key, route, Request("req_1", Task.COUNT_TOKENS, "first", BODY, False, {}))
    one = Attempt(route.deployments[0], Task.COUNT_TOKENS)
    await bench.limiter.reserve(call, route, one)
    bench.limiter.begin(call, route, one)
    assert not one.reservation


async def test_a_hedge_that_fails_in_the_journal_holds_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, {"a": [{"answer": "slow", "delay": 0.4}], "b": [GOOD]})
    begun = ledger.begin

    def full(attempt: tuple[Any, ...]) -> None:
        if attempt[1] == 2:
            raise Overloaded("The usage journal cannot be written.", code="journal_unavailable")
        begun(attempt)

    monkeypatch.setattr(ledger, "begin", full)
    route = Route("first", (deployment("a"), deployment("b")), strategy=Strategy.PRIORITY, hedge=0.05)
    error, _ = await bench.call(route)
    assert isinstance(error, Overloaded)
    refusal = await bench.counters.take([Claim("key:k@0", Rule.BUDGET, 1, 10**15, 10**15)])
    assert isinstance(refusal, Refusal)
    assert refusal.held == 0


@pytest.mark.parametrize("before", [Limits(), Limits(budget=Budget(900 * DOLLAR, "1d"))])
async def test_a_budget_that_is_set_while_a_call_runs_counts_it(ledger: Ledger, before: Limits) -> None:
    bench = Bench(ledger, {"a": [GOOD]})
    old = Key("k", "k", frozenset(Scope), limits=before)
    new = Key("k", "k", frozenset(Scope), limits=Limits(budget=Budget(1000 * DOLLAR)))
    bench.limiter = Limiter(bench.counters, Budgets(bench.counters, ledger, Now(lambda _: new)))
    bench.meter = Meter(ledger, bench.limiter)
    route = Route("first", (deployment("a"),))
    router = Router(Config({}, {"first": route}), bench.providers, Health())

    async def begun(key: Key, number: int) -> tuple[Call, Answer]:
        call = await bench.limiter.admit(key, route, Request(f"req_{number}", Task.CHAT, "first", BODY, False, {}))
        return call, await send(Way(router, bench.limiter, call), bench.meter)

    running, answer = await begun(old, 1)
    other, said = await begun(new, 2)  # which opens the new budget's window
    bench.meter.metered(other, said)
    bench.meter.metered(running, answer)
    assert await bench.standing() == (10.0, 2)
