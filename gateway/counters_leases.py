"""Leases: where there is plenty, a process takes more of a limit than one call needs, and admits the next from it.

What it takes is counted in Redis like what a call takes, so the sum of all never exceeds the limit. It is taken for
0.3 s, the more of it the oftener it is asked for, and what is left then goes back; of what is free, all processes
together have at most a thirty-second ahead, and none where that is less than four calls each, so that near a limit
every call is asked for alone. A place among the calls at once that has become free is kept for the next call for as
long, while more than half of them and many are free.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from gateway import counters_scripts as scripts
from gateway.counters import WINDOW
from gateway.counters_redis import RedisCounters
from gateway.counters_scripts import Held
from gateway.types import Claim, Grant, Refusal, Rule, Standing, Unknown

#: Asked again within so many seconds, the next time twice as much is asked for; later, half as much.
_SOON = 0.1
#: The most that is asked for ahead, in claims like the one that asks.
_MOST = 512
#: A place is kept where so many are free for each process.
_ROOM = 16
#: For how long a free place is kept after it was granted, in seconds, and how often all are looked at.
_KEPT, _TICK = 0.5, 0.1
#: How long whoever was refused waits for what this process had left to be given back.
_PATIENCE = 0.5
# Found by name on the class, a member of an enumeration costs a call.
_RPM, _RPD, _CONCURRENCY, _BUDGET = Rule.RPM, Rule.RPD, Rule.CONCURRENCY, Rule.BUDGET
_tuple = tuple.__new__


class _Lease:
    """Part of a limit or a budget, claimed in Redis under one id.

    `left` is for calls to come, `out` with calls under way, `used` what ended ones used: together, what Redis counts.
    """

    __slots__ = ("base", "id", "key", "left", "limit", "lock", "open", "out", "remaining", "rule", "scope", "told",
                 "until", "used", "waits")  # fmt: skip

    def __init__(self, claim: Claim, grant_id: str, key: str, fit: int, remaining: int) -> None:
        self.scope, self.rule, self.limit = claim.scope, claim.rule, claim.limit
        self.id, self.key = grant_id, key
        self.left, self.out, self.used = fit, 0, 0
        self.told = fit
        #: What was used before Redis was emptied: whoever opens the window there counts it.
        self.base = 0
        self.remaining = remaining
        self.until = time.monotonic() + scripts.AHEAD
        self.open = True
        self.lock = asyncio.Lock()
        #: Whether Redis is about to be told.
        self.waits = False

    def give(self, claim: Claim) -> _Part | None:
        """Part of it for one call; None where nothing will be settled."""
        amount = claim.amount
        self.left -= amount
        if self.rule is _RPM or self.rule is _RPD:
            self.used += amount
            return None
        self.out += amount
        return _tuple(_Part, (self, amount))

    def standing(self, claim: Claim) -> Standing:
        """How the limit stands, as far as it is known here."""
        return _tuple(Standing, (claim, max(0, self.remaining + self.left), WINDOW))


class _Part(NamedTuple):
    """What one call has of a lease."""

    lease: _Lease
    amount: int


class _Place(NamedTuple):
    """One call at once, granted; another may have it until then."""

    held: Held
    limit: int
    until: float


class _Wanted:
    """How much of a limit is asked for ahead, and when it was asked for last."""

    __slots__ = ("asked", "size")

    def __init__(self) -> None:
        self.size, self.asked = 0, 0.0

    def next(self, now: float) -> int:
        """How many claims' worth to ask for now."""
        soon, self.asked = now - self.asked < _SOON, now
        self.size = min(_MOST, max(scripts.WORTH, 2 * self.size)) if soon else self.size // 2
        return self.size if self.size >= scripts.WORTH else 0


