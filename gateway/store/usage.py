"""Usage records in SQL: filled from a journal, summed for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, cast, func, insert, select, update

from gateway.store.tables import journals, usage
from gateway.types import UsageFilter, UsageRecord, UsageSum

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.database import Database

_FIELDS = [field.name for field in dataclasses.fields(UsageRecord)]
_DAY = 86400
# What a sum can be grouped by.
_GROUPS: dict[str, Any] = {
    "key": usage.c.key_name,
    "key_id": usage.c.key_id,
    "route": usage.c.route,
    "deployment": usage.c.deployment,
    "day": usage.c.day,
}
GROUPS = tuple(_GROUPS)


_INSERT = insert(usage)


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert records as the driver takes them: SQLAlchemy's own way through each row costs ten times the insert."""
    statement = _INSERT.compile(dialect=connection.dialect, column_keys=[*_FIELDS, "day"])
    parameters: list[Any] = list(rows)
    if statement.positiontup is not None:
        parameters = list(map(itemgetter(*statement.positiontup), rows))
    connection.exec_driver_sql(str(statement), parameters)


class UsageStore:
    """The usage records of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def position(self, journal: str) -> tuple[int, int]:
        """How far `journal` has been copied: segment and offset."""
        with self._database.read() as connection:
            row = connection.execute(
                select(journals.c.segment, journals.c.offset).where(journals.c.id == journal)
            ).first()
            return (row.segment, row.offset) if row else (1, 0)

    def oldest_open(self, journal: str) -> tuple[int, int] | None:
        """Where the oldest attempt in `journal` stood that was not settled when it was copied last; None: none did."""
        with self._database.read() as connection:
            row = connection.execute(
                select(journals.c.open_segment, journals.c.open_offset).where(journals.c.id == journal)
            ).first()
            return None if row is None or row.open_segment is None else (row.open_segment, row.open_offset)

    def fill(
        self,
        journal: str,
        rows: Sequence[dict[str, Any]],
        since: tuple[int, int],
        until: tuple[int, int],
        oldest_open: tuple[int, int] | None = None,
    ) -> None:
        """Add `rows` (records as dicts) and note that `journal` is copied `until` there, in one transaction.

        Positions are segment and offset; `oldest_open` is where its oldest unsettled attempt stands. Never twice:
        where `journal` is not copied exactly up to `since`, nothing is added and an error raised.
        """
        for row in rows:
            row["day"] = int(row["time"] // _DAY)

        def work(connection: Connection) -> None:
            if rows:
                _insert(connection, rows)
            still = oldest_open or (None, None)
            here = {"segment": until[0], "offset": until[1], "open_segment": still[0], "open_offset": still[1]}
            copied = (journals.c.segment == since[0]) & (journals.c.offset == since[1])
            if not connection.execute(update(journals).where(journals.c.id == journal, copied).values(here)).rowcount:
                # New, or (a second row of one id is refused) copied up to somewhere else.
                connection.execute(insert(journals).values(id=journal, **here))

        self._database.write(work)

    def find(self, request_id: str) -> UsageRecord | None:
        """The record of one call."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(usage).where(usage.c.request_id == request_id, usage.c.final))
                .mappings()
                .first()
            )
            return None if row is None else UsageRecord(**{name: row[name] for name in _FIELDS})

    def spent(self, whose: str, since: float, until: float | None) -> int:
        """Nano-dollars of `key:<id>` or `route:<name>`, for calls that began from `since` until `until`."""
        kind, _, name = whose.partition(":")
        theirs = usage.c.key_id if kind == "key" else func.coalesce(usage.c.fallback, usage.c.route)
        statement = select(func.sum(usage.c.cost)).where(theirs == name, usage.c.time >= since)
        if until is not None:
            statement = statement.where(usage.c.time < until)
        with self._database.read() as connection:
            return int(connection.scalar(statement) or 0)

    def sums(self, by: Sequence[str], only: UsageFilter) -> list[UsageSum]:
        """Calls, tokens and cost of each group of `by` (names of `GROUPS`), in the groups' order."""
        groups = [_GROUPS[name].label(name) for name in by]
        statement = select(
            *groups,
            func.sum(cast(usage.c.final, Integer)).label("calls"),
            func.sum(cast(and_(usage.c.final, usage.c.status >= 400), Integer)).label("failed"),
            func.sum(usage.c.input_tokens).label("input_tokens"),
            func.sum(usage.c.output_tokens).label("output_tokens"),
            func.sum(usage.c.cost).label("cost"),
        )
        if only.since is not None:
            statement = statement.where(usage.c.time >= only.since)
        if only.until is not None:
            statement = statement.where(usage.c.time < only.until)
        if only.key_id is not None:
            statement = statement.where(usage.c.key_id == only.key_id)
        if groups:
            statement = statement.group_by(*groups).order_by(*groups)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
        return [
            UsageSum(
                group={name: row[name] for name in by},
                calls=int(row["calls"] or 0),
                failed=int(row["failed"] or 0),
                input_tokens=int(row["input_tokens"] or 0),
                output_tokens=int(row["output_tokens"] or 0),
                cost=int(row["cost"] or 0),
            )
            for row in rows
        ]
