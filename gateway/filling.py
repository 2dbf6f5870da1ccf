"""Journals on their way into SQL: this process's own, and those that its workers write."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.journal import JournalReader, Position
from gateway.lines import Open
from gateway.store.usage import UsageStore
from gateway.types import UsageRecord

log = logging.getLogger(__name__)

#: How often journals are brought into SQL, in seconds: each time costs 2 ms, and whoever asks for usage has them
#: brought there first.
FILL = 0.5


class Filling(Protocol):
    """Whoever brings journals into SQL."""

    async def flush(self) -> None:
        """Return once SQL has every line written so far. Raises whatever the database does."""

    async def run(self) -> None:
        """Bring them there now and then, for ever."""


class Filler:
    """One journal on its way into SQL."""

    def __init__(
        self, journal: JournalReader, store: UsageStore, heard: Callable[[UsageRecord], None] | None = None
    ) -> None:
        """`heard` is told of every record on its way: of a journal that another process writes."""
        self._journal = journal
        self._store = store
        self._heard = heard
        # What SQL has, as SQL says; None: ask it (at the start, and after any doubt).
        self._stored: Position | None = None
        self._open = Open()
        # Held by the thread that fills: a cancelled fill goes on in its thread, and another must not begin beside it.
        self._filling = threading.Lock()

    def fill(self) -> None:
        """Bring what is in the journal by now. Blocks on disk and SQL."""
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
            if self._heard is not None:
                for record in records:
                    record.pop("day", None)  # the store's own
                    self._heard(UsageRecord(**record))
            stored = self._stored = position
            self._journal.forget(position if oldest is None else oldest)
            if stored >= end:
                return


class Fillers:
    """All the journals that one process brings into SQL."""

    def __init__(self, fillers: Sequence[Filler]) -> None:
        self._fillers = fillers

    async def flush(self) -> None:
        """As `Filling` has it."""
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        for one in self._fillers:
            one.fill()

    async def run(self) -> None:
        """As `Filling` has it. While SQL is away the journals grow, and nothing is lost."""
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
