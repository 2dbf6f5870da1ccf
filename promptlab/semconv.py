"""What spans of other instrumentations say in their own words, said in MLflow's too, so that all are read alike.

Known are OpenTelemetry's conventions for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/),
OpenInference (https://github.com/Arize-ai/openinference), OpenLLMetry (https://github.com/traceloop/openllmetry)
and Vercel's AI SDK (https://ai-sdk.dev/docs/ai-sdk-core/telemetry).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from promptlab.entities_traces import (
    SPAN_INPUTS,
    SPAN_MODEL,
    SPAN_OUTPUTS,
    SPAN_PROVIDER,
    SPAN_TYPE,
    SPAN_USAGE,
    Span,
)

_KINDS: Mapping[str, Mapping[str, str]] = {
    "gen_ai.operation.name": {
        "chat": "CHAT_MODEL",
        "create_agent": "AGENT",
        "embeddings": "EMBEDDING",
        "execute_tool": "TOOL",
        "generate_content": "LLM",
        "invoke_agent": "AGENT",
        "text_completion": "LLM",
        "response": "LLM",
    },
    # Its kinds are MLflow's types.
    "openinference.span.kind": {
        kind: kind
        for kind in ("TOOL", "CHAIN", "LLM", "RETRIEVER", "EMBEDDING", "AGENT", "RERANKER", "GUARDRAIL", "EVALUATOR")
    },
    "traceloop.span.kind": {"workflow": "WORKFLOW", "task": "TASK", "agent": "AGENT", "tool": "TOOL"},
    "ai.operationId": {
        "ai.generateText": "LLM",
        "ai.streamText": "LLM",
        "ai.generateObject": "LLM",
        "ai.streamObject": "LLM",
        "ai.generateText.doGenerate": "LLM",
        "ai.streamText.doStream": "LLM",
        "ai.generateObject.doGenerate": "LLM",
        "ai.streamObject.doStream": "LLM",
        "ai.toolCall": "TOOL",
        "ai.embed": "EMBEDDING",
        "ai.embedMany": "EMBEDDING",
    },
}
#: The first of these that a span has counts.
_TOKENS: Mapping[str, Sequence[str]] = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.promptTokens",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.completionTokens",
    ),
    "total_tokens": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    "cache_read_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_creation_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
}
_TEXTS: Mapping[str, Sequence[str]] = {
    SPAN_INPUTS: (
        "gen_ai.input.messages",
        "gen_ai.tool.call.arguments",
        "input.value",
        "traceloop.entity.input",
        "ai.prompt.messages",
        "ai.prompt",
        "ai.toolCall.args",
        "gen_ai.prompt.0.content",
    ),
    SPAN_OUTPUTS: (
        "gen_ai.output.messages",
        "gen_ai.tool.call.result",
        "output.value",
        "traceloop.entity.output",
        "ai.response.text",
        "ai.toolCall.result",
        "gen_ai.completion.0.content",
    ),
    SPAN_MODEL: (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.response.model_name",
        "llm.model_name",
        "embedding.model_name",
        "ai.model.id",
    ),
    SPAN_PROVIDER: ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "ai.model.provider"),
}
# Messages that come as events of a span, by the role of who speaks.
_SPOKEN = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE = "gen_ai.choice"

MAX_COUNT = 2**63 - 1


def translated(span: Span) -> Span:
    """The span with what it says in others' words added in MLflow's. What it says in MLflow's is left as it is."""
    said = span.attributes
    added: dict[str, Any] = {}
    if span.type == "UNKNOWN":
        kinds = (of[str(said[key])] for key, of in _KINDS.items() if str(said.get(key)) in of)
        if (kind := next(kinds, None)) is not None:
            added[SPAN_TYPE] = kind
    if SPAN_USAGE not in said and (usage := _usage(said)):
        added[SPAN_USAGE] = usage
    for name, keys in _TEXTS.items():
        if name not in said and (value := _first(said, keys)) is not None:
            added[name] = _parsed(value) if name in (SPAN_INPUTS, SPAN_OUTPUTS) else str(value)
    for name, spoken in ((SPAN_INPUTS, _SPOKEN), (SPAN_OUTPUTS, {_CHOICE: "assistant"})):
        if name not in said and name not in added and (messages := _messages(span.rest.get("events", ()), spoken)):
            added[name] = messages
    return replace(span, attributes={**said, **added}) if added else span


def _usage(said: Mapping[str, Any]) -> dict[str, int]:
    usage = {
        name: value
        for name, keys in _TOKENS.items()
        if isinstance(value := _first(said, keys), int) and not isinstance(value, bool) and value >= 0
    }
    if not usage.keys() & {"input_tokens", "output_tokens", "total_tokens"}:
        return {}
    both = min(usage.get("input_tokens", 0) + usage.get("output_tokens", 0), MAX_COUNT)
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": both, **usage}


def _first(said: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((said[key] for key in keys if said.get(key) is not None), None)


def _messages(events: Iterable[Mapping[str, Any]], spoken: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "role": event["attributes"].get("role", spoken[event["name"]]),
            "content": _parsed(event["attributes"]["content"]),
        }
        for event in events
        if event["name"] in spoken and "content" in event["attributes"]
    ]


def _parsed(value: Any) -> Any:
    """What is JSON in a text as what it says; attributes can hold no objects."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        parsed = orjson.loads(value)
        # Deeper than this can be read but not be written again.
        orjson.dumps(parsed)
    except (orjson.JSONDecodeError, TypeError):
        return value
    return value if "\\u0000" in value else parsed
