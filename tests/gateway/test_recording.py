"""What a call leaves behind becomes a trace; what cannot be kept is dropped and counted, and no call waits for it."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from gateway import recording
from gateway.money import Listing, Price, Rates, Tokens
from gateway.recorded import MOST_ALL, MOST_TEXT, Recorded, legible
from gateway.recording import Recorder, begin
from gateway.routes import Deployment, Task, TracePolicy
from gateway.trace import MOST_HEARD, Marks, Note
from gateway.types import Request, UsageRecord
from tests.services.upstream import until

PRICED = Deployment("up", "m", listing=Listing(Price(Rates(Decimal("0.000001"), Decimal("0.000002")))))
RECORD = UsageRecord(
    request_id="req_1", time=0.0, key_id="key_1", key_name="app", route="fast", deployment="up/m",
    task="chat/completions", status=200, end_user="ann", prompt="support/3",
)  # fmt: skip
Start = Callable[..., Recorder]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes recorders, which are closed afterwards."""
    made: list[Recorder] = []

    def new(keep: Callable[[Sequence[Recorded]], int], **options: Any) -> Recorder:
        made.append(Recorder(keep, **options))
        return made[-1]

    yield new
    for one in made:
        one.close()


def asked(body: dict[str, Any] | None = None, task: Task = Task.CHAT) -> Request:
    """A request that is noted."""
    request = Request("req_1", task, "fast", body or {"messages": []}, False, {}, marks=Marks(time.perf_counter()))
    begin(request, TracePolicy("kept"))
    return request


def note_of(request: Request) -> Note:
    assert request.trace is not None
    assert request.trace.note is not None
    return request.trace.note


def settle(recorder: Recorder, request: Request, **changes: Any) -> None:
    note = note_of(request)
    assert request.trace is not None
    recorder.record(request.trace, note, request, dataclasses.replace(RECORD, **changes))


def test_a_call_is_told_with_its_attempts_and_what_each_of_them_cost(start: Start) -> None:
    kept: list[Recorded] = []
    recorder = start(lambda some: kept.extend(some) or len(some))
    request = asked({"messages": [{"role": "user", "content": "Hi\0"}]})
    assert request.trace is not None
    assert not request.trace.exported
    failed = request.trace.attempt(Deployment("up", "other"))
    failed.fallback = "spare"
    failed.end(503, "upstream_error")
    good = request.trace.attempt(PRICED)
    good.used, good.cost, good.first_token = Tokens(100, 50, cached=10), 200_000, time.perf_counter()
    note_of(request).hear(b'{"model": "m-2026", "choices": []}')
    settle(recorder, request)
    [one] = until(lambda: kept)
    assert (one.experiment, one.request_id, one.user, one.prompt) == ("kept", "req_1", "ann", "support/3")
    call, first, second = one.spans
    assert (call.name, call.task, call.error, call.model) == ("fast", "chat/completions", None, "m-2026")
    assert call.asked == {"messages": [{"role": "user", "content": "Hi\ufffd"}]}
    assert call.answered == {"model": "m-2026", "choices": []}
    assert (call.usage, call.cost) == (Tokens(100, 50, 10), (100_000, 100_000))
    assert [span.parent for span in one.spans] == [None, call.id, call.id]
    assert (first.error, first.attributes["promptyard.status"]) == ("upstream_error", 503)
    assert (first.usage, first.cost) == (None, None)
    assert first.attributes["promptyard.fallback"] == "spare"
    assert (second.cost, second.error) == ((100_000, 100_000), None)
    assert call.start <= first.start <= first.end <= second.start <= (second.first_token or 0) <= second.end <= call.end
    until(lambda: recorder.recorded == 1)


