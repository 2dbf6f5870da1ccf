"""An evaluation under way: every answer asked once, kept, scored; within a budget, at a pace the server allows."""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from promptlab.client import CallFailed
from promptlab.client_calls import Answer, Caller, Offer
from promptlab.evaluation import forecast
from promptlab.evaluation.book import Book, key_of
from promptlab.evaluation.cases import Case
from promptlab.evaluation.forecast import Experience, Forecast
from promptlab.evaluation.plan import Plan, Variant
from promptlab.evaluation.problems import PlanInvalid, Stopped
from promptlab.evaluation.scorers import rule as rules
from promptlab.evaluation.scorers.rule import Score

#: How often a call is tried again that failed upstream, and how often one that was told to wait.
_AGAIN, _WAITS = 2, 60
_LONGEST_WAIT = 120.0
_TICK = 0.25
#: Seconds over which the rate is taken.
_WINDOW = 10.0
#: Statuses and codes after which no further call can succeed.
_HOPELESS, _SPENT = (401, 403, 404), "insufficient_quota"


@dataclass(slots=True)
class Result:
    """One answer of one variant to one case, and its scores. Its text is in the book, under `key`, if it was asked."""

    variant: Variant
    case: Case
    repeat: int
    key: str
    answer: Answer
    scores: list[Score]
    score: float | None = None
    passed: bool | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is. `rate` is answers a second; `usd` what was spent; `left` seconds, where it is known."""

    done: int
    total: int
    cached: int
    failed: int
    rate: float
    usd: float
    left: float | None
    usd_in_all: float | None


class Running:
    """One evaluation. `forecast` says what it will take, `run` does it."""

    def __init__(self, plan: Plan, caller: Caller, book: Book, offers: Mapping[str, Offer]) -> None:
        self._plan = plan
        self._caller = caller
        self._book = book
        self._offers = offers
        kept = [variant.prompt.registered for variant in plan.variants]
        #: The route of each registered prompt that is called by its name.
        self._own = {one.model: one.route for one in kept if one is not None and one.route is not None}
        self._experience = Experience()
        self._purse = Purse(plan.max_cost)
        #: The most that a call of each route has cost: more than was foreseen, where a provider counts otherwise.
        self._dearest: dict[str, float] = {}
        self._resume = 0.0
        self._total = len(plan.variants) * len(plan.cases) * plan.repeats
        self._done = self._cached = self._failed = 0
        self._times: collections.deque[float] = collections.deque()
        self._asking: dict[str, asyncio.Lock] = {}
        check_routes(plan, offers)

    def _offer(self, model: str) -> Offer:
        """What is known of a route, or of the route of a registered prompt."""
        return self._offers.get(self._own.get(model, model)) or Offer(model, "chat", None, None)

    @property
    def spent(self) -> float:
        """USD that its calls have cost so far."""
        return self._purse.spent

    def forecast(self) -> Forecast:
        """What is still to be asked, with ranges."""
        calls: list[tuple[Any, int]] = []
        cached = judge_calls = 0
        unpriced = set()
        for variant, case in itertools.product(self._plan.variants, self._plan.cases):
            body = variant.body(case)
            if variant.recorded is None:
                new = sum(key_of(body, repeat) not in self._book for repeat in range(self._plan.repeats))
                calls.append((forecast.of_call(variant.told(case), self._offer(variant.route)), new))
                unpriced |= {variant.route} if self._offer(variant.route).pricing is None and new else set()
                cached += self._plan.repeats - new
            else:
                cached += self._plan.repeats
            for judge, times in self._judged(variant, case, body):
                judge_calls += times
                calls.append((forecast.of_call(judge, self._offer(judge["model"])), times))
                unpriced |= {judge["model"]} if self._offer(judge["model"]).pricing is None and times else set()
        read, written, usd = forecast.total(calls)
        return Forecast(self._total - cached, cached, judge_calls, read, written, usd, tuple(sorted(unpriced)))

    def _judged(self, variant: Variant, case: Case, body: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """What judges will ask about a variant's answers to a case, told with an answer of a likely length."""
        tokens = len(variant.given(case).text) // 4
        if variant.recorded is None:
            tokens = int(forecast.of_call(variant.told(case), self._offer(variant.route))[1].likely)
        for rule in self._plan.judged:
            if rule.scorer.compares and variant is self._plan.baseline:
                continue
            for asked in rule.scorer.sample(rule.seen(case, Answer(), variant.told(case)["messages"]), tokens):
                new = sum(key_of(asked, repeat) not in self._book for repeat in range(self._plan.repeats))
                yield asked, new

    async def run(self, report: Callable[[Progress], None]) -> list[Result]:
        """Every answer, scored, in the plan's order. Raises `Stopped`; what was answered until then is kept.

        `report` is called four times a second.
        """
        ticking = asyncio.create_task(self._tick(report))
        try:
            found = await self._each(self._places(), self._one)
            compared = [result for result in found if result.variant is not self._plan.baseline]
            if any(rule.scorer.compares for rule in self._plan.rules):
                first = {(one.case.id, one.repeat): one for one in found if one.variant is self._plan.baseline}
                await self._each(iter(compared), lambda one: self._compared(one, first[one.case.id, one.repeat]))
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
        report(self._progress())
        for result in found:
            result.score, result.passed = rules.total(self._plan.rules, result.scores)
        order = {variant.name: number for number, variant in enumerate(self._plan.variants)}
        places = {case.id: number for number, case in enumerate(self._plan.cases)}
        return sorted(found, key=lambda one: (order[one.variant.name], places[one.case.id], one.repeat))

    def _places(self) -> Iterator[tuple[int, Case, Variant]]:
        """Case by case, all variants beside each other: what is cut short can still be compared."""
        return itertools.product(range(self._plan.repeats), self._plan.cases, self._plan.variants)

    async def _each(self, places: Iterator[Any], work: Callable[[Any], Any]) -> list[Any]:
        """`work` on each, so many at once as the plan says. The first that raises ends them all."""
        found: list[Any] = []

        async def worker() -> None:
            for place in places:  # shared: each takes the next
                done = await work(place)
                found.append(done)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return found

    async def _one(self, place: tuple[int, Case, Variant]) -> Result:
        repeat, case, variant = place
        body = variant.body(case)
        key = key_of(body, repeat)
        if variant.recorded is None:
            self._cached += key in self._book
            answer = await self._answer(body, repeat, key, variant.name)
        else:
            self._cached += 1
            answer = variant.given(case)
        if answer.error is None:
            self._experience.note(variant.name, answer)
            scores = [
                await self._score(rule, case, answer, variant.told(case)["messages"], repeat)
                for rule in self._plan.rules
            ]
        else:
            self._failed += 1
            scores = rules.of_failed(self._plan.rules, answer.error)
        self._done += 1
        self._times.append(time.monotonic())
        if variant.recorded is None:  # it is in the book
            answer = replace(answer, text="", tool_calls=())
        return Result(variant, case, repeat, key, answer, scores)

    async def _score(self, rule: rules.Rule, case: Case, answer: Answer, messages: Any, repeat: int) -> Score:
        if rule.scorer.compares:
            return Score(rule.name, 0.5, passed=True)

        async def ask(body: Mapping[str, Any], which: int) -> Answer:
            found = await self._answer(body, repeat * _PER_REPEAT + which, None, rule.name)
            if found.error is not None:
                raise CallFailed(found.error)
            return found

        return await rule.score(rule.seen(case, answer, messages), ask)

    async def _compared(self, result: Result, first: Result) -> None:
        """Fill in the scores that look at the baseline's answer beside this one."""
        if result.answer.error is not None or first.answer.error is not None:
            return
        ours, theirs = (self._book.get(one.key) or one.answer for one in (result, first))
        messages = result.variant.told(result.case)["messages"]

        async def ask(body: Mapping[str, Any], which: int) -> Answer:
            found = await self._answer(body, result.repeat * _PER_REPEAT + which, None, "pairwise")
            if found.error is not None:
                raise CallFailed(found.error)
            return found

        for number, rule in enumerate(self._plan.rules):
            if rule.scorer.compares:
                seen = replace(rule.seen(result.case, ours, messages), other=theirs)
                result.scores[number] = await rule.score(seen, ask)

    async def _answer(self, body: Mapping[str, Any], repeat: int, key: str | None, name: str) -> Answer:
        """An answer from the book, or asked and kept; equal ones once. One that failed for good has an `error`."""
        key = key or key_of(body, repeat)
        async with self._asking.setdefault(key, asyncio.Lock()):
            found = self._book.get(key)
            if found is None:
                # A repeat is another answer, not the first again from a route's cache.
                found = await self._asked(body, name, anew=repeat > 0)
                if found.error is None:
                    self._book.add(key, found)
        self._asking.pop(key, None)
        return found

    async def _asked(self, body: Mapping[str, Any], name: str, *, anew: bool) -> Answer:
        offer = self._offer(body["model"])
        _, _, usd = forecast.of_call(body, offer, self._experience.of(name))
        again = waits = 0
        async with self._purse.holding(max(usd.most, self._dearest.get(body["model"], 0.0))):
            while True:
                await asyncio.sleep(max(0.0, self._resume - time.monotonic()))
                try:
                    answer = await self._caller.answer(body, anew=anew)
                except CallFailed as error:
                    if error.status in _HOPELESS or error.code == _SPENT:
                        raise Stopped(f"The server refuses to go on: {error}") from None
                    if error.status in (429, 503) and waits < _WAITS:
                        self._wait(error.retry_after, waits)
                        waits += 1
                    elif (error.status is None or error.status >= 500) and again < _AGAIN:
                        await asyncio.sleep(2.0**again)
                        again += 1
                    elif error.status is None:
                        raise Stopped(f"{error} Run the same again to go on.") from None
                    else:
                        return Answer(error=str(error)[:2000])
                else:
                    self._purse.spend(answer.cost)
                    self._dearest[body["model"]] = max(self._dearest.get(body["model"], 0.0), answer.cost or 0.0)
                    return answer

    def _wait(self, seconds: float | None, tried: int) -> None:
        """Have every call wait: a limit that refused one would refuse the next."""
        seconds = min(2.0**tried, 30.0) if seconds is None else min(seconds, _LONGEST_WAIT)
        self._resume = max(self._resume, time.monotonic() + seconds)

    async def _tick(self, report: Callable[[Progress], None]) -> None:
        while True:
            report(self._progress())
            await asyncio.sleep(_TICK)

    def _progress(self) -> Progress:
        now = time.monotonic()
        while self._times and self._times[0] < now - _WINDOW:
            self._times.popleft()
        span = now - self._times[0] if self._times else 0.0
        rate = len(self._times) / max(span, 1.0)
        asked = self._done - self._cached
        in_all = self._purse.spent / asked * (self._total - self._cached) if asked > 0 else None
        left = (self._total - self._done) / rate if rate else None
        return Progress(self._done, self._total, self._cached, self._failed, rate, self._purse.spent, left, in_all)


