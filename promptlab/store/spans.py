"""SQL of spans. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from promptlab.entities_traces import SPAN_COST, SPAN_USAGE, Span
from promptlab.store.schema_traces import spans
from promptlab.store.upsert import insert_or_replace_by

_BATCH = 500
_IN_ORDER = (sa.case((spans.c.parent.is_(None), 0), else_=1), spans.c.start, spans.c.number)


def put(connection: sa.Connection, trace: int, given: Sequence[Span]) -> None:
    """Keep spans of a trace; one that is there already is replaced."""
    # Twice in one batch would be once too often for PostgreSQL: the last one counts.
    rows = {span.id: {"trace": trace, **values(span)} for span in given}
    insert_or_replace_by(connection, spans, ("trace", "id"), list(rows.values()))


def summary(connection: sa.Connection, trace: int) -> Sequence[sa.Row[Any]]:
    """Of every span of a trace its id, parent, start, end, size, usage and cost."""
    columns = [spans.c[name] for name in ("id", "parent", "start", "end", "size", "usage", "cost")]
    return connection.execute(sa.select(*columns).where(spans.c.trace == trace)).all()


def of_traces(connection: sa.Connection, traces: Sequence[tuple[int, str]]) -> dict[int, list[Span]]:
    """The spans of these traces (each by number and id): those without a parent first, then as they began."""
    found: dict[int, list[Span]] = defaultdict(list)
    ids = dict(traces)
    numbers = list(ids)
    for start in range(0, len(numbers), _BATCH):
        query = sa.select(spans).where(spans.c.trace.in_(numbers[start : start + _BATCH]))
        for row in connection.execute(query.order_by(spans.c.trace, *_IN_ORDER)):
            found[row.trace].append(_from_row(row, ids[row.trace]))
    return found


def values(span: Span) -> dict[str, Any]:
    """A span's row, but for its trace."""
    content = orjson.dumps({"name": span.name, "attributes": span.attributes, **span.rest}).decode()
    return {
        "id": span.id,
        "parent": span.parent,
        "name": span.name,
        "type": span.type,
        "status": span.status,
        "start": span.start,
        "end": span.end,
        "usage": _json(span.attributes.get(SPAN_USAGE)),
        "cost": _json(span.attributes.get(SPAN_COST)),
        "size": len(content),
        "content": content,
    }


def _json(value: object) -> str | None:
    return orjson.dumps(value).decode() if isinstance(value, dict) else None


def _from_row(row: sa.Row[Any], trace_id: str) -> Span:
    content = orjson.loads(row.content)
    return Span(
        trace_id=trace_id.removeprefix("tr-"),
        id=row.id,
        parent=row.parent,
        name=row.name,
        status=row.status,
        start=row.start,
        end=row.end,
        attributes=content["attributes"],
        rest={name: content[name] for name in ("message", "events", "links") if name in content},
    )
