"""SQL of experiments and their tags. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import sqlalchemy as sa

from promptlab.entities import Experiment, Tag
from promptlab.store.schema import experiment_tags, experiments
from promptlab.store.upsert import insert_new, insert_or_replace

# The largest number a column of ours holds; whatever is above it cannot exist.
_LARGEST = 2**63 - 1


# Until the transaction ends: "share" keeps others from changing the experiment, "own" from using it too.
Lock = Literal["share", "own"]


def find(connection: sa.Connection, number: int, *, lock: Lock | None = None) -> Experiment | None:
    """The experiment of that number, deleted or not."""
    if not -_LARGEST <= number <= _LARGEST:
        return None
    return _one(connection, experiments.c.id == number, lock=lock)


def find_by_name(connection: sa.Connection, name: str) -> Experiment | None:
    """The experiment of that name, deleted or not."""
    return _one(connection, experiments.c.name == name, lock=None)


def _one(connection: sa.Connection, where: sa.ColumnElement[bool], *, lock: Lock | None) -> Experiment | None:
    query = sa.select(experiments).where(where)
    if lock is not None:
        query = query.with_for_update(read=lock == "share")
    row = connection.execute(query).first()
    return None if row is None else from_rows(connection, [row])[0]


def from_rows(connection: sa.Connection, rows: Sequence[sa.Row[tuple[object, ...]]]) -> list[Experiment]:
    """The experiments of these rows of the table, with their tags."""
    labels: dict[int, list[Tag]] = defaultdict(list)
    for start in range(0, len(rows), 500):
        wanted = [row.id for row in rows[start : start + 500]]
        query = sa.select(experiment_tags).where(experiment_tags.c.experiment.in_(wanted))
        for tag in connection.execute(query.order_by(experiment_tags.c.key)):
            labels[tag.experiment].append(Tag(tag.key, tag.value))
    return [
        Experiment(
            id=row.id,
            name=row.name,
            artifact_location=row.artifact_location,
            deleted=row.deleted,
            created=row.created,
            updated=row.updated,
            tags=tuple(labels[row.id]),
        )
        for row in rows
    ]


def insert(
    connection: sa.Connection, name: str, artifact_location: str | None, now: int, *, number: int | None = None
) -> int | None:
    """The number of a new experiment, or None where the name is taken.

    Without `artifact_location` its artifacts go through our own proxy.
    """
    values: dict[str, object] = {
        "name": name,
        "artifact_location": artifact_location or "",
        "deleted": False,
        "created": now,
        "updated": now,
    }
    if number is not None:
        values["id"] = number
    made: int | None = connection.scalar(insert_new(connection, experiments).values(values).returning(experiments.c.id))
    if made is not None and artifact_location is None:
        update(connection, made, artifact_location=f"mlflow-artifacts:/{made}")
    return made


def rename(connection: sa.Connection, number: int, name: str, now: int) -> bool:
    """Whether the name was free to take. When it was not, the transaction is spoilt and must be given up."""
    try:
        update(connection, number, name=name, updated=now)
    except sa.exc.IntegrityError:
        return False
    return True


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one experiment."""
    connection.execute(sa.update(experiments).where(experiments.c.id == number).values(**values))


def set_tags(connection: sa.Connection, number: int, tags: Iterable[Tag]) -> None:
    """Set tags; of two with one key the later counts."""
    latest = {tag.key: tag.value for tag in tags}
    rows = [{"experiment": number, "key": key, "value": value} for key, value in latest.items()]
    insert_or_replace(connection, experiment_tags, rows)


def delete_tag(connection: sa.Connection, number: int, key: str) -> bool:
    """Whether there was such a tag to delete."""
    mine = (experiment_tags.c.experiment == number) & (experiment_tags.c.key == key)
    return connection.execute(sa.delete(experiment_tags).where(mine)).rowcount > 0
