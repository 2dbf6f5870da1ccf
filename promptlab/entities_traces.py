"""Traces, their spans and what is thought of them, as plain data; and the names MLflow gives to what they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Tags.
TRACE_NAME = "mlflow.traceName"
LINKED_PROMPTS = "mlflow.linkedPrompts"
SPANS_LOCATION = "mlflow.trace.spansLocation"
ARTIFACT_LOCATION = "mlflow.artifactLocation"
# Metadata.
SOURCE_RUN = "mlflow.sourceRun"
SIZE_STATS = "mlflow.trace.sizeStats"
TOKEN_USAGE = "mlflow.trace.tokenUsage"  # noqa: S105 - the name of a count
COST = "mlflow.trace.cost"
FINALIZED = "mlflow.trace.infoFinalized"
SESSION = "mlflow.trace.session"
USER = "mlflow.trace.user"
# Attributes of spans.
REQUEST_ID = "mlflow.traceRequestId"
SPAN_TYPE = "mlflow.spanType"
SPAN_INPUTS = "mlflow.spanInputs"
SPAN_OUTPUTS = "mlflow.spanOutputs"
SPAN_USAGE = "mlflow.chat.tokenUsage"
SPAN_MODEL = "mlflow.llm.model"
SPAN_PROVIDER = "mlflow.llm.provider"
SPAN_COST = "mlflow.llm.cost"
TAG_PREFIX = "mlflow.traceTag."

IN_PROGRESS = "IN_PROGRESS"
STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", IN_PROGRESS)
SOURCES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")


@dataclass(frozen=True, slots=True)
class Assessment:
    """A judgement about a trace. `kind` says what `value` is: feedback, an expectation, or an issue's name."""

    id: str
    trace_id: str
    name: str
    kind: str
    value: Any
    error: Mapping[str, Any] | None
    source_type: str
    source_id: str
    span_id: str | None
    rationale: str | None
    metadata: Mapping[str, str] | None
    overrides: str | None
    valid: bool
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of a trace without its spans. Times are milliseconds."""

    number: int
    id: str
    experiment_id: int
    timestamp: int
    duration: int | None
    state: str
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    assessments: Sequence[Assessment] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a trace. Ids are hexadecimal, times nanoseconds; `rest` is its events, links and message."""

    trace_id: str
    id: str
    parent: str | None
    name: str
    status: str
    start: int
    end: int | None
    attributes: Mapping[str, Any]
    rest: Mapping[str, Any] = field(default_factory=dict)
    # What its process says of itself.
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """LLM, TOOL, … or UNKNOWN."""
        said = self.attributes.get(SPAN_TYPE)
        return said if isinstance(said, str) and said else "UNKNOWN"