class LeasedCounters(RedisCounters):
    """Counters in Redis, most claims granted without asking it (`Counters`)."""

    def __init__(self, url: str, prefix: str = "promptyard", member: str = "") -> None:
        super().__init__(url, prefix, member)
        self._part = self._redis.register_script(scripts.PART)
        #: Those that calls are admitted from, and all that Redis is to be told of.
        self._leases: dict[tuple[str, Rule], _Lease] = {}
        self._live: set[_Lease] = set()
        self._wanted: dict[tuple[str, Rule], _Wanted] = {}
        self._places_kept: dict[str, deque[_Place]] = {}
        #: Scopes of which many of the calls at once were free when it was asked last.
        self._roomy: set[str] = set()
        self._asking: dict[tuple[str, Rule], asyncio.Future[None]] = {}
        self._ticking: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal | Unknown:
        """All or none (`Counters.take`): from what this process has, else in one round trip."""
        grant = self._from_leases(claims)
        if grant is not None:
            return grant
        if not claims or not self._there.is_set():
            return await self._take_asking(claims, [0] * len(claims))
        first = claims[0][:2]
        if (asking := self._asking.get(first)) is not None:
            await asyncio.wait([asking])
            grant = self._from_leases(claims)
            if grant is not None:
                return grant
        return await self._take_from_redis(claims, first)

    async def _take_from_redis(self, claims: Sequence[Claim], first: tuple[str, Rule]) -> Grant | Refusal | Unknown:
        nothing = [0] * len(claims)
        ahead = nothing if first in self._asking else self._ahead(claims)
        asking: asyncio.Future[None] | None = None
        if any(ahead):
            asking = self._asking[first] = asyncio.get_running_loop().create_future()
        try:
            taken = await self._take_asking(claims, ahead)
            if isinstance(taken, Refusal) and self._give_back(claims):
                # What was refused may be what this process had left itself.
                await asyncio.wait(set(self._telling), timeout=_PATIENCE)
                taken = await self._take_asking(claims, nothing)
        finally:
            if asking is not None:
                del self._asking[first]
                asking.set_result(None)
        return taken

    def _from_leases(self, claims: Sequence[Claim]) -> Grant | None:
        """All of `claims` from what this process has, or nothing."""
        leases, now = self._leases, time.monotonic()
        found: list[_Lease | None] = []
        for scope, rule, limit, amount, least in claims:
            if rule is _CONCURRENCY:
                if not self._has_place(scope, limit, now):
                    return None
                found.append(None)
                continue
            lease = leases.get((scope, rule))
            if lease is None or lease.left < amount or lease.until <= now or lease.limit != limit or amount != least:
                return None
            found.append(lease)
        if not found:
            return None
        grant = Grant([], [])
        for claim, lease in zip(claims, found, strict=True):
            self._give(grant, claim, lease)
        return grant

    def _give(self, grant: Grant, claim: Claim, lease: _Lease | None) -> None:
        if lease is None:
            grant.held.append(self._places_kept[claim.scope].pop())
            return
        part = lease.give(claim)
        if lease.rule is _BUDGET:
            grant.money = (*grant.money, part)
            return
        if part is not None:
            grant.held.append(part)
        grant.standings.append(lease.standing(claim))

    def _has_place(self, scope: str, limit: int, now: float) -> bool:
        kept = self._places_kept.get(scope)
        return bool(kept) and kept[-1].until > now and kept[-1].limit == limit  # type: ignore[index]  # it is none

    def _ahead(self, claims: Sequence[Claim]) -> list[int]:
        """How much more to ask for of each of `claims`."""
        nothing = [0] * len(claims)
        if any(claim.amount != claim.least for claim in claims):
            return nothing  # what it takes is not known before it is granted: it is always asked for alone
        now = time.monotonic()
        for number, claim in enumerate(claims):
            if claim.rule is not _CONCURRENCY:
                wanted = self._wanted.setdefault(claim[:2], _Wanted())
                nothing[number] = wanted.next(now) * claim.amount
        return nothing

    def _granted(self, grant_id: str, claims: Sequence[Claim], answer: Sequence[int]) -> Grant:
        """A grant as Redis answered; what it gave ahead becomes leases."""
        plain, given = [], []
        for claim, fit, left in zip(claims, answer[::2], answer[1::2], strict=True):
            if fit > claim.amount and claim.rule is not _CONCURRENCY:
                given.append((claim, fit, left))
            else:
                plain.append((claim, fit, left))
        numbers = [number for _, fit, left in plain for number in (fit, left)]
        grant = super()._granted(grant_id, [claim for claim, _, _ in plain], numbers)
        until = time.monotonic() + _KEPT
        limits = {claim.scope: (claim.limit, left) for claim, _, left in plain if claim.rule is _CONCURRENCY}
        for number, held in enumerate(grant.held):
            if isinstance(held, Held) and held.fit == "c":
                limit, left = limits[held.scope]
                grant.held[number] = _Place(held, limit, until)
                room = 2 * left >= limit and left >= _ROOM * self.members
                (self._roomy.add if room else self._roomy.discard)(held.scope)
        for claim, fit, left in given:
            lease = _Lease(claim, grant_id, self._key(claim), fit, left)
            self._replace(lease)
            self._give(grant, claim, lease)
        return grant

    def _replace(self, lease: _Lease) -> None:
        before = self._leases.get((lease.scope, lease.rule))
        if before is not None:
            self._end(before)
        self._leases[lease.scope, lease.rule] = lease
        self._live.add(lease)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`)."""
        kept: list[object] = []
        for note in grant.held:
            if type(note) is _Part and scope in (None, note.lease.scope):
                self._settle_part(note, tokens)
            elif type(note) is not _Place or scope not in (None, note.held.scope):
                kept.append(note)
            elif not self._keep(note):
                kept.append(note.held)
        grant.held = kept
        super().settle(grant, tokens, scope)

    def _keep(self, place: _Place) -> bool:
        """Keep a place that is free for the next call, where others do not need it."""
        held = place.held
        fresh = place.until > time.monotonic() and held.epoch == self._epoch
        if not fresh or held.scope not in self._roomy or not self._there.is_set():
            return False
        self._places_kept.setdefault(held.scope, deque()).append(place)
        return True

    def spend(self, money: Sequence[object], cost: int) -> None:
        """Correct what is held of budgets to what it cost (`Counters.spend`)."""
        others = [note for note in money if type(note) is not _Part]
        for note in money:
            if type(note) is _Part:
                self._settle_part(note, cost)
        super().spend(others, cost)

    def _settle_part(self, part: _Part, used: int) -> None:
        lease, amount = part
        lease.out -= amount
        lease.used += used
        if lease.open:
            lease.left += amount - used
        else:
            self._tell_of(lease)

    def _end(self, lease: _Lease) -> None:
        """Give back what is left of a lease; calls that have some of it go on."""
        if lease.open:
            lease.open, lease.left = False, 0
            if self._leases.get((lease.scope, lease.rule)) is lease:
                del self._leases[lease.scope, lease.rule]
            self._tell_of(lease)

    def _tell_of(self, lease: _Lease) -> None:
        if not lease.waits:
            lease.waits = True
            self._tell_beside(self._tell_lease(lease))

    async def _tell_lease(self, lease: _Lease) -> None:
        """Have Redis count what is out and used of it. Of a budget until it is told, as every other claim."""
        async with lease.lock:
            while True:
                await self._there.wait()
                lease.waits = False
                counted = lease.out + lease.used
                try:
                    async with self._places:
                        await self._send_lease(lease, counted)
                except (RedisError, OSError) as error:
                    self._gone(error)
                    if lease.rule is _BUDGET:
                        continue
                lease.told = counted
                break
        if not lease.open and not lease.out and not lease.waits:
            self._live.discard(lease)

    async def _send_lease(self, lease: _Lease, counted: int) -> None:
        if lease.rule is _BUDGET:
            await self._part(keys=[lease.key], args=[lease.id, lease.out, lease.used - lease.base])
        elif counted != lease.told:
            day = "d" if lease.rule in (Rule.RPD, Rule.TPD) else ""
            await self._settle(keys=[lease.key, f"{lease.key}:sum"], args=[lease.id, counted, f"{day}{lease.told}"])

    def _give_back(self, claims: Iterable[Claim]) -> bool:
        """Give back whatever this process has left of any of `claims`; whether Redis is being told of any."""
        asked = {claim[:2] for claim in claims}
        places = [scope for scope, rule in asked if rule is _CONCURRENCY and self._places_kept.get(scope)]
        for scope in places:
            self._give_places(scope, float("inf"))
        behind = [lease for lease in self._live if lease.told != lease.out + lease.used]
        left = [lease for lease in behind if (lease.scope, lease.rule) in asked]
        for lease in left:
            self._end(lease)
        return bool(left or places)

    def _give_places(self, scope: str, until: float) -> None:
        """Give back the free places of `scope` that were to be kept no longer than `until`."""
        kept = self._places_kept.get(scope, deque())
        gone = [place.held for place in kept if place.until <= until]
        if gone:
            self._places_kept[scope] = deque(place for place in kept if place.until > until)
        if not self._places_kept.get(scope):
            self._places_kept.pop(scope, None)
        for held in gone:
            super().settle(Grant([], [held]), 0)

    async def _put_back(self) -> None:
        """As every claim: what calls have of leases; what is left of these is gone with the rest."""
        await super()._put_back()
        for lease in list(self._live):
            lease.open, lease.left = False, 0
            self._leases.pop((lease.scope, lease.rule), None)
            lease.base, lease.told = lease.used, lease.out + lease.used
            if lease.rule is _BUDGET and lease.out:
                await self._hold(keys=[lease.key], args=[lease.id, lease.out, scripts.OPENED_KEPT])
                self._tell_of(lease)

    async def start(self) -> None:
        """Begin what runs beside the calls (`Counters.start`)."""
        await super().start()
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._end_all(time.monotonic())

    def _end_all(self, now: float) -> None:
        """Give back all that was to be kept until `now`."""
        for lease in [one for one in self._leases.values() if one.until <= now]:
            self._end(lease)
        for scope in list(self._places_kept):
            self._give_places(scope, now)
        for key in [key for key, wanted in self._wanted.items() if now - wanted.asked > WINDOW]:
            del self._wanted[key]

    async def close(self) -> None:
        """Give everything back, and hang up (`Counters.close`)."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        self._end_all(float("inf"))
        await super().close()
