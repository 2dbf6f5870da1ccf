"""SQL of the search of logged models. Its metrics may be asked for on some datasets only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Page
from promptlab.entities_models import DatasetFilter, LoggedModel, ModelOrder
from promptlab.filters import Clause, Entity, flat
from promptlab.filters_models import metric_of
from promptlab.store import logged_models as model_store
from promptlab.store.paging import SortKey
from promptlab.store.schema import runs
from promptlab.store.schema_logged_models import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)
from promptlab.store.search import column_sort, compare, held, page, tagged

_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": logged_models.c.name,
    "model_id": logged_models.c.id,
    "model_type": logged_models.c.model_type,
    "status": logged_models.c.status,
    "source_run_id": logged_models.c.source_run_id,
    "creation_time": logged_models.c.created,
    "last_updated_time": logged_models.c.updated,
}
_LABELS = {Entity.PARAM: logged_model_params, Entity.TAG: logged_model_tags}


def search_logged_models(
    connection: sa.Connection,
    experiment_ids: Sequence[int],
    clauses: Sequence[Clause],
    datasets: Sequence[DatasetFilter],
    orders: Sequence[ModelOrder],
    limit: int,
    token: str | None,
) -> Page[LoggedModel]:
    """Logged models of these experiments for which every clause holds, the newest first unless `orders` say otherwise.

    With `datasets`, clauses about metrics look at what was measured on those; where there is
    no such clause, something must have been.
    """
    wanted: sa.BindParameter[Any] = sa.bindparam(
        "experiments", list(experiment_ids), expanding=True, literal_execute=True
    )
    query = sa.select(logged_models).where(
        logged_models.c.experiment.in_(wanted), logged_models.c.deleted.is_(sa.false())
    )
    on = [sa.or_(*(_on(one.name, one.digest) for one in datasets))] if datasets else []
    query = query.where(*held(clauses, lambda clause: _holds(connection, clause, on)))
    if datasets and not any(clause.entity is Entity.METRIC for clause in flat(clauses)):
        query = query.where(logged_models.c.number.in_(sa.select(logged_model_metrics.c.model).where(*on)))
    keys = [key for order in orders for key in _sort(connection, order)]
    if not any(order.field == "creation_time" for order in orders):
        keys.append(SortKey(logged_models.c.created, int, ascending=False))
    if not any(order.field == "model_id" for order in orders):
        keys.append(column_sort(connection, logged_models.c.id, ascending=True))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(model_store.from_rows(connection, rows), next_token)


def _on(name: str, digest: str) -> sa.ColumnElement[bool]:
    named = logged_model_metrics.c.dataset_name == name
    return named & (logged_model_metrics.c.dataset_digest == digest) if digest else named


def _holds(connection: sa.Connection, clause: Clause, on: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    if clause.entity is Entity.ATTRIBUTE:
        return compare(connection, _COLUMNS[clause.key], clause)
    if clause.entity is Entity.METRIC:
        # NaN is unlike every number, so only != finds it.
        value, nan = compare(connection, logged_model_metrics.c.value, clause), logged_model_metrics.c.nan
        holds = value | nan if clause.comparator == "!=" else value & ~nan
        measured = sa.select(logged_model_metrics.c.model).where(logged_model_metrics.c.key == clause.key, holds, *on)
        return logged_models.c.number.in_(measured)
    table = _LABELS[clause.entity]
    return tagged(connection, table, table.c.model, logged_models.c.number, clause)


def _sort(connection: sa.Connection, order: ModelOrder) -> list[SortKey]:
    """The sort keys of one order: a metric counts by its latest point; models without one come last either way."""
    key = metric_of(order)
    if key is None:
        return [column_sort(connection, _COLUMNS[order.field], order.ascending)]
    points = logged_model_metrics
    latest = (
        sa.select(points.c.value)
        .join(runs, runs.c.number == points.c.run)
        .where(points.c.model == logged_models.c.number, points.c.key == key)
        .order_by(points.c.timestamp.desc(), points.c.step.desc(), runs.c.id, points.c.value.desc(), points.c.nan)
        .limit(1)
    )
    if order.dataset_name:
        latest = latest.where(_on(order.dataset_name, order.dataset_digest))
    nan = latest.with_only_columns(sa.cast(points.c.nan, sa.Integer), maintain_column_froms=True)
    return [
        SortKey(sa.func.coalesce(nan.scalar_subquery(), 2, type_=sa.Integer), int),
        SortKey(sa.func.coalesce(latest.scalar_subquery(), 0.0, type_=sa.Double), float, order.ascending),
    ]
