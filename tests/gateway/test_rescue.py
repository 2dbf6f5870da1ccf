"""A stream that breaks off goes on elsewhere, whole and once; what cannot be continued ends with an error event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gateway.fallback import Way, send
from gateway.providers.fake import FakeProvider
from gateway.rescue import TextRescue
from gateway.routes import Deployment, Limits, ProviderSpec, Route, Task, Timeouts
from gateway.types import Answer, Request, UpstreamRequest, UsageFilter
from tests.gateway.test_fallback import KEY, Bench, Recorder, journalled  # noqa: F401 - a fixture

PIECES = ["One ", "two, ", "three ", "four."]
TEXT = "".join(PIECES)


class Prefilling(Recorder):
    """A fake that goes on where the assistant's last message ends."""

    def __init__(self, name: str, *steps: Mapping[str, Any]) -> None:
        FakeProvider.__init__(self, ProviderSpec(name, "fake", options={"script": list(steps), "prefill": True}))
        self.asked: list[UpstreamRequest] = []


async def streamed(bench: Bench, **body: Any) -> list[dict[str, Any]]:
    """The events of one call to `first`, `[DONE]` as an empty one."""
    call = await bench.admit(streamed=True, **body)
    way = Way(bench.router, bench.limiter, call)
    answer: Answer = bench.meter.metered(call, await send(way, bench.meter), TextRescue(way, bench.meter))
    assert answer.chunks is not None
    raw = b"".join([part async for part in answer.chunks])
    events = [event.removeprefix(b"data: ") for event in raw.split(b"\n\n") if event]
    return [{} if event == b"[DONE]" else orjson.loads(event) for event in events]


