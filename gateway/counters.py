"""Counters behind every limit: take all claims or none, in this process or in one Redis for many.

A minute is an exact sliding window of 60 s. Claims within 10 ms of each other share an entry that
leaves when the last of them would, so a limit is never exceeded and never more than 10 ms late.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.types import Claim, Grant, Refusal, Rule, Standing

WINDOW = 60.0
_GRAIN = 0.01


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


@dataclass(slots=True)
class _Entry:
    at: float
    amount: int
    gone: bool = False


class _Window:
    """What was claimed within the last 60 s, oldest first."""

    __slots__ = ("entries", "used")

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.used = 0

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0].at + WINDOW + _GRAIN <= now:
            entry = entries.popleft()
            entry.gone = True
            self.used -= entry.amount

    def add(self, amount: int, now: float) -> _Entry:
        self.used += amount
        if self.entries and now - self.entries[-1].at < _GRAIN:
            self.entries[-1].amount += amount
            return self.entries[-1]
        entry = _Entry(now, amount)
        self.entries.append(entry)
        return entry

    def correct(self, entry: _Entry, by: int, now: float) -> None:
        """Count `by` more, or fewer, with `entry`. Once that has expired, more of it counts from now."""
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
                return entry.at + WINDOW + _GRAIN - now
        return WINDOW

    def reset(self, now: float) -> float:
        return self.entries[-1].at + WINDOW + _GRAIN - now if self.entries else 0.0


class _Note(NamedTuple):
    """What one claim holds: tokens in an entry of a window, or (no entry) one call at once."""

    scope: str
    window: _Window
    entry: _Entry | None
    amount: int


_NO_WINDOW = _Window()


class MemoryCounters:
    """Counters of this process. Atomic because nothing in `take` awaits: one event loop runs it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, Rule], _Window] = {}
        self._running: dict[str, int] = {}

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal:
        """All or none (`Counters.take`)."""
        now = self._clock()
        fits: list[int] = []
        for claim in claims:
            used, fit = self._fit(claim, now)
            if fit < claim.least:
                return Refusal(claim, used, self._wait(claim, now))
            fits.append(fit)
        return self._hold(claims, fits, now)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`)."""
        kept: list[object] = []
        now = self._clock()
        for note in grant.held:
            if not isinstance(note, _Note):
                continue
            if scope not in (None, note.scope):
                kept.append(note)
            elif note.entry is None:
                self._running[note.scope] -= 1
                if not self._running[note.scope]:
                    del self._running[note.scope]
            else:
                note.window.correct(note.entry, tokens - note.amount, now)
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

    def _fit(self, claim: Claim, now: float) -> tuple[int, int]:
        """What is used of the claim's limit, and how much of the claim fits beside it."""
        if claim.rule is Rule.CONCURRENCY:
            used = self._running.get(claim.scope, 0)
        else:
            window = self._windows.get((claim.scope, claim.rule))
            if window is None:
                window = self._windows[claim.scope, claim.rule] = _Window()
            window.expire(now)
            used = window.used
        return used, min(claim.amount, claim.limit - used)

    def _hold(self, claims: Sequence[Claim], fits: Sequence[int], now: float) -> Grant:
        grant = Grant([])
        for claim, fit in zip(claims, fits, strict=True):
            if claim.rule is Rule.CONCURRENCY:
                self._running[claim.scope] = self._running.get(claim.scope, 0) + 1
                grant.held.append(_Note(claim.scope, _NO_WINDOW, None, 1))
                continue
            window = self._windows[claim.scope, claim.rule]
            entry = window.add(fit, now)
            if claim.rule is Rule.TPM:
                grant.held.append(_Note(claim.scope, window, entry, fit))
            grant.standings.append(Standing(claim, max(0, claim.limit - window.used), window.reset(now)))
        return grant

    def _wait(self, claim: Claim, now: float) -> float:
        if claim.rule is Rule.CONCURRENCY:
            return 1.0
        window = self._windows[claim.scope, claim.rule]
        return window.frees(claim.least - (claim.limit - window.used), now)
