"""Requests between Anthropic's Messages and chat: what each becomes, what comes back the same, what is lost by name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.dialect import Losses
from gateway.dialects.messages import MessagesDialect
from gateway.errors import BadRequest

MESSAGES = MessagesDialect()
Body = dict[str, Any]

SCHEMA = {
    "type": "object",
    "properties": {"where": {"$ref": "#/$defs/place"}, "when": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "$defs": {"place": {"type": "string", "enum": ["here", "there"]}},
    "required": ["where"],
}
TOOL = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
CACHE = {"type": "ephemeral", "ttl": "1h"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
WEB = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
NOTE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHl6"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": "here"}}
USE_2 = {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a cat"}
RESULT_2 = {"type": "tool_result", "tool_use_id": "toolu_2"}


def text(said: str, **fields: Any) -> Body:
    return {"type": "text", "text": said, **fields}


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> Body:
    return {"role": "assistant", "content": content, **fields}


def native(*messages: Body, **fields: Any) -> Body:
    return {"model": "claude-opus-5", "max_tokens": 100, "messages": list(messages) or [user("Hi")], **fields}


def chat(*messages: Body, **fields: Any) -> Body:
    return {"model": "claude-opus-5", "messages": list(messages) or [user("Hi")], **fields}


def call(name: str, arguments: str = "{}", identity: str = "call_1") -> Body:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: Any, identity: str = "call_1") -> Body:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def longhand(body: Body) -> Body:
    """`body` without Anthropic's shorthand: a string stands for one block of text."""
    turns = [{**one, "content": [text(one["content"])] if isinstance(one["content"], str) else one["content"]}
             for one in body["messages"]]  # fmt: skip
    system = {"system": [text(body["system"])]} if isinstance(body.get("system"), str) else {}
    return {**body, "messages": turns, **system}


