"""Usage summed by days as it arrives: what ten million lines come to is read from as many rows as there are keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Select, and_, cast, delete, func, insert, literal, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from gateway.store.tables import usage, usage_days

if TYPE_CHECKING:
    from sqlalchemy import Connection, Subquery

#: What a day's usage is told apart by, and what is summed.
KEYS = ("day", "key_id", "key_name", "team_id", "organisation_id", "route", "fallback", "deployment")
SUMS = ("calls", "failed", "refused", "input_tokens", "output_tokens", "cost")
DAY = 86400
_key = itemgetter(*KEYS)
_sums = itemgetter("input_tokens", "output_tokens", "cost")
# By hand: SQLAlchemy's one insert does not know conflicts.
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def add(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add usage records, as they are in `gateway_usage`, to their days."""
    totals: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        key = _key(row)
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
    added = [dict(zip((*KEYS, *SUMS), (*key, *totals[key]), strict=True)) for key in sorted(totals, key=_order)]
    for one in added:
        one["fallback"] = one["fallback"] or ""
    if added:
        statement = _INSERTS[connection.dialect.name](usage_days)
        more = {name: usage_days.c[name] + statement.excluded[name] for name in SUMS}
        connection.execute(statement.on_conflict_do_update(index_elements=KEYS, set_=more), added)


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part or "" if isinstance(part, str | None) else part for part in key)


def rebuild(connection: Connection) -> None:
    """Sum every line anew."""
    connection.execute(delete(usage_days))
    lines = _lines().subquery()
    groups = [lines.c[name] for name in KEYS]
    sums = [func.sum(lines.c[name]) for name in SUMS]
    connection.execute(insert(usage_days).from_select([*KEYS, *SUMS], select(*groups, *sums).group_by(*groups)))


def usage_of(since: float | None, until: float | None) -> Subquery:
    """All usage from `since` until `until`, with the columns `KEYS` and `SUMS`.

    Whole days are read as such, and only what lies in parts of days from the lines.
    """
    days = select(*[usage_days.c[name] for name in (*KEYS, *SUMS)])
    parts = [days]
    if since is not None:
        first = -int(-since // DAY)
        if until is not None and until < first * DAY:
            return _lines().where(usage.c.time >= since, usage.c.time < until).subquery()
        parts[0] = parts[0].where(usage_days.c.day >= first)
        parts.append(_lines().where(usage.c.time >= since, usage.c.time < first * DAY))
    if until is not None:
        last = int(until // DAY)
        parts[0] = parts[0].where(usage_days.c.day < last)
        parts.append(_lines().where(usage.c.time >= last * DAY, usage.c.time < until))
    return union_all(*parts).subquery()


def differences(connection: Connection) -> list[tuple[dict[str, Any], dict[str, int], dict[str, int]]]:
    """Days whose sums are not those of their lines: what they are of, what is summed, and what the lines come to."""
    lines, days = _lines().subquery(), select(usage_days).subquery()
    found: dict[tuple[Any, ...], list[dict[str, int]]] = {}
    for place, table in enumerate((days, lines)):
        groups = [table.c[name] for name in KEYS]
        sums = [func.sum(table.c[name]).label(name) for name in SUMS]
        for row in connection.execute(select(*groups, *sums).group_by(*groups)).mappings():
            both = found.setdefault(tuple(row[name] for name in KEYS), [dict.fromkeys(SUMS, 0) for _ in range(2)])
            both[place] = {name: int(row[name] or 0) for name in SUMS}
    return [(dict(zip(KEYS, key, strict=True)), *both) for key, both in sorted(found.items()) if both[0] != both[1]]  # type: ignore[misc]  # two of them


def _lines() -> Select[Any]:
    """The lines, each as a day's usage of its own."""
    return select(
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
