"""Traces of calls for experiments: what both sides said, tokens, cost and each attempt, kept by a thread of its own.

What a call says is noted as it passes, by reference; it is read, and handed to who keeps it, after the call is over.
Where more is noted than can be kept, the newest traces are dropped and counted: no call ever waits for one.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.dialects import lenient
from gateway.dialects.gathered import gathered
from gateway.money import Tokens
from gateway.recorded import Recorded, RecordedSpan, legible
from gateway.routes import Task, TracePolicy
from gateway.trace import MOST_HEARD, AttemptSpan, Note, Trace, new_span
from gateway.types import Request, UsageRecord

log = logging.getLogger(__name__)

#: Traces that wait at most, and bytes of what they hold.
MOST_WAITING, MOST_BYTES = 1000, 64 * 2**20
#: Traces that are kept at once, and their bytes.
_BATCH, _BATCH_BYTES = 25, 4 * 2**20
#: Seconds that a trace waits for others, and that `close` waits for what is left.
_DELAY, LAST_CHANCE = 0.25, 2.0
#: After each batch the thread rests this many times as long as it took, and as much longer as the core is busy.
_REST, _IDLE_AT_LEAST, _LONGEST_REST = 3.0, 0.02, 5.0
#: Seconds after which a thread gives way to another that waits, while ours works: calls wait for it no longer.
_GIVE_WAY = 0.0005


def begin(request: Request, policy: TracePolicy) -> None:
    """Have a call noted, as often as `policy` says."""
    if policy.sample < 1 and random.random() >= policy.sample:  # noqa: S311 - a share
        return
    if request.trace is None:
        request.trace = Trace(0, new_span(), None, request.marks.received, exported=False)
    # An id of its own: many calls may be one trace of their caller's.
    number = random.getrandbits(128) or 1
    most = 0 if request.task is Task.SPEECH else MOST_HEARD
    request.trace.note = Note(number, policy.experiment, request.size, most)


class _Settled(NamedTuple):
    """A call that is over. `epoch` is what to add to `perf_counter` seconds to have UTC epoch seconds."""

    trace: Trace
    note: Note
    task: Task
    body: Mapping[str, Any]
    record: UsageRecord
    ended: float
    epoch: float


class Recorder:
    """Takes traces of settled calls. `keep` is given some at once, in the thread, and returns how many it kept.

    What it raises costs the traces it was given, and nothing else. `recorded` and `dropped` count traces.
    """

    def __init__(self, keep: Callable[[Sequence[Recorded]], int], *, waiting: int = MOST_WAITING) -> None:
        self._keep = keep
        self._most = waiting
        self._waiting: deque[_Settled] = deque()
        # Bytes, each counted by one thread alone.
        self._came = self._went = 0
        self._wake = threading.Event()
        self._stopping = self._failing = False
        self._thread: threading.Thread | None = None
        # Those refused by the calls' thread and those lost by ours are counted apart, under no lock.
        self._refused = self._lost = 0
        self.recorded = 0

    @property
    def dropped(self) -> int:
        """How many traces were not kept that should have been."""
        return self._refused + self._lost

    def record(self, trace: Trace, note: Note, request: Request, record: UsageRecord) -> None:
        """Hand over a settled call. Nothing to wait for, nothing raised."""
        full = len(self._waiting) >= self._most or self._came - self._went + note.size > MOST_BYTES
        if full or self._stopping:
            self._refused += 1
            return
        self._came += note.size
        now = time.perf_counter()
        self._waiting.append(_Settled(trace, note, request.task, request.body, record, now, time.time() - now))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Keep what waits, as far as two seconds go. Blocks that long at most."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST_CHANCE)
        self._lost += len(self._waiting)
        self._waiting.clear()
        if self.dropped:
            log.warning("Traces of calls: %d kept, %d dropped.", self.recorded, self.dropped)

    def _run(self) -> None:
        load = _Load()
        while True:
            self._wake.wait(_DELAY)
            stopping = self._stopping  # asked before the last look: what comes later is dropped
            while batch := self._next():
                idle, began, usual = load.idle(), time.perf_counter(), sys.getswitchinterval()
                sys.setswitchinterval(_GIVE_WAY)
                try:
                    self._handle(batch)
                finally:
                    sys.setswitchinterval(usual)
                if not stopping:
                    self._wake.wait(min(_REST / idle * (time.perf_counter() - began), _LONGEST_REST))
                    stopping = self._stopping
            if stopping:
                return

    def _next(self) -> list[_Settled]:
        batch: list[_Settled] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].note.size
        return batch

    def _handle(self, batch: list[_Settled]) -> None:
        told = []
        for call in batch:
            try:
                told.append(_recorded(call))
            except Exception:
                log.exception("%s: its trace could not be made", call.record.request_id)
        try:
            kept = self._keep(told) if told else 0
        except Exception as error:
            kept = 0
            if not self._failing:
                log.warning("Traces of calls cannot be kept (%s): they are dropped until they can.", error)
            self._failing = True
        else:
            if self._failing:
                log.info("Traces of calls are kept again.")
            self._failing = False
        self.recorded += kept
        self._lost += len(batch) - kept
        self._went += sum(call.note.size for call in batch)


class _Load:
    """What this process leaves of a core."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def idle(self) -> float:
        """The share of a core that was free since the last look; never nothing."""
        cpu, wall = time.process_time(), time.perf_counter()
        busy = (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._cpu, self._wall = cpu, wall
        return max(1 - busy, _IDLE_AT_LEAST)


def _recorded(call: _Settled) -> Recorded:
    trace, note, record = call.trace, call.note, call.record
    root = f"{trace.span:016x}"
    error = record.error or (f"HTTP {record.status}" if record.status >= 400 else None)
    answered = _answered(call)
    said = answered.get("model") if isinstance(answered, dict) else None
    attempts = [_attempt(call, root, number, one) for number, one in enumerate(trace.attempts, 1)]
    more = {
        "promptyard.request_id": record.request_id,
        "promptyard.route": record.route,
        "promptyard.status": record.status,
        "promptyard.key_id": record.key_id,
        "promptyard.key": record.key_name,
        "promptyard.team_id": record.team_id,
        "promptyard.organisation_id": record.organisation_id,
        "promptyard.deployment": record.deployment,
        "promptyard.prompt": record.prompt,
        "promptyard.fallback": record.fallback,
        "promptyard.cached": note.hit or None,
        "promptyard.usage_estimated": record.estimated or None,
        "promptyard.otlp_trace_id": f"{trace.id:032x}" if trace.exported else None,
    }
    whole = RecordedSpan(
        id=root,
        parent=None,
        name=record.route,
        task=record.task,
        start=_ns(call, trace.started),
        end=_ns(call, call.ended),
        error=error,
        asked=legible(call.body),
        answered=answered,
        model=legible(trace.model or said),
        usage=_sum([one.usage for one in attempts]),
        cost=_sum_cost([one.cost for one in attempts]),
        attributes={name: value for name, value in more.items() if value not in (None, "")},
    )
    return Recorded(
        id=f"{note.id:032x}",
        experiment=note.experiment,
        request_id=record.request_id,
        user=str(legible(record.end_user)),
        prompt=record.prompt,
        spans=[whole, *attempts],
    )


def _attempt(call: _Settled, root: str, number: int, one: AttemptSpan) -> RecordedSpan:
    """An attempt; one that nobody ended before ended with its call, and as that did."""
    ended = one.ended is not None
    error = one.error if ended else call.record.error
    status = one.status if ended else call.record.status
    more = {
        "promptyard.attempt": number,
        "promptyard.deployment": one.deployment.id,
        "promptyard.provider": one.deployment.provider,
        "promptyard.fallback": one.fallback,
        "promptyard.status": status,
    }
    return RecordedSpan(
        id=f"{one.span:016x}",
        parent=root,
        name=one.deployment.id,
        task=None,
        start=_ns(call, one.started),
        end=_ns(call, call.ended if one.ended is None else one.ended),
        error=error,
        first_token=None if one.first_token is None else _ns(call, one.first_token),
        model=one.deployment.model,
        usage=one.used,
        cost=_cost(one),
        attributes={name: value for name, value in more.items() if value not in (None, "")},
    )


def _answered(call: _Settled) -> Any:
    """What the caller was sent: parsed; of a stream the answer it made; nothing of sound."""
    raw = b"".join(call.note.parts)
    if not call.note.heard:
        return None
    left_out = call.note.heard - len(raw)
    said: Any = None
    if call.record.stream and not raw.startswith(b"{"):
        said = gathered(call.task, raw, call.body)
    elif not left_out:
        try:
            said = lenient.loads(raw)
        except ValueError:
            said = _text(raw)
    if said is None:
        return {"bytes": call.note.heard}
    said = legible(said)
    return {**said, "promptyard_bytes_left_out": left_out} if left_out and isinstance(said, dict) else said


def _text(raw: bytes) -> str | None:
    """A transcription's plain text; None for what is no text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _cost(one: AttemptSpan) -> tuple[int, int] | None:
    """Nano-dollars that an attempt's input and output cost; None where nobody knows its price."""
    price, used = one.deployment.listing.price, one.used
    if price is None or used is None:
        return None
    read = price.cost(dataclasses.replace(used, output=0, reasoning=0, spoken=0, billed=None))
    read = min(read, one.cost)
    return read, one.cost - read


def _sum(parts: Sequence[Tokens | None]) -> Tokens | None:
    known = [one for one in parts if one is not None]
    if not known:
        return None
    return Tokens(
        sum(one.input for one in known),
        sum(one.output for one in known),
        sum(one.cached for one in known),
        written=sum(one.written for one in known),
    )


def _sum_cost(parts: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    known = [one for one in parts if one is not None]
    return (sum(read for read, _ in known), sum(written for _, written in known)) if known else None


def _ns(call: _Settled, moment: float) -> int:
    return int((moment + call.epoch) * 1e9)
