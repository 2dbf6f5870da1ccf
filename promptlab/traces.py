"""The rules of traces: what is said of one and what its spans say become one record, whichever comes first."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from promptlab import existing, filters_traces, limits, semconv, traces_derived
from promptlab.artifacts import Artifacts, proxied_path
from promptlab.entities import Experiment, Page
from promptlab.entities_traces import (
    ARTIFACT_LOCATION,
    COST,
    FINALIZED,
    IN_PROGRESS,
    SIZE_STATS,
    SPANS_LOCATION,
    TOKEN_USAGE,
    TRACE_NAME,
    Span,
    Trace,
)
from promptlab.errors import InvalidParameter, NotFound
from promptlab.ports import Database
from promptlab.store import Connection, assessments, search_traces, traces
from promptlab.store import spans as span_store

T = TypeVar("T")

MAX_PAGE = 500
MAX_LINKS = 100
MAX_PROMPT = 500
MAX_KEY, MAX_TAG_VALUE, MAX_NAME, MAX_PREVIEW = 250, 8000, 250, 65_536
_TRACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,127}")
_OPEN = ("STATE_UNSPECIFIED", IN_PROGRESS)
_OURS = (SPANS_LOCATION, ARTIFACT_LOCATION)


class Traces:
    """Traces and their spans. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database
        self._artifacts = artifacts

    def start(self, experiment_id: str, said: Trace) -> Trace:
        """Keep what is said of a trace. Of one whose spans came first it is said with more weight than they have."""
        _check(said)

        def work(connection: Connection) -> Trace:
            experiment = existing.active_experiment(connection, experiment_id or "0")
            before = traces.find(connection, said.id, lock=True)
            new = replace(said, experiment_id=experiment.id)
            found = before or traces.insert(connection, new)
            traces.update(
                connection,
                found.number,
                experiment=experiment.id,
                timestamp=said.timestamp,
                duration=said.duration,
                state=said.state,
                client_request_id=said.client_request_id,
                request_preview=found.request_preview if said.request_preview is None else said.request_preview,
                response_preview=found.response_preview if said.response_preview is None else said.response_preview,
            )
            tags = {key: value for key, value in said.tags.items() if key not in _OURS}
            traces.set_tags(connection, found.number, {**tags, **_artifacts(experiment, said.id)})
            traces.set_metadata(connection, found.number, {**said.metadata, FINALIZED: "true"})
            for assessment in said.assessments:
                assessments.insert(connection, found.number, assessment)
            return _whole(connection, said.id)

        return self._database.write(work)

    def begin(self, experiment_id: str, timestamp: int, metadata: Mapping[str, str], tags: Mapping[str, str]) -> Trace:
        """A new trace, under way, as clients of MLflow's second protocol begin one."""
        begun = Trace(0, uuid.uuid4().hex, 0, timestamp, duration=None, state=IN_PROGRESS, metadata=metadata, tags=tags)
        return self.start(experiment_id, begun)

    def end(
        self, trace_id: str, timestamp: int, state: str, metadata: Mapping[str, str], tags: Mapping[str, str]
    ) -> Trace:
        """The trace, over. Metadata and tags add to what is there."""
        _check_labels(metadata, tags)

        def work(connection: Connection, found: Trace) -> Trace:
            traces.update(connection, found.number, duration=timestamp - found.timestamp, state=state)
            traces.set_metadata(connection, found.number, metadata)
            traces.set_tags(connection, found.number, {key: tags[key] for key in tags if key not in _OURS})
            return _whole(connection, trace_id)

        return self._write(trace_id, work)

    def log_spans(self, experiment_id: str, given: Sequence[Span], run_id: str | None) -> None:
        """Keep a batch of spans, all or none. Traces they belong to are begun where nobody has spoken of them yet."""
        by_trace: dict[str, list[Span]] = defaultdict(list)
        for span in given:
            by_trace[f"tr-{span.trace_id}"].append(semconv.translated(span))

        def work(connection: Connection) -> None:
            experiment = existing.active_experiment(connection, experiment_id)
            run = existing.active_run(connection, run_id) if run_id else None
            numbers = []
            # In the order of their ids, so that two batches never wait for each other in turn.
            for trace_id, spans in sorted(by_trace.items()):
                found = traces.find(connection, trace_id, lock=True)
                if found is None:
                    found = traces.insert(connection, _begun(trace_id, experiment, spans))
                span_store.put(connection, found.number, spans)
                _derive(connection, found, experiment, spans)
                numbers.append(found.number)
            if run is not None:
                traces.link_to_run(connection, numbers, run.number)

        self._database.write(work)

    def info(self, trace_id: str) -> Trace:
        """The trace without its spans. Raises `NotFound`."""
        with self._database.read() as connection:
            return _whole(connection, trace_id)

    def get(self, trace_id: str, *, partial: bool) -> tuple[Trace, list[Span]]:
        """The trace with its spans. Raises `NotFound` while some are still to come, unless a part will do."""
        with self._database.read() as connection:
            trace = _whole(connection, trace_id)
            spans = span_store.of_traces(connection, [(trace.number, trace.id)])[trace.number]
        if not partial and not _is_complete(trace, spans):
            raise NotFound(f"Trace with ID {trace_id} is not fully exported yet, please try again later.")
        return trace, spans

    def get_all(self, ids: Sequence[str], experiment_ids: Sequence[str] | None) -> list[tuple[Trace, list[Span]]]:
        """Those of these traces that are complete, with their spans."""
        with self._database.read() as connection:
            found = self._find_all(connection, ids, experiment_ids)
            spans = span_store.of_traces(connection, [(trace.number, trace.id) for trace in found])
        return [(trace, spans[trace.number]) for trace in found if _is_complete(trace, spans[trace.number])]

    def infos(self, ids: Sequence[str], experiment_ids: Sequence[str] | None) -> list[Trace]:
        """Those of these traces that there are."""
        with self._database.read() as connection:
            return self._find_all(connection, ids, experiment_ids)

    @staticmethod
    def _find_all(connection: Connection, ids: Sequence[str], experiment_ids: Sequence[str] | None) -> list[Trace]:
        if len(ids) > MAX_PAGE:
            raise InvalidParameter(f"'trace_ids' names {len(ids)} traces. Ask for at most {MAX_PAGE} at once.")
        within = None
        if experiment_ids:
            within = [existing.experiment(connection, one).id for one in experiment_ids]
        return traces.complete(connection, traces.find_all(connection, ids, within))

    def search(
        self, experiment_ids: Sequence[str], text: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[Trace]:
        """A page of the traces of these experiments that a filter finds."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidParameter(
                f"Invalid value {limit} for parameter 'max_results' supplied: must be 1 to {MAX_PAGE}"
            )
        clauses, orders = filters_traces.parse_filter(text), filters_traces.parse_order_by(order_by)
        # What is beyond 64 bits is no experiment's number.
        numbers = [number for one in experiment_ids if (number := limits.parse_experiment_id(one)) < 2**63]
        experiments = [number for number in numbers if number >= 0]
        with self._database.read() as connection:
            return search_traces.search_traces(connection, experiments, clauses, orders, limit, token)

    def set_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set or change a tag of a trace."""
        _check_label(key, value, "tag")
        _check_is_theirs(key, "set")
        self._write(trace_id, lambda connection, found: traces.set_tags(connection, found.number, {key: value}))

    def delete_tag(self, trace_id: str, key: str) -> None:
        """Take a tag from a trace. Raises `NotFound` where it has none of that key."""
        _check_is_theirs(key, "deleted")

        def work(connection: Connection, found: Trace) -> None:
            if not traces.delete_tag(connection, found.number, key):
                raise NotFound(f"No trace tag with key '{key}' for trace with ID '{trace_id}'")

        self._write(trace_id, work)

    def delete(self, experiment_id: str, ids: Sequence[str], until: int | None, most: int | None) -> int:
        """Remove traces and their files: those named, or those no younger than `until`; how many there were."""
        if bool(ids) == (until is not None):
            raise InvalidParameter("Either 'max_timestamp_millis' or 'request_ids' must be specified, but not both")
        if ids and most is not None:
            raise InvalidParameter("'max_traces' cannot be specified together with 'request_ids'")
        if most is not None and most <= 0:
            raise InvalidParameter(f"'max_traces' must be a positive integer, received {most}")

        def work(connection: Connection) -> tuple[Experiment, list[str]]:
            experiment = existing.experiment(connection, experiment_id)
            return experiment, traces.delete(connection, experiment.id, ids, until, most)

        experiment, gone = self._database.write(work)
        for trace_id in gone:
            # Clients keep a copy of the spans here, with all that went in and out.
            folder = proxied_path(_folder(experiment, trace_id))
            if folder is not None:
                self._artifacts.delete(folder)
        return len(gone)

    def link_to_run(self, ids: Sequence[str], run_id: str) -> None:
        """Have traces belong to a run, beside the one they were made in."""
        if len(ids) > MAX_LINKS:
            raise InvalidParameter(
                f"Cannot link more than {MAX_LINKS} traces to a run in a single request. Provided {len(ids)} traces."
            )

        def work(connection: Connection) -> None:
            run = existing.active_run(connection, run_id)
            # A trace on its way is not known yet: its client says itself which run made it.
            found = traces.find_all(connection, ids, None)
            traces.link_to_run(connection, [trace.number for trace in found], run.number)

        self._database.write(work)

    def link_prompts(self, trace_id: str, versions: Sequence[tuple[str, str]]) -> None:
        """Note the versions of prompts that a trace made use of."""
        named = [f"{name}/{version}" for name, version in versions]
        for one in named:
            if len(one) > MAX_PROMPT:
                raise InvalidParameter(f"The prompt '{one[:50]}…' has a name of more than {MAX_PROMPT} characters")
        self._write(trace_id, lambda connection, found: traces.link_prompts(connection, found.number, named))

    def _write(self, trace_id: str, work: Callable[[Connection, Trace], T]) -> T:
        return self._database.write(lambda connection: work(connection, found(connection, trace_id, lock=True)))


def found(connection: Connection, trace_id: str, *, lock: bool = False) -> Trace:
    """The trace of that id without what hangs on it. Raises `NotFound`."""
    trace = traces.find(connection, trace_id, lock=lock)
    if trace is None:
        raise NotFound(f"Trace with ID '{trace_id}' not found.")
    return trace


def _whole(connection: Connection, trace_id: str) -> Trace:
    return traces.complete(connection, [found(connection, trace_id)])[0]


def _is_complete(trace: Trace, spans: Sequence[Span]) -> bool:
    try:
        expected = orjson.loads(trace.metadata.get(SIZE_STATS, "{}")).get("num_spans", 0)
    except (orjson.JSONDecodeError, AttributeError):
        expected = 0
    return bool(spans) and (not isinstance(expected, int) or len(spans) >= expected)


def _begun(trace_id: str, experiment: Experiment, spans: Sequence[Span]) -> Trace:
    start = min(span.start for span in spans) // 1_000_000
    return Trace(0, trace_id, experiment.id, timestamp=start, duration=None, state=IN_PROGRESS)


def _artifacts(experiment: Experiment, trace_id: str) -> dict[str, str]:
    return {ARTIFACT_LOCATION: f"{_folder(experiment, trace_id)}/artifacts"}


def _folder(experiment: Experiment, trace_id: str) -> str:
    return f"{experiment.artifact_location.rstrip('/')}/traces/{trace_id}"


def _derive(connection: Connection, trace: Trace, experiment: Experiment, new: Sequence[Span]) -> None:
    """Bring what follows from spans up to date. What the trace's own maker said stays as it was said."""
    tags, metadata = traces.tags_of(connection, trace.number), traces.metadata_of(connection, trace.number)
    rows = span_store.summary(connection, trace.number)
    root = traces_derived.root_of(new)
    is_said = FINALIZED in metadata
    values = _times(trace, rows, is_said=is_said)
    if root is not None:
        if trace.state in _OPEN:
            values["state"] = "ERROR" if root.status == "ERROR" else "OK"
        request, response = traces_derived.previews(root)
        values["request_preview"] = request if trace.request_preview is None else trace.request_preview
        values["response_preview"] = response if trace.response_preview is None else trace.response_preview
    traces.update(connection, trace.number, **values)
    traces.set_metadata(
        connection,
        trace.number,
        {
            key: value
            for key, value in (_counted(rows) | traces_derived.metadata_of(new)).items()
            if not (key in metadata and (is_said or key not in (SIZE_STATS, TOKEN_USAGE, COST)))
        },
    )
    theirs = {
        key: value
        for key, value in traces_derived.tags_of(new).items()
        if 0 < len(key) <= MAX_KEY and len(value) <= MAX_TAG_VALUE and key not in _OURS
    }
    if TRACE_NAME not in {**tags, **theirs} and root is not None and root.name:
        theirs[TRACE_NAME] = root.name[:MAX_NAME]
    if ARTIFACT_LOCATION not in tags:
        theirs |= _artifacts(experiment, trace.id)
    traces.set_tags(connection, trace.number, {**theirs, SPANS_LOCATION: "TRACKING_STORE"})


def _times(trace: Trace, rows: Sequence[Any], *, is_said: bool) -> dict[str, object]:
    ends = [row.end for row in rows if row.end is not None]
    start = trace.timestamp if is_said else min(row.start for row in rows) // 1_000_000
    values: dict[str, object] = {"timestamp": start}
    if ends:
        took = max(ends) // 1_000_000 - start
        values["duration"] = max(took, trace.duration or 0) if is_said else max(took, 0)
    return values


def _counted(rows: Sequence[Any]) -> dict[str, str]:
    said = {SIZE_STATS: traces_derived.size_stats([row.size for row in rows])}
    usage = [traces_derived.Node(row.id, row.parent, _loaded(row.usage)) for row in rows]
    cost = [traces_derived.Node(row.id, row.parent, _loaded(row.cost)) for row in rows]
    totals: dict[str, Mapping[str, Any] | None] = {
        **said,
        TOKEN_USAGE: traces_derived.total_tokens(usage),
        COST: traces_derived.total_cost(cost),
    }
    return {key: orjson.dumps(value).decode() for key, value in totals.items() if value is not None}


def _loaded(text: str | None) -> dict[str, Any] | None:
    return None if text is None else orjson.loads(text)


def _check(said: Trace) -> None:
    if not _TRACE_ID.fullmatch(said.id):
        raise InvalidParameter(
            f"Invalid value '{said.id[:150]}' for parameter 'trace.trace_info.trace_id' supplied: "
            "letters, digits, dashes and underscores make up an id of at most 128"
        )
    _check_labels(said.metadata, said.tags)
    for name in ("request_preview", "response_preview", "client_request_id"):
        if len(getattr(said, name) or "") > MAX_PREVIEW:
            raise InvalidParameter(f"'{name}' exceeds the maximum length of {MAX_PREVIEW} characters")


def _check_labels(metadata: Mapping[str, str], tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        _check_label(key, value, "tag")
    for key, value in metadata.items():
        _check_label(key, value, "metadata")


def _check_label(key: str, value: str, what: str) -> None:
    most = MAX_TAG_VALUE if what == "tag" else MAX_PREVIEW
    if not 0 < len(key) <= MAX_KEY or len(value) > most:
        raise InvalidParameter(
            f"The {what} '{key[:50]}' must have a key of 1 to {MAX_KEY} and a value of at most {most} characters"
        )


def _check_is_theirs(key: str, done: str) -> None:
    if key in _OURS:
        raise InvalidParameter(f"The tag '{key}' says where the trace is kept; it cannot be {done}")
