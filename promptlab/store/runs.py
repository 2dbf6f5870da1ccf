"""SQL of runs, their params and tags. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from promptlab.entities import Inputs, Metric, Param, Run, RunInfo, Tag
from promptlab.store import inputs
from promptlab.store.metrics import metric_from_row
from promptlab.store.schema import metrics, params, runs, tags
from promptlab.store.upsert import insert_missing, insert_or_replace

# Built once: building a statement costs more than SQLite's running it.
_BY_ID = sa.select(runs).where(runs.c.id == sa.bindparam("run_id"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_METRICS, _PARAMS, _TAGS = (
    sa.select(table).where(table.c.run.in_(sa.bindparam("runs", expanding=True))).order_by(table.c.run, table.c.key)
    for table in (metrics, params, tags)
)
# Rows of children are fetched for this many runs at once: databases bound the length of an IN list.
_BATCH = 500
_NOTHING = Inputs()


def find(connection: sa.Connection, run_id: str, *, lock: bool = False) -> RunInfo | None:
    """The run without what was logged on it; with `lock` nobody else writes to it until the transaction ends."""
    row = connection.execute(_BY_ID_LOCKED if lock else _BY_ID, {"run_id": run_id}).first()
    return None if row is None else info_from_row(row)


def info_from_row(row: sa.Row[tuple[object, ...]]) -> RunInfo:
    """The run of this row of the table."""
    return RunInfo(
        number=row.number,
        id=row.id,
        experiment_id=row.experiment,
        name=row.name,
        user=row.user,
        status=row.status,
        start=row.start,
        end=row.end,
        artifact_uri=row.artifact_uri,
        deleted=row.deleted,
    )


def complete(connection: sa.Connection, infos: Sequence[RunInfo]) -> list[Run]:
    """The runs with their latest metrics, params, tags, inputs and outputs, in the order given."""
    latest: dict[int, list[Metric]] = defaultdict(list)
    settings: dict[int, list[Param]] = defaultdict(list)
    labels: dict[int, list[Tag]] = defaultdict(list)
    read: dict[int, Inputs] = {}
    for start in range(0, len(infos), _BATCH):
        these = {"runs": [info.number for info in infos[start : start + _BATCH]]}
        for row in connection.execute(_METRICS, these):
            latest[row.run].append(metric_from_row(row))
        for row in connection.execute(_PARAMS, these):
            settings[row.run].append(Param(row.key, row.value))
        for row in connection.execute(_TAGS, these):
            labels[row.run].append(Tag(row.key, row.value))
        read |= inputs.of_runs(connection, these["runs"])
    return [
        Run(
            info,
            metrics=tuple(latest[info.number]),
            params=tuple(settings[info.number]),
            tags=tuple(labels[info.number]),
            inputs=read.get(info.number, _NOTHING),
        )
        for info in infos
    ]


def insert(connection: sa.Connection, info: RunInfo) -> int:
    """The number of the new run; that of `info` is not read."""
    values = {
        "id": info.id,
        "experiment": info.experiment_id,
        "name": info.name,
        "user": info.user,
        "status": info.status,
        "start": info.start,
        "end": info.end,
        "artifact_uri": info.artifact_uri,
        "deleted": info.deleted,
    }
    number: int = connection.execute(sa.insert(runs).values(values).returning(runs.c.number)).scalar_one()
    return number


def update(connection: sa.Connection, number: int, values: Mapping[str, object]) -> None:
    """Set columns of one run."""
    if values:
        connection.execute(sa.update(runs).where(runs.c.number == number).values(**values))


def update_all_of(connection: sa.Connection, experiment: int, values: Mapping[str, object]) -> None:
    """Set columns of all runs of an experiment."""
    connection.execute(sa.update(runs).where(runs.c.experiment == experiment).values(**values))


def params_of(connection: sa.Connection, number: int, keys: Iterable[str]) -> dict[str, str]:
    """Those params of a run that have one of these keys."""
    query = sa.select(params.c.key, params.c.value).where(params.c.run == number, params.c.key.in_(list(keys)))
    return {row.key: row.value for row in connection.execute(query)}


def insert_params(connection: sa.Connection, number: int, new: Iterable[Param]) -> None:
    """Add params; those whose key is there already are left as they are."""
    insert_missing(connection, params, [{"run": number, "key": p.key, "value": p.value} for p in new])


def set_tags(connection: sa.Connection, number: int, new: Iterable[Tag]) -> None:
    """Set tags; of two with one key the later counts."""
    latest = {tag.key: tag.value for tag in new}
    rows = [{"run": number, "key": key, "value": value} for key, value in latest.items()]
    insert_or_replace(connection, tags, rows)


def tag_of(connection: sa.Connection, number: int, key: str) -> str | None:
    """The value of that tag of a run, or None where it has none."""
    query = sa.select(tags.c.value).where(tags.c.run == number, tags.c.key == key)
    found: str | None = connection.scalar(query)
    return found


def delete_tag(connection: sa.Connection, number: int, key: str) -> bool:
    """Whether there was such a tag to delete."""
    mine = (tags.c.run == number) & (tags.c.key == key)
    return connection.execute(sa.delete(tags).where(mine)).rowcount > 0