def said(events: list[dict[str, Any]]) -> str:
    choices = [choice for event in events for choice in event.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def finishes(events: list[dict[str, Any]]) -> list[str]:
    choices = [choice for event in events for choice in event.get("choices", ())]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def bench(*providers: Recorder, **fields: Any) -> Bench:
    deployments = tuple(Deployment(one.name, "m") for one in providers)
    fields = {"timeouts": Timeouts(idle=0.2, first_token=1), "limits": Limits(concurrency=1, tpm=50_000), **fields}
    return Bench([Route("first", deployments, rescue=True, **{"strategy": "priority", **fields})], list(providers))


def broken(how: str, after: int) -> dict[str, Any]:
    return {"chunks": PIECES, how: after}


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("how", ["cut", "truncate", "stall"])
async def test_a_stream_that_breaks_at_any_chunk_is_whole_all_the_same(how: str, after: int) -> None:
    made = bench(Recorder("a", broken(how, after)), Recorder("b", {"chunks": ["One t", "wo, three", " four."]}))
    events = await streamed(made, stream_options={"include_usage": True})
    assert said(events) == TEXT
    assert finishes(events) == ["stop"]
    assert events[-1] == {}
    assert not any("error" in event for event in events)
    assert len({event["id"] for event in events[:-1]}) == 1
    assert [event["usage"]["completion_tokens"] for event in events[:-1] if event.get("usage")] == [3]
    by = {row.group["deployment"]: row for row in await made.ledger.sums(["deployment"], UsageFilter())}
    assert (by["a/m"].calls, by["b/m"].calls) == (0, 1)
    assert by["a/m"].output_tokens >= after
    assert by["b/m"].output_tokens == 3
    assert made.counters.running() == 0
    assert [made.router.health.of(Deployment(name, "m")).running for name in "ab"] == [0, 0]


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_garbage_in_the_middle_is_no_part_of_the_answer(after: int) -> None:
    good = b"".join(
        b"data: %b\n\n"
        % orjson.dumps({"id": "x", "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        for piece in PIECES[:after]
    )
    raw = (good + b"data: {broken\n\n").decode()
    made = bench(Recorder("a", {"raw": raw, "split": 7}), Recorder("b", {"chunks": PIECES}))
    events = await streamed(made)
    assert (said(events), finishes(events)) == (TEXT, ["stop"])


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_who_takes_a_beginning_is_given_it(after: int) -> None:
    beginning = "".join(PIECES[:after])
    rest = TEXT[len(beginning.rstrip()) :]
    other = Prefilling("b", {"chunks": [rest]})
    made = bench(Recorder("a", broken("cut", after)), other)
    events = await streamed(made, max_tokens=50, stream_options={"include_usage": True})
    assert (said(events), finishes(events)) == (TEXT, ["stop"])
    [asked] = other.asked
    assert asked.body["messages"][-1] == {"role": "assistant", "content": beginning.rstrip()}
    assert asked.body["max_tokens"] == 50 - after
    assert [event["usage"]["completion_tokens"] for event in events[:-1] if event.get("usage")] == [1 + after]


async def test_one_rescue_after_another() -> None:
    made = bench(
        Recorder("a", broken("cut", 1)), Recorder("b", broken("cut", 3)), Recorder("c", broken("stall", 2)),
        Recorder("d", {"chunks": PIECES}),
    )  # fmt: skip
    events = await streamed(made)
    assert (said(events), finishes(events)) == (TEXT, ["stop"])
    record = await made.ledger.find("req_1")
    assert record is not None
    assert (record.deployment, record.status) == ("d/m", 200)


async def test_leaving_while_another_is_asked_counts_both() -> None:
    second = Recorder("b", {"delay": 30})
    made = bench(Recorder("a", broken("cut", 2)), second, timeouts=Timeouts())
    task = asyncio.create_task(streamed(made))
    for _ in range(500):
        if not second.asked:
            await asyncio.sleep(0.01)
    task.cancel("the caller left")
    with pytest.raises(asyncio.CancelledError):
        await task
    rows = {row.group["deployment"]: row for row in await made.ledger.sums(["deployment"], UsageFilter())}
    assert (rows["a/m"].calls, rows["b/m"].calls) == (1, 0)
    assert rows["a/m"].input_tokens == rows["b/m"].input_tokens > 0
    assert rows["a/m"].output_tokens == 2


async def test_one_that_says_something_else_is_left_and_the_next_asked() -> None:
    made = bench(
        Recorder("a", broken("cut", 2)), Recorder("b", {"answer": "One but three"}),
        Recorder("c", {"error": {"status": 503}}), Recorder("d", {"answer": TEXT}),
    )  # fmt: skip
    assert said(await streamed(made)) == TEXT


@pytest.mark.parametrize(
    "others",
    [
        [],
        [{"error": {"status": 500}}],
        [{"answer": "Something else entirely"}],
        [{"answer": "One "}],  # it ends before it has said the same again
        [{"error": {"status": 400}}],
    ],
)
async def test_where_nobody_can_go_on_the_stream_ends_with_an_error(others: list[Mapping[str, Any]]) -> None:
    providers = [Recorder(f"other{number}", step) for number, step in enumerate(others)]
    made = bench(Recorder("a", broken("cut", 2)), *providers)
    events = await streamed(made)
    assert said(events) == "One two, "
    assert finishes(events) == []
    assert events[-1]["error"]["code"] == "upstream_failed"
    record = await made.ledger.find("req_1")
    assert record is not None
    assert record.status == 502
    [total] = await made.ledger.sums([], UsageFilter())
    assert total.calls == 1
    assert made.counters.running() == 0


TOOL: Mapping[str, Any] = {"tool_call": {"name": "weather", "arguments": {"city": "Oslo"}}, "cut": 1}


async def test_a_tools_arguments_are_never_spliced() -> None:
    other = Recorder("b", {"tool_call": {"name": "weather", "arguments": {"city": "Rome"}}})
    events = await streamed(bench(Recorder("a", TOOL), other))
    assert "error" in events[-1]
    assert finishes(events) == []
    assert not other.asked


async def test_several_choices_are_not_continued() -> None:
    other = Recorder("b", {"chunks": PIECES})
    events = await streamed(bench(Recorder("a", broken("cut", 6)), other), n=2)
    assert "error" in events[-1]
    assert not other.asked


async def test_without_rescue_it_ends_as_before() -> None:
    made = bench(Recorder("a", broken("cut", 2)), Recorder("b", {"chunks": PIECES}))
    call = await made.admit(streamed=True)
    answer = made.meter.metered(call, await made.send(call))
    assert answer.chunks is not None
    assert b'{"error"' in b"".join([part async for part in answer.chunks])


async def response_events(made: Bench) -> list[dict[str, Any]]:
    """The events of a call in the Responses dialect, which the fakes speak too: nothing is translated."""
    request = Request("req_1", Task.RESPONSES, "first", {"model": "first", "input": "hi"}, True, {})
    call = await made.limiter.admit(KEY, made.routes["first"], request)
    way = Way(made.router, made.limiter, call)
    answer = made.meter.metered(call, await send(way, made.meter), TextRescue(way, made.meter))
    assert answer.chunks is not None
    raw = b"".join([part async for part in answer.chunks])
    return [orjson.loads(event.partition(b"data: ")[2]) for event in raw.split(b"\n\n") if event]


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("how", ["cut", "truncate", "stall"])
async def test_a_stream_of_responses_that_breaks_at_any_chunk_is_one_stream(how: str, after: int) -> None:
    made = bench(Recorder("a", broken(how, after)), Recorder("b", {"chunks": ["One t", "wo, three", " four."]}))
    events = await response_events(made)
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for once in ("created", "in_progress", "output_item.added", "content_part.added", "output_item.done", "completed"):
        assert kinds.count(f"response.{once}") == 1, once
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == TEXT
    whole = events[-1]["response"]
    assert kinds[-1] == "response.completed"
    assert whole["id"] == events[0]["response"]["id"]
    [message] = whole["output"]
    assert [part["text"] for part in message["content"]] == [TEXT]
    assert {event["item_id"] for event in events if "item_id" in event} == {message["id"]}
    assert whole["usage"]["output_tokens"] == 3
    by = {row.group["deployment"]: row for row in await made.ledger.sums(["deployment"], UsageFilter())}
    assert (by["a/m"].calls, by["b/m"].calls) == (0, 1)
    assert made.counters.running() == 0


async def test_a_tools_arguments_of_responses_are_never_spliced() -> None:
    other = Recorder("b", {"tool_call": {"name": "weather", "arguments": {"city": "Rome"}}})
    events = await response_events(bench(Recorder("a", TOOL), other))
    assert events[-1]["type"] == "error"
    assert "response.completed" not in [event["type"] for event in events]
    assert not other.asked
