"""Usage records on their way: journalled at once, synced and logged within 100 ms, in SQL within half a second."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson

from gateway.errors import GatewayError, Overloaded
from gateway.filling import Filler, Fillers, Filling
from gateway.journal import Journal, Position
from gateway.lines import BEGUN, Open
from gateway.store.usage import UsageStore
from gateway.types import Rule, UsageFilter, UsageRecord, UsageSum

T = TypeVar("T")

log = logging.getLogger(__name__)
calls = logging.getLogger("gateway.calls")

#: How often the journal is brought to the disk and to the log, in seconds.
TICK = 0.1
#: Records kept for the log while the disk does not answer.
_UNTOLD = 100_000


class Ledger:
    """Usage records: added one by one, asked for when they are in SQL."""

    def __init__(
        self,
        journal: Journal,
        store: UsageStore,
        heard: Callable[[UsageRecord], None] | None = None,
        filling: Filling | None = None,
    ) -> None:
        """`heard` is told of every record that was journalled. `filling` brings the journal into SQL, with others."""
        self._heard = heard
        self._journal = journal
        self._store = store
        self._filling = filling or Fillers([Filler(journal, store)])
        # What the log does not have yet. From memory: a record read back from the journal costs as much as its line.
        self._untold: deque[UsageRecord] = deque()
        self._unsaid = 0
        # A thread of its own: the sync must not wait behind a database that does not answer.
        self._tending = ThreadPoolExecutor(1, "journal")

    def begin(self, attempt: tuple[Any, ...]) -> None:
        """Journal an attempt (the fields of `Begun`) before its upstream is asked.

        Raises `Overloaded` when the disk is full: then nobody is asked.
        """
        self._append(orjson.dumps((BEGUN, *attempt)))

    def add(self, record: UsageRecord) -> None:
        """Journal one record. Raises `Overloaded` when the disk is full: an unrecorded answer is not given."""
        self._append(orjson.dumps(record))
        if self._heard is not None:
            self._heard(record)
        if len(self._untold) < _UNTOLD:
            self._untold.append(record)
        else:
            self._unsaid += 1

    def _append(self, line: bytes) -> None:
        try:
            self._journal.append(line)
        except OSError as error:
            log.error("The usage journal cannot be written: %s", error.strerror)
            raise Overloaded("The usage journal cannot be written.", code="journal_unavailable") from None

    def recover(self) -> int:
        """Settle what a killed process had begun, at the most it may have cost; how many attempts. Before any call.

        Again, after another kill, it finds what was settled settled. Blocks on disk and SQL.
        """
        oldest = self._store.oldest_open(self._journal.id) or self._store.position(self._journal.id)
        orphans = Open()
        lines, position = self._journal.read(Position(*oldest))
        while lines:
            for one in lines:
                orphans.follow(one, position)
            lines, position = self._journal.read(position)
        with contextlib.suppress(Overloaded):  # said already; they are found again at the next start
            for record in orphans.settled():
                self.add(record)
        if orphans.since:
            log.warning("%d attempts were cut short by a kill: recorded at the most they may have cost.",
                        len(orphans.since))  # fmt: skip
        return len(orphans.since)

    async def run(self) -> None:
        """Tend the journal and fill SQL for ever. While SQL is away the journal grows, and nothing is lost."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tend_for_ever())
            both.create_task(self._filling.run())

    async def flush(self) -> None:
        """Return once everything added so far can be read from SQL. Raises `Overloaded` where SQL is away."""
        await _answered(self._filling.flush())

    async def close(self) -> None:
        """Bring everything to its place and let the journal go."""
        with contextlib.suppress(Exception):
            await self.flush()
        await asyncio.to_thread(self._tending.shutdown)
        self._tend()
        self._journal.close()

    async def find(self, request_id: str) -> UsageRecord | None:
        """The record of one call, also of one that ended just now."""
        await self.flush()
        return await _answered(asyncio.to_thread(self._store.find, request_id))

    async def used(self, rule: Rule, whose: str, since: float, until: float | None) -> int:
        """What a key, a tenant or a route used of a rule up to this moment (`UsageStore.used`)."""
        await self.flush()
        return await _answered(asyncio.to_thread(self._store.used, rule, whose, since, until))

    async def sums(self, by: list[str], only: UsageFilter, limit: int | None = None, offset: int = 0) -> list[UsageSum]:
        """Usage summed by groups, up to this moment (`UsageStore.sums`)."""
        await self.flush()
        return await _answered(asyncio.to_thread(self._store.sums, by, only, limit, offset))

    async def _tend_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            await loop.run_in_executor(self._tending, self._tend)

    def _tend(self) -> None:
        """Sync what was appended, and write it to the log: a line of the log costs more than admitting its call."""
        try:
            self._journal.sync()
        except OSError as error:
            log.error("The usage journal cannot be brought to the disk: %s", error.strerror)
            return
        told = [line(self._untold.popleft()) for _ in range(len(self._untold))]
        if told:
            calls.info("\n".join(told))
        if self._unsaid:
            unsaid, self._unsaid = self._unsaid, 0
            log.warning("%d calls have no line here: the disk held the log up. Their records are whole.", unsaid)


def line(record: UsageRecord) -> str:
    """One call as a line of the log, with the time at which it ended."""
    ended = _clock(int(record.time + record.latency))
    return (
        f"{ended} {record.status} {record.task} {record.route or '-'} -> {record.deployment or '-'} "
        f"{record.latency * 1000:.0f} ms, {record.input_tokens}+{record.output_tokens} tokens, "
        f"key {record.key_id}, {record.request_id}" + (f", {record.error}" if record.error else "")
    )


@functools.lru_cache(8)
def _clock(second: int) -> str:
    # Hundreds of lines share it.
    return time.strftime("%H:%M:%S", time.localtime(second))


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except GatewayError:
        raise
    except Exception as error:
        log.debug("SQL does not answer", exc_info=True)
        raise Overloaded("The database does not answer.", code="database_unavailable") from error
