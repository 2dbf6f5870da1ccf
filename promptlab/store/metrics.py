"""SQL of metrics: the latest value of each, and every point. Runs in its caller's transaction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Metric, Page
from promptlab.store.paging import SortKey, after, ordered, token_of
from promptlab.store.schema import metrics, points
from promptlab.store.upsert import insert_missing

# SQL cannot keep an infinity; MLflow writes the largest double instead, and so its clients read it back.
_HUGE = 1.7976931348623157e308
_POINT = ("timestamp", "step", "value", "nan")
# Built once: building a statement costs more than SQLite's running it.
_KNOWN = sa.select(metrics).where(
    metrics.c.run == sa.bindparam("of"), metrics.c.key.in_(sa.bindparam("keys", expanding=True))
)
_MOVE_ON = (
    sa.update(metrics)
    .where(metrics.c.id == sa.bindparam("at"))
    .values({name: sa.bindparam(f"new_{name}") for name in _POINT})
)


def metric_from_row(row: sa.Row[Any]) -> Metric:
    """The latest point in this row of `metrics`."""
    return Metric(row.key, math.nan if row.nan else row.value, row.timestamp, row.step)


def log(connection: sa.Connection, run: int, new: Sequence[Metric]) -> None:
    """Add points and move the latest values on.

    A point logged twice is kept once. The latest is the greatest of (step, timestamp, value).
    The caller holds the run's lock: two writers would else compute the latest from the same row.
    """
    if not new:
        return
    rows = [storable(metric) for metric in new]
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["key"] not in best or _rank(row) > _rank(best[row["key"]]):
            best[row["key"]] = row
    known = _known(connection, run, list(best))
    missing = [{"run": run, **row} for key, row in best.items() if key not in known]
    if missing:
        connection.execute(sa.insert(metrics), missing)
        known |= _known(connection, run, [row["key"] for row in missing])
    later = [
        {"at": known[key].id, **{f"new_{name}": row[name] for name in _POINT}}
        for key, row in best.items()
        if _rank(row) > _rank(known[key]._mapping)
    ]
    if later:
        connection.execute(_MOVE_ON, later)
    insert_missing(
        connection,
        points,
        [{"metric": known[row["key"]].id, **{k: row[k] for k in _POINT}} for row in rows],
    )


def _known(connection: sa.Connection, run: int, keys: list[str]) -> dict[str, sa.Row[Any]]:
    return {row.key: row for row in connection.execute(_KNOWN, {"of": run, "keys": keys})}


def storable(metric: Metric) -> dict[str, Any]:
    """The point as columns: NaN beside the value, infinities as the largest finite number."""
    nan = math.isnan(metric.value)
    value = 0.0 if nan else max(-_HUGE, min(_HUGE, metric.value))
    return {"key": metric.key, "value": value, "nan": nan, "timestamp": metric.timestamp, "step": metric.step}


def _rank(row: Any) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def history(connection: sa.Connection, run: int, key: str, limit: int | None, token: str | None) -> Page[Metric]:
    """The points of one metric by timestamp, step and value: all, or at most `limit` from `token` on."""
    sort = [
        SortKey(points.c.timestamp, int),
        SortKey(points.c.step, int),
        SortKey(points.c.value, float),
        SortKey(sa.cast(points.c.nan, sa.Integer), int),
    ]
    metric = sa.select(metrics.c.id).where(metrics.c.run == run, metrics.c.key == key).scalar_subquery()
    query = ordered(sa.select(points).where(points.c.metric == metric), sort)
    if token:
        query = query.where(after(sort, token))
    if limit is not None:
        query = query.limit(limit + 1)
    rows = connection.execute(query).all()
    more = limit is not None and len(rows) > limit
    rows = rows[:limit] if more else rows
    found = [Metric(key, math.nan if row.nan else row.value, row.timestamp, row.step) for row in rows]
    return Page(found, token_of(rows[-1], sort) if more else None)


def samples(
    connection: sa.Connection, run: int, key: str, first: int | None, last: int | None, limit: int
) -> list[Metric]:
    """At most `limit` points of one metric by step, evenly spread by their number, the first and last of all kept."""
    order = [points.c.step, points.c.timestamp, points.c.value, points.c.nan]
    metric = sa.select(metrics.c.id).where(metrics.c.run == run, metrics.c.key == key).scalar_subquery()
    mine = [points.c.metric == metric]
    if first is not None and last is not None:
        mine.append(points.c.step.between(first, last))
    count: int = connection.scalar(sa.select(sa.func.count()).select_from(points).where(*mine)) or 0
    place = (sa.func.row_number().over(order_by=order) - 1).label("place")
    placed = sa.select(*(points.c[name] for name in _POINT), place).where(*mine).subquery()
    query = sa.select(placed).order_by(placed.c.place)
    if count > limit:
        # Point i of the sample is the one at i * (count - 1) / (limit - 1), rounded down: both ends are among them.
        chosen = [i * (count - 1) // (limit - 1) for i in range(limit)] if limit > 1 else [count - 1]
        query = query.where(placed.c.place.in_(chosen))
    rows = connection.execute(query)
    return [Metric(key, math.nan if row.nan else row.value, row.timestamp, row.step) for row in rows]
