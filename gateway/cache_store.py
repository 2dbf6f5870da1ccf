"""Where answers are kept, by digest and for a time: bytes in, the same bytes out. Losing one costs a call, no more."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

#: What all entries of this process may take. Who needs more names a Redis.
MOST = 64 * 2**20
#: What an entry takes beside its bytes: its digest and its place.
_BESIDE = 300


class Store(Protocol):
    """One interface wherever answers are kept. Never raises for a store that is away."""

    async def get(self, digest: str) -> bytes | None:
        """What was put under `digest`; None where there is nothing, or no more, or nobody to ask."""

    async def put(self, digest: str, entry: bytes, ttl: float) -> None:
        """Keep `entry` for `ttl` seconds, or shorter where room is needed."""

    async def close(self) -> None:
        """Let go of what the store holds outside this process."""


class _Entry(NamedTuple):
    bytes: bytes
    ends: float


class MemoryStore:
    """Answers in this process, `most` bytes of them; the one unused for longest makes room."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size = 0

    async def get(self, digest: str) -> bytes | None:
        """What was put (`Store.get`)."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry.ends <= self._clock():
            self._drop(digest)
            return None
        self._entries.move_to_end(digest)
        return entry.bytes

    async def put(self, digest: str, entry: bytes, ttl: float) -> None:
        """Keep it (`Store.put`). One that is larger than all there is room for is not kept."""
        if digest in self._entries:
            self._drop(digest)
        if len(entry) + _BESIDE > self._most:
            return
        self._entries[digest] = _Entry(entry, self._clock() + ttl)
        self._size += len(entry) + _BESIDE
        while self._size > self._most:
            self._drop(next(iter(self._entries)))

    async def close(self) -> None:
        """Nothing is held elsewhere."""

    def _drop(self, digest: str) -> None:
        self._size -= len(self._entries.pop(digest).bytes) + _BESIDE