@pytest.mark.parametrize(
    ("said", "stream", "told"),
    [
        (b'{"error": {"message": "no"}}', False, {"error": {"message": "no"}}),
        (b'{"error": {"message": "no"}}', True, {"error": {"message": "no"}}),
        (b"plain text", False, "plain text"),
        (b"\xff\xfb\x00", False, {"bytes": 3}),
        (b"", False, None),
        (b": nothing yet\n\n", True, {"bytes": 15}),
    ],
)
def test_what_was_answered_is_told_as_what_it_is(start: Start, said: bytes, stream: bool, told: Any) -> None:
    kept: list[Recorded] = []
    recorder = start(lambda some: kept.extend(some) or len(some))
    request = asked()
    note_of(request).hear(said)
    settle(recorder, request, stream=stream)
    assert until(lambda: kept)[0].spans[0].answered == told


def test_of_a_long_answer_the_beginning_is_held_and_of_sound_nothing() -> None:
    for task, most in ((Task.CHAT, MOST_HEARD + 2**16), (Task.SPEECH, 0)):
        note = note_of(asked(task=task))
        for _ in range(100):
            note.hear(b"x" * 2**16)
        assert note.heard == 100 * 2**16
        assert sum(map(len, note.parts)) == note.size <= most


def test_a_share_of_calls_is_noted() -> None:
    noted = 0
    for _ in range(2000):
        request = Request("req_1", Task.CHAT, "fast", {}, False, {})
        begin(request, TracePolicy("kept", 0.25))
        noted += request.trace is not None
    assert 350 < noted < 650


def test_what_is_too_much_is_dropped_and_counted_and_nobody_waits(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    kept: list[Recorded] = []

    def slow(some: Sequence[Recorded]) -> int:
        go.wait(10)
        kept.extend(some)
        return len(some)

    recorder = start(slow, waiting=20)
    settle(recorder, asked())
    time.sleep(0.5)  # it has that one in hand
    began = time.perf_counter()
    for _ in range(100):
        settle(recorder, asked())
    assert time.perf_counter() - began < 0.1
    assert recorder.dropped == 80
    monkeypatch.setattr(recording, "MOST_BYTES", 100)
    big = asked()
    note_of(big).hear(b"x" * 200)
    settle(recorder, big)
    assert recorder.dropped == 81
    go.set()
    until(lambda: recorder.recorded == 21)
    assert recorder.dropped == 81


def test_who_cannot_keep_them_costs_traces_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    fails = [True]

    def keep(some: Sequence[Recorded]) -> int:
        if fails[0]:
            raise OSError("no space left")
        return len(some) - 1

    recorder = start(keep)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            settle(recorder, asked())
            count = recorder.dropped
            until(lambda before=count: recorder.dropped > before)
        fails[0] = False
        for _ in range(3):
            settle(recorder, asked())
        until(lambda: recorder.recorded + recorder.dropped == 5)
    assert recorder.recorded == 2  # one of three was of an experiment that is deleted
    assert caplog.text.count("no space left") == 1
    assert caplog.text.count("kept again") == 1


def test_what_waits_is_kept_when_the_server_stops() -> None:
    kept: list[Recorded] = []
    recorder = Recorder(lambda some: kept.extend(some) or len(some))
    for _ in range(120):
        settle(recorder, asked())
    recorder.close()
    assert len(kept) == recorder.recorded == 120
    settle(recorder, asked())
    assert recorder.dropped == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, 2.5, True, None, "x"]}, {"a": [1, 2.5, True, None, "x"]}),
        ({"a\0": "b\0"}, {"a\ufffd": "b\ufffd"}),
        ("\ud83d", "?"),
        (2**70, str(2**70)),
        ("x" * (MOST_TEXT + 1), "x" * MOST_TEXT + f"… ({MOST_TEXT + 1} characters)"),
    ],
)
def test_what_is_shown_can_be_kept_and_read(value: Any, shown: Any) -> None:
    assert legible(value) == shown


def test_much_text_is_cut_shorter_and_too_much_is_left_out() -> None:
    texts = legible(["y" * 50_000] * 100)
    assert {len(text) for text in texts} == {220}
    assert sum(map(len, texts)) < MOST_ALL
    assert legible({"a": list(range(10**6))}) == {"promptyard_left_out": "It is too long to be kept."}
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert "…" in repr(legible(deep))
