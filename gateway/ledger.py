"""Usage records on their way: journalled at once, synced and logged within 100 ms, in SQL within half a second."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import orjson

from gateway.errors import GatewayError, Overloaded
from gateway.journal import Journal, Position
from gateway.store.usage import UsageStore
from gateway.types import Rule, UsageFilter, UsageRecord, UsageSum

T = TypeVar("T")

log = logging.getLogger(__name__)
calls = logging.getLogger("gateway.calls")

#: How often the journal is brought to the disk and to the log, in seconds.
TICK = 0.1
#: And how often into SQL: each time costs 2 ms, and whoever asks for usage has it brought there first.
FILL = 0.5
#: Records kept for the log while the disk does not answer.
_UNTOLD = 100_000
_FIELDS = dataclasses.fields(UsageRecord)
_REQUIRED = {field.name for field in _FIELDS if field.default is dataclasses.MISSING}
_ORDER = tuple(field.name for field in _FIELDS)
_DEFAULTS = {field.name: field.default for field in _FIELDS if field.name not in _REQUIRED}


class Ledger:
    """Usage records: added one by one, asked for when they are in SQL."""

    def __init__(self, journal: Journal, store: UsageStore, heard: Callable[[UsageRecord], None] | None = None) -> None:
        """`heard` is told of every record that was journalled."""
        self._heard = heard
        self._journal = journal
        self._store = store
        # What SQL has, as SQL says; None: ask it (at the start, and after any doubt).
        self._stored: Position | None = None
        # Held by the thread that fills: a cancelled fill goes on in its thread, and another must not begin beside it.
        self._filling = threading.Lock()
        # What the log does not have yet. From memory: a record read back from the journal costs as much as its line.
        self._untold: deque[UsageRecord] = deque()
        #: Of the filling thread.
        self._open = _Open()
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
        orphans = _Open()
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
            both.create_task(self._fill_for_ever())

    async def flush(self) -> None:
        """Return once everything added so far can be read from SQL. Raises `Overloaded` where SQL is away."""
        await _answered(asyncio.to_thread(self._fill))

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

    async def _fill_for_ever(self) -> None:
        troubled = False
        while True:
            await asyncio.sleep(FILL)
            try:
                await self.flush()
                troubled = False
            except Exception as error:
                if not troubled:
                    cause = type(error.__cause__ or error).__name__
                    log.warning("Usage waits in the journal: SQL does not take it (%s).", cause)
                troubled = True

    def _fill(self) -> None:
        with self._filling:
            try:
                self._fill_from(self._stored or Position(*self._store.position(self._journal.id)))
            except BaseException:
                # A commit whose answer was lost may have been made all the same.
                self._stored = None
                raise

    def _fill_from(self, stored: Position) -> None:
        # What is appended meanwhile waits: under load there is always more, and each commit costs as much as 200 rows.
        end = self._journal.end
        position = stored
        while True:
            lines, position = self._journal.read(position)
            if not lines:
                self._stored = stored
                return
            records = [record for one in lines if (record := self._open.follow(one, stored)) is not None]
            oldest = self._open.oldest
            self._store.fill(
                self._journal.id,
                records,
                (stored.segment, stored.offset),
                (position.segment, position.offset),
                None if oldest is None else (oldest.segment, oldest.offset),
            )
            stored = self._stored = position
            self._journal.forget(position if oldest is None else oldest)
            if stored >= end:
                return


class Begun(NamedTuple):
    """An attempt as the journal has it before its upstream is asked; `cost` is the most it may come to."""

    request_id: str
    attempt: int
    time: float
    key_id: str
    key_name: str
    route: str
    deployment: str
    task: str
    stream: bool
    input_tokens: int
    cost: int
    fallback: str | None
    team_id: str = ""
    organisation_id: str = ""
    end_user: str = ""


#: What a line of the journal begins with that is a `Begun`.
BEGUN = "begun"
_BEGUN = b'["begun",'


class _Open:
    """The attempts that a journal, read in order, has begun and not settled."""

    def __init__(self) -> None:
        self.since: dict[tuple[str, int], tuple[Position, Begun]] = {}

    @property
    def oldest(self) -> Position | None:
        """A position before the oldest of them."""
        return next(iter(self.since.values()))[0] if self.since else None

    def follow(self, one: bytes, at: Position) -> dict[str, Any] | None:
        """The record in a line; None for what is none: an attempt that begins, or a line that is damaged."""
        record = None
        if one.startswith(_BEGUN):
            if begun := _begun(one):
                self.since[begun.request_id, begun.attempt] = at, begun
                return None
        else:
            record = _record(one)
        if record is None:
            log.error("A line of the usage journal is damaged and passed over: %r", one[:200])
        elif self.since:
            self.since.pop((record["request_id"], record["attempt"]), None)
        return record

    def settled(self) -> Iterator[UsageRecord]:
        """A record for each, at the most it may have cost. The last attempt of a call is its answer."""
        final = dict(self.since.keys())  # by call: later ones replace earlier
        for _, begun in self.since.values():
            yield UsageRecord(
                **begun._asdict(),
                status=500,
                error="interrupted",
                estimated=True,
                final=final[begun.request_id] == begun.attempt,
            )


def _begun(one: bytes) -> Begun | None:
    try:
        _, *fields = orjson.loads(one)
        return Begun(*fields)
    except (orjson.JSONDecodeError, TypeError):
        return None


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


def _record(one: bytes) -> dict[str, Any] | None:
    """A line of the journal as a record of today, None if it is damaged.

    What an older version did not write has its default: an upgrade must not lose what waited.
    """
    try:
        found = orjson.loads(one)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    # As we write them, in this order; the keys are then the same objects, and nothing has to be looked up.
    if tuple(found) == _ORDER:
        return found
    if not found.keys() >= _REQUIRED:
        return None
    return _DEFAULTS | {name: value for name, value in found.items() if name in _DEFAULTS or name in _REQUIRED}


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except GatewayError:
        raise
    except Exception as error:
        log.debug("SQL does not answer", exc_info=True)
        raise Overloaded("The database does not answer.", code="database_unavailable") from error
