"""Traces that come whole, many at once, from whoever watched all of what they tell of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from promptlab import existing, traces_derived
from promptlab.entities import Experiment
from promptlab.entities_traces import (
    ARTIFACT_LOCATION,
    COST,
    FINALIZED,
    LINKED_PROMPTS,
    SIZE_STATS,
    SPAN_COST,
    SPAN_USAGE,
    SPANS_LOCATION,
    TOKEN_USAGE,
    TRACE_NAME,
    Span,
    Trace,
)
from promptlab.errors import LabError
from promptlab.ports import Database
from promptlab.store import Connection, experiments, whole_traces
from promptlab.store import spans as span_store


@dataclass(frozen=True, slots=True)
class Whole:
    """A trace with all its spans, the first of which has no parent. `experiment` is a name, `prompts` are versions."""

    experiment: str
    client_request_id: str
    spans: Sequence[Span]
    metadata: dict[str, str] = field(default_factory=dict)
    prompts: Sequence[tuple[str, str]] = ()


class WholeTraces:
    """Keeps them. The tables are there already."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, given: Sequence[Whole]) -> int:
        """Keep these traces in one transaction; how many. Those of an experiment that is deleted are not kept.

        An experiment that is not there is made.
        """

        def work(connection: Connection) -> int:
            named = {name: _experiment(connection, name) for name in sorted({whole.experiment for whole in given})}
            rows = [_rows(one, whole) for whole in given if (one := named[whole.experiment]) is not None]
            whole_traces.insert(connection, rows)
            return len(rows)

        return self._database.write(work)


def _experiment(connection: Connection, name: str) -> Experiment | None:
    """The experiment of that name, there until the transaction ends; None where it is deleted."""
    if experiments.find_by_name(connection, name) is None:
        experiments.insert(connection, name, None, time.time_ns() // 1_000_000)
    found = experiments.find_by_name(connection, name)
    if found is None or found.deleted:
        return None
    try:
        return existing.active_experiment(connection, str(found.id))
    except LabError:
        return None  # it has just been deleted


def _rows(experiment: Experiment, whole: Whole) -> whole_traces.Rows:
    root = whole.spans[0]
    start = root.start // 1_000_000
    request, response = traces_derived.previews(root)
    trace = Trace(
        number=0,
        id=f"tr-{root.trace_id}",
        experiment_id=experiment.id,
        timestamp=start,
        duration=max(0, (root.end or root.start) // 1_000_000 - start),
        state="ERROR" if root.status == "ERROR" else "OK",
        client_request_id=whole.client_request_id,
        request_preview=request,
        response_preview=response,
    )
    spans = [span_store.values(span) for span in whole.spans]
    sizes = traces_derived.size_stats([span["size"] for span in spans])
    metadata = {**whole.metadata, FINALIZED: "true", SIZE_STATS: _json(sizes)}
    usage = traces_derived.total_tokens(_nodes(whole.spans, SPAN_USAGE))
    cost = traces_derived.total_cost(_nodes(whole.spans, SPAN_COST))
    if usage is not None:
        metadata[TOKEN_USAGE] = _json(usage)
    if cost is not None:
        metadata[COST] = _json(cost)
    tags = {
        TRACE_NAME: root.name,
        SPANS_LOCATION: "TRACKING_STORE",
        ARTIFACT_LOCATION: f"{experiment.artifact_location.rstrip('/')}/traces/{trace.id}/artifacts",
    }
    if whole.prompts:
        tags[LINKED_PROMPTS] = _json([{"name": name, "version": version} for name, version in whole.prompts])
    prompts = [f"{name}/{version}" for name, version in whole.prompts]
    return whole_traces.Rows(trace, spans, tags, metadata, prompts)


def _nodes(spans: Sequence[Span], counted: str) -> list[traces_derived.Node]:
    return [traces_derived.Node(span.id, span.parent, span.attributes.get(counted)) for span in spans]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
