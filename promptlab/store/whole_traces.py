"""SQL that keeps many new traces at once, with all that hangs on them. Runs in its caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from promptlab.entities_traces import Trace
from promptlab.store.schema_traces import spans, trace_metadata, trace_prompts, trace_tags, traces

_COLUMNS = ("id", "timestamp", "duration", "state", "client_request_id", "request_preview", "response_preview")
_NUMBERS = sa.select(traces.c.id, traces.c.number).where(traces.c.id.in_(sa.bindparam("ids", expanding=True)))
#: How many at once: databases bound the length of an IN list.
_BATCH = 500


class Rows(NamedTuple):
    """One trace, which nobody has begun, and what hangs on it; of its spans the rows but for `trace`."""

    trace: Trace
    spans: Sequence[Mapping[str, Any]]
    tags: Mapping[str, str]
    metadata: Mapping[str, str]
    prompts: Sequence[str]


def insert(connection: sa.Connection, given: Sequence[Rows]) -> None:
    """Keep them all."""
    for start in range(0, len(given), _BATCH):
        _insert(connection, given[start : start + _BATCH])


def _insert(connection: sa.Connection, given: Sequence[Rows]) -> None:
    # Whole tables at once: to build a statement for each trace costs more than to run it.
    connection.execute(sa.insert(traces), [_values(rows.trace) for rows in given])
    numbers = {row.id: row.number for row in connection.execute(_NUMBERS, {"ids": [rows.trace.id for rows in given]})}
    numbered = [(numbers[rows.trace.id], rows) for rows in given]
    hanging: dict[sa.Table, list[dict[str, Any]]] = {
        spans: [{"trace": number, **span} for number, rows in numbered for span in rows.spans],
        trace_tags: [_label(number, *one) for number, rows in numbered for one in rows.tags.items()],
        trace_metadata: [_label(number, *one) for number, rows in numbered for one in rows.metadata.items()],
        trace_prompts: [{"trace": number, "prompt": one} for number, rows in numbered for one in rows.prompts],
    }
    for table, values in hanging.items():
        if values:
            connection.execute(sa.insert(table), values)


def _values(trace: Trace) -> dict[str, Any]:
    return {"experiment": trace.experiment_id, **{name: getattr(trace, name) for name in _COLUMNS}}


def _label(number: int, key: str, value: str) -> dict[str, Any]:
    return {"trace": number, "key": key, "value": value}
