"""The tables of traces, their spans and assessments. JSON is kept as text, for both databases alike."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, beginning, metadata

traces = sa.Table(
    "traces",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("duration", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("client_request_id", sa.Text),
    sa.Column("request_preview", sa.Text),
    sa.Column("response_preview", sa.Text),
    sqlite_autoincrement=True,
)
sa.Index("traces_by_time", traces.c.experiment, traces.c.timestamp.desc(), traces.c.id)


def _of_trace() -> sa.Column[int]:
    return sa.Column("trace", Number, sa.ForeignKey("traces.number", ondelete="CASCADE"), nullable=False)


def _labels(name: str) -> sa.Table:
    table = sa.Table(
        name,
        metadata,
        _of_trace(),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("trace", "key"),
    )
    sa.Index(f"{name}_by_value", table.c.key, beginning(table.c.value), table.c.trace)
    return table


trace_tags = _labels("trace_tags")
trace_metadata = _labels("trace_metadata")

# `content` holds all of a span; what searches and sums ask for often has columns of its own.
spans = sa.Table(
    "spans",
    metadata,
    sa.Column("number", Number, primary_key=True),
    _of_trace(),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("parent", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger),
    sa.Column("usage", sa.Text),
    sa.Column("cost", sa.Text),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.UniqueConstraint("trace", "id"),
)
sa.Index("spans_by_name", beginning(spans.c.name), spans.c.trace)

assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _of_trace(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    # The value again where it is a number, to compare with.
    sa.Column("figure", sa.Double),
    sa.Column("error", sa.Text),
    sa.Column("source_type", sa.Text, nullable=False),
    sa.Column("source_id", sa.Text, nullable=False),
    sa.Column("span_id", sa.Text),
    sa.Column("rationale", sa.Text),
    sa.Column("metadata", sa.Text),
    # Of one that is about a whole session, which its metadata names: it holds for all traces of that.
    sa.Column("session", sa.Text),
    sa.Column("overrides", sa.Text),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Index("assessments_of_traces", "trace", "number"),
    sqlite_autoincrement=True,
)
sa.Index("assessments_by_name", beginning(assessments.c.name), assessments.c.trace)

trace_runs = sa.Table(
    "trace_runs",
    metadata,
    _of_trace(),
    sa.Column("run", Number, sa.ForeignKey("runs.number", ondelete="CASCADE"), nullable=False),
    sa.PrimaryKeyConstraint("trace", "run"),
    sa.Index("traces_by_run", "run", "trace"),
)

trace_prompts = sa.Table(
    "trace_prompts",
    metadata,
    _of_trace(),
    # `name/version`, as a filter says it.
    sa.Column("prompt", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("trace", "prompt"),
    sa.Index("traces_by_prompt", "prompt", "trace"),
)

TABLES = (traces, trace_tags, trace_metadata, spans, assessments, trace_runs, trace_prompts)
