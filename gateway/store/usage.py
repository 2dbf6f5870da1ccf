"""Usage records in SQL: filled from a journal, summed for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, insert, select, update

from gateway.store import usage_days
from gateway.store.tables import journals, usage
from gateway.types import Rule, UsageFilter, UsageRecord, UsageSum

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Subquery

    from gateway.database import Database

_DECLARED = dataclasses.fields(UsageRecord)
_FIELDS = [field.name for field in _DECLARED]
#: What an exported line holds. Costs are nano-dollars.
COLUMNS = tuple("cost_nano_usd" if name == "cost" else name for name in _FIELDS)
#: And of which type each is, where it is not missing.
TYPES = tuple(next(kind for kind in (bool, int, float, str) if kind.__name__ in str(field.type)) for field in _DECLARED)
_PAGE = 10_000
# What a sum can be grouped by: names of columns.
_GROUPS = {
    "organisation": "organisation_id",
    "team": "team_id",
    "key": "key_name",
    "key_id": "key_id",
    "user": usage_days.USER,
    "route": "route",
    "deployment": "deployment",
    "day": "day",
}
GROUPS = tuple(_GROUPS)
#: Whose usage is summed: the kinds of scopes, and the columns that name them.
_OWNERS = {"key": "key_id", "team": "team_id", "organisation": "organisation_id"}


_INSERT = insert(usage)


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert records as the driver takes them: SQLAlchemy's own way through each row costs ten times the insert."""
    statement = _INSERT.compile(dialect=connection.dialect, column_keys=[*_FIELDS, "day"])
    parameters: list[Any] = list(rows)
    if statement.positiontup is not None:
        parameters = list(map(itemgetter(*statement.positiontup), rows))
    connection.exec_driver_sql(str(statement), parameters)


def _used(rule: Rule, found: Subquery) -> ColumnElement[int]:
    """What a limit or a budget counts of `found`."""
    if rule is Rule.BUDGET:
        return found.c.cost
    return found.c.calls - found.c.refused if rule is Rule.RPD else found.c.input_tokens + found.c.output_tokens


def _of_user(user: str, since: float | None, until: float | None, **only: str) -> Subquery:
    if user:
        return usage_days.usage_of_user(user, since, until, **only)
    found = usage_days.usage_by_user(since, until, **only)
    return select(found).where(found.c[usage_days.USER] == "").subquery()


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
            row["day"] = int(row["time"] // usage_days.DAY)

        def work(connection: Connection) -> None:
            if rows:
                _insert(connection, rows)
                usage_days.add(connection, rows)
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

    def used(self, rule: Rule, whose: str, since: float, until: float | None) -> int:
        """What the owner of a claim's scope (`Claim`) used of `rule`: nano-dollars, calls or tokens.

        Of calls that began from `since` until `until`.
        """
        kind, _, name = whose.partition(":")
        if kind == "user":
            kind, name, user = name.replace("/", ":", 1).split(":", 2)
            found = _of_user(user, since or None, until, **{_OWNERS[kind]: name})
        elif kind in _OWNERS:
            found = usage_days.usage_of(since or None, until, **{_OWNERS[kind]: name})
        else:
            found = usage_days.usage_of(since or None, until)
        statement = select(func.sum(_used(rule, found)))
        if kind not in _OWNERS:
            statement = statement.where(case((found.c.fallback != "", found.c.fallback), else_=found.c.route) == name)
        with self._database.read() as connection:
            return int(connection.scalar(statement) or 0)

    def sums(self, by: Sequence[str], only: UsageFilter, limit: int | None = None, offset: int = 0) -> list[UsageSum]:
        """Calls, tokens and cost of each group of `by` (names of `GROUPS`), in the groups' order.

        At most `limit` of them, from the one at `offset` on.
        """
        theirs = {name: value for name in _OWNERS.values() if (value := getattr(only, name)) is not None}
        if only.end_user is not None:
            found = _of_user(only.end_user, only.since, only.until, **theirs)
        elif "user" in by:
            found = usage_days.usage_by_user(only.since, only.until, **theirs)
        else:
            found = usage_days.usage_of(only.since, only.until, **theirs)
        groups = [found.c[_GROUPS[name]].label(name) for name in by]
        statement = select(*groups, *[func.sum(found.c[name]).label(name) for name in usage_days.SUMS])
        if groups:
            statement = statement.group_by(*groups).order_by(*groups)
        if groups and (only.end_user == "" or "user" in by):  # who names none is a difference: perhaps nothing
            statement = statement.having(func.sum(found.c.calls) + func.sum(found.c.input_tokens) > 0)
        if limit is not None:
            statement = statement.limit(limit).offset(offset)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
        return [
            UsageSum(
                group={name: row[name] for name in by},
                **{name: int(row[name] or 0) for name in usage_days.SUMS},
            )
            for row in rows
        ]

    def count(self) -> int:
        """How many lines there are."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(usage)) or 0

    def pages(self, since: float | None, until: float | None) -> Iterator[list[tuple[Any, ...]]]:
        """All lines of calls that began from `since` until `until`, as tuples of `COLUMNS`, page by page."""
        statement = select(usage.c.id, *[usage.c[name] for name in _FIELDS]).order_by(usage.c.id).limit(_PAGE)
        if since is not None:
            statement = statement.where(usage.c.time >= since)
        if until is not None:
            statement = statement.where(usage.c.time < until)
        last = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(statement.where(usage.c.id > last)).all()
            if not rows:
                return
            last = rows[-1].id
            yield [tuple(row)[1:] for row in rows]

    def check(self) -> list[str]:
        """What is wrong with the books, days that are not the sum of their lines, lines there twice."""
        with self._database.read() as connection:
            told = [
                f"day {of['day']}, key {of['key_id']}, route {of['route']}, deployment {of['deployment']}: "
                f"{name} is {summed[name]}, its lines come to {lines[name]}"
                for of, summed, lines in usage_days.differences(connection)
                for name in usage_days.SUMS
                if summed[name] != lines[name]
            ]
            again = (
                select(usage.c.request_id, usage.c.attempt, func.count().label("times"))
                .where(usage.c.attempt > 0)
                .group_by(usage.c.request_id, usage.c.attempt)
                .having(func.count() > 1)
            )
            twice = connection.execute(again).all()
        return told + [f"attempt {row.attempt} of {row.request_id} has {row.times} lines" for row in twice]
