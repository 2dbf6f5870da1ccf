"""Answers kept in Redis for every process that names it. While it is gone there are none, and nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis.asyncio as redis
from redis.exceptions import RedisError

from gateway.counters_pool import pool_of

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How long one round trip may take, an answer of megabytes with it, and how long one waits for a free connection.
_PATIENCE, _QUEUE = 0.5, 0.5
#: After one that failed nobody asks for a while, then one does; the rests double from the first to the last.
_REST, _LONGEST_REST = 1.0, 10.0
_CONNECTIONS = 16


class RedisStore:
    """Answers in Redis, on connections of their own: a large one does not hold up what counts limits.

    Redis bounds its own memory (`maxmemory`); an entry that it drops is a miss.
    """

    def __init__(self, url: str, prefix: str = "promptyard") -> None:
        self._redis = redis.Redis.from_pool(pool_of(url, _CONNECTIONS, _PATIENCE))
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._prefix = prefix
        self._rest = 0.0
        #: Loop time before which nobody asks.
        self._quiet_until = 0.0

    async def get(self, digest: str) -> bytes | None:
        """What was put (`Store.get`)."""
        found = await self._asked(lambda: self._redis.get(self._key(digest)))
        return found if isinstance(found, bytes) else None

    async def put(self, digest: str, entry: bytes, ttl: float) -> None:
        """Keep it (`Store.put`)."""
        await self._asked(lambda: self._redis.set(self._key(digest), entry, px=max(1, int(ttl * 1000))))

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()

    async def _asked(self, command: Callable[[], Awaitable[T]]) -> T | None:
        """What Redis says to `command`; None where it is not to be had."""
        if self._is_quiet():
            return None
        try:
            async with asyncio.timeout(_QUEUE):
                await self._places.acquire()
        except TimeoutError:
            # A crowd, not a loss: Redis stays in use.
            return None
        try:
            if self._is_quiet():
                return None
            probe = self._rest > 0
            if probe:
                # One asks for all: those beside it would wait for the same silence.
                self._quiet_until = _now() + self._rest
            said = await command()
        except (RedisError, OSError) as error:
            if probe or not self._rest:
                self._gone(error)
            return None
        finally:
            self._places.release()
        if probe:
            log.warning("Redis answers again, and the cache with it.")
            self._rest = 0.0
        return said

    def _is_quiet(self) -> bool:
        return self._rest > 0 and _now() < self._quiet_until

    def _gone(self, error: Exception) -> None:
        if not self._rest:
            log.warning("Redis does not answer (%s): no answer is taken from the cache.", type(error).__name__)
        self._rest = min(max(_REST, 2 * self._rest), _LONGEST_REST)
        self._quiet_until = _now() + self._rest

    def _key(self, digest: str) -> str:
        return f"{self._prefix}:cache:{digest}"


def _now() -> float:
    return asyncio.get_running_loop().time()
