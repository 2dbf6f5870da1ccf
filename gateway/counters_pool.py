"""Connections to a Redis, for the counters there and for the cache."""

from __future__ import annotations

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import ConfigError


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
