"""Counters behind every limit and budget: take all claims or none, in this process or in one Redis for many.

A minute is an exact sliding window of 60 s. Claims within 10 ms of each other share an entry that
leaves when the last of them would, so a limit is never exceeded and never more than 10 ms late.
A day is one of the calendar, UTC.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.types import Claim, Grant, Refusal, Rule, Standing, Unknown

WINDOW = 60.0
#: A window that was opened is forgotten when nobody has used it for this long: a day's is over then, and of a budget
#: the ledger knows what was spent.
_IDLE = 2 * 86400.0
_GRAIN = 0.01
_SPAN = WINDOW + _GRAIN
# Found by name on the class, a member of an enumeration costs a call.
_RPM, _TPM, _CONCURRENCY, _BUDGET = Rule.RPM, Rule.TPM, Rule.CONCURRENCY, Rule.BUDGET
_RPD, _TPD = Rule.RPD, Rule.TPD
#: Rules whose windows are opened with what was used before, and which nothing leaves by itself.
OPENED = frozenset((Rule.BUDGET, Rule.RPD, Rule.TPD))


class Counters(Protocol):
    """One interface wherever the counters live. `members` is how many processes count there, as far as is known."""

    members: int

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal | Unknown:
        """All of `claims`, in one step that no other caller can come between, or none of them.

        `Unknown` where the window of a budget or a day was not opened yet. Raises `BudgetUnavailable` where a budget
        cannot be asked.
        """

    async def open(self, claim: Claim, used: int) -> None:
        """Say what was used of a budget or a day before anything is taken of it. Later words change nothing."""

    def spend(self, money: Sequence[object], cost: int) -> None:
        """Settle what a grant holds of budgets at `cost` nano-dollars, once. Nothing to await (as `settle`)."""

    def charge(self, scope: str, cost: int) -> None:
        """Count `cost` nano-dollars of a budget's window that held nothing for it, where that is open (as `settle`)."""

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
    """What was claimed within one grain: until `fresh` others join it, and when it `ends` it is forgotten."""

    __slots__ = ("amount", "ends", "fresh", "gone")

    def __init__(self, at: float) -> None:
        self.fresh = at + _GRAIN
        self.ends = at + _SPAN
        self.amount = 0
        self.gone = False


_NEVER = _Entry(float("-inf"))


class _Window:
    """What was claimed within the last 60 s, oldest first. `newest` is the last entry there was, gone or not."""

    __slots__ = ("entries", "newest", "oldest_ends", "touched", "used")

    def __init__(self) -> None:
        self.touched = 0.0
        self.entries: deque[_Entry] = deque()
        self.newest = _NEVER
        self.oldest_ends = float("inf")
        self.used = 0

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0].ends <= now:
            entry = entries.popleft()
            entry.gone = True
            self.used -= entry.amount
        self.oldest_ends = entries[0].ends if entries else float("inf")

    def current(self, now: float) -> _Entry:
        """The entry of the grain that `now` is in."""
        if now < self.newest.fresh:
            return self.newest
        entry = self.newest = _Entry(now)
        if not self.entries:
            self.oldest_ends = entry.ends
        self.entries.append(entry)
        return entry

    def correct(self, entry: _Entry, by: int, now: float) -> None:
        """Count `by` more, or fewer, with `entry`. Once that has expired, more of it counts from now."""
        if entry.ends <= now:
            self.expire(now)
        if not entry.gone:
            entry.amount += by
            self.used += by
        elif by > 0:
            self.current(now).amount += by
            self.used += by

    def idle(self, now: float) -> bool:
        """Whether it may be forgotten: there is nothing in it."""
        self.expire(now)
        return not self.entries

    def frees(self, needed: int, now: float) -> float:
        """Seconds until `needed` more than is free now has expired."""
        for entry in self.entries:
            needed -= entry.amount
            if needed <= 0:
                return entry.ends - now
        return WINDOW


class _Purse(_Window):
    """What was used of a budget or a day, and is held of it: a window that nothing leaves by itself."""

    __slots__ = ("held",)

    def __init__(self, spent: int, now: float) -> None:
        super().__init__()
        self.newest = _Entry(float("inf"))
        self.used = spent
        self.held = 0
        self.touched = now

    def idle(self, now: float) -> bool:
        """Whether it may be forgotten: no call holds any of it, and none has asked for long."""
        return not self.held and now - self.touched > _IDLE


def _held(purse: _Window, amount: int) -> tuple[_Window, int]:
    """The note of `amount` held of a budget."""
    assert isinstance(purse, _Purse)  # noqa: S101 - no other is opened for a budget
    purse.held += amount
    return purse, amount


#: Stands for a window that nobody has opened: nothing fits in.
_UNOPENED = _Purse(2**63, 0.0)
#: A named tuple from its values in order: to call its class costs three times as much.
_tuple = tuple.__new__
#: What one claim holds: its scope, and tokens in an entry of a window, or (no entry) one call at once.
_Note = tuple[str, _Window, _Entry | None, int]
_NO_WINDOW = _Window()


