"""The same counters in one Redis, shared by every process that names it. One script a call takes all or none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.counters import WINDOW, MemoryCounters
from gateway.errors import ConfigError
from gateway.types import Claim, Grant, Refusal, Rule, Standing

log = logging.getLogger(__name__)

#: A call still running is renewed this often; a process that died gives its calls back after the lease.
_RENEW, _LEASE = 10.0, 30.0
#: How long one round trip may take.
_PATIENCE = 0.5
#: After one that failed, Redis is looked for at once, then after rests that double from the first to the last.
_REST, _LONGEST_REST = 1.0, 10.0
#: Connections of this process (Redis does one thing at a time), and how long a call waits for a free one.
_CONNECTIONS, _QUEUE = 16, 5.0
#: Leases renewed in one round trip.
_BATCH = 100

# Times are microseconds of Redis's own clock, so that machines need not agree on theirs. A window is a
# sorted set of "<id>:<amount>" by time, with its sum beside it; calls at once are a set of ids by lease end.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local id, window = ARGV[1], 60000000
local fits = {}
for i = 1, #KEYS / 2 do
  local key, sum = KEYS[2 * i - 1], KEYS[2 * i]
  local a = 2 + (i - 1) * 4
  local rule, limit, amount, least = ARGV[a], tonumber(ARGV[a+1]), tonumber(ARGV[a+2]), tonumber(ARGV[a+3])
  local used
  if rule == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
  else
    local freed = 0
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now - window)) do
      freed = freed + tonumber(string.match(member, ':(%d+)$'))
    end
    if freed > 0 then redis.call('DECRBY', sum, freed) end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
    used = tonumber(redis.call('GET', sum) or '0')
  end
  local fit = math.min(amount, limit - used)
  if fit < least then
    local wait, needed = 1000000, least - (limit - used)
    if rule ~= 'concurrency' then
      wait = window
      local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      for n = 1, #entries, 2 do
        needed = needed - tonumber(string.match(entries[n], ':(%d+)$'))
        if needed <= 0 then wait = tonumber(entries[n+1]) + window - now break end
      end
    end
    return {0, i, used, wait}
  end
  fits[i] = {fit, used}
end
local answer = {1}
for i = 1, #KEYS / 2 do
  local key, sum = KEYS[2 * i - 1], KEYS[2 * i]
  local rule, limit = ARGV[2 + (i - 1) * 4], tonumber(ARGV[3 + (i - 1) * 4])
  local fit, used = fits[i][1], fits[i][2]
  if rule == 'concurrency' then
    redis.call('ZADD', key, now + tonumber(ARGV[#ARGV]), id)
  else
    redis.call('ZADD', key, now, id .. ':' .. fit)
    redis.call('INCRBY', sum, fit)
    redis.call('EXPIRE', sum, 120)
  end
  redis.call('EXPIRE', key, 120)
  answer[#answer + 1] = fit
  answer[#answer + 1] = limit - used - fit
end
return answer
"""
_SETTLE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local id, tokens = ARGV[1], tonumber(ARGV[2])
for i = 1, #KEYS / 2 do
  local key, sum, fit = KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 + i]
  if fit == 'c' then
    redis.call('ZREM', key, id)
  else
    local claimed = tonumber(fit)
    local at = redis.call('ZSCORE', key, id .. ':' .. fit)
    local there = at and claimed or 0
    local left = tokens
    if not at or tonumber(at) <= now - 60000000 then
      -- The claim has left the window already; what was used beyond it has never been in one.
      at, left = now, math.max(0, tokens - claimed)
    end
    redis.call('ZREM', key, id .. ':' .. fit)
    if left > 0 then redis.call('ZADD', key, at, id .. ':' .. left) end
    redis.call('INCRBY', sum, left - there)
    redis.call('EXPIRE', key, 120)
    redis.call('EXPIRE', sum, 120)
  end
