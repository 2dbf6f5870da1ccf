"""Traces, spans and assessments on MLflow's wire: protobuf's JSON of times, maps and values, both ways."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from promptlab import assessments
from promptlab.api.wire import Arguments, Converter, Field, Fields, boolean, decode, message, required, string
from promptlab.entities_traces import SOURCES, STATES, Assessment, Span, Trace
from promptlab.errors import InvalidParameter

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9}))?s")
_OLD_SOURCES = {"AI_JUDGE": "LLM_JUDGE"}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def timestamp(value: Any, path: str) -> int:
    """A point in time, such as `2026-11-23T13:09:42.344Z`, in milliseconds."""
    match = _STAMP.fullmatch(string(value, path))
    try:
        if match is None:
            raise ValueError
        whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        return int(whole.timestamp()) * 1000 + int((match[2] or "0").ljust(3, "0")[:3])
    except (ValueError, OverflowError):
        raise InvalidParameter(f"'{path}' must be a time such as 2026-11-23T13:09:42.344Z, not {value!r}") from None


def duration(value: Any, path: str) -> int:
    """A length of time, such as `1.5s`, in milliseconds."""
    match = _DURATION.fullmatch(string(value, path))
    if match is None:
        raise InvalidParameter(f"'{path}' must be a duration such as 1.5s, not {value!r}")
    return int(match[1]) * 1000 + int((match[2] or "0").ljust(3, "0")[:3])


def labels(value: Any, path: str) -> dict[str, str]:
    """An object whose values are texts."""
    if not isinstance(value, dict):
        raise InvalidParameter(f"'{path}' must be an object, not {type(value).__name__}")
    return {string(key, path): string(one, f"{path}.{key}") for key, one in value.items() if one is not None}


def anything(value: Any, path: str) -> Any:
    """Any JSON, but for texts that PostgreSQL cannot keep."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        raise InvalidParameter(f"'{path}' is nested too deep") from None
    if b"\\u0000" in text:
        raise InvalidParameter(f"'{path}' holds a NUL character")
    return value


