"""Counters behind every limit: take all claims or none, in this process or in one Redis for many.

A minute is an exact sliding window of 60 s. Claims within 10 ms of each other share an entry that
leaves when the last of them would, so a limit is never exceeded and never more than 10 ms late.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.types import Claim, Grant, Refusal, Rule, Standing

WINDOW = 60.0
_GRAIN = 0.01
_SPAN = WINDOW + _GRAIN
# Found by name on the class, a member of an enumeration costs a call.
_RPM, _TPM, _CONCURRENCY = Rule.RPM, Rule.TPM, Rule.CONCURRENCY


class Counters(Protocol):
    """One interface wherever the counters live."""

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal:
        """All of `claims`, in one step that no other caller can come between, or none of them."""

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Give back the concurrency of `grant` and correct its token claims to `tokens`. Requests stay counted.

        With a `scope`, only what was claimed of it; the rest stays held. Settling again does nothing.
        Nothing to await, so that a cancelled call can settle: far counters are told in the background.
        """

    async def start(self) -> None:
        """Begin whatever runs beside the calls."""

    async def close(self) -> None:
        """Stop it."""

    def status(self) -> str:
        """For `/health/ready`: "memory", "redis", or what is wrong."""


class _Entry:
    """What was claimed within one grain."""

    __slots__ = ("amount", "at", "gone")

    def __init__(self, at: float, amount: int) -> None:
        self.at = at
        self.amount = amount
        self.gone = False


class _Window:
    """What was claimed within the last 60 s, oldest first."""

    __slots__ = ("entries", "used")

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.used = 0

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0].at + _SPAN <= now:
            entry = entries.popleft()
            entry.gone = True
            self.used -= entry.amount

    def add(self, amount: int, now: float) -> _Entry:
        self.used += amount
        entries = self.entries
        if entries:
            entry = entries[-1]
            if now - entry.at < _GRAIN:
                entry.amount += amount
                return entry
        entry = _Entry(now, amount)
        entries.append(entry)
        return entry

    def correct(self, entry: _Entry, by: int, now: float) -> None:
        """Count `by` more, or fewer, with `entry`. Once that has expired, more of it counts from now."""
        if entry.at + _SPAN <= now:
            self.expire(now)
        if not entry.gone:
            entry.amount += by
            self.used += by
        elif by > 0:
            self.add(by, now)

    def frees(self, needed: int, now: float) -> float:
        """Seconds until `needed` more than is free now has expired."""
        for entry in self.entries:
            needed -= entry.amount
            if needed <= 0:
                return entry.at + _SPAN - now
        return WINDOW


#: A named tuple from its values in order: to call its class costs three times as much.
_tuple = tuple.__new__
#: What one claim holds: its scope, and tokens in an entry of a window, or (no entry) one call at once.
_Note = tuple[str, _Window, _Entry | None, int]
_NO_WINDOW = _Window()


class MemoryCounters:
    """Counters of this process. Atomic because nothing in `take` awaits: one event loop runs it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Rule, dict[str, _Window]] = {_RPM: {}, _TPM: {}}
        self._running: dict[str, int] = {}

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal:
        """All or none (`Counters.take`)."""
        now = self._clock()
        fits: list[tuple[_Window | None, int]] = []
        for claim in claims:
            scope, rule, limit, amount, least = claim
            if rule is _CONCURRENCY:
                window, used = None, self._running.get(scope, 0)
            else:
                window = self._windows[rule].get(scope)
                if window is None:
                    window = self._windows[rule][scope] = _Window()
                entries = window.entries
                if entries and entries[0].at + _SPAN <= now:
                    window.expire(now)
                used = window.used
            free = limit - used
            if free < least:
                return Refusal(claim, used, 1.0 if window is None else window.frees(least - free, now))
            fits.append((window, min(free, amount)))
        return self._hold(claims, fits, now)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`)."""
        kept: list[object] = []
        now = self._clock()
        for note in grant.held:
            if type(note) is not tuple:  # a far counter has notes of its own, which are a kind of tuple
                continue
            whose, window, entry, amount = note
            if scope is not None and scope != whose:
                kept.append(note)
            elif entry is None:
                self._running[whose] -= 1
                if not self._running[whose]:
                    del self._running[whose]
            else:
                window.correct(entry, tokens - amount, now)
        grant.held = kept

    async def start(self) -> None:
        """Nothing runs beside the calls."""

    async def close(self) -> None:
        """Nothing to stop."""

    def status(self) -> str:
        """Always "memory"."""
        return "memory"

    def running(self) -> int:
        """How many claims of concurrency are held now."""
        return sum(self._running.values())

    def _hold(self, claims: Sequence[Claim], fits: Sequence[tuple[_Window | None, int]], now: float) -> Grant:
        held: list[object] = []
        standings: list[Standing] = []
        for claim, (window, fit) in zip(claims, fits, strict=True):
            if window is None:
                self._running[claim.scope] = self._running.get(claim.scope, 0) + 1
                held.append((claim.scope, _NO_WINDOW, None, 1))
                continue
            entry = window.add(fit, now)
            if claim.rule is _TPM:
                held.append((claim.scope, window, entry, fit))
            left = claim.limit - window.used
            standings.append(_tuple(Standing, (claim, max(0, left), entry.at + _SPAN - now)))
        return Grant(standings, held)