end
"""


@dataclass(frozen=True, slots=True)
class _Held:
    """What Redis holds for one claim: under which key and id, and how much ("c": one call at once)."""

    id: str
    scope: str
    key: str
    fit: str


class RedisCounters:
    """Counters in Redis. While it is gone, limits go on in this process alone, each at its full height, and say so."""

    def __init__(self, url: str, prefix: str = "promptyard") -> None:
        self._redis = redis.Redis.from_pool(pool_of(url, _CONNECTIONS, _PATIENCE))
        #: One place a connection. The pool's own queue ends in the error of a lost connection.
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._prefix = prefix
        self._take = self._redis.register_script(_TAKE)
        self._settle = self._redis.register_script(_SETTLE)
        self._local = MemoryCounters()
        self._there = asyncio.Event()
        self._there.set()
        self._rest = 0.0
        self._return: asyncio.Task[None] | None = None
        self._running: set[_Held] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal:
        """All or none, in one round trip (`Counters.take`)."""
        if not claims:
            return Grant([])
        if not self._there.is_set():
            return await self._local.take(claims)
        asked = asyncio.create_task(self._ask(claims))
        try:
            # Shielded: a claim on its way is granted whether or not its caller is still there to give it back.
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._forsaken)
            raise

    async def _ask(self, claims: Sequence[Claim]) -> Grant | Refusal:
        grant_id = secrets.token_hex(8)
        try:
            async with asyncio.timeout(_QUEUE):
                await self._places.acquire()
        except TimeoutError:
            # A crowd, not a loss: Redis stays in use.
            return await self._local.take(claims)
        try:
            if not self._there.is_set():
                return await self._local.take(claims)
            answer = await self._take(keys=self._keys(claims), args=_arguments(grant_id, claims))
        except (RedisError, OSError) as error:
            self._gone(error)
            return await self._local.take(claims)
        finally:
            self._places.release()
        self._rest = 0.0
        if not answer[0]:
            return Refusal(claims[answer[1] - 1], answer[2], max(0.0, answer[3] / 1e6))
        return self._granted(grant_id, claims, answer[1:])

    def _forsaken(self, asked: asyncio.Task[Grant | Refusal]) -> None:
        if not asked.cancelled() and asked.exception() is None and isinstance(grant := asked.result(), Grant):
            self.settle(grant, 0)

    def settle(self, grant: Grant, tokens: int, scope: str | None = None) -> None:
        """Correct and give back (`Counters.settle`); what Redis cannot be told now, it forgets by itself."""
        if not grant.held:
            return
        told = [held for held in grant.held if isinstance(held, _Held) and scope in (None, held.scope)]
        if not told:
            self._local.settle(grant, tokens, scope)
            return
        grant.held = [held for held in grant.held if held not in told]
        self._running.difference_update(told)
        task = asyncio.get_running_loop().create_task(self._tell(told, tokens))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, told: Sequence[_Held], tokens: int) -> None:
        keys = [name for held in told for name in (held.key, f"{held.key}:sum")]
        try:
            async with asyncio.timeout(WINDOW):
                await self._there.wait()
        except TimeoutError:
            return
        try:
            async with self._places:
                await self._settle(keys=keys, args=[told[0].id, tokens, *(held.fit for held in told)])
        except (RedisError, OSError) as error:
            self._gone(error)

    async def start(self) -> None:
        """Begin looking for Redis and renewing the leases of running calls. Waits for neither."""
        self._renewal = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Stop renewing and hang up."""
        if self._telling and self._there.is_set():
            await asyncio.wait(self._telling, timeout=_PATIENCE)
        ending = [task for task in (self._renewal, self._return, *self._telling) if task is not None]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._redis.aclose()

    def status(self) -> str:
        """ "redis", or that it is gone."""
        return "redis" if self._there.is_set() else "redis is gone: limits are kept by this process"

    def _granted(self, grant_id: str, claims: Sequence[Claim], answer: Sequence[int]) -> Grant:
        grant = Grant([])
        for claim, fit, left in zip(claims, answer[::2], answer[1::2], strict=True):
            if claim.rule is Rule.CONCURRENCY:
                held = _Held(grant_id, claim.scope, self._key(claim), "c")
                self._running.add(held)
                grant.held.append(held)
                continue
            if claim.rule is Rule.TPM:
                grant.held.append(_Held(grant_id, claim.scope, self._key(claim), str(fit)))
            grant.standings.append(Standing(claim, max(0, left), 60.0))
        return grant

    async def _renew(self) -> None:
        while True:
            try:
                await self._renew_leases()
            except (RedisError, OSError) as error:
                self._gone(error)
            await asyncio.sleep(_RENEW)
            await self._there.wait()

    async def _renew_leases(self) -> None:
        """Lengthen the lease of every running call, and put back those that ended while Redis was gone."""
        running = list(self._running)
        async with self._places:
            seconds, micros = await self._redis.time()
            end = seconds * 1_000_000 + micros + int(_LEASE * 1e6)
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
                await self._renew_leases()
                break
        log.warning("Redis answers again.")
        self._there.set()

    def _key(self, claim: Claim) -> str:
        # Braces keep every key on one slot of a cluster: a script may touch only one.
        return f"{{{self._prefix}}}:{claim.rule}:{claim.scope}"

    def _keys(self, claims: Sequence[Claim]) -> list[str]:
        return [name for claim in claims for name in (self._key(claim), f"{self._key(claim)}:sum")]


def pool_of(url: str, connections: int, patience: float) -> redis.BlockingConnectionPool:
    """Connections to the Redis at `url`, each wait on one bounded by `patience` seconds. Raises `ConfigError`."""
    try:
        pool: redis.BlockingConnectionPool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            # A script that was sent may have run: sending it again would claim twice.
            retry=Retry(NoBackoff(), 0),
        )
        pool.connection_class(**pool.connection_kwargs)  # refuses an option it does not know
    except (ValueError, TypeError):
        # `from None`: the library repeats parts of the address, which may hold a password.
        raise ConfigError("The Redis address cannot be used: write redis://:password@host:6379/0.") from None
    return pool


def _arguments(grant_id: str, claims: Sequence[Claim]) -> list[str | int]:
    asked: list[str | int] = [grant_id]
    for claim in claims:
        asked += (claim.rule.value, claim.limit, claim.amount, claim.least)
    return [*asked, int(_LEASE * 1e6)]
