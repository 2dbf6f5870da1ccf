"""Usage summed by days as it arrives: what ten million lines come to is read from as many rows as there are keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, Select, Table, and_, cast, delete, func, insert, literal, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from gateway.store.tables import usage, usage_days, usage_users

if TYPE_CHECKING:
    from sqlalchemy import Connection, Subquery

#: What a day's usage is told apart by, and what is summed.
KEYS = ("day", "key_id", "key_name", "team_id", "organisation_id", "route", "fallback", "deployment")
USER = "end_user"
SUMS = ("calls", "failed", "refused", "input_tokens", "output_tokens", "cost")
DAY = 86400
_sums = itemgetter("input_tokens", "output_tokens", "cost")
# By hand: SQLAlchemy's one insert does not know conflicts.
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class _Kept(NamedTuple):
    """A table of days, and what tells its rows apart."""

    table: Table
    keys: tuple[str, ...]


#: All lines, and those that name an end user.
DAYS = _Kept(usage_days, KEYS)
USERS = _Kept(usage_users, (USER, *KEYS))


def add(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add usage records, as they are in `gateway_usage`, to their days."""
    rows = list(rows)
    _add(connection, DAYS, rows)
    if named := [row for row in rows if row[USER]]:
        _add(connection, USERS, named)


def _add(connection: Connection, kept: _Kept, rows: Iterable[Mapping[str, Any]]) -> None:
    totals: dict[tuple[Any, ...], list[int]] = {}
    key_of = itemgetter(*kept.keys)
    for row in rows:
        key = key_of(row)
        total = totals.get(key)
        if total is None:
            total = totals[key] = [0, 0, 0, 0, 0, 0]
        if row["final"]:
            total[0] += 1
            if row["status"] >= 400:
                total[1] += 1
                total[2] += not row["attempt"]
        read, written, cost = _sums(row)
        total[3] += read
        total[4] += written
        total[5] += cost
    # In one order, so that two who add to the same rows do not wait for each other.
    added = [dict(zip((*kept.keys, *SUMS), (*key, *totals[key]), strict=True)) for key in sorted(totals, key=_order)]
    for one in added:
        one["fallback"] = one["fallback"] or ""
    if added:
        statement = _INSERTS[connection.dialect.name](kept.table)
        more = {name: kept.table.c[name] + statement.excluded[name] for name in SUMS}
        connection.execute(statement.on_conflict_do_update(index_elements=kept.keys, set_=more), added)


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part or "" if isinstance(part, str | None) else part for part in key)


def rebuild(connection: Connection, kept: _Kept = DAYS) -> None:
    """Sum every line anew."""
    connection.execute(delete(kept.table))
    lines = _lines(kept).subquery()
    groups = [lines.c[name] for name in kept.keys]
    sums = [func.sum(lines.c[name]) for name in SUMS]
    names = [*kept.keys, *SUMS]
    connection.execute(insert(kept.table).from_select(names, select(*groups, *sums).group_by(*groups)))


def usage_of(since: float | None, until: float | None, **only: str) -> Subquery:
    """All usage from `since` until `until` that has these values in its columns, with the columns `KEYS` and `SUMS`."""
    return union_all(*_parts(DAYS, since, until, only)).subquery()


def usage_by_user(since: float | None, until: float | None, **only: str) -> Subquery:
    """As `usage_of`, with the column `USER`. What names no user is all there is without what names one."""
    named = _parts(USERS, since, until, only)
    others = []
    for part, sign in ((usage_of(since, until, **only), 1), (union_all(*named).subquery(), -1)):
        sums = [(part.c[name] * sign).label(name) for name in SUMS]
        others.append(select(literal("").label(USER), *[part.c[name] for name in KEYS], *sums))
    return union_all(*named, *others).subquery()


def usage_of_user(user: str, since: float | None, until: float | None, **only: str) -> Subquery:
    """As `usage_by_user`, of one who is named."""
    return union_all(*_parts(USERS, since, until, {**only, USER: user})).subquery()


def _parts(kept: _Kept, since: float | None, until: float | None, only: Mapping[str, str]) -> list[Select[Any]]:
    """Whole days are read as such, and only what lies in parts of days from the lines.

    `only` is asked of each part: there are indexes for it.
    """
    days = select(*[kept.table.c[name] for name in (*kept.keys, *SUMS)])
    lines = _lines(kept)
    for name, value in only.items():
        days, lines = days.where(kept.table.c[name] == value), lines.where(usage.c[name] == value)
    parts = [days]
    if since is not None:
        first = -int(-since // DAY)
        if until is not None and until < first * DAY:
            return [lines.where(usage.c.time >= since, usage.c.time < until)]
        parts[0] = parts[0].where(kept.table.c.day >= first)
        parts.append(lines.where(usage.c.time >= since, usage.c.time < first * DAY))
    if until is not None:
        last = int(until // DAY)
        parts[0] = parts[0].where(kept.table.c.day < last)
        parts.append(lines.where(usage.c.time >= last * DAY, usage.c.time < until))
    return parts


def differences(connection: Connection) -> list[tuple[dict[str, Any], dict[str, int], dict[str, int]]]:
    """Days whose sums are not those of their lines: what they are of, what is summed, and what the lines come to."""
    return [*_differences(connection, DAYS), *_differences(connection, USERS)]


def _differences(
    connection: Connection, kept: _Kept
) -> Iterator[tuple[dict[str, Any], dict[str, int], dict[str, int]]]:
    lines, days = _lines(kept).subquery(), select(kept.table).subquery()
    found: dict[tuple[Any, ...], list[dict[str, int]]] = {}
    for place, table in enumerate((days, lines)):
        groups = [table.c[name] for name in kept.keys]
        sums = [func.sum(table.c[name]).label(name) for name in SUMS]
        for row in connection.execute(select(*groups, *sums).group_by(*groups)).mappings():
            both = found.setdefault(tuple(row[name] for name in kept.keys), [dict.fromkeys(SUMS, 0) for _ in range(2)])
            both[place] = {name: int(row[name] or 0) for name in SUMS}
    for key, (summed, lined) in sorted(found.items()):
        if summed != lined:
            yield dict(zip(kept.keys, key, strict=True)), summed, lined


def _lines(kept: _Kept) -> Select[Any]:
    """The lines, each as a day's usage of its own."""
    lines = select(
        usage.c.day,
        usage.c.key_id,
        usage.c.key_name,
        usage.c.team_id,
        usage.c.organisation_id,
        usage.c.route,
        func.coalesce(usage.c.fallback, literal("")).label("fallback"),
        usage.c.deployment,
        cast(usage.c.final, Integer).label("calls"),
        cast(and_(usage.c.final, usage.c.status >= 400), Integer).label("failed"),
        cast(and_(usage.c.final, usage.c.status >= 400, usage.c.attempt == 0), Integer).label("refused"),
        usage.c.input_tokens,
        usage.c.output_tokens,
        usage.c.cost,
    )
    if kept is DAYS:  # also while these are made by a migration: then no line names a user yet
        return lines
    first = [usage.c[USER], *lines.selected_columns]
    return select(*first).where(usage.c[USER] != "")
