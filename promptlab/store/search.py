"""SQL of the searches of runs and experiments: what `promptlab.filters` read becomes one query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from promptlab.entities import DATASET_CONTEXT, Experiment, Page, Run, ViewType
from promptlab.errors import InvalidParameter
from promptlab.filters import Clause, Entity, Order
from promptlab.store import experiments as experiment_store
from promptlab.store import runs as run_store
from promptlab.store.matching import matches, refused
from promptlab.store.paging import SortKey, after, ordered, token_of
from promptlab.store.schema import INDEXED_LETTERS, beginning, experiment_tags, experiments, metrics, params, runs, tags
from promptlab.store.schema_inputs import datasets, run_dataset_tags, run_datasets

_RUN_COLUMNS: dict[str, sa.Column[Any]] = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "user_id": runs.c.user,
    "status": runs.c.status,
    "start_time": runs.c.start,
    "end_time": runs.c.end,
    "artifact_uri": runs.c.artifact_uri,
}
_EXPERIMENT_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": experiments.c.name,
    "experiment_id": experiments.c.id,
    "creation_time": experiments.c.created,
    "last_update_time": experiments.c.updated,
}


def search_runs(
    connection: sa.Connection,
    experiment_ids: Sequence[int],
    view: ViewType,
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
) -> Page[Run]:
    """Runs of these experiments for which every clause holds, whole, newest first unless `orders` say otherwise."""
    wanted: sa.BindParameter[Any] = sa.bindparam(
        "experiments", list(experiment_ids), expanding=True, literal_execute=True
    )
    query = sa.select(runs).where(runs.c.experiment.in_(wanted), *_alive(runs.c.deleted, view))
    query = query.where(*held(clauses, lambda clause: _run_clause(connection, clause)))
    keys = [key for order in orders for key in _run_sort(connection, order)]
    if not any(order.entity is Entity.ATTRIBUTE and order.key == "start_time" for order in orders):
        keys.append(SortKey(runs.c.start, int, ascending=False))
    keys.append(SortKey(binary(connection, runs.c.id), str))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(run_store.complete(connection, [run_store.info_from_row(row) for row in rows]), next_token)


def search_experiments(
    connection: sa.Connection,
    view: ViewType,
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
) -> Page[Experiment]:
    """Experiments for which every clause holds, newest first unless `orders` say otherwise."""
    query = sa.select(experiments).where(*_alive(experiments.c.deleted, view))
    query = query.where(*held(clauses, lambda clause: _experiment_clause(connection, clause)))
    chosen = orders or [
        Order(Entity.ATTRIBUTE, "creation_time", ascending=False),
        Order(Entity.ATTRIBUTE, "experiment_id"),
    ]
    keys = [column_sort(connection, _EXPERIMENT_COLUMNS[order.key], order.ascending) for order in chosen]
    if not any(order.key == "experiment_id" for order in chosen):
        keys.append(SortKey(experiments.c.id, int, ascending=False))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(experiment_store.from_rows(connection, rows), next_token)


def page(
    connection: sa.Connection, query: sa.Select[Any], keys: Sequence[SortKey], limit: int, token: str | None
) -> tuple[Sequence[sa.Row[Any]], str | None]:
    """At most `limit` rows of `query`, sorted by `keys`, from `token` on; and the token of what follows."""
    query = ordered(query, keys).limit(limit + 1)
    if token:
        query = query.where(after(keys, token))
    try:
        rows = connection.execute(query).all()
    except sa.exc.DataError as error:
        if refused(error):
            raise InvalidParameter("The database cannot read the regular expression of an RLIKE") from None
        raise
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], token_of(rows[limit - 1], keys)


def _alive(deleted: sa.Column[bool], view: ViewType) -> list[sa.ColumnElement[bool]]:
    match view:
        case ViewType.ACTIVE_ONLY:
            return [deleted.is_(sa.false())]
        case ViewType.DELETED_ONLY:
            return [deleted.is_(sa.true())]
        case _:
            return []


# ── conditions ───────────────────────────────────────────────────────────────────────────────────


def held(clauses: Sequence[Clause], one: Callable[[Clause], sa.ColumnElement[bool]]) -> list[sa.ColumnElement[bool]]:
    """What must hold for all of these clauses, each of which `one` makes a condition of."""
    return [
        sa.or_(*(sa.and_(*held(option, one)) for option in clause.options))
        if clause.entity is Entity.EITHER
        else one(clause)
        for clause in clauses
    ]


def _run_clause(connection: sa.Connection, clause: Clause) -> sa.ColumnElement[bool]:
    match clause.entity:
        case Entity.ATTRIBUTE:
            return compare(connection, _RUN_COLUMNS[clause.key], clause)
        case Entity.METRIC:
            return runs.c.number.in_(_runs_by_metric(connection, clause))
        case Entity.PARAM:
            return tagged(connection, params, params.c.run, runs.c.number, clause)
        case Entity.TAG:
            return tagged(connection, tags, tags.c.run, runs.c.number, clause)
        case _:
            return _read(connection, clause)


def _experiment_clause(connection: sa.Connection, clause: Clause) -> sa.ColumnElement[bool]:
    if clause.entity is Entity.TAG:
        return tagged(connection, experiment_tags, experiment_tags.c.experiment, experiments.c.id, clause)
    return compare(connection, _EXPERIMENT_COLUMNS[clause.key], clause)


def _runs_by_metric(connection: sa.Connection, clause: Clause) -> sa.Select[Any]:
    # NaN is unlike every number, so only != finds it.
    value = compare(connection, metrics.c.value, clause)
    holds = value | metrics.c.nan if clause.comparator == "!=" else value & ~metrics.c.nan
    return sa.select(metrics.c.run).where(metrics.c.key == clause.key, holds)


def _read(connection: sa.Connection, clause: Clause) -> sa.ColumnElement[bool]:
    if clause.key == "context":
        context = replace(clause, key=DATASET_CONTEXT)
        return tagged(connection, run_dataset_tags, run_dataset_tags.c.run, runs.c.number, context)
    read = sa.select(run_datasets.c.run).join(datasets, datasets.c.number == run_datasets.c.dataset)
    return runs.c.number.in_(read.where(compare(connection, datasets.c[clause.key], clause)))


def tagged(
    connection: sa.Connection, table: sa.Table, owner: sa.Column[int], mine: sa.Column[int], clause: Clause
) -> sa.ColumnElement[bool]:
    """Whether a row whose number is `mine` has a tag or a param in `table` for which the clause holds."""
    having = sa.select(owner).where(table.c.key == clause.key)
    match clause.comparator:
        case "IS NULL":
            return mine.not_in(having)
        case "IS NOT NULL":
            return mine.in_(having)
    if clause.comparator == "=" and table is not experiment_tags and isinstance(clause.value, str):
        having = having.where(beginning(table.c.value) == clause.value[:INDEXED_LETTERS])
    return mine.in_(having.where(compare(connection, table.c.value, clause)))


def compare(connection: sa.Connection, column: sa.ColumnElement[Any], clause: Clause) -> sa.ColumnElement[bool]:
    """Whether the clause holds for what is in this column."""
    if clause.comparator == "RLIKE":
        return matches(connection, column, str(clause.value))
    # Else PostgreSQL would round a fraction to the whole number that the column holds.
    value = sa.literal(clause.value, sa.Double) if isinstance(clause.value, float) else clause.value
    return _COMPARISONS[clause.comparator](column, value, _no_escape(connection))


_COMPARISONS: dict[str, Callable[[Any, Any, str | None], sa.ColumnElement[bool]]] = {
    "=": lambda column, value, _: column == value,
    "!=": lambda column, value, _: column != value,
    "<": lambda column, value, _: column < value,
    "<=": lambda column, value, _: column <= value,
    ">": lambda column, value, _: column > value,
    ">=": lambda column, value, _: column >= value,
    "IN": lambda column, value, _: column.in_(value),
    "NOT IN": lambda column, value, _: column.not_in(value),
    "LIKE": lambda column, value, escape: column.like(value, escape=escape),
    "ILIKE": lambda column, value, escape: column.ilike(value, escape=escape),
}


def _no_escape(connection: sa.Connection) -> str | None:
    # A backslash stands for itself, as on SQLite: PostgreSQL must be told.
    return "" if connection.dialect.name == "postgresql" else None


# ── order ────────────────────────────────────────────────────────────────────────────────────────


def _run_sort(connection: sa.Connection, order: Order) -> list[SortKey]:
    """The sort keys of one order: runs without a value come last either way, NaN after the numbers."""
    if order.entity is Entity.ATTRIBUTE:
        column = _RUN_COLUMNS[order.key]
        if not column.nullable:
            return [column_sort(connection, column, order.ascending)]
        return absent_last(column, int, order.ascending)
    table = {Entity.METRIC: metrics, Entity.PARAM: params, Entity.TAG: tags}[order.entity]
    same = (table.c.run == runs.c.number) & (table.c.key == order.key)
    value = sa.select(table.c.value).where(same).scalar_subquery()
    if order.entity is not Entity.METRIC:
        return absent_last(binary(connection, value), str, order.ascending)
    place = sa.select(sa.cast(metrics.c.nan, sa.Integer)).where(same).scalar_subquery()
    return [
        SortKey(sa.func.coalesce(place, 2, type_=sa.Integer), int),
        SortKey(sa.func.coalesce(value, 0.0, type_=sa.Double), float, order.ascending),
    ]


def absent_last(column: sa.ColumnElement[Any], type_: type[int] | type[str], ascending: bool) -> list[SortKey]:
    """The keys that sort by a column which may be NULL: what has no value comes last either way."""
    nothing: Any = type_()
    return [
        SortKey(sa.case((column.is_(None), 1), else_=0), int),
        SortKey(sa.func.coalesce(column, nothing), type_, ascending),
    ]


def column_sort(connection: sa.Connection, column: sa.Column[Any], ascending: bool) -> SortKey:
    """The key that sorts by a column which is never NULL; text by code point, on both databases."""
    if isinstance(column.type, sa.Text):
        return SortKey(binary(connection, column), str, ascending)
    return SortKey(column, int, ascending)


def binary(connection: sa.Connection, text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """`text` in the order of its code points."""
    # PostgreSQL sorts text as its locale says; the same order on both databases is by code point.
    return text.collate("C") if connection.dialect.name == "postgresql" else text
