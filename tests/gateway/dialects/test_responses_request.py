"""Requests of the Responses dialect become chat's and come back; what has no word is refused or dropped by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.dialects.dialect import Losses
from gateway.dialects.responses import ResponsesDialect
from gateway.errors import BadRequest

RESPONSES = ResponsesDialect()
SCHEMA = {
    "type": "object",
    "$defs": {"city": {"type": "string"}},
    "properties": {"at": {"anyOf": [{"$ref": "#/$defs/city"}, {"type": "null"}]}},
    "additionalProperties": False,
}
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
CUSTOM = {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"}}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"at":"x"}'}
OTHER = {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"}
CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "c3", "name": "c", "input": "A"}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"}
SEALED = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
USER = {"role": "user", "content": "Hi"}


def result(call: str, output: Any = "1", kind: str = "function_call_output") -> dict[str, Any]:
    return {"type": kind, "call_id": call, "output": output}


def parts(*said: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": "See"}, *said]}]


SAME: list[dict[str, Any]] = [
    {"input": "Hi"},
    {"input": "Hi", "instructions": "Be brief"},
    {"input": [USER, {"role": "assistant", "content": "Hello"}, USER]},
    {"input": [{"role": "developer", "content": "D"}, USER, {"role": "system", "content": "S"}]},
    {"input": parts({"type": "input_text", "text": "this"})},
    {"input": parts({"type": "input_text", "text": "this", "prompt_cache_breakpoint": {"mode": "explicit"}})},
    {"input": parts({"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "high"})},
    {"input": parts({"type": "input_image", "image_url": "https://x.test/a.png"})},
    {"input": parts({"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"})},
    {"input": parts({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}})},
    {"input": [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}, USER]},
    {"input": [USER, CALL, result("c1"), USER]},
    {"input": [USER, {"role": "assistant", "content": "Looking"}, CALL, OTHER, result("c1"), result("c2", "2")]},
    {"input": [USER, CALL, result("c1"), OTHER, result("c2")]},
    {"input": [USER, CALL, result("c1", [{"type": "input_text", "text": t} for t in "ab"]), USER]},
    {"input": [USER, CUSTOM_CALL, CALL, result("c3", kind="custom_tool_call_output"), result("c1")]},
    {"input": [USER, THOUGHT, {"role": "assistant", "content": "Hello"}, USER]},
    {"input": [USER, SEALED, THOUGHT, CALL, result("c1")]},
    {
        "input": [
            USER,
            THOUGHT,
            {"role": "assistant", "content": "One"},
            SEALED,
            {"role": "assistant", "content": "Two"},
        ]
    },
    {"input": "Hi", "tools": [FUNCTION]},
    {"input": "Hi", "tools": [FUNCTION, CUSTOM, {"type": "custom", "name": "e", "format": {"type": "text"}}]},
    *({"input": "Hi", "tools": [FUNCTION], "tool_choice": choice} for choice in ("none", "auto", "required")),
    {"input": "Hi", "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
    {"input": "Hi", "tools": [CUSTOM], "tool_choice": {"type": "custom", "name": "c"}},
    {
        "input": "Hi",
        "tools": [FUNCTION, CUSTOM],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
        },
    },
    {"input": "Hi", "tools": [FUNCTION], "parallel_tool_calls": False},
    {"input": "Hi", "text": {"format": {"type": "json_object"}}},
    {
        "input": "Hi",
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": "d"},
        },
    },
    {"input": "Hi", "reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]},
    {"input": "Hi", "max_output_tokens": 100, "temperature": 0.2, "top_p": 0.5},
    {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 3},
    {"input": "Hi", "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "service_tier": "flex"},
    {"input": "Hi", "prompt_cache_key": "k", "prompt_cache_retention": "24h", "stream": True},
    {"input": "Hi", "moderation": {"model": "omni"}, "prompt_cache_options": {"mode": "explicit"}},
]


@pytest.mark.parametrize("body", SAME, ids=range(len(SAME)))
def test_what_chat_can_say_comes_back_as_it_was(body: dict[str, Any]) -> None:
    body = {"model": "m", "store": False, **body}
    kept = copy.deepcopy(body)
    RESPONSES.check(body)
    chat = RESPONSES.to_chat(body, Losses())
    assert RESPONSES.from_chat(chat, Losses()) == body == kept


TO_CHAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, {}),
    ({"truncation": "disabled", "background": False, "store": False, "previous_response_id": None}, {}),
    ({"reasoning": {"summary": "auto", "effort": None}, "include": ["reasoning.encrypted_content"]}, {}),
    ({"text": {"format": {"type": "text"}}, "stream_options": {"include_obfuscation": False}}, {}),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
    (
        {"tools": [{"type": "function", "name": "f", "parameters": None, "defer_loading": False}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ),
]


@pytest.mark.parametrize(("fields", "expected"), TO_CHAT)
def test_what_chat_says_otherwise_or_by_saying_nothing(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    chat = RESPONSES.to_chat({"model": "m", "input": "Hi", **fields}, Losses())
    assert chat == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **expected}


def test_an_assistants_thought_words_and_calls_are_one_message_and_images_follow_all_results() -> None:
    image = {"type": "input_image", "image_url": "data:,"}
    words = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
    said = [
        *(
            USER,
            {**THOUGHT, "id": "rs_1"},
            {**words, "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        ),
        *({**CALL, "id": "fc_1", "status": "completed"}, THOUGHT, OTHER, {**words, "content": "b"}),
        *(result("c1", [image]), result("c2", [{"type": "input_text", "text": "t"}, image]), USER),
    ]
    block = {"type": "thinking", "thinking": "hm", "signature": "gAAA"}
    follows = [
        *({"type": "text", "text": "Result of c1:"}, {"type": "image_url", "image_url": {"url": "data:,"}}),
        *({"type": "text", "text": "Result of c2:"}, {"type": "image_url", "image_url": {"url": "data:,"}}),
    ]
    assert RESPONSES.to_chat({"input": said}, Losses())["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "reasoning_content": "hm\n\nhm",
            "thinking_blocks": [block, block],
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"at":"x"}'}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "The result follows."},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "t"}]},
        {"role": "user", "content": follows},
        USER,
    ]


def test_reasoning_that_nobody_signed_is_text_and_what_is_redacted_stays_so() -> None:
    open_thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }
    redacted = {**SEALED, "encrypted_content": "redacted_thinking:XX"}
    said = RESPONSES.to_chat({"input": [open_thought, redacted, CALL]}, Losses())["messages"]
    assert said[0]["reasoning_content"] == "hm"
    assert said[0]["thinking_blocks"] == [{"type": "redacted_thinking", "data": "XX"}]


FROM_CHAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"n": 1, "stop": None, "frequency_penalty": 0, "logit_bias": {}, "modalities": ["text"], "logprobs": False}, {}),
    ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_output_tokens": 7}),
    (
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream_options": {"include_obfuscation": False}},
    ),
    ({"response_format": {"type": "text"}, "store": False}, {}),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": False}]},
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 9000}, "reasoning_effort": "medium"},
        {"reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    ),
    (
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"reasoning": {}, "include": ["reasoning.encrypted_content"]},
    ),
    ({"thinking": {"type": "disabled"}}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), FROM_CHAT)
def test_what_chat_says_in_its_own_way(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    said = RESPONSES.from_chat({"model": "m", "messages": [USER], **fields}, Losses())
    assert said == {"model": "m", "input": "Hi", "store": False, **expected}


@pytest.mark.parametrize(
    ("message", "items"),
    [
        ({"role": "assistant", "content": "", "tool_calls": []}, [{"role": "assistant", "content": ""}]),
        (
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c2", "function": {"name": "f", "arguments": "{}"}}],
            },
            [OTHER],
        ),
        (
            {"role": "assistant", "content": "So", "refusal": "No"},
            [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "So"}, {"type": "refusal", "refusal": "No"}],
                }
            ],
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "data:,"}]},
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}],
        ),
        (
            {"role": "assistant", "content": "a", "thinking_blocks": [{"type": "redacted_thinking", "data": "XX"}]},
            [{**SEALED, "encrypted_content": "XX"}, {"role": "assistant", "content": "a"}],
        ),
    ],
)
def test_messages_that_responses_spell_otherwise(message: dict[str, Any], items: list[dict[str, Any]]) -> None:
    assert RESPONSES.from_chat({"messages": [USER, message]}, Losses())["input"] == [USER, *items]


LOST: list[tuple[dict[str, Any], str]] = [
    *(({"tools": [{"type": kind}]}, "tools[0]") for kind in ("web_search", "file_search", "mcp", "local_shell")),
    *(({"tools": [{"type": kind}]}, "tools[0]") for kind in ("code_interpreter", "image_generation", "apply_patch")),
    ({"tools": [{"type": "computer_use_preview"}]}, "tools[0]"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [{**FUNCTION, "output_schema": {}}]}, "tools[0].output_schema"),
    ({"input": [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, "input[1]"),
    ({"input": [USER, {**CALL, "namespace": "n"}]}, "input[1].namespace"),
    ({"input": [USER, {"role": "assistant", "content": "a", "phase": "commentary"}]}, "input[1].phase"),
    ({"input": parts({"type": "input_file", "file_url": "https://x.test/a.pdf"})}, "input[0].content[1].file_url"),
    ({"input": parts({"type": "input_video"})}, "input[0].content[1]"),
    ({"input": parts({"type": "input_image", "image_url": "u", "detail": "original"})}, "input[0].content[1].detail"),
    ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format"),
    ({"text": {"tone": "dry"}}, "text.tone"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"truncation": "auto"}, "truncation"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"brand_new": 1}, "brand_new"),
]
LOST_FROM_CHAT: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name, value in {"n": 2, "stop": ["x"], "logit_bias": {"1": 2}, "seed": 1}.items()),
    *(({name: 0.5}, name) for name in ("frequency_penalty", "presence_penalty", "top_k", "brand_new")),
    *(({name: {}}, name) for name in ("prediction", "audio", "web_search_options")),
    *(({name: [{}]}, name) for name in ("functions", "modalities")),
    ({"store": True}, "store"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": {}}]}, "tools[0].cache_control"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"messages": [{**USER, "name": "bob"}, USER]}, "messages[0].name"),
    ({"messages": [USER, {"role": "function", "name": "f", "content": "1"}]}, "messages[1].name"),
    (
        {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": "hm"}]},
        "messages[1].reasoning_content",
    ),
    (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "x"}]},
            ]
        },
        "messages[1].thinking_blocks[0]",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}]},
        "messages[0].content[0].cache_control",
    ),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c", "type": "x", "x": {"name": "f"}}]}, USER]},
        "messages[1].tool_calls[0]",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0]"),
]


@pytest.mark.parametrize(("fields", "name"), LOST)
def test_what_chat_has_no_word_for_is_refused_by_name_or_dropped_and_named(fields: dict[str, Any], name: str) -> None:
    body = {"model": "m", "input": "Hi", **fields}
    with pytest.raises(BadRequest) as refused:
        RESPONSES.to_chat(body, Losses())
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
    losses = Losses(drop=True)
    assert RESPONSES.to_chat(body, losses)["messages"]
    assert losses.names == [name]


@pytest.mark.parametrize(("fields", "name"), LOST_FROM_CHAT)
def test_what_responses_have_no_word_for_is_refused_by_name_or_dropped_and_named(
    fields: dict[str, Any], name: str
) -> None:
    body = {"model": "m", "messages": [USER], **fields}
    with pytest.raises(BadRequest) as refused:
        RESPONSES.from_chat(body, Losses())
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
    losses = Losses(drop=True)
    assert "input" in RESPONSES.from_chat(body, losses)
    assert name in losses.names