#: Judges may ask several equal things about one answer: each repeat has so many names for them.
_PER_REPEAT = 100


class Purse:
    """What may be spent: calls hold what they may cost at most, and wait for others to end where it is not there."""

    def __init__(self, most: float | None) -> None:
        self._most = most
        self.spent = 0.0
        self._held = 0.0
        self._running = 0
        self._freed = asyncio.Condition()

    def holding(self, usd: float) -> _Held:
        """A context in which `usd` are held. Raises `Stopped` where they can never be."""
        return _Held(self, usd)

    def spend(self, usd: float | None) -> None:
        """Note what a call has cost."""
        self.spent += usd or 0.0

    async def take(self, usd: float) -> None:
        """Hold `usd`, once they are there."""
        async with self._freed:
            while self._most is not None and self.spent + self._held + usd > self._most:
                if not self._running:
                    raise Stopped(
                        f"max_cost is reached: {self.spent:.6f} USD are spent, and the next call may cost {usd:.6f} of "
                        f"{self._most:g}. Its answers are kept. Raise max_cost and run the same again to go on."
                    )
                await self._freed.wait()
            self._held += usd
            self._running += 1

    async def give(self, usd: float) -> None:
        """Hold them no more."""
        async with self._freed:
            self._held -= usd
            self._running -= 1
            self._freed.notify_all()


