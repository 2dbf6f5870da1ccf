"""The same counters in one Redis, shared by every process that names it. One script a call takes all or none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.counters import MemoryCounters
from gateway.types import Claim, Grant, Refusal, Rule, Standing

log = logging.getLogger(__name__)

#: A call still running is renewed this often; a process that died gives its calls back after the lease.
_RENEW, _LEASE = 10.0, 30.0
#: How long one round trip may take, and how long Redis is left alone after one that failed.
_PATIENCE, _REST = 2.0, 1.0
#: Connections of this process, and how long a call waits for a free one.
_CONNECTIONS, _QUEUE = 64, 5.0

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
local id, tokens = ARGV[1], tonumber(ARGV[2])
for i = 1, #KEYS / 2 do
  local key, sum, fit = KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 + i]
  if fit == 'c' then
    redis.call('ZREM', key, id)
  else
    local at = redis.call('ZSCORE', key, id .. ':' .. fit)
    if at then
      redis.call('ZREM', key, id .. ':' .. fit)
      if tokens > 0 then redis.call('ZADD', key, at, id .. ':' .. tokens) end
      redis.call('INCRBY', sum, tokens - tonumber(fit))
    end
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
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_QUEUE,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            # A script that was sent may have run: sending it again would claim twice.
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(pool)
        self._prefix = prefix
        self._take = self._redis.register_script(_TAKE)
        self._settle = self._redis.register_script(_SETTLE)
        self._local = MemoryCounters()
        self._rests_until = 0.0
        self._running: set[_Held] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Grant | Refusal:
        """All or none, in one round trip (`Counters.take`)."""
        if not claims:
            return Grant([])
        if time.monotonic() < self._rests_until:
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
            answer = await self._take(keys=self._keys(claims), args=_arguments(grant_id, claims))
        except (RedisError, OSError) as error:
            self._gone(error)
            return await self._local.take(claims)
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
            await self._settle(keys=keys, args=[told[0].id, tokens, *(held.fit for held in told)])
        except (RedisError, OSError) as error:
            self._gone(error)

    async def start(self) -> None:
        """Begin renewing the leases of running calls."""
        try:
            await asyncio.wait_for(self._redis.ping(), _PATIENCE)
        except (RedisError, OSError, TimeoutError) as error:
            self._gone(error)
        self._renewal = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Stop renewing and hang up."""
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
        if self._telling:
            await asyncio.wait(self._telling, timeout=_PATIENCE)
        await self._redis.aclose()

    def status(self) -> str:
        """ "redis", or that it is gone."""
        return "redis" if time.monotonic() >= self._rests_until else "redis is gone: limits are kept by this process"

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
            await asyncio.sleep(_RENEW)
            with contextlib.suppress(RedisError, OSError):
                seconds, micros = await self._redis.time()
                end = seconds * 1_000_000 + micros + int(_LEASE * 1e6)
                for held in list(self._running):
                    await self._redis.zadd(held.key, {held.id: end}, xx=True)
                    await self._redis.expire(held.key, 120)

    def _gone(self, error: Exception) -> None:
        if time.monotonic() >= self._rests_until:
            log.warning("Redis does not answer (%s): limits are kept by this process.", type(error).__name__)
        self._rests_until = time.monotonic() + _REST

    def _key(self, claim: Claim) -> str:
        # Braces keep every key on one slot of a cluster: a script may touch only one.
        return f"{{{self._prefix}}}:{claim.rule}:{claim.scope}"

    def _keys(self, claims: Sequence[Claim]) -> list[str]:
        return [name for claim in claims for name in (self._key(claim), f"{self._key(claim)}:sum")]


def _arguments(grant_id: str, claims: Sequence[Claim]) -> list[str | int]:
    asked: list[str | int] = [grant_id]
    for claim in claims:
        asked += (claim.rule.value, claim.limit, claim.amount, claim.least)
    return [*asked, int(_LEASE * 1e6)]
