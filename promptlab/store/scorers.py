"""SQL of scorers and their versions. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities_datasets import Scorer
from promptlab.store.schema_datasets import scorer_versions, scorers
from promptlab.store.upsert import insert_new

_WHOLE = sa.select(scorers, scorer_versions).join(scorer_versions, scorer_versions.c.scorer == scorers.c.number)


def number(connection: sa.Connection, experiment: int, name: str, *, lock: bool = False) -> int | None:
    """The number of an experiment's scorer of that name; with `lock`, nobody else changes it meanwhile."""
    mine = (scorers.c.experiment == experiment) & (scorers.c.name == name)
    query = sa.select(scorers.c.number).where(mine)
    found: int | None = connection.scalar(query.with_for_update() if lock else query)
    return found


def make(connection: sa.Connection, scorer_id: str, experiment: int, name: str) -> int:
    """The number of an experiment's scorer of that name, made if it is new."""
    values = {"id": scorer_id, "experiment": experiment, "name": name}
    connection.execute(insert_new(connection, scorers).values(values))
    found = number(connection, experiment, name, lock=True)
    assert found is not None  # noqa: S101 - it is there now, and locked
    return found


def add_version(connection: sa.Connection, scorer: int, serialized: str, now: int) -> int:
    """The next version of a scorer."""
    last = sa.select(sa.func.max(scorer_versions.c.version)).where(scorer_versions.c.scorer == scorer)
    version = (connection.scalar(last) or 0) + 1
    values = {"scorer": scorer, "version": version, "serialized": serialized, "created": now}
    connection.execute(sa.insert(scorer_versions).values(values))
    return version


def versions(connection: sa.Connection, scorer: int) -> list[Scorer]:
    """Every version of a scorer, the oldest first."""
    query = _WHOLE.where(scorers.c.number == scorer).order_by(scorer_versions.c.version)
    return [_scorer(row) for row in connection.execute(query)]


def latest(connection: sa.Connection, experiments: Sequence[int] | None) -> list[Scorer]:
    """The newest version of each scorer of these experiments (None: of all), by experiment and name."""
    newest = (
        sa.select(scorer_versions.c.scorer, sa.func.max(scorer_versions.c.version).label("version"))
        .group_by(scorer_versions.c.scorer)
        .subquery()
    )
    is_newest = (newest.c.scorer == scorer_versions.c.scorer) & (newest.c.version == scorer_versions.c.version)
    query = _WHOLE.join(newest, is_newest).order_by(scorers.c.experiment, scorers.c.name)
    if experiments is not None:
        query = query.where(scorers.c.experiment.in_(experiments))
    return [_scorer(row) for row in connection.execute(query)]


def delete(connection: sa.Connection, scorer: int, version: int | None) -> bool:
    """Remove one version of a scorer, or it whole; whether there was that version."""
    of = scorer_versions
    if version is not None:
        gone = connection.execute(sa.delete(of).where(of.c.scorer == scorer, of.c.version == version)).rowcount
        if not gone or connection.scalar(sa.select(of.c.version).where(of.c.scorer == scorer).limit(1)) is not None:
            return bool(gone)
    connection.execute(sa.delete(scorers).where(scorers.c.number == scorer))
    return True


def _scorer(row: sa.Row[Any]) -> Scorer:
    return Scorer(row.id, row.experiment, row.name, row.version, row.serialized, row.created)
