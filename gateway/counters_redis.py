"""The same counters in one Redis, shared by every process that names it. One script takes all or none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from gateway import counters_scripts as scripts
from gateway.counters import WINDOW, MemoryCounters
from gateway.counters_pool import pool_of
from gateway.counters_scripts import Held
from gateway.types import Claim, Grant, Refusal, Rule, Standing, Unknown

log = logging.getLogger(__name__)

#: A call still running is renewed this often (`scripts.LEASE`), and a round trip may take so long.
_RENEW, _PATIENCE = 10.0, 0.5
#: After one that failed, Redis is looked for at once, then after rests that double from the first to the last.
_REST, _LONGEST_REST = 1.0, 10.0
#: Connections of this process (Redis does one thing at a time), and how long a call waits for a free one.
_CONNECTIONS, _QUEUE = 16, 5.0
#: Leases renewed in one round trip.
_BATCH = 100
#: How often each process looks whether Redis was emptied, and for how long all wait with budgets once one has seen it:
#: by then the others have too, and SQL has what was settled before (`filling.FILL`).
_WATCH, _WAIT = 0.5, 2.0


class RedisCounters:
    """Counters in Redis. While it is gone, limits go on in this process alone, each at its share of the height."""

    def __init__(self, url: str, prefix: str = "promptyard", member: str = "") -> None:
        """`member` is hex, and this process's from one life to the next: what it held when it was killed is let go."""
        self._redis = redis.Redis.from_pool(pool_of(url, _CONNECTIONS, _PATIENCE))
        #: One place a connection. The pool's own queue ends in the error of a lost connection.
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._prefix = prefix
        self._take = self._redis.register_script(scripts.TAKE)
        self._settle = self._redis.register_script(scripts.SETTLE)
        self._spend = self._redis.register_script(scripts.SPEND)
        self._open = self._redis.register_script(scripts.OPEN)
        self._hold = self._redis.register_script(scripts.HOLD)
        self._meet = self._redis.register_script(scripts.MEET)
        self._add = self._redis.register_script(scripts.ADD)
        self._inherit = self._redis.register_script(scripts.INHERIT)
        #: What Redis was called when this process met it last, and how many processes counted there then.
        self._epoch = ""
        self.members = 1
        self._member = member or secrets.token_hex(8)
        #: What is granted is named for the member, its life and a number.
        self._life, self._asked = secrets.token_hex(4), 0
        self._inherited = False
        self._holder = self._name(f"held:{self._member}")
        self._meeting: asyncio.Task[None] | None = None
        self._local = MemoryCounters()
        self._there = asyncio.Event()
        self._there.set()
        self._rest = 0.0
        self._return: asyncio.Task[None] | None = None
        self._running: set[Held] = set()
        #: What running attempts hold of budgets.
        self._holding: dict[Held, None] = {}
        #: What days were opened with in this process, while Redis is gone.
        self._opened_here: dict[tuple[str, Rule], int] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal | Unknown:
        """All or none, in one round trip (`Counters.take`)."""
        return await self._take_asking(claims, [0] * len(claims))

    async def _take_asking(self, claims: Sequence[Claim], ahead: Sequence[int]) -> Grant | Refusal | Unknown:
        """As `take`, with so much more of each claim for calls to come, where there is plenty (`_granted`)."""
        if not claims:
            return Grant([])
        if not self._there.is_set():
            return await self._take_here(claims)
        asked = asyncio.create_task(self._ask(claims, ahead))
        try:
            # Shielded: a claim on its way is granted whether or not its caller is still there to give it back.
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._forsaken)
            raise

    async def _take_here(self, claims: Sequence[Claim]) -> Grant | Refusal | Unknown:
        """In this process alone, of this process's share. Of a budget, nobody here knows what others spend."""
        if any(claim.rule is Rule.BUDGET for claim in claims):
            raise scripts.unavailable()
        shares = [claim._replace(limit=self._share(claim)) for claim in claims]
        taken = await self._local.take(shares)
        if isinstance(taken, Grant):
            return taken
        whole = claims[next(number for number, share in enumerate(shares) if share is taken.claim)]
        return taken._replace(claim=whole)

    def _share(self, claim: Claim) -> int:
        """How much of a limit this process may give out while it cannot ask: that of each, rounded down."""
        before = self._opened_here.get((claim.scope, claim.rule), 0)
        return before + max(0, claim.limit - before) // self.members

    async def _open_here(self, claim: Claim, used: int) -> None:
        self._opened_here.setdefault((claim.scope, claim.rule), used)
        await self._local.open(claim, used)

    async def open(self, claim: Claim, used: int) -> None:
        """Begin a window (`Counters.open`)."""
        if claim.rule is not Rule.BUDGET and not self._there.is_set():
            await self._open_here(claim, used)
            return
        try:
            async with self._places:
                await self._open(keys=[self._key(claim)], args=[used, scripts.OPENED_KEPT])
        except (RedisError, OSError) as error:
            self._gone(error)
            if claim.rule is Rule.BUDGET:
                raise scripts.unavailable() from None
            await self._open_here(claim, used)

    def spend(self, money: Sequence[object], cost: int) -> None:
        """Correct what is held of budgets to what it cost (`Counters.spend`), as soon as Redis can be told."""
        told = [held for held in money if isinstance(held, Held)]
        for held in told:
            self._holding.pop(held, None)
        if told:
            self._tell_beside(self._tell_cost(told, cost))

    def charge(self, scope: str, cost: int) -> None:
        """Count what nothing was held for (`Counters.charge`)."""
        self._tell_beside(self._tell_charge(self._name(f"{Rule.BUDGET}:{scope}"), cost, self._epoch))

    async def _tell_charge(self, key: str, cost: int, epoch: str) -> None:
        await self._there.wait()
        if epoch != self._epoch:
            return  # emptied since: opened with it
        try:
            async with self._places:
                await self._add(keys=[key], args=[cost])
        except (RedisError, OSError) as error:
            self._gone(error)

    async def _tell_cost(self, told: Sequence[Held], cost: int) -> None:
        while True:
            await self._there.wait()
            try:
                async with self._places:
                    await self._spend(keys=[held.key for held in told], args=[told[0].id, cost])
            except (RedisError, OSError) as error:
                self._gone(error)
            else:
                return

    async def _ask(self, claims: Sequence[Claim], ahead: Sequence[int]) -> Grant | Refusal | Unknown:
        self._asked += 1
        grant_id = f"{self._member}.{self._life}.{self._asked:x}"
        try:
            async with asyncio.timeout(_QUEUE):
                await self._places.acquire()
        except TimeoutError:
            # A crowd, not a loss: Redis stays in use.
            return await self._take_here(claims)
        try:
            if not self._there.is_set():
                return await self._take_here(claims)
            answer = await self._answer(grant_id, claims, ahead)
        except (RedisError, OSError) as error:
            self._gone(error)
            # It may have been granted: then nobody else would ever give back what it holds of budgets.
            if held := [self._key(claim) for claim in claims if claim.rule is Rule.BUDGET]:
                lost = [Held(grant_id, "", key, "0", self._epoch) for key in held]
                self._tell_beside(self._tell_cost(lost, 0))
            return await self._take_here(claims)
        finally:
            self._places.release()
        self._rest = 0.0
        if answer[0] >= 3:
            raise scripts.unavailable()
        if answer[0] == 2:
            return Unknown(claims[answer[1] - 1])
        if not answer[0]:
            return Refusal(claims[answer[1] - 1], answer[2], max(0.0, answer[3] / 1e6), answer[4])
        return self._granted(grant_id, claims, answer[1:])

    async def _answer(self, grant_id: str, claims: Sequence[Claim], ahead: Sequence[int]) -> Any:
        """What Redis says to `claims`, once it is one that this process has met."""
        for _ in range(3):
            if self._epoch:
                keys = [self._name("epoch"), self._name("wait"), self._holder, *self._keys(claims)]
                asked = scripts.arguments(grant_id, self._epoch, claims, ahead, self.members)
                answer = await self._take(keys=keys, args=asked)
                if answer[0] != 3:
                    return answer
            await self._met()
        return [3]  # emptied again and again

    async def _met(self) -> None:
        """Meet Redis; where it is another than the one that was met before, put back what this process holds there.

        However many ask, one does it.
        """
        if self._meeting is None or self._meeting.done():
            self._meeting = asyncio.create_task(self._meet_it())
        await asyncio.shield(self._meeting)

    async def _meet_it(self) -> None:
        keys = [self._name(name) for name in ("epoch", "wait", "members")]
        lease, wait = int(scripts.LEASE * 1e6), int(_WAIT * 1000)
        epoch, members = await self._meet(keys, [self._epoch, secrets.token_hex(8), self._member, lease, wait])
        self.members = max(1, members)
        if not self._inherited:
            lost = await self._inherit(keys=[self._holder], args=[self._member, self._life, int(_WAIT * 1e6)])
            self._inherited = True
            if lost:
                log.warning("A kill left %d attempts' budgets held: they are let go, and wait for %g s.", lost, _WAIT)
        epoch = epoch.decode()
        if epoch == self._epoch:
            return
        if self._epoch:
            log.warning("Redis was emptied: what this process holds is put back, budgets wait for %g s.", _WAIT)
        await self._put_back()
        self._epoch = epoch

    async def _put_back(self) -> None:
        """Have a Redis that was emptied know what this process holds."""
        await self._put_leases()
        for held in list(self._holding):
            await self._hold(keys=[held.key], args=[held.id, held.fit, scripts.OPENED_KEPT])
            if held not in self._holding:  # settled meanwhile, perhaps before it was put back
                await self._spend(keys=[held.key], args=[held.id, 0])

    def _forsaken(self, asked: asyncio.Task[Grant | Refusal | Unknown]) -> None:
        if not asked.cancelled() and asked.exception() is None and isinstance(grant := asked.result(), Grant):
            self.settle(grant, 0)
            self.spend(grant.money, 0)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`); what Redis cannot be told now, it forgets by itself."""
        if not grant.held:
            return
        told = [held for held in grant.held if isinstance(held, Held) and scope in (None, held.scope)]
        if not told:
            self._local.settle(grant, tokens, scope)
            return
        grant.held = [held for held in grant.held if held not in told]
        self._running.difference_update(told)
        self._tell_beside(self._tell(told, tokens))

    def _tell_beside(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, told: Sequence[Held], tokens: int) -> None:
        keys = [name for held in told for name in (held.key, f"{held.key}:sum")]
        try:
            async with asyncio.timeout(WINDOW):
                await self._there.wait()
        except TimeoutError:
            return
        try:
            async with self._places:
                await self._settle(keys=keys, args=[told[0].id, tokens, *map(self._fit, told)])
        except (RedisError, OSError) as error:
            self._gone(error)

    def _fit(self, held: Held) -> str:
        """How much was claimed: of a day, in a Redis that was emptied since, nothing."""
        return "d0" if held.fit.startswith("d") and held.epoch != self._epoch else held.fit

    async def start(self) -> None:
        """Begin looking for Redis and renewing the leases of running calls. Waits for neither."""
        self._renewal = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Stop renewing and hang up."""
        if self._telling and self._there.is_set():
            await asyncio.wait(self._telling, timeout=_PATIENCE)
        if self._epoch and self._there.is_set():
            with contextlib.suppress(RedisError, OSError):
                await self._redis.zrem(self._name("members"), self._member)
        ending = {task for task in (self._renewal, self._return, self._meeting, *self._telling) if task is not None}
        while ending:
            for task in ending:
                task.cancel()
            # More than once: `asyncio.wait_for` of Python 3.11, below redis-py, loses one now and then.
            ending = (await asyncio.wait(ending, timeout=_PATIENCE))[1]
        await self._redis.aclose()

    def status(self) -> str:
        """ "redis", or that it is gone."""
        if self._there.is_set():
            return "redis"
        share = f", 1/{self.members} of each" if self.members > 1 else ""
        return f"redis is gone: limits are kept by this process{share}"

    def _granted(self, grant_id: str, claims: Sequence[Claim], answer: Sequence[int]) -> Grant:
        grant, epoch = Grant([]), self._epoch
        for claim, fit, left in zip(claims, answer[::2], answer[1::2], strict=True):
            if claim.rule is Rule.CONCURRENCY:
                held = Held(grant_id, claim.scope, self._key(claim), "c", epoch)
                self._running.add(held)
                grant.held.append(held)
                continue
            if claim.rule is Rule.BUDGET:
                of_budget = Held(grant_id, claim.scope, self._key(claim), str(fit), epoch)
                self._holding[of_budget] = None
                grant.money = (*grant.money, of_budget)
                continue
            if claim.rule in (Rule.TPM, Rule.TPD):
                of_day = "d" if claim.rule is Rule.TPD else ""
                grant.held.append(Held(grant_id, claim.scope, self._key(claim), f"{of_day}{fit}", epoch))
            grant.standings.append(Standing(claim, max(0, left), 60.0))
        return grant

    async def _renew(self) -> None:
        """Lengthen leases now and then, and look more often whether Redis was emptied."""
        looks = 0
        while True:
            try:
                if looks % round(_RENEW / _WATCH) == 0:
                    await self._met()
                    await self._put_leases()
                elif await self._redis.get(self._name("epoch")) != self._epoch.encode():
                    await self._met()
            except (RedisError, OSError) as error:
                self._gone(error)
            looks += 1
            await asyncio.sleep(_WATCH)
            await self._there.wait()

    async def _put_leases(self) -> None:
        """Lengthen the lease of every running call, and put back those that ended while Redis was gone."""
        running = list(self._running)
        seconds, micros = await self._redis.time()
        end = seconds * 1_000_000 + micros + int(scripts.LEASE * 1e6)
        for at in range(0, len(running), _BATCH):
            renewed = [held for held in running[at : at + _BATCH] if held in self._running]
            await self._send([("ZADD", held.key, end, held.id) for held in renewed])
            await self._send([("EXPIRE", key, 120) for key in {held.key for held in renewed}])
            # Settled meanwhile, on another connection: it may have been taken out before it was put back.
            await self._send([("ZREM", held.key, held.id) for held in renewed if held not in self._running])

    async def _send(self, commands: Sequence[tuple[str | int, ...]]) -> None:
        if commands:
            async with self._redis.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                await pipe.execute()

    def _gone(self, error: Exception) -> None:
        if not self._there.is_set():
            return
        log.warning("Redis does not answer (%s): limits are kept by this process.", type(error).__name__)
        self._there.clear()
        self._return = asyncio.create_task(self._look_for_it())

    async def _look_for_it(self) -> None:
        """End once Redis answers. Nobody else asks until then: those who did would all wait for it again."""
        while True:
            await asyncio.sleep(self._rest)
            # Short again only after a call that went well: an answer to this alone may not mean much.
            self._rest = min(max(_REST, 2 * self._rest), _LONGEST_REST)
            with contextlib.suppress(RedisError, OSError):
                epoch = self._epoch
                await self._met()
                await self._put_leases()
                if epoch in ("", self._epoch):
                    await self._tell_days()
                break
        log.warning("Redis answers again.")
        self._local.forget_opened()
        self._opened_here.clear()
        self._there.set()

    async def _tell_days(self) -> None:
        """Count in Redis what went on here of days. One that was emptied meanwhile is opened with it."""
        used = {
            self._name(f"{rule}:{scope}"): self._local.used(scope, rule) - before
            for (scope, rule), before in self._opened_here.items()
        }
        if used:
            await self._add(keys=[*used], args=[*used.values()])

    def _key(self, claim: Claim) -> str:
        # Braces keep every key on one slot of a cluster: a script may touch only one.
        return self._name(f"{claim.rule}:{claim.scope}")

    def _name(self, name: str) -> str:
        return f"{{{self._prefix}}}:{name}"

    def _keys(self, claims: Sequence[Claim]) -> list[str]:
        return [name for claim in claims for name in (self._key(claim), f"{self._key(claim)}:sum")]
