"""SQL of traces and what hangs on them, but for spans. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities_traces import Trace
from promptlab.store import assessments as assessment_store
from promptlab.store.schema_traces import trace_metadata, trace_prompts, trace_runs, trace_tags, traces
from promptlab.store.upsert import insert_missing, insert_new, insert_or_replace

# Rows are fetched for this many at once: databases bound the length of an IN list.
_BATCH = 500
_FIELDS = ("timestamp", "duration", "state", "client_request_id", "request_preview", "response_preview")


def find(connection: sa.Connection, trace_id: str, *, lock: bool = False) -> Trace | None:
    """The trace of that id without what hangs on it; with `lock`, nobody else writes to it until the end."""
    query = sa.select(traces).where(traces.c.id == trace_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else from_row(row)


def find_all(connection: sa.Connection, ids: Sequence[str], experiments: Sequence[int] | None) -> list[Trace]:
    """Those of these traces that there are, of these experiments if any are named, in the order asked for."""
    found: dict[str, Trace] = {}
    for start in range(0, len(ids), _BATCH):
        query = sa.select(traces).where(traces.c.id.in_(ids[start : start + _BATCH]))
        if experiments is not None:
            query = query.where(traces.c.experiment.in_(experiments))
        found.update({row.id: from_row(row) for row in connection.execute(query)})
    return [found[one] for one in dict.fromkeys(ids) if one in found]


def insert(connection: sa.Connection, trace: Trace) -> Trace:
    """The trace, new, or the one of that id that somebody else began meanwhile; locked either way."""
    values = {name: getattr(trace, name) for name in ("id", *_FIELDS)}
    connection.execute(insert_new(connection, traces), {**values, "experiment": trace.experiment_id})
    found = find(connection, trace.id, lock=True)
    assert found is not None  # noqa: S101 - it was there, or has just been made
    return found


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Change these columns of a trace."""
    connection.execute(sa.update(traces).where(traces.c.number == number).values(**values))


def set_tags(connection: sa.Connection, number: int, tags: Mapping[str, str]) -> None:
    """Set or change tags of a trace."""
    _set(connection, trace_tags, number, tags)


def set_metadata(connection: sa.Connection, number: int, metadata: Mapping[str, str]) -> None:
    """Set or change metadata of a trace."""
    _set(connection, trace_metadata, number, metadata)


def tags_of(connection: sa.Connection, number: int) -> dict[str, str]:
    """The tags of a trace."""
    return _labels(connection, trace_tags, [number])[number]


def metadata_of(connection: sa.Connection, number: int) -> dict[str, str]:
    """The metadata of a trace."""
    return _labels(connection, trace_metadata, [number])[number]


def delete_tag(connection: sa.Connection, number: int, key: str) -> bool:
    """Take a tag from a trace; whether it had it."""
    mine = sa.delete(trace_tags).where(trace_tags.c.trace == number, trace_tags.c.key == key)
    return bool(connection.execute(mine).rowcount)


def link_to_run(connection: sa.Connection, numbers: Iterable[int], run: int) -> None:
    """Have these traces belong to a run."""
    insert_missing(connection, trace_runs, [{"trace": number, "run": run} for number in numbers])


def link_prompts(connection: sa.Connection, number: int, prompts: Iterable[str]) -> None:
    """Have a trace be one of these versions of prompts, each as `name/version`."""
    insert_missing(connection, trace_prompts, [{"trace": number, "prompt": one} for one in dict.fromkeys(prompts)])


def delete(
    connection: sa.Connection, experiment: int, ids: Sequence[str], until: int | None, most: int | None
) -> list[str]:
    """Remove traces of an experiment: these, or those no younger than `until`, the oldest first; their ids."""
    query = sa.select(traces.c.number, traces.c.id).where(traces.c.experiment == experiment)
    if until is not None:
        query = query.where(traces.c.timestamp <= until)
    query = query.order_by(traces.c.timestamp, traces.c.id).with_for_update()
    if most is not None:
        query = query.limit(most)
    gone: list[sa.Row[Any]] = []
    for start in range(0, len(ids), _BATCH):
        gone += connection.execute(query.where(traces.c.id.in_(ids[start : start + _BATCH])))
    if not ids:
        gone = list(connection.execute(query))
    for start in range(0, len(gone), _BATCH):
        numbers = [row.number for row in gone[start : start + _BATCH]]
        connection.execute(sa.delete(traces).where(traces.c.number.in_(numbers)))
    return [row.id for row in gone]


def complete(connection: sa.Connection, found: Sequence[Trace]) -> list[Trace]:
    """The traces with their tags, metadata and assessments, in the order given."""
    numbers = [trace.number for trace in found]
    tags, metadata = _labels(connection, trace_tags, numbers), _labels(connection, trace_metadata, numbers)
    ids = {trace.number: trace.id for trace in found}
    judged = assessment_store.of_traces(connection, ids)
    return [
        Trace(
            number=trace.number,
            id=trace.id,
            experiment_id=trace.experiment_id,
            **{name: getattr(trace, name) for name in _FIELDS},
            metadata=metadata[trace.number],
            tags=tags[trace.number],
            assessments=judged[trace.number],
        )
        for trace in found
    ]


def from_row(row: sa.Row[Any]) -> Trace:
    """The trace of this row of the table, without what hangs on it."""
    fields = {name: getattr(row, name) for name in _FIELDS}
    return Trace(number=row.number, id=row.id, experiment_id=row.experiment, **fields)


def _set(connection: sa.Connection, table: sa.Table, number: int, labels: Mapping[str, str]) -> None:
    # In the order of their keys, so that two that write the same ones never wait for each other in turn.
    rows = [{"trace": number, "key": key, "value": value} for key, value in sorted(labels.items())]
    insert_or_replace(connection, table, rows)


def _labels(connection: sa.Connection, table: sa.Table, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for start in range(0, len(numbers), _BATCH):
        wanted = table.c.trace.in_(numbers[start : start + _BATCH])
        for row in connection.execute(sa.select(table).where(wanted).order_by(table.c.key)):
            found[row.trace][row.key] = row.value
    return found
