"""SQL of assessments. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from promptlab.entities_traces import SESSION, Assessment
from promptlab.store.schema_traces import assessments
from promptlab.store.upsert import insert_new

_BATCH = 500
_SAME = ("id", "name", "kind", "source_type", "source_id", "span_id", "rationale")
_ALSO = ("overrides", "valid", "created", "updated")
_JSON = ("error", "metadata")


def insert(connection: sa.Connection, trace: int, assessment: Assessment) -> bool:
    """Keep a new assessment of a trace; whether its id was free."""
    statement = insert_new(connection, assessments).values(trace=trace, **_values(assessment))
    return connection.scalar(statement.returning(assessments.c.number)) is not None


def replace(connection: sa.Connection, assessment: Assessment) -> None:
    """Have the assessment of that id say this."""
    mine = sa.update(assessments).where(assessments.c.id == assessment.id)
    connection.execute(mine.values(**_values(assessment)))


def find(connection: sa.Connection, trace: int, trace_id: str, assessment_id: str) -> Assessment | None:
    """The assessment of that id of a trace."""
    mine = (assessments.c.trace == trace) & (assessments.c.id == assessment_id)
    row = connection.execute(sa.select(assessments).where(mine)).first()
    return None if row is None else _from_row(row, trace_id)


def of_traces(connection: sa.Connection, traces: Mapping[int, str]) -> dict[int, list[Assessment]]:
    """The assessments of these traces (ids by number), oldest first."""
    found: dict[int, list[Assessment]] = defaultdict(list)
    numbers = list(traces)
    for start in range(0, len(numbers), _BATCH):
        wanted = assessments.c.trace.in_(numbers[start : start + _BATCH])
        for row in connection.execute(sa.select(assessments).where(wanted).order_by(assessments.c.number)):
            found[row.trace].append(_from_row(row, traces[row.trace]))
    return found


def set_valid(connection: sa.Connection, trace: int, assessment_id: str, *, valid: bool) -> bool:
    """Say whether an assessment of a trace still holds; whether there is one."""
    mine = (assessments.c.trace == trace) & (assessments.c.id == assessment_id)
    return bool(connection.execute(sa.update(assessments).where(mine).values(valid=valid)).rowcount)


def delete(connection: sa.Connection, trace: int, assessment_id: str) -> None:
    """Remove an assessment of a trace."""
    mine = (assessments.c.trace == trace) & (assessments.c.id == assessment_id)
    connection.execute(sa.delete(assessments).where(mine))


def _values(assessment: Assessment) -> dict[str, Any]:
    value = assessment.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        **{name: getattr(assessment, name) for name in (*_SAME, *_ALSO)},
        **{name: _dumped(getattr(assessment, name)) for name in _JSON},
        "value": orjson.dumps(value).decode(),
        "session": (assessment.metadata or {}).get(SESSION),
        "figure": float(value) if is_number else None,
    }


def _dumped(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _from_row(row: sa.Row[Any], trace_id: str) -> Assessment:
    texts = {name: getattr(row, name) for name in _JSON}
    loaded: dict[str, Any] = {name: None if text is None else orjson.loads(text) for name, text in texts.items()}
    fields = {name: getattr(row, name) for name in (*_SAME, *_ALSO)}
    return Assessment(trace_id=trace_id, value=orjson.loads(row.value), **fields, **loaded)
