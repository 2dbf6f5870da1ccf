"""SQL of the search of traces: what `promptlab.filters_traces` read becomes one query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from promptlab.entities import Page
from promptlab.entities_traces import LINKED_PROMPTS, SESSION, SOURCE_RUN, Trace
from promptlab.filters import Clause, Entity, Order
from promptlab.store import traces as trace_store
from promptlab.store.paging import SortKey
from promptlab.store.schema import beginning, runs
from promptlab.store.schema_traces import (
    assessments,
    spans,
    trace_metadata,
    trace_prompts,
    trace_runs,
    trace_tags,
    traces,
)
from promptlab.store.search import absent_last, binary, column_sort, compare, page, tagged

_END = traces.c.timestamp + sa.func.coalesce(traces.c.duration, 0)
_COLUMNS: dict[str, Any] = {
    "request_id": traces.c.id,
    "experiment_id": traces.c.experiment,
    "timestamp_ms": traces.c.timestamp,
    "execution_time_ms": traces.c.duration,
    "end_time_ms": _END,
    "status": traces.c.state,
    "client_request_id": traces.c.client_request_id,
}
_LABELS = {Entity.TAG: trace_tags, Entity.METADATA: trace_metadata}
_KINDS = {Entity.FEEDBACK: "feedback", Entity.EXPECTATION: "expectation"}


def search_traces(
    connection: sa.Connection,
    experiments: Sequence[int],
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
) -> Page[Trace]:
    """Traces of these experiments for which every clause holds, whole, newest first unless `orders` say otherwise."""
    wanted: sa.BindParameter[Any] = sa.bindparam("experiments", list(experiments), expanding=True, literal_execute=True)
    query = sa.select(traces).where(traces.c.experiment.in_(wanted))
    query = query.where(*_all_of(connection, clauses, traces.c.experiment.in_(wanted)))
    keys = [key for order in orders for key in _sort(connection, order)]
    named = {order.key for order in orders if order.entity is Entity.ATTRIBUTE}
    if "timestamp_ms" not in named:
        keys.append(SortKey(traces.c.timestamp, int, ascending=False))
    if "request_id" not in named:
        keys.append(SortKey(binary(connection, traces.c.id), str))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(trace_store.complete(connection, [trace_store.from_row(row) for row in rows]), next_token)


def _all_of(
    connection: sa.Connection, clauses: Sequence[Clause], within: sa.ColumnElement[bool]
) -> list[sa.ColumnElement[bool]]:
    """What must hold for all of these clauses; those about a span, of one and the same."""
    of_one_span = [_span_clause(connection, clause) for clause in clauses if clause.entity is Entity.SPAN]
    found = [_clause(connection, clause, within) for clause in clauses if clause.entity is not Entity.SPAN]
    if of_one_span:
        found.append(traces.c.number.in_(sa.select(spans.c.trace).where(*of_one_span)))
    return found


def _clause(connection: sa.Connection, clause: Clause, within: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    match clause.entity:
        case Entity.EITHER:
            return sa.or_(*(sa.and_(*_all_of(connection, option, within)) for option in clause.options))
        case Entity.ATTRIBUTE:
            return compare(connection, _COLUMNS[clause.key], clause)
        case Entity.TAG if clause.key == LINKED_PROMPTS:
            linked = sa.select(trace_prompts.c.trace).where(trace_prompts.c.prompt == clause.value)
            return traces.c.number.in_(linked)
        case Entity.TAG | Entity.METADATA:
            return _label_clause(connection, _LABELS[clause.entity], clause)
        case Entity.ISSUE:
            mine = (assessments.c.kind == "issue") & (beginning(assessments.c.name) == beginning(_text(clause)))
            return traces.c.number.in_(sa.select(assessments.c.trace).where(mine, assessments.c.name == clause.value))
        case _:
            return _assessment_clause(connection, clause, within)


def _text(clause: Clause) -> sa.ColumnElement[str]:
    return sa.literal(str(clause.value), sa.Text)


def _label_clause(connection: sa.Connection, table: sa.Table, clause: Clause) -> sa.ColumnElement[bool]:
    mine = traces.c.number
    if clause.comparator in ("IN", "NOT IN"):
        having = sa.select(table.c.trace).where(table.c.key == clause.key, compare(connection, table.c.value, clause))
        return mine.in_(having)
    said = tagged(connection, table, table.c.trace, mine, clause)
    if table is trace_metadata and clause.key == SOURCE_RUN and clause.comparator == "=":
        # A trace is a run's because it was made in it, or because somebody linked it.
        linked = sa.select(trace_runs.c.trace).join(runs, runs.c.number == trace_runs.c.run)
        return said | mine.in_(linked.where(runs.c.id == clause.value))
    return said


def _assessment_clause(
    connection: sa.Connection, clause: Clause, within: sa.ColumnElement[bool]
) -> sa.ColumnElement[bool]:
    judged = [
        beginning(assessments.c.name) == beginning(sa.literal(clause.key, sa.Text)),
        assessments.c.name == clause.key,
        assessments.c.kind == _KINDS[clause.entity],
        assessments.c.valid.is_(sa.true()),
    ]
    if clause.comparator not in ("IS NULL", "IS NOT NULL"):
        judged.append(_value_clause(connection, clause))
    mine = traces.c.number
    here = assessments.c.trace.in_(sa.select(mine).where(within).correlate(None))
    sessions = sa.select(assessments.c.session).where(*judged, assessments.c.session.is_not(None), here)
    same = sa.select(trace_metadata.c.trace).where(
        trace_metadata.c.key == SESSION, trace_metadata.c.value.in_(sessions)
    )
    found = mine.in_(sa.select(assessments.c.trace).where(*judged)) | mine.in_(same)
    return ~found if clause.comparator == "IS NULL" else found


def _value_clause(connection: sa.Connection, clause: Clause) -> sa.ColumnElement[bool]:
    if isinstance(clause.value, float):
        return compare(connection, assessments.c.figure, clause)
    if clause.comparator in ("=", "!="):
        # Values are kept as JSON: `true` and 5 are asked for by their JSON, texts by themselves.
        same = assessments.c.value.in_([str(clause.value), orjson.dumps(clause.value).decode()])
        return same if clause.comparator == "=" else ~same
    return compare(connection, assessments.c.value, clause)


def _span_clause(connection: sa.Connection, clause: Clause) -> sa.ColumnElement[bool]:
    if clause.key.startswith("attributes."):
        return compare(connection, _attribute(connection, clause.key.removeprefix("attributes.")), clause)
    if clause.key == "name" and clause.comparator == "=":
        return (beginning(spans.c.name) == beginning(_text(clause))) & (spans.c.name == clause.value)
    return compare(connection, spans.c[clause.key], clause)


def _attribute(connection: sa.Connection, name: str) -> sa.ColumnElement[Any]:
    """An attribute of a span as text; NULL where it has none of that name."""
    if connection.dialect.name == "postgresql":
        attributes = sa.cast(spans.c.content, sa.JSON).op("->")("attributes")
        return attributes.op("->>", return_type=sa.Text())(name)
    path = f'$.attributes."{name}"'
    kind = sa.func.json_type(spans.c.content, path)
    text = sa.cast(sa.func.json_extract(spans.c.content, path), sa.Text)
    return sa.case((kind == "true", "true"), (kind == "false", "false"), else_=text)


def _sort(connection: sa.Connection, order: Order) -> list[SortKey]:
    if order.entity is Entity.ATTRIBUTE:
        if order.key == "execution_time_ms":
            return absent_last(traces.c.duration, int, order.ascending)
        if order.key == "end_time_ms":
            return [SortKey(_END, int, order.ascending)]
        return [column_sort(connection, _COLUMNS[order.key], order.ascending)]
    table = _LABELS[order.entity]
    mine = (table.c.trace == traces.c.number) & (table.c.key == order.key)
    value = sa.select(table.c.value).where(mine).scalar_subquery()
    return absent_last(binary(connection, value), str, order.ascending)