class MemoryCounters:
    """Counters of this process. Atomic because nothing in `take` awaits: one event loop runs it."""

    members = 1

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Those made or looked at last come last.
        self._windows: OrderedDict[tuple[str, Rule], _Window] = OrderedDict()
        self._running: dict[str, int] = {}
        #: Of each budget and limit a day, the scopes of the windows that are open.
        self._opened: dict[tuple[str, Rule], list[str]] = {}

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal | Unknown:
        """All or none (`Counters.take`): each is taken if it fits; if one does not, those before it are given back."""
        now, running, windows = self._clock(), self._running, self._windows
        grant = Grant([], [])
        for claim in claims:
            scope, rule, limit, amount, least = claim
            if rule is _CONCURRENCY:
                used = running.get(scope, 0)
                if used >= limit:
                    self._undo(grant)
                    return Refusal(claim, used, 1.0)
                running[scope] = used + 1
                grant.held.append((scope, _NO_WINDOW, None, 1))
                continue
            window = windows.get((scope, rule))
            if window is None or window.oldest_ends <= now:
                window = self._fresh(scope, rule, now)
            free = limit - window.used
            if free < least:
                return self._refused(grant, claim, window, now)
            if amount > free:
                amount = free
            entry = window.newest
            if now >= entry.fresh:
                entry = window.current(now)
            entry.amount += amount
            window.used += amount
            window.touched = now
            if rule is _TPM or rule is _TPD:
                grant.held.append((scope, window, entry, amount))
            elif rule is _BUDGET:
                grant.money = (*grant.money, _held(window, amount))
                continue
            grant.standings.append(_tuple(Standing, (claim, free - amount, entry.ends - now)))
        return grant

    def _fresh(self, scope: str, rule: Rule, now: float) -> _Window:
        """The window of a limit, without what has left it."""
        window = self._windows.get((scope, rule))
        if window is not None:
            window.expire(now)
        elif rule in OPENED:
            return _UNOPENED
        else:
            window = self._add(scope, rule, _Window(), now)
        return window

    def _add(self, scope: str, rule: Rule, window: _Window, now: float) -> _Window:
        """A window more; of those there are, two are looked at, and forgotten where they may be: users come and go."""
        windows = self._windows
        for _ in range(min(2, len(windows))):
            (whose, of), oldest = next(iter(windows.items()))
            if not oldest.idle(now):
                windows.move_to_end((whose, of))
                continue
            del windows[whose, of]
            if of in OPENED:
                self._opened_no_more(whose, of)
        windows[scope, rule] = window
        return window

    def _opened_no_more(self, scope: str, rule: Rule) -> None:
        whose = scope.rpartition("@")[0]
        left = [one for one in self._opened[whose, rule] if one != scope]
        if left:
            self._opened[whose, rule] = left
        else:
            del self._opened[whose, rule]

    def _refused(self, grant: Grant, claim: Claim, window: _Window, now: float) -> Refusal | Unknown:
        self._undo(grant)
        if window is _UNOPENED:
            return Unknown(claim)
        held = window.held if isinstance(window, _Purse) else 0
        return Refusal(claim, window.used, window.frees(claim.least - claim.limit + window.used, now), held)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`)."""
        kept: list[object] = []
        now = self._clock()
        for note in grant.held:
            if type(note) is not tuple:  # a far counter has notes of its own
                kept.append(note)
                continue
            whose, window, entry, amount = note
            if scope is not None and scope != whose:
                kept.append(note)
            elif entry is None:
                self._running[whose] -= 1
                if not self._running[whose]:
                    del self._running[whose]
            elif entry.gone or entry.ends <= now:
                # It may have been forgotten meanwhile; what was used beyond the claim counts all the same.
                self._windows.setdefault((whose, _TPM), window).correct(entry, tokens - amount, now)
            else:
                entry.amount += tokens - amount
                window.used += tokens - amount
        grant.held = kept

    async def open(self, claim: Claim, used: int) -> None:
        """Begin a window, and forget those before it that no call holds any of (`Counters.open`)."""
        scope, rule = claim.scope, claim.rule
        if (scope, rule) in self._windows:
            return
        now = self._clock()
        self._add(scope, rule, _Purse(used, now), now)
        whose, _, start = scope.rpartition("@")
        opened = [*self._opened.get((whose, rule), ()), scope]
        for one in opened[:-1]:
            purse = self._windows[one, rule]
            if int(one.rpartition("@")[2]) < int(start) and isinstance(purse, _Purse) and not purse.held:
                del self._windows[one, rule]
                opened.remove(one)
        self._opened[whose, rule] = opened

    def used(self, scope: str, rule: Rule) -> int:
        """What is used of a window that was opened; nothing of one that was not."""
        window = self._windows.get((scope, rule))
        return 0 if window is None else window.used

    def forget_opened(self) -> None:
        """Have every window opened anew that is opened: others count in them now."""
        for (_, rule), scopes in self._opened.items():
            for scope in scopes:
                del self._windows[scope, rule]
        self._opened.clear()

    def spend(self, money: Sequence[object], cost: int) -> None:
        """Correct what is held of budgets to what it cost (`Counters.spend`)."""
        for note in money:
            if type(note) is tuple:
                purse, amount = note
                purse.held -= amount
                purse.used += cost - amount

    def charge(self, scope: str, cost: int) -> None:
        """Count what nothing was held for (`Counters.charge`)."""
        if (window := self._windows.get((scope, _BUDGET))) is not None:
            window.used += cost

    def _undo(self, grant: Grant) -> None:
        """Give back what was taken a moment ago, requests too: it was for a call that is refused."""
        self.settle(grant, 0)
        self.spend(grant.money, 0)
        for claim, _, _ in grant.standings:
            if claim.rule is _RPM or claim.rule is _RPD:
                window = self._windows[claim.scope, claim.rule]
                window.used -= claim.amount
                window.newest.amount -= claim.amount

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
