"""SQL of logged models, their params, tags and metrics. Every function runs in its caller's transaction."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Metric, Param, Tag
from promptlab.entities_models import LoggedModel, LoggedModelStatus, ModelMetric
from promptlab.store.metrics import storable
from promptlab.store.schema import runs
from promptlab.store.schema_logged_models import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)
from promptlab.store.upsert import insert_missing, insert_or_replace

_BATCH = 500
_MODELS: sa.BindParameter[Any] = sa.bindparam("models", expanding=True)
_PARAMS, _TAGS = (
    sa.select(table).where(table.c.model.in_(_MODELS)).order_by(table.c.model, table.c.key)
    for table in (logged_model_params, logged_model_tags)
)
_METRICS = (
    sa.select(logged_model_metrics, runs.c.id.label("run_id"))
    .join(runs, runs.c.number == logged_model_metrics.c.run)
    .where(logged_model_metrics.c.model.in_(_MODELS))
    .order_by(*(logged_model_metrics.c[name] for name in ("model", "timestamp", "step", "key", "value")), runs.c.id)
)


def find(connection: sa.Connection, model_id: str, *, lock: bool = False) -> LoggedModel | None:
    """The logged model of that id, deleted or not; with `lock` nobody else changes it until the transaction ends."""
    query = sa.select(logged_models).where(logged_models.c.id == model_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else from_rows(connection, [row])[0]


def from_rows(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[LoggedModel]:
    """The logged models of these rows of the table, with all that hangs below them."""
    params: dict[int, list[Param]] = defaultdict(list)
    tags: dict[int, list[Tag]] = defaultdict(list)
    metrics: dict[int, list[ModelMetric]] = defaultdict(list)
    ids = {row.number: row.id for row in rows}
    for start in range(0, len(rows), _BATCH):
        these = {"models": [row.number for row in rows[start : start + _BATCH]]}
        for row in connection.execute(_PARAMS, these):
            params[row.model].append(Param(row.key, row.value))
        for row in connection.execute(_TAGS, these):
            tags[row.model].append(Tag(row.key, row.value))
        for row in connection.execute(_METRICS, these):
            metrics[row.model].append(_measured(row, ids[row.model]))
    return [
        LoggedModel(
            number=row.number,
            id=row.id,
            experiment_id=row.experiment,
            name=row.name,
            artifact_uri=row.artifact_uri,
            created=row.created,
            updated=row.updated,
            status=LoggedModelStatus[row.status],
            model_type=row.model_type,
            source_run_id=row.source_run_id,
            deleted=row.deleted,
            params=tuple(params[row.number]),
            tags=tuple(tags[row.number]),
            metrics=tuple(metrics[row.number]),
        )
        for row in rows
    ]


def _measured(row: sa.Row[Any], model_id: str) -> ModelMetric:
    value = math.nan if row.nan else row.value
    point = Metric(row.key, value, row.timestamp, row.step, model_id, row.dataset_name, row.dataset_digest)
    return ModelMetric(point, row.run_id)


def insert(connection: sa.Connection, model: LoggedModel) -> int:
    """The number of a new logged model, without params and tags; its own `number` is not read."""
    values = {
        "id": model.id,
        "experiment": model.experiment_id,
        "name": model.name,
        "artifact_uri": model.artifact_uri,
        "created": model.created,
        "updated": model.updated,
        "status": model.status.name,
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
        "deleted": model.deleted,
    }
    number: int = connection.execute(
        sa.insert(logged_models).values(values).returning(logged_models.c.number)
    ).scalar_one()
    return number


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one logged model."""
    connection.execute(sa.update(logged_models).where(logged_models.c.number == number).values(**values))


def insert_params(connection: sa.Connection, number: int, params: Iterable[Param]) -> None:
    """Add params; those whose key is there already are left as they are."""
    insert_missing(connection, logged_model_params, [{"model": number, "key": p.key, "value": p.value} for p in params])


def set_tags(connection: sa.Connection, number: int, tags: Iterable[Tag]) -> None:
    """Set tags; of two with one key the later counts."""
    latest = {tag.key: tag.value for tag in tags}
    rows = [{"model": number, "key": key, "value": value} for key, value in latest.items()]
    insert_or_replace(connection, logged_model_tags, rows)


def delete_tag(connection: sa.Connection, number: int, key: str) -> bool:
    """Whether there was such a tag to delete."""
    mine = (logged_model_tags.c.model == number) & (logged_model_tags.c.key == key)
    return connection.execute(sa.delete(logged_model_tags).where(mine)).rowcount > 0


def numbers(connection: sa.Connection, model_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of those of these logged models that there are."""
    query = sa.select(logged_models.c.id, logged_models.c.number).where(logged_models.c.id.in_(model_ids))
    return {row.id: row.number for row in connection.execute(query)}


def log_metrics(connection: sa.Connection, run: int, points: Iterable[tuple[int, Metric]]) -> None:
    """Add what a run measured of the models of these numbers; a point logged twice is kept once."""
    rows = [
        {
            **storable(point),
            "model": number,
            "run": run,
            "dataset": _dataset(point.dataset_name, point.dataset_digest),
            "dataset_name": point.dataset_name,
            "dataset_digest": point.dataset_digest,
        }
        for number, point in points
    ]
    insert_missing(connection, logged_model_metrics, rows)


def _dataset(name: str, digest: str) -> str:
    return hashlib.sha256(f"{len(name)} {name} {digest}".encode()).hexdigest()[:32] if name or digest else ""