def choice(names: Sequence[str]) -> Converter:
    """One of these names, or its number."""

    def convert(value: Any, path: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        name = _OLD_SOURCES.get(string(value, path), value)
        if name not in names:
            raise InvalidParameter(f"Invalid value {value!r} for parameter '{path}' supplied: one of {list(names)}")
        return str(name)

    return convert


_EXPERIMENT: Fields = {"experiment_id": Field(string)}
LOCATION: Fields = {"type": Field(anything), "mlflow_experiment": Field(message(_EXPERIMENT))}
_SOURCE: Fields = {"source_type": Field(choice(SOURCES), default=SOURCES[0]), "source_id": Field(string, default="")}
_ERROR: Fields = {name: Field(string) for name in ("error_code", "error_message", "stack_trace")}
_ASSESSMENT: Fields = {
    "assessment_id": Field(string),
    "assessment_name": Field(string),
    "trace_id": Field(string),
    "span_id": Field(string),
    "source": Field(message(_SOURCE)),
    "create_time": Field(timestamp),
    "last_update_time": Field(timestamp),
    "feedback": Field(anything),
    "expectation": Field(anything),
    "issue": Field(message({"issue_name": required(string)})),
    "rationale": Field(string),
    "error": Field(message(_ERROR)),
    "metadata": Field(labels),
    "overrides": Field(string),
    "valid": Field(boolean, default=True),
}
_INFO: Fields = {
    "trace_id": required(string),
    "client_request_id": Field(string),
    "trace_location": Field(message(LOCATION)),
    "request_preview": Field(string),
    "response_preview": Field(string),
    "request_time": Field(timestamp),
    "execution_duration": Field(duration),
    "state": Field(choice(STATES), default=STATES[0]),
    "trace_metadata": Field(labels, default={}),
    "assessments": Field(lambda value, path: value, default=()),
    "tags": Field(labels, default={}),
}
read_assessment_fields = message(_ASSESSMENT)


def read_info(value: Any, path: str) -> tuple[str, Trace]:
    """What a client says of a trace, and of which experiment it is."""
    said = message({"trace_info": required(message(_INFO))})(value, path)["trace_info"]
    of_experiment = (said["trace_location"] or {}).get("mlflow_experiment") or {}
    given = said["assessments"]
    if not isinstance(given, list | tuple):
        raise InvalidParameter(f"'{path}.trace_info.assessments' must be a list, not {type(given).__name__}")
    judged = [
        assessments.checked(assessment({**decode_assessment(one, f"{path}.assessments[{at}]")}, said["trace_id"]))
        for at, one in enumerate(given)
    ]
    trace = Trace(
        number=0,
        id=said["trace_id"],
        experiment_id=0,
        timestamp=assessments.now() if said["request_time"] is None else said["request_time"],
        duration=said["execution_duration"],
        state=said["state"],
        client_request_id=said["client_request_id"],
        request_preview=said["request_preview"],
        response_preview=said["response_preview"],
        metadata=said["trace_metadata"],
        tags=said["tags"],
        assessments=judged,
    )
    return of_experiment.get("experiment_id") or "", trace


def decode_assessment(value: Any, path: str) -> Arguments:
    """The fields of an assessment, with its kind, value and error where it says them."""
    if not isinstance(value, dict):
        raise InvalidParameter(f"'{path}' must be an object, not {type(value).__name__}")
    said = decode(value, _ASSESSMENT, f"{path}.")
    kinds = [name for name in ("feedback", "expectation", "issue") if said[name] is not None]
    if len(kinds) > 1:
        raise InvalidParameter(f"'{path}' must be one of feedback, expectation and issue, not {' and '.join(kinds)}")
    for kind in kinds:
        said |= {"kind": kind, **_READERS[kind](said[kind], f"{path}.{kind}")}
    return said


def _feedback(value: Any, path: str) -> Arguments:
    said = decode(_object(value, path), {"value": Field(anything), "error": Field(message(_ERROR))}, f"{path}.")
    error = {name: text for name, text in (said["error"] or {}).items() if text is not None}
    return {"value": said["value"], "error": error or None}


def _expectation(value: Any, path: str) -> Arguments:
    serialized: Fields = {"serialization_format": Field(string), "value": Field(string, default="null")}
    said = decode(
        _object(value, path), {"value": Field(anything), "serialized_value": Field(message(serialized))}, f"{path}."
    )
    if said["serialized_value"] is None:
        return {"value": said["value"], "error": None}
    try:
        return {"value": anything(orjson.loads(said["serialized_value"]["value"]), path), "error": None}
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"'{path}.serialized_value.value' is not valid JSON: {error}") from None


def _issue(value: Any, _path: str) -> Arguments:
    return {"value": value["issue_name"], "error": None}


_READERS = {"feedback": _feedback, "expectation": _expectation, "issue": _issue}


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParameter(f"'{path}' must be an object, not {type(value).__name__}")
    return value


def assessment(said: Arguments, trace_id: str) -> Assessment:
    """The assessment that these fields say, of this trace."""
    if "kind" not in said:
        raise InvalidParameter("An assessment must have one of 'feedback', 'expectation' and 'issue'")
    for name in ("assessment_name", "source"):
        if not said[name]:
            raise InvalidParameter(f"Missing value for required parameter 'assessment.{name}'.")
    now = assessments.now()
    return Assessment(
        id=said["assessment_id"] or assessments.new_id(),
        trace_id=trace_id,
        name=said["assessment_name"],
        kind=said["kind"],
        value=said["value"],
        error=said["error"],
        source_type=said["source"]["source_type"],
        source_id=said["source"]["source_id"],
        span_id=said["span_id"],
        rationale=said["rationale"],
        metadata=said["metadata"] or None,
        overrides=said["overrides"],
        valid=said["valid"],
        created=now if said["create_time"] is None else said["create_time"],
        updated=now if said["last_update_time"] is None else said["last_update_time"],
    )


# ── answering ────────────────────────────────────────────────────────────────────────────────────