class _Held:
    def __init__(self, purse: Purse, usd: float) -> None:
        self._purse = purse
        self._usd = usd

    async def __aenter__(self) -> None:
        await self._purse.take(self._usd)

    async def __aexit__(self, *_: object) -> None:
        await self._purse.give(self._usd)


def _is_route(variant: Variant) -> bool:
    """Whether a variant asks a route: neither answers that are there already, nor a registered prompt by its name."""
    kept = variant.prompt.registered
    return variant.recorded is None and not (kept is not None and variant.route == kept.model)


def check_routes(plan: Plan, offers: Mapping[str, Offer]) -> None:
    """Raise `PlanInvalid` where the plan asks a route that this key may not call, or that is not for chat."""
    known = ", ".join(offers) or "none"
    asked = [("routes", variant.route, "chat") for variant in plan.variants if _is_route(variant)]
    asked += [("scorers", route, rule.scorer.task) for rule in plan.judged for route in rule.scorer.routes]
    problems = []
    for where, route, task in dict.fromkeys(asked):
        place = (where,)
        if route not in offers:
            problems.append((place, f"this key may call no route '{route}'. It may call: {known}."))
        elif offers[route].task != task:
            fit = ", ".join(name for name, offer in offers.items() if offer.task == task) or "none"
            problems.append((place, f"'{route}' is for {offers[route].task}. Routes for {task} are: {fit}."))
    if problems:
        raise PlanInvalid(problems)
