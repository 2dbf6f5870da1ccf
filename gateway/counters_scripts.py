"""The scripts of `counters_redis`, each one step that nothing comes between, and what they are asked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import BudgetUnavailable
from gateway.types import Claim

#: A process that died gives its calls at once back after so many seconds.
LEASE = 30.0
#: Seconds a window that was opened is kept after its last call. Then a day's is over, no attempt holds any of a budget,
#: and the ledger knows what was spent of it.
OPENED_KEPT = 8 * 86400

#: Seconds for which a process may use what it was given ahead; the part of what is free that all may have ahead; and
#: how many claims' worth it must be, so that there is none of it near a limit, nor of a small one.
AHEAD, PLENTY, WORTH = 0.3, 32, 4

# Times are microseconds of Redis's own clock, so that machines need not agree on theirs. A window is a
# sorted set of "<id>:<amount>" by time, with its sum beside it; calls at once are a set of ids by lease end.
# A budget's window is a hash: `used` (spent and held), `held`, and what each running attempt holds by its id;
# a day's is one of `used` alone. Three keys stand before those of claims: the epoch, whose value whoever asks must know
# (else Redis was emptied since), one that is there while nobody may have anything of a budget, and a set of the keys
# that whoever asks holds some of a budget by (`INHERIT`). A budget may be `closed` until a time.
# Where there is plenty, a claim is given `ahead` as well, for the calls that come next (`counters_leases`): at most one
# part in so many of what is free. It is counted as if it were used at the end of its time, so never too early.
TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local id, window = table.remove(ARGV, 1), 60000000
if redis.call('GET', table.remove(KEYS, 1)) ~= table.remove(ARGV, 1) then return {3} end
local waiting = redis.call('EXISTS', table.remove(KEYS, 1)) == 1
local holder = table.remove(KEYS, 1)
local function opened(rule) return rule == 'max_budget' or rule == 'rpd' or rule == 'tpd' end
local fits = {}
for i = 1, #KEYS / 2 do
  local key, sum = KEYS[2 * i - 1], KEYS[2 * i]
  local a = 1 + (i - 1) * 5
  local rule, limit, amount, least = ARGV[a], tonumber(ARGV[a+1]), tonumber(ARGV[a+2]), tonumber(ARGV[a+3])
  local used
  if rule == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
  elseif opened(rule) then
    if waiting and rule == 'max_budget' then return {4} end
    local found = redis.call('HMGET', key, 'used', 'closed')
    if found[2] and tonumber(found[2]) > now then return {4} end
    used = found[1]
    if not used then return {2, i} end
    used = tonumber(used)
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
    local wait, needed, held = 1000000, least - (limit - used), 0
    if rule == 'max_budget' then
      held = tonumber(redis.call('HGET', key, 'held') or '0')
    elseif rule ~= 'concurrency' and not opened(rule) then
      wait = window
      local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      for n = 1, #entries, 2 do
        needed = needed - tonumber(string.match(entries[n], ':(%d+)$'))
        if needed <= 0 then wait = tonumber(entries[n+1]) + window - now break end
      end
    end
    return {0, i, used, wait, held}
  end
  local ahead = math.min(tonumber(ARGV[a+4]), math.floor((limit - used - fit) / tonumber(ARGV[#ARGV - 1])))
  local later = 0
  if ahead >= tonumber(ARGV[#ARGV - 4]) * amount and ahead > 0 then
    fit, later = fit + ahead, tonumber(ARGV[#ARGV])
  end
  fits[i] = {fit, used, later}
end
local answer = {1}
for i = 1, #KEYS / 2 do
  local key, sum = KEYS[2 * i - 1], KEYS[2 * i]
  local rule, limit = ARGV[1 + (i - 1) * 5], tonumber(ARGV[2 + (i - 1) * 5])
  local fit, used, later = fits[i][1], fits[i][2], fits[i][3]
  local kept = tonumber(ARGV[#ARGV - 2])
  if rule == 'concurrency' then
    redis.call('ZADD', key, now + tonumber(ARGV[#ARGV - 3]), id)
  elseif opened(rule) then
    redis.call('HINCRBY', key, 'used', fit)
    if rule == 'max_budget' then
      redis.call('HINCRBY', key, 'held', fit)
      redis.call('HSET', key, 'r:' .. id, fit)
      redis.call('SADD', holder, key)
      redis.call('EXPIRE', holder, kept)
    end
  else
    redis.call('ZADD', key, now + later, id .. ':' .. fit)
    redis.call('INCRBY', sum, fit)
    redis.call('EXPIRE', sum, 120)
  end
  redis.call('EXPIRE', key, opened(rule) and kept or 120)
  answer[#answer + 1] = fit
  answer[#answer + 1] = limit - used - fit
end
return answer
"""
SETTLE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local id, tokens = ARGV[1], tonumber(ARGV[2])
for i = 1, #KEYS / 2 do
  local key, sum, fit = KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 + i]
  if fit == 'c' then
    redis.call('ZREM', key, id)
  elseif string.sub(fit, 1, 1) == 'd' then
    if redis.call('EXISTS', key) == 1 then redis.call('HINCRBY', key, 'used', tokens - tonumber(string.sub(fit, 2))) end
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
# What is not held any more was settled, or Redis was emptied since: then the window is opened with it. So it is with
# what was put back and is settled before the window is opened.
SPEND = """
local field, cost = 'r:' .. ARGV[1], tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  local held = redis.call('HGET', key, field)
  if held then
    if redis.call('HEXISTS', key, 'used') == 1 then redis.call('HINCRBY', key, 'used', cost - held) end
    redis.call('HINCRBY', key, 'held', 0 - held)
    redis.call('HDEL', key, field)
  end
end
"""
# What is left of a lease, and what was spent of it in all, so that it may be told twice.
PART = """
local left, spent = tonumber(ARGV[2]), tonumber(ARGV[3])
local before = redis.call('HGET', KEYS[1], 'r:' .. ARGV[1])
if not before then return end
local told = redis.call('HGET', KEYS[1], 's:' .. ARGV[1]) or 0
if redis.call('HEXISTS', KEYS[1], 'used') == 1 then
  redis.call('HINCRBY', KEYS[1], 'used', left + spent - before - told)
end
redis.call('HINCRBY', KEYS[1], 'held', left - before)
if left == 0 then
  redis.call('HDEL', KEYS[1], 'r:' .. ARGV[1], 's:' .. ARGV[1])
else
  redis.call('HSET', KEYS[1], 'r:' .. ARGV[1], left, 's:' .. ARGV[1], spent)
end
"""
# What running attempts hold was perhaps put back before their window was opened.
OPEN = """
local clock = redis.call('TIME')
local closed = tonumber(redis.call('HGET', KEYS[1], 'closed') or '0')
if closed > clock[1] * 1000000 + clock[2] then return end
if redis.call('HSETNX', KEYS[1], 'used', ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'used', redis.call('HGET', KEYS[1], 'held') or 0)
end
redis.call('HSETNX', KEYS[1], 'held', 0)
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
# What was used of a day while Redis could not be asked. Where the day is not opened there, the ledger will say it.
ADD = """
for i, key in ipairs(KEYS) do
  if redis.call('HEXISTS', key, 'used') == 1 then redis.call('HINCRBY', key, 'used', ARGV[i]) end