def shown_time(milliseconds: int) -> str:
    """Milliseconds as the time of day they stand for."""
    whole, rest = divmod(milliseconds, 1000)
    try:
        text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "9999-12-31T23:59:59Z"
    return f"{text.rjust(19, '0')}.{rest:03}Z" if rest else f"{text.rjust(19, '0')}Z"


def shown_duration(milliseconds: int) -> str:
    """Milliseconds as a length of time."""
    whole, rest = divmod(abs(milliseconds), 1000)
    sign = "-" if milliseconds < 0 else ""
    return f"{sign}{whole}.{rest:03}s" if rest else f"{sign}{whole}s"


def _without_none(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if value is not None}


def shown_info(trace: Trace) -> dict[str, Any]:
    """A `TraceInfoV3` message."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(trace.experiment_id)}}
    return _without_none(
        {
            "trace_id": trace.id,
            "client_request_id": trace.client_request_id,
            "trace_location": location,
            "request_preview": trace.request_preview,
            "response_preview": trace.response_preview,
            "request_time": shown_time(trace.timestamp),
            "execution_duration": None if trace.duration is None else shown_duration(trace.duration),
            "state": trace.state,
            "trace_metadata": dict(trace.metadata) or None,
            "assessments": [shown_assessment(one) for one in trace.assessments] or None,
            "tags": dict(trace.tags) or None,
        }
    )


def shown_trace(trace: Trace, spans: Sequence[Span]) -> dict[str, Any]:
    """A `Trace` message with its spans."""
    return {"trace_info": shown_info(trace)} | ({"spans": [shown_span(span) for span in spans]} if spans else {})


def shown_span(span: Span) -> dict[str, Any]:
    """An OpenTelemetry `Span` message, its ids in base64 as protobuf's JSON has bytes."""
    status = {"code": f"STATUS_CODE_{span.status}", "message": span.rest.get("message")}
    return _without_none(
        {
            "trace_id": _base64(span.trace_id),
            "span_id": _base64(span.id),
            "parent_span_id": None if span.parent is None else _base64(span.parent),
            "name": span.name,
            "start_time_unix_nano": span.start,
            "end_time_unix_nano": span.end,
            "attributes": _attributes(span.attributes),
            "events": [
                {
                    "time_unix_nano": event["time"],
                    "name": event["name"],
                    "attributes": _attributes(event["attributes"]),
                }
                for event in span.rest.get("events", ())
            ]
            or None,
            "links": [
                {
                    "trace_id": _base64(link["trace"]),
                    "span_id": _base64(link["span"]),
                    "attributes": _attributes(link["attributes"]),
                }
                for link in span.rest.get("links", ())
            ]
            or None,
            "status": _without_none(status),
        }
    )


def _base64(identity: str) -> str:
    return base64.b64encode(bytes.fromhex(identity)).decode()


def _attributes(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in given.items()]


def _any_value(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case int():
            return {"int_value": value}
        case float():
            return {"double_value": value}
        case str():
            return {"string_value": value}
        case list():
            return {"array_value": {"values": [_any_value(one) for one in value]} if value else {}}
        case _:
            return {"kvlist_value": {"values": _attributes(value)} if value else {}}


def shown_assessment(found: Assessment) -> dict[str, Any]:
    """An `Assessment` message."""
    return _without_none(
        {
            "assessment_id": found.id,
            "assessment_name": found.name,
            "trace_id": found.trace_id,
            "span_id": found.span_id,
            "source": {"source_type": found.source_type, "source_id": found.source_id},
            "create_time": shown_time(found.created),
            "last_update_time": shown_time(found.updated),
            found.kind: _shown_value(found),
            "rationale": found.rationale,
            "metadata": found.metadata,
            "overrides": found.overrides,
            "valid": found.valid,
        }
    )


def _shown_value(found: Assessment) -> dict[str, Any]:
    if found.kind == "issue":
        return {"issue_name": found.value}
    if found.kind == "expectation" and isinstance(found.value, dict | list):
        text = orjson.dumps(found.value).decode()
        return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": text}}
    return {"value": found.value} | ({"error": found.error} if found.error else {})