EQUAL: list[Body] = [
    native(),
    native(user([text("Hi")])),
    native(user([text("a"), text("b")])),
    native(user("Hi"), assistant("Hello"), user("Bye")),
    native(user("Hi"), assistant("The answer is (")),
    native(user("Hi"), assistant([text("a"), text("b")]), user("c")),
    native(system="Be brief."),
    native(system=[text("Be brief.")]),
    native(system=[text("a"), text("b", cache_control=CACHE)]),
    native(user([text("Hi", cache_control={"type": "ephemeral"})])),
    native(user([PNG, text("What?")])),
    native(user([WEB, text("What?")])),
    native(user([{**PNG, "cache_control": CACHE}])),
    native(user([PDF])),
    native(user([{**PDF, "title": "plan.pdf", "cache_control": CACHE}])),
    native(tools=[TOOL]),
    native(tools=[{**TOOL, "strict": True, "cache_control": CACHE}]),
    native(tools=[TOOL], tool_choice={"type": "auto"}),
    native(tools=[TOOL], tool_choice={"type": "any"}),
    native(tools=[TOOL], tool_choice={"type": "none"}),
    native(tools=[TOOL], tool_choice={"type": "tool", "name": "look"}),
    native(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    native(tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": False}),
    native(user("?"), assistant([USE]), user([RESULT])),
    native(user("?"), assistant([text("Let me see."), USE, USE_2]), user([RESULT, RESULT_2, text("Go on.")])),
    native(user("?"), assistant([USE]), user([{**RESULT, "content": [text("a"), text("b")]}])),
    native(user("?"), assistant([{**USE, "cache_control": CACHE}]), user([{**RESULT, "cache_control": CACHE}])),
    native(user("?"), assistant([THOUGHT, HIDDEN, text("So."), USE]), user([RESULT])),
    native(stop_sequences=["END", "\n\nHuman:"]),
    native(temperature=0.3, top_p=0.9, top_k=40),
    native(temperature=0),
    native(metadata={"user_id": "u-1"}),
    native(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
    native(thinking={"type": "adaptive"}, output_config={"effort": "high"}),
    native(
        thinking={"type": "adaptive"},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}},
    ),
    native(service_tier="auto"),
    native(service_tier="standard_only"),
    native(stream=True),
]


@pytest.mark.parametrize("body", EQUAL)
def test_what_both_can_say_comes_back_equal(body: Body) -> None:
    said = MESSAGES.to_chat(body, Losses())
    assert longhand(MESSAGES.from_chat(said, Losses())) == longhand(body)


TO_CHAT: list[tuple[Body, Body]] = [
    (native(), chat(max_completion_tokens=100)),
    (native(system="Be brief.", max_tokens=None), chat({"role": "system", "content": "Be brief."}, user("Hi"))),
    (native(user([text("Hi"), PNG]), max_tokens=None), chat(user([text("Hi"), PNG_PART]))),
    (
        native(user("?"), assistant([text("Let me see."), USE, USE_2]), max_tokens=None),
        chat(
            user("?"),
            assistant(
                "Let me see.",
                tool_calls=[
                    call("look", '{"where":"here"}', "toolu_1"),
                    call("look", "{}", "toolu_2"),
                ],
            ),
        ),
    ),
    (
        native(user([text("Go on."), RESULT, {**RESULT_2, "content": [text("Not there."), PNG], "is_error": True}])),
        chat(
            {"role": "tool", "tool_call_id": "toolu_1", "content": "a cat"},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: Not there."},
            user([text("Go on."), text("Result of toolu_2:"), PNG_PART]),
            max_completion_tokens=100,
        ),
    ),
    (
        native(user([{**RESULT, "content": [PNG]}, {**RESULT_2, "is_error": True}]), max_tokens=None),
        chat(
            {"role": "tool", "tool_call_id": "toolu_1", "content": "The result follows in the next message."},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "Error"},
            user([text("Result of toolu_1:"), PNG_PART]),
        ),
    ),
    (native(tools=[TOOL], max_tokens=None), chat(tools=[FUNCTION])),
    (native(thinking={"type": "enabled", "budget_tokens": 9000}, max_tokens=None), chat(reasoning_effort="medium")),
    (native(thinking={"type": "adaptive"}, max_tokens=None), chat()),
    (native(thinking={"type": "disabled"}, max_tokens=None), chat()),
    (
        native(user("?"), assistant([THOUGHT | {"signature": ""}, text("So.")]), max_tokens=None),
        chat(user("?"), assistant("So.", reasoning_content="Hm.")),
    ),
    (
        native(
            output_format={
                "type": "json_schema",
                "schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
            },
            max_tokens=None,
        ),
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "strict": True,
                    "schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
                },
            }
        ),
    ),
    (
        native(
            user(
                [
                    {**NOTE, "title": "T"},
                    {**NOTE, "source": {"type": "content", "content": "y"}, "citations": {"enabled": False}},
                    {"type": "search_result", "source": "s", "title": "t", "content": [text("z")]},
                ]
            ),
            max_tokens=None,
        ),
        chat(user([text("T\nx"), text("y"), text("t\ns"), text("z")])),
    ),
    (native(user("?"), {"role": "system", "content": "Now in French."}, max_tokens=None),
     chat(user("?"), {"role": "system", "content": "Now in French."})),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), TO_CHAT)
def test_chat_gets(body: Body, expected: Body) -> None:
    assert MESSAGES.to_chat(body, Losses()) == expected