end
"""
# Put back what a running attempt holds, in a Redis that was emptied.
HOLD = """
if redis.call('HSETNX', KEYS[1], 'r:' .. ARGV[1], ARGV[2]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'held', ARGV[2])
  if redis.call('HEXISTS', KEYS[1], 'used') == 1 then redis.call('HINCRBY', KEYS[1], 'used', ARGV[2]) end
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
"""
# What a process held that was killed, once it runs again: every budget it held any of is closed for a moment, until the
# ledger knows what all the others settled of it, and is then opened with that and with what these hold.
INHERIT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local member, life, wait, found = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local lost = 0
  local fields = redis.call('HGETALL', key)
  for n = 1, #fields, 2 do
    local of, lived = string.match(fields[n], '^r:(%x+)%.(%x+)%.')
    if of == member and lived ~= life then
      lost = lost + tonumber(fields[n+1])
      redis.call('HDEL', key, fields[n], (string.gsub(fields[n], '^r', 's')))
      found = found + 1
    end
  end
  if lost > 0 then
    redis.call('HINCRBY', key, 'held', 0 - lost)
    redis.call('HDEL', key, 'used')
    redis.call('HSET', key, 'closed', now + wait)
  end
end
redis.call('DEL', KEYS[1])
return found
"""
# The epoch, begun where there is none, and how many processes count here. Whoever knew another one has everybody wait
# with budgets: until all have put back what they hold, and SQL has what they settled.
MEET = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local known, begun, member, lease, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
redis.call('SET', KEYS[1], begun, 'NX')
local epoch = redis.call('GET', KEYS[1])
if known ~= '' and known ~= epoch then redis.call('SET', KEYS[2], 1, 'PX', wait) end
redis.call('ZADD', KEYS[3], now + lease, member)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
return {epoch, redis.call('ZCARD', KEYS[3])}
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis holds for one claim: under which key and id, and how much ("c": one call at once; "d…": of a day).

    It was granted in `epoch`: a Redis that was emptied since knows nothing of it.
    """

    id: str
    scope: str
    key: str
    fit: str
    epoch: str


def arguments(
    grant_id: str, epoch: str, claims: Sequence[Claim], ahead: Sequence[int], members: int
) -> list[str | int]:
    """What `TAKE` is asked with. `ahead` is how much more of each claim, where there is plenty."""
    asked: list[str | int] = [grant_id, epoch]
    for claim, more in zip(claims, ahead, strict=True):
        asked += (claim.rule.value, claim.limit, claim.amount, claim.least, more)
    return [*asked, WORTH, int(LEASE * 1e6), OPENED_KEPT, PLENTY * members, int(AHEAD * 1e6)]


def unavailable() -> BudgetUnavailable:
    """Where a budget cannot be asked."""
    return BudgetUnavailable(
        "A budget applies, and what is left of it is in Redis, which does not answer just now. Try again in 2 s.",
        retry_after=2,
    )
