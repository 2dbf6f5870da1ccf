"""SQL of model versions and their tags. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Tag
from promptlab.entities_registry import ModelVersion
from promptlab.store.schema_registry import model_version_tags, model_versions, registered_models
from promptlab.store.upsert import insert_or_replace

_BATCH = 500
# What is left of a deleted version.
_REDACTED: Mapping[str, object] = {
    "deleted": True,
    "description": None,
    "source": "REDACTED-SOURCE-PATH",
    "location": "REDACTED-SOURCE-PATH",
    "run_id": "REDACTED-RUN-ID",
    "run_link": "REDACTED-RUN-LINK",
}
# Versions with the name of their model, but not the deleted ones.
NAMED = (
    sa.select(model_versions, registered_models.c.name)
    .join(registered_models, registered_models.c.number == model_versions.c.model)
    .where(model_versions.c.deleted.is_(sa.false()))
)
_ONE = NAMED.where(model_versions.c.model == sa.bindparam("of"), model_versions.c.version == sa.bindparam("wanted"))
_TAGS = (
    sa.select(model_version_tags)
    .where(model_version_tags.c.version.in_(sa.bindparam("versions", expanding=True)))
    .order_by(model_version_tags.c.version, model_version_tags.c.key)
)


def find(connection: sa.Connection, model: int, version: int) -> ModelVersion | None:
    """That version of a model with its tags, unless it is deleted."""
    row = connection.execute(_ONE, {"of": model, "wanted": version}).first()
    return None if row is None else from_rows(connection, [row])[0]


def from_rows(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[ModelVersion]:
    """The versions of these rows of `NAMED`, with their tags."""
    labels: dict[int, list[Tag]] = defaultdict(list)
    for start in range(0, len(rows), _BATCH):
        numbers = [row.number for row in rows[start : start + _BATCH]]
        for row in connection.execute(_TAGS, {"versions": numbers}):
            labels[row.version].append(Tag(row.key, row.value))
    return [
        ModelVersion(
            number=row.number,
            name=row.name,
            version=row.version,
            created=row.created,
            updated=row.updated,
            stage=row.stage,
            description=row.description,
            source=row.source,
            location=row.location,
            run_id=row.run_id,
            run_link=row.run_link,
            tags=tuple(labels[row.number]),
        )
        for row in rows
    ]


def latest(connection: sa.Connection, models: Sequence[int]) -> dict[int, list[ModelVersion]]:
    """For each of these models the highest version of each of its stages, from the lowest number on."""
    newest = (
        sa.select(sa.func.max(model_versions.c.version).label("version"), model_versions.c.model)
        .where(model_versions.c.model.in_(models), model_versions.c.deleted.is_(sa.false()))
        .group_by(model_versions.c.model, model_versions.c.stage)
        .subquery()
    )
    same = (newest.c.model == model_versions.c.model) & (newest.c.version == model_versions.c.version)
    rows = connection.execute(NAMED.join(newest, same).order_by(model_versions.c.version)).all()
    found: dict[int, list[ModelVersion]] = {}
    for row, version in zip(rows, from_rows(connection, rows), strict=True):
        found.setdefault(row.model, []).append(version)
    return found


def highest(connection: sa.Connection, model: int) -> int | None:
    """The highest version of a model that is not deleted, or None where it has none."""
    alive = (model_versions.c.model == model) & model_versions.c.deleted.is_(sa.false())
    found: int | None = connection.scalar(sa.select(sa.func.max(model_versions.c.version)).where(alive))
    return found


def next_number(connection: sa.Connection, model: int) -> int:
    """One more than any version of the model ever had. The caller holds the model's lock."""
    most: int | None = connection.scalar(
        sa.select(sa.func.max(model_versions.c.version)).where(model_versions.c.model == model)
    )
    return (most or 0) + 1


def insert(connection: sa.Connection, model: int, version: ModelVersion) -> None:
    """Add a version with its tags; its own `number` is not read."""
    values = {
        "model": model,
        "version": version.version,
        "deleted": False,
        "created": version.created,
        "updated": version.updated,
        "stage": version.stage,
        "description": version.description,
        "source": version.source,
        "location": version.location,
        "run_id": version.run_id,
        "run_link": version.run_link,
    }
    number = connection.execute(
        sa.insert(model_versions).values(values).returning(model_versions.c.number)
    ).scalar_one()
    set_tags(connection, number, version.tags)


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one version."""
    connection.execute(sa.update(model_versions).where(model_versions.c.number == number).values(**values))


def update_all_of(connection: sa.Connection, model: int, **values: object) -> None:
    """Set columns of every version of a model that is not deleted."""
    mine = (model_versions.c.model == model) & model_versions.c.deleted.is_(sa.false())
    connection.execute(sa.update(model_versions).where(mine).values(**values))


def archive_others(connection: sa.Connection, model: int, version: int, stage: str, now: int) -> None:
    """Move what is in `stage` to `Archived`, but for one version."""
    mine = (model_versions.c.model == model) & (model_versions.c.stage == stage)
    others = mine & (model_versions.c.version != version) & model_versions.c.deleted.is_(sa.false())
    connection.execute(sa.update(model_versions).where(others).values(stage="Archived", updated=now))


def redact(connection: sa.Connection, number: int, now: int) -> None:
    """Take everything from a version but its number in the model, for good."""
    connection.execute(sa.delete(model_version_tags).where(model_version_tags.c.version == number))
    update(connection, number, **_REDACTED, updated=now)


def set_tags(connection: sa.Connection, number: int, tags: Iterable[Tag]) -> None:
    """Set tags; of two with one key the later counts."""
    latest_values = {tag.key: tag.value for tag in tags}
    rows = [{"version": number, "key": key, "value": value} for key, value in latest_values.items()]
    insert_or_replace(connection, model_version_tags, rows)


def delete_tag(connection: sa.Connection, number: int, key: str) -> None:
    """Remove a tag, if there is such a one."""
    mine = (model_version_tags.c.version == number) & (model_version_tags.c.key == key)
    connection.execute(sa.delete(model_version_tags).where(mine))
