"""Spans of other instrumentations are read as MLflow's own."""

from __future__ import annotations

from typing import Any

import pytest

from promptlab.entities_traces import Span
from promptlab.semconv import translated

TYPE, USAGE, INPUTS, OUTPUTS = "mlflow.spanType", "mlflow.chat.tokenUsage", "mlflow.spanInputs", "mlflow.spanOutputs"


def added(said: dict[str, Any], *events: dict[str, Any]) -> dict[str, Any]:
    """What is added to a span that says this."""
    span = Span("1" * 32, "2" * 16, None, "s", "OK", 1, 2, said, {"events": list(events)} if events else {})
    return {key: value for key, value in translated(span).attributes.items() if key not in said}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.usage.input_tokens": 3,
                "gen_ai.usage.output_tokens": 4,
                "gen_ai.request.model": "asked",
                "gen_ai.response.model": "answered",
                "gen_ai.provider.name": "openai",
                "gen_ai.input.messages": '[{"role": "user"}]',
                "gen_ai.output.messages": "no {json}",
            },
            {
                TYPE: "CHAT_MODEL",
                USAGE: {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
                INPUTS: [{"role": "user"}],
                OUTPUTS: "no {json}",
                "mlflow.llm.model": "answered",
                "mlflow.llm.provider": "openai",
            },
        ),
        (
            {
                "openinference.span.kind": "RETRIEVER",
                "input.value": '{"broken',
                "llm.token_count.prompt": 1,
                "llm.token_count.completion": 2,
                "llm.token_count.total": 9,
                "llm.token_count.prompt_details.cache_read": 1,
            },
            {
                TYPE: "RETRIEVER",
                INPUTS: '{"broken',
                USAGE: {"input_tokens": 1, "output_tokens": 2, "total_tokens": 9, "cache_read_input_tokens": 1},
            },
        ),
        ({"traceloop.span.kind": "workflow", "traceloop.entity.output": 5}, {TYPE: "WORKFLOW", OUTPUTS: 5}),
        ({"ai.operationId": "ai.toolCall", "ai.toolCall.args": "{}"}, {TYPE: "TOOL", INPUTS: {}}),
        # MLflow's own words stay; what is no count is none.
        ({TYPE: "AGENT", INPUTS: 1, "gen_ai.operation.name": "chat", "input.value": "x"}, {}),
        ({"gen_ai.operation.name": ["chat"], "gen_ai.usage.input_tokens": "3", "llm.token_count.total": True}, {}),
        ({"gen_ai.usage.cache_read.input_tokens": 5}, {}),
        ({"input.value": "[" * 400 + "]" * 400}, {INPUTS: "[" * 400 + "]" * 400}),
    ],
)
def test_what_is_said_in_other_words(said: dict[str, Any], expected: dict[str, Any]) -> None:
    assert added(said) == expected


def test_messages_that_come_as_events() -> None:
    asked = {"name": "gen_ai.user.message", "attributes": {"content": "hi"}}
    other = {"name": "exception", "attributes": {"content": "x"}}
    chosen = {"name": "gen_ai.choice", "attributes": {"content": '{"a": 1}', "role": "tool"}}
    assert added({}, asked, other, chosen) == {
        INPUTS: [{"role": "user", "content": "hi"}],
        OUTPUTS: [{"role": "tool", "content": {"a": 1}}],
    }