FROM_CHAT: list[tuple[Body, Body]] = [
    (chat(), native(max_tokens=4096)),
    (chat(max_tokens=7, n=1, stream_options={"include_usage": True}, logprobs=False), native(max_tokens=7)),
    (chat(max_completion_tokens=8, max_tokens=7), native(max_tokens=8)),
    (
        chat(
            {"role": "system", "content": "a"},
            user("Hi"),
            {"role": "developer", "content": [text("b")]},
            max_tokens=100,
        ),
        native(system=[text("a"), text("b")]),
    ),
    (chat(user("a"), user([text("b"), text("")]), max_tokens=100), native(user([text("a"), text("b")]))),
    (
        chat(user("Hi"), assistant("", refusal=None, tool_calls=None, annotations=[]), user("there"), max_tokens=100),
        native(user([text("Hi"), text("there")])),
    ),
    (
        chat(
            user("?"),
            assistant(None, tool_calls=[call("f", ""), call("g", '{"a": 1}', "functions.g:1")]),
            result("one"),
            result([text("two"), PNG_PART], "functions.g:1"),
            user("Go on."),
            max_tokens=100,
        ),
        native(
            user("?"),
            assistant(
                [
                    {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
                    {"type": "tool_use", "id": "functions_g_1_1f582c4fa722", "name": "g", "input": {"a": 1}},
                ]
            ),
            user(
                [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "functions_g_1_1f582c4fa722", "content": [text("two"), PNG]},
                    text("Go on."),
                ]
            ),
        ),
    ),
    (chat(stop="END", max_tokens=100), native(stop_sequences=["END"])),
    (chat(user("?"), assistant(None, refusal="No."), max_tokens=100), native(user("?"), assistant("No."))),
    (
        chat(user([{"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}}]), max_tokens=100),
        native(user([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}])),
    ),
    (
        chat(tools=[{"type": "function", "function": {"name": "f"}}], parallel_tool_calls=False, max_tokens=100),
        native(
            tools=[{"name": "f", "input_schema": {"type": "object"}}],
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        ),
    ),
    (
        chat(
            tools=[FUNCTION, {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
            max_tokens=100,
        ),
        native(tools=[TOOL], tool_choice={"type": "any"}),
    ),
    (chat(reasoning_effort="none", max_tokens=100), native(thinking={"type": "disabled"})),
    (
        chat(reasoning_effort="minimal", max_tokens=100),
        native(thinking={"type": "adaptive"}, output_config={"effort": "low"}),
    ),
    (
        chat(model="claude-sonnet-4-5", reasoning_effort="high", max_tokens=9000),
        native(model="claude-sonnet-4-5", max_tokens=9000, thinking={"type": "enabled", "budget_tokens": 4500}),
    ),
    (
        chat(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=100),
        native(thinking={"type": "enabled", "budget_tokens": 2000}),
    ),
    (
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "strict": True, "schema": {"type": "object"}},
            },
            max_tokens=100,
        ),
        native(
            output_config={"format": {"type": "json_schema", "schema": {"description": "d", "type": "object"}}},
        ),
    ),
    (chat(response_format={"type": "text"}, max_tokens=100), native()),
    (chat(safety_identifier="u", user="u", max_tokens=100), native(metadata={"user_id": "u"})),
    (chat(user("Hi"), max_tokens=100, modalities=["text"], presence_penalty=0), native()),
    (  # as OpenAI's client joins it from a stream
        chat(
            user("?"),
            assistant("So.", thinking_blocks=[{**THOUGHT, "index": 0}, {**HIDDEN, "index": 1}]),
            max_tokens=100,
        ),
        native(user("?"), assistant([THOUGHT, HIDDEN, text("So.")])),
    ),
    (
        chat({"role": "user", "content": "Hi", "cache_control": CACHE}, max_tokens=100),
        native(user([text("Hi", cache_control=CACHE)])),
    ),
]


@pytest.mark.parametrize(("body", "expected"), FROM_CHAT)
def test_anthropic_gets(body: Body, expected: Body) -> None:
    assert MESSAGES.from_chat(body, Losses()) == expected


LOST_TO_CHAT: list[tuple[Body, str]] = [
    (native(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0]"),
    (native(tools=[TOOL, {"type": "bash_20250124", "name": "bash"}]), "tools[1]"),
    (native(tools=[{**TOOL, "defer_loading": True}]), "tools[0].defer_loading"),
    (native(tools=[{**TOOL, "input_examples": [{}]}]), "tools[0].input_examples"),
    (native(mcp_servers=[{"url": "https://example.org"}]), "mcp_servers"),
    (native(container="c"), "container"),
    (native(context_management={"edits": [1]}), "context_management"),
    (native(cache_control=CACHE), "cache_control"),
    (native(speed="fast"), "speed"),
    (native(some_new_field=1), "some_new_field"),
    (native(metadata={"user_id": "u", "team": "t"}), "metadata.team"),
    (native(output_config={"budget": 1}), "output_config.budget"),
    (native(user([{"type": "image", "source": {"type": "file", "file_id": "f"}}])), "messages[0].content[0].source"),
    (native(user([{"type": "document", "source": {"type": "url", "url": "u"}}])), "messages[0].content[0].source"),
    (native(user([{**PDF, "citations": {"enabled": True}}])), "messages[0].content[0].citations"),
    (native(user([{**PDF, "context": "c"}])), "messages[0].content[0].context"),
    (native(user([text("x", citations=[{}])])), "messages[0].content[0].citations"),
    (native(user("?"), assistant([{"type": "server_tool_use", "id": "1"}])), "messages[1].content[0]"),
    (native(user([{"type": "container_upload", "file_id": "f"}])), "messages[0].content[0]"),
    (native(user([{**RESULT, "content": [{"type": "tool_reference"}]}])), "messages[0].content[0].content[0]"),
]
LOST_TO_MESSAGES: list[tuple[Body, str]] = [
    (chat(n=2), "n"),
    (chat(logprobs=True), "logprobs"),
    (chat(top_logprobs=3), "top_logprobs"),
    (chat(logit_bias={"1": 2}), "logit_bias"),
    (chat(seed=0), "seed"),
    (chat(audio={"voice": "x"}), "audio"),
    (chat(modalities=["text", "audio"]), "modalities"),
    (chat(prediction={"type": "content"}), "prediction"),
    (chat(functions=[{"name": "f"}]), "functions"),
    (chat(function_call="auto"), "function_call"),
    (chat(frequency_penalty=0.5), "frequency_penalty"),
    (chat(temperature=1.5), "temperature"),
    (chat(response_format={"type": "json_object"}), "response_format"),
    (chat(service_tier="flex"), "service_tier"),
    (chat(store=True), "store"),
    (chat(metadata={"a": "b"}), "metadata"),
    (chat(verbosity="low"), "verbosity"),
    (chat(web_search_options={"a": 1}), "web_search_options"),
    (chat(some_new_field=1), "some_new_field"),
    (chat(stop=["\n", "END"]), "stop[0]"),
    (chat(reasoning_effort="enormous"), "reasoning_effort"),
    (chat(model="claude-sonnet-4-5", reasoning_effort="low", max_tokens=100), "reasoning_effort"),
    (chat(tools=[{"type": "custom", "custom": {"name": "c"}}]), "tools[0]"),
    (chat(tools=[FUNCTION], tool_choice={"type": "custom", "custom": {"name": "c"}}), "tool_choice"),
    (chat({**user("Hi"), "name": "Ann"}), "messages[0].name"),
    (chat(user("Hi"), assistant("x", audio={"id": "a"})), "messages[1].audio"),
    (chat(user("Hi"), assistant("x", function_call={"name": "f"})), "messages[1].function_call"),
    (chat(user("Hi"), assistant("x", reasoning_content="Hm.")), "messages[1].reasoning_content"),
    (chat(user("Hi"), {"role": "function", "name": "f", "content": "x"}), "messages[1]"),
    (chat(user([text("a"), {"type": "input_audio", "input_audio": {}}])), "messages[0].content[1]"),
    (chat(user([text("a"), {"type": "file", "file": {"file_id": "f"}}])), "messages[0].content[1].file.file_id"),
    (
        chat(user([text("a"), {"type": "file", "file": {"file_data": "data:text/csv;base64,aGk="}}])),
        "messages[0].content[1].file",
    ),
    (
        chat(user([{"type": "image_url", "image_url": {"url": "https://x.org", "detail": "low"}}])),
        "messages[0].content[0].image_url.detail",
    ),
]


@pytest.mark.parametrize(
    ("translate", "body", "param"),
    [(MESSAGES.to_chat, *row) for row in LOST_TO_CHAT] + [(MESSAGES.from_chat, *row) for row in LOST_TO_MESSAGES],
)
def test_what_cannot_be_said_is_refused_or_dropped_by_name(translate: Any, body: Body, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate(body, Losses())
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    losses = Losses(drop=True)
    translate(body, losses)
    assert losses.names == [param]
