"""Where traces of calls are kept: in experiments, in MLflow's words there and in the gateway's here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gateway.database import Database
from gateway.recorded import Recorded, RecordedSpan

if TYPE_CHECKING:
    from promptlab.entities_traces import Span
    from promptlab.traces_whole import Whole, WholeTraces

#: MLflow's words for what a call is, and for the form its messages have.
_TYPES = {
    **dict.fromkeys(("chat/completions", "messages", "responses"), "CHAT_MODEL"),
    "completions": "LLM",
    "embeddings": "EMBEDDING",
    "rerank": "RERANKER",
}
_FORMATS = {"chat/completions": "openai", "responses": "openai", "messages": "anthropic"}
_ATTEMPT = "ATTEMPT"


class ExperimentTraces:
    """Keeps traces through a connection of this process's own, opened for the first. Used by one thread."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._open = open_database
        self._database: Database | None = None
        self._traces: WholeTraces | None = None

    def keep(self, recorded: Sequence[Recorded]) -> int:
        """Keep these traces; how many of them could be kept, as their experiments are there (`recording.Recorder`)."""
        return self._opened().keep([_whole(one) for one in recorded])

    def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            self._database.close()

    def _opened(self) -> WholeTraces:
        # Imported here: most servers keep no traces, and those that do answer calls first.
        from promptlab.store import migrations
        from promptlab.traces_whole import WholeTraces

        if self._traces is None:
            database = self._open()
            try:
                # The tracking server may not have made the tables yet.
                migrations.migrate(database)
            except BaseException:
                database.close()
                raise
            self._database, self._traces = database, WholeTraces(database)
        return self._traces


def _whole(recorded: Recorded) -> Whole:
    from promptlab.entities_traces import USER
    from promptlab.traces_whole import Whole

    call = recorded.spans[0]
    metadata = {name: str(value) for name, value in call.attributes.items()}
    if recorded.user:
        metadata[USER] = recorded.user
    name, _, version = recorded.prompt.rpartition("/")
    return Whole(
        experiment=recorded.experiment,
        client_request_id=recorded.request_id,
        metadata=metadata,
        spans=[_span(recorded.id, one) for one in recorded.spans],
        prompts=[(name, version)] if name else [],
    )


def _span(trace_id: str, recorded: RecordedSpan) -> Span:
    from promptlab.entities_traces import Span

    first = recorded.first_token
    events = [] if first is None else [{"time": first, "name": "gen_ai.first_token", "attributes": {}}]
    rest = {"message": recorded.error, "events": events}
    return Span(
        trace_id=trace_id,
        id=recorded.id,
        parent=recorded.parent,
        name=recorded.name,
        status="OK" if recorded.error is None else "ERROR",
        start=recorded.start,
        end=recorded.end,
        attributes={name: value for name, value in _attributes(trace_id, recorded).items() if value is not None},
        rest={name: value for name, value in rest.items() if value},
    )


def _attributes(trace_id: str, recorded: RecordedSpan) -> dict[str, Any]:
    from promptlab import entities_traces as words

    usage, cost, task = recorded.usage, recorded.cost, recorded.task
    tools = recorded.asked.get("tools") if task == "chat/completions" and isinstance(recorded.asked, dict) else None
    said: dict[str, Any] = {
        words.REQUEST_ID: f"tr-{trace_id}",
        words.SPAN_TYPE: _ATTEMPT if task is None else _TYPES.get(task, "UNKNOWN"),
        words.SPAN_INPUTS: recorded.asked,
        words.SPAN_OUTPUTS: recorded.answered,
        "mlflow.message.format": _FORMATS.get(task or ""),
        "mlflow.chat.tools": tools if isinstance(tools, list) else None,
        "mlflow.llm.model": recorded.model,
        "mlflow.llm.provider": recorded.attributes.get("promptyard.provider"),
    }
    if usage is not None:
        said[words.SPAN_USAGE] = {
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            **({"cache_read_input_tokens": usage.cached} if usage.cached else {}),
            **({"cache_creation_input_tokens": usage.written} if usage.written else {}),
        }
    if cost is not None:
        read, written = cost
        said[words.SPAN_COST] = {
            "input_cost": read / 1e9,
            "output_cost": written / 1e9,
            "total_cost": (read + written) / 1e9,
        }
    return {**said, **recorded.attributes}
