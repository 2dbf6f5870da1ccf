"""The rules of assessments: what may be said of a trace, and what becomes of a judgement that another replaces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from promptlab import traces
from promptlab.entities_traces import Assessment
from promptlab.errors import InvalidParameter, NotFound
from promptlab.ports import Database
from promptlab.store import Connection, assessments

MAX_NAME, MAX_TEXT = 250, 65_536


class Assessments:
    """Feedback, expectations and issues of traces. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    def create(self, said: Assessment) -> Assessment:
        """Keep an assessment. The one it overrides holds no more."""
        said = checked(said)

        def work(connection: Connection) -> Assessment:
            trace = traces.found(connection, said.trace_id, lock=True)
            if said.overrides and not assessments.set_valid(connection, trace.number, said.overrides, valid=False):
                raise _missing(said.overrides, said.trace_id)
            if not assessments.insert(connection, trace.number, said):
                raise InvalidParameter(f"There is an assessment with ID '{said.id}' already")
            return said

        return self._database.write(work)

    def get(self, trace_id: str, assessment_id: str) -> Assessment:
        """The assessment. Raises `NotFound`."""
        with self._database.read() as connection:
            return _found(connection, trace_id, assessment_id)[1]

    def update(self, trace_id: str, assessment_id: str, changes: Mapping[str, Any]) -> Assessment:
        """The assessment with these fields changed. What kind it is stays; metadata adds to what is there."""

        def work(connection: Connection) -> Assessment:
            _, before = _found(connection, trace_id, assessment_id, lock=True)
            after = checked(_changed(before, changes))
            assessments.replace(connection, after)
            return after

        return self._database.write(work)

    def delete(self, trace_id: str, assessment_id: str) -> None:
        """Remove an assessment, if there is one; the one it overrode holds again."""

        def work(connection: Connection) -> None:
            trace = traces.found(connection, trace_id, lock=True)
            gone = assessments.find(connection, trace.number, trace_id, assessment_id)
            if gone is None:
                return
            if gone.overrides:
                assessments.set_valid(connection, trace.number, gone.overrides, valid=True)
            assessments.delete(connection, trace.number, assessment_id)

        self._database.write(work)


def new_id() -> str:
    """An id no assessment has."""
    return f"a-{secrets.token_hex(16)}"


def checked(said: Assessment) -> Assessment:
    """The assessment, if it may be kept."""
    if not 0 < len(said.name) <= MAX_NAME:
        raise InvalidParameter(f"'assessment.assessment_name' must have 1 to {MAX_NAME} characters")
    if len(said.rationale or "") > MAX_TEXT or len(orjson.dumps(said.value)) > MAX_TEXT:
        raise InvalidParameter(f"An assessment's value and rationale have at most {MAX_TEXT} characters each")
    for name in ("id", "source_id", "span_id", "overrides"):
        if len(getattr(said, name) or "") > MAX_NAME:
            raise InvalidParameter(f"'assessment.{name}' exceeds the maximum length of {MAX_NAME} characters")
    return said


def _changed(before: Assessment, changes: Mapping[str, Any]) -> Assessment:
    kind = changes.get("kind", before.kind)
    if kind != before.kind:
        raise InvalidParameter(f"Cannot update {kind} value on an assessment that is {_article(before.kind)}.")
    metadata = changes.get("metadata")
    fields = {name: changes[name] for name in ("name", "value", "error", "rationale", "valid") if name in changes}
    if metadata is not None:
        fields["metadata"] = {**(before.metadata or {}), **metadata} or None
    return replace(before, **fields, updated=max(before.updated, now()))


def _article(kind: str) -> str:
    return "feedback" if kind == "feedback" else f"an {kind}"


def _found(connection: Connection, trace_id: str, assessment_id: str, *, lock: bool = False) -> tuple[int, Assessment]:
    trace = traces.found(connection, trace_id, lock=lock)
    assessment = assessments.find(connection, trace.number, trace_id, assessment_id)
    if assessment is None:
        raise _missing(assessment_id, trace_id)
    return trace.number, assessment


def _missing(assessment_id: str, trace_id: str) -> NotFound:
    return NotFound(f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'")


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
