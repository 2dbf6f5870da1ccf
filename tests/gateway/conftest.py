"""What tests of the gateway's parts share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import counters_redis
from gateway.counters import Counters, MemoryCounters
from gateway.counters_leases import LeasedCounters
from gateway.types import Rule


@pytest.fixture
async def counters(redis_or_none: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counters]:
    """Counters in memory, then in a real Redis, which a busy machine may keep waiting longer than anybody would."""
    monkeypatch.setattr(counters_redis, "_PATIENCE", 30.0)
    made: Counters = MemoryCounters() if redis_or_none is None else LeasedCounters(redis_or_none)
    await made.start()
    yield made
    await made.close()


class NothingSpent:
    """Balances of a ledger without a line."""

    def begin(self, attempt: tuple[Any, ...]) -> None:
        pass

    async def used(self, rule: Rule, whose: str, since: float, until: float | None) -> int:
        return 0
