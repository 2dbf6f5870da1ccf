"""Retries, rests, queues and hedges: a call goes on while somebody may answer it, and waits only where that helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gateway import tokens
from gateway.errors import Overloaded
from gateway.routes import Cooldown, Deployment, Limits, Queue, Retries, Route, Timeouts
from gateway.types import Answer, UpstreamRequest, UsageFilter
from gateway.usage import LEFT
from tests.gateway.test_fallback import Bench, Recorder, journalled, route  # noqa: F401 - a fixture

UNLIMITED = Limits()
DOWN: Mapping[str, Any] = {"error": {"status": 503, "message": "down"}}
TOO_LONG: Mapping[str, Any] = {"error": {"status": 400, "message": "x", "code": "context_length_exceeded"}}


def free(name: str, *providers: str, **fields: Any) -> Route:
    return route(name, *providers, limits=UNLIMITED, **fields)


async def test_a_round_that_failed_is_asked_again_after_a_pause() -> None:
    recorder, other = Recorder("a", DOWN, DOWN, {"answer": "at last"}), Recorder("b", DOWN)
    bench = Bench([free("first", "a", "b", retries=Retries(2, backoff=0.05), strategy="priority")], [recorder, other])
    began = time.monotonic()
    assert await bench.said(await bench.admit()) == "at last"
    assert time.monotonic() - began >= 0.025 + 0.05
    assert (len(recorder.asked), len(other.asked)) == (3, 2)


async def test_retry_after_is_waited_for_unless_it_is_too_long() -> None:
    says = {"error": {"status": 429, "retry_after": 0.3}}
    lone = Recorder("a", says, {"answer": "welcome back"})
    bench = Bench([free("first", "a", retries=Retries(1, backoff=0.01))], [lone])
    began = time.monotonic()
    assert await bench.said(await bench.admit()) == "welcome back"
    assert time.monotonic() - began >= 0.3
    asked = Recorder("a", {"error": {"status": 429, "retry_after": 60}})
    bench = Bench([free("first", "a", retries=Retries(3, longest=1))], [asked])
    assert (await bench.send(await bench.admit())).status == 429
    assert len(asked.asked) == 1


async def test_a_retry_after_that_is_no_date_is_not_believed() -> None:
    class Lying(Recorder):
        async def send(self, request: UpstreamRequest) -> Answer:
            answer = await super().send(request)
            answer.headers["retry-after"] = "Mon, 01 Jan 99999999999 00:00:00 GMT"
            return answer

    bench = Bench([free("first", "a", retries=Retries(1, backoff=0.01))], [Lying("a", DOWN)])
    assert (await bench.send(await bench.admit())).status == 503


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_the_callers_fault_is_not_retried(status: int) -> None:
    asked = Recorder("a", {"error": {"status": status}})
    bench = Bench([free("first", "a", retries=Retries(3, backoff=0.01))], [asked])
    assert (await bench.send(await bench.admit())).status == status
    assert len(asked.asked) == 1


async def test_what_rests_is_passed_over_and_all_resting_is_told_at_once() -> None:
    broken, good = Recorder("broken", DOWN), Recorder("good", {"answer": "ok"}, {"answer": "ok"}, DOWN)
    resting = free("first", "broken", "good", strategy="priority", cooldown=Cooldown(1, 30))
    bench = Bench([resting], [broken, good])
    for _ in range(2):
        assert await bench.said(await bench.admit()) == "ok"
    assert len(broken.asked) == 1
    assert (await bench.send(await bench.admit())).status == 503  # the good one fails too now
    with pytest.raises(Overloaded, match="rests after failures") as refused:
        await bench.send(await bench.admit())
    assert refused.value.code == "all_resting"
    assert 0 < (refused.value.retry_after or 0) <= 30
    assert len(good.asked) == 3


async def test_a_lone_deployment_does_not_rest_unless_it_is_told_to() -> None:
    asked = Recorder("a", DOWN)
    bench = Bench([free("first", "a")], [asked])
    for _ in range(8):
        assert (await bench.send(await bench.admit())).status == 503
    assert len(asked.asked) == 8


async def test_what_is_too_long_goes_to_a_larger_window_and_nowhere_else() -> None:
    small, other, large = Recorder("small", TOO_LONG), Recorder("other"), Recorder("large", {"answer": "it fits"})
    first = free("first", "small", "other", strategy="priority", context_fallbacks=("long",), fallbacks=("again",))
    bench = Bench([first, free("long", "large"), free("again", "other")], [small, other, large])
    assert await bench.said(await bench.admit()) == "it fits"
    assert not other.asked
    bench = Bench([free("first", "small", fallbacks=("again",)), free("again", "other")], [small, other])
    assert (await bench.send(await bench.admit())).status == 400
    assert not other.asked


async def test_a_content_filter_is_never_routed_around() -> None:
    refusing = Recorder("a", {"error": {"status": 400, "code": "content_filter", "message": "refused by the filter"}})
    other = Recorder("b")
    first = free("first", "a", "b", strategy="priority", context_fallbacks=("c",), retries=Retries(2))
    bench = Bench([first, free("c", "b")], [refusing, other])
    assert orjson.loads((await bench.send(await bench.admit())).body)["error"]["code"] == "content_filter"
    assert not other.asked


async def test_a_full_deployment_makes_others_wait_and_then_says_so() -> None:
    slow = Recorder("a", {"answer": "done", "delay": 0.1})
    one = Route("first", (Deployment("a", "m", concurrency=1, queue=Queue(1, 5.0)),), timeouts=Timeouts())
    bench = Bench([one], [slow])
    calls = [await bench.admit() for _ in range(3)]

    async def whole(number: int) -> int:
        answer = await bench.send(calls[number])
        bench.meter.metered(calls[number], answer)  # the place is kept until the call is settled
        return answer.status

    outcomes = await asyncio.gather(*map(whole, range(3)), return_exceptions=True)
    assert outcomes[:2] == [200, 200]
    assert isinstance(outcomes[2], Overloaded)
    assert outcomes[2].retry_after == 1
    assert bench.router.health.of(one.deployments[0]).running == 0


@pytest.mark.parametrize(
    ("step", "fields"),
    [({"stall": 0}, {}), (DOWN, {"retries": Retries(1, backoff=5)})],
    ids=["in a queue", "between two rounds"],
)
async def test_leaving_while_nobody_is_asked_costs_nothing(step: Any, fields: Mapping[str, Any]) -> None:
    one = Deployment("a", "a-model", concurrency=1, queue=Queue(5, 5.0))
    bench = Bench([Route("first", (one,), limits=UNLIMITED, timeouts=Timeouts(), **fields)], [Recorder("a", step)])
    condition, queued = bench.router.health.of(one), not fields
    if queued:
        await condition.enter(one)
    call = await bench.admit()
    task = asyncio.create_task(bench.send(call))
    await asyncio.sleep(0.05)
    task.cancel(LEFT)
    with pytest.raises(asyncio.CancelledError) as gone:
        await task
    bench.meter.close(call, gone.value)
    [row] = await bench.ledger.sums([], UsageFilter())
    assert (row.calls, row.input_tokens, condition.running) == (1, 0, 1 if queued else 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_hedge_answers_when_the_first_is_slow(streamed: bool) -> None:
    slow, quick = Recorder("slow", {"delay": 30}), Recorder("quick", {"answer": "sooner"})
    hedging = free("first", "slow", "quick", strategy="priority", hedge=0.05, timeouts=Timeouts())
    bench = Bench([hedging], [slow, quick])
    call = await bench.admit(streamed=streamed)
    answer = await bench.send(call)
    assert answer.status == 200
    assert call.attempt is not None
    assert call.attempt.deployment.provider == "quick"
    assert call.wasted > 0
    if answer.chunks is not None:
        await answer.chunks.aclose()
    assert bench.router.health.of(hedging.deployments[0]).running == 0


async def test_a_quick_first_needs_no_hedge_and_a_failed_one_no_wait() -> None:
    first, second = Recorder("a", {"answer": "one"}), Recorder("b", {"answer": "two"})
    bench = Bench([free("first", "a", "b", strategy="priority", hedge=5.0)], [first, second])
    assert await bench.said(await bench.admit()) == "one"
    assert not second.asked
    bench = Bench([free("first", "a", "b", strategy="priority", hedge=5.0)], [Recorder("a", DOWN), second])
    assert await bench.said(await bench.admit()) == "two"


async def test_both_of_a_hedge_failing_is_one_failure_told() -> None:
    bench = Bench(
        [free("first", "a", "b", strategy="priority", hedge=0.02, fallbacks=("c",)), free("c", "c")],
        [Recorder("a", {**DOWN, "delay": 0.1}), Recorder("b", {**DOWN, "delay": 0.1}), Recorder("c")],
    )
    assert await bench.said(await bench.admit()) == "echo: hi"


async def test_leaving_a_hedge_cancels_both(caplog: pytest.LogCaptureFixture) -> None:
    hedging = free("first", "a", "b", hedge=0.02, timeouts=Timeouts())
    bench = Bench([hedging], [Recorder("a", {"stall": 0}), Recorder("b", {"stall": 0})])
    task = asyncio.create_task(bench.send(await bench.admit()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [bench.router.health.of(one).running for one in hedging.deployments] == [0, 0]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("first", "leaves", "read"),
    [({"stall": 0}, 0.02, ["a"]), ({"stall": 0}, 0.2, ["a", "b"]), ({**DOWN, "delay": 0.1}, 0.3, ["b"])],
)
async def test_leaving_a_hedge_counts_each_prompt_once(first: Any, leaves: float, read: list[str]) -> None:
    hedging = free("first", "a", "b", strategy="priority", hedge=0.05, timeouts=Timeouts())
    bench = Bench([hedging], [Recorder("a", first), Recorder("b", {"stall": 0})])
    call = await bench.admit()
    task = asyncio.create_task(bench.send(call))
    await asyncio.sleep(leaves)
    task.cancel(LEFT)
    with pytest.raises(asyncio.CancelledError) as gone:
        await task
    bench.meter.close(call, gone.value)
    by = {row.group["deployment"]: row for row in await bench.ledger.sums(["deployment"], UsageFilter())}
    assert {name: row.input_tokens for name, row in by.items() if row.input_tokens} == {
        f"{name}/{name}-model": tokens.likely(call.request.body) for name in read
    }
    assert sum(row.calls for row in by.values()) == 1


async def test_the_loser_of_a_hedge_is_recorded_and_is_no_call_of_its_own() -> None:
    hedging = free("first", "slow", "quick", strategy="priority", hedge=0.05, timeouts=Timeouts())
    bench = Bench([hedging], [Recorder("slow", {"delay": 30}), Recorder("quick")])
    call = await bench.admit()
    bench.meter.metered(call, await bench.send(call))
    ledger = bench.ledger
    by = {row.group["deployment"]: row for row in await ledger.sums(["deployment"], UsageFilter())}
    assert by["quick/quick-model"].calls == 1
    assert by["slow/slow-model"].calls == 0
    assert by["slow/slow-model"].input_tokens > 0
    record = await ledger.find("req_1")
    assert record is not None
    assert (record.deployment, record.final) == ("quick/quick-model", True)
