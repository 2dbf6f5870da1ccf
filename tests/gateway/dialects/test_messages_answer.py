"""Answers between Anthropic's Messages and chat: whole, and as errors."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.messages import MessagesDialect
from gateway.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    InvalidKey,
    Overloaded,
    RateLimited,
    TooLarge,
    UnknownModel,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.money import Tokens
from tests.gateway.dialects.messages_scripts import ANSWERS, CACHED, HIDDEN, message, text, thinking, use
from tests.services.upstream import chat

MESSAGES = MessagesDialect()


@pytest.mark.parametrize("answer", [row for row in ANSWERS if row["stop_reason"] in ("end_turn", "max_tokens", "refusal", "tool_use")])  # fmt: skip  # noqa: E501
def test_an_answer_comes_back_equal(answer: dict[str, Any]) -> None:
    back = MESSAGES.answer_from_chat(MESSAGES.answer_to_chat(answer), {})
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **answer["usage"]}
    assert back == {**answer, "usage": usage}


def test_chat_reads_all_of_an_answer() -> None:
    said = MESSAGES.answer_to_chat(
        message(thinking("Hm."), HIDDEN, text("a"), text("b"), use("toolu_1", "f", x=1), stop="tool_use", usage=CACHED)
    )
    assert said.pop("created") > 0
    assert said == {
        "id": "msg_01",
        "object": "chat.completion",
        "model": "claude-opus-5",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "ab",
                    "reasoning_content": "Hm.",
                    "thinking_blocks": [thinking("Hm."), HIDDEN],
                    "tool_calls": [
                        {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 3210,
            "completion_tokens": 50,
            "total_tokens": 3260,
            "prompt_tokens_details": {"cached_tokens": 3000},
            "completion_tokens_details": {"reasoning_tokens": 20},
            "cache_creation_input_tokens": 200,
        },
    }
    assert MESSAGES.usage(message(usage=CACHED)) == Tokens(
        input=3210, output=50, cached=3000, reasoning=20, written=200
    )


def completion(finish: str | None = "stop", stopped_by: object = None, **fields: Any) -> dict[str, Any]:
    answer = chat()
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish, "stop_reason": stopped_by}
    ]
    return answer


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CONTENTS: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    (completion(content="Hi"), [text("Hi")], "end_turn"),
    (completion(content="Hi", finish="length"), [text("Hi")], "max_tokens"),
    (completion(content=None, finish="content_filter"), [], "refusal"),
    (completion(content=None, refusal="No."), [text("No.")], "refusal"),
    (completion(content="Hi", stopped_by="END"), [text("Hi")], "stop_sequence"),
    (completion(content="Hi", stopped_by="ELSE"), [text("Hi")], "end_turn"),
    (completion(content=[{"type": "text", "text": "Hi"}, {"type": "other"}]), [text("Hi")], "end_turn"),
    (completion(content="", tool_calls=[CALL]), [use("call_1", "f", a=1)], "tool_use"),
    (completion(content="", tool_calls=[], finish="tool_calls"), [], "end_turn"),
    (completion(content="", finish=None, tool_calls=[CALL]), [use("call_1", "f", a=1)], "tool_use"),
    (
        completion(tool_calls=[{"function": {"name": "f", "arguments": ""}}]),
        [use("toolu_msg_chatcmpl-1_0", "f")],
        "tool_use",
    ),
    (
        completion(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": '{"a'}}], finish="length"),
        [use("c", "f")],
        "max_tokens",
    ),
    (completion(content="So.", reasoning_content="Hm."), [thinking("Hm.", ""), text("So.")], "end_turn"),
    (completion(content="So.", reasoning="Hm."), [thinking("Hm.", ""), text("So.")], "end_turn"),
]


@pytest.mark.parametrize(("answer", "content", "reason"), CONTENTS)
def test_anthropics_clients_read_a_chat_answer(answer: dict[str, Any], content: list[Any], reason: str) -> None:
    said = MESSAGES.answer_from_chat(answer, {"stop_sequences": ["END"]})
    assert (said["id"], said["content"], said["stop_reason"]) == ("msg_chatcmpl-1", content, reason)
    assert said["stop_sequence"] == ("END" if reason == "stop_sequence" else None)
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == (9, 2)


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, {"type": "adaptive", "display": "omitted"}])
def test_thinking_that_was_declined_is_not_shown(thinking: dict[str, str]) -> None:
    answer = completion(content="So.", reasoning_content="Hm.")
    assert MESSAGES.answer_from_chat(answer, {"thinking": thinking})["content"] == [text("So.")]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"content": "x"},
        {"content": [1]},
        message({"type": "text"}),
        message({"type": "tool_use", "id": "1", "name": "f", "input": "{}"}),
        message({"type": "tool_use", "name": "f", "input": {}}),
        message({"type": "thinking"}),
        message(text("x"), id=None),
    ],
)
def test_what_is_no_answer_of_anthropics_is_the_upstreams_failure(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be translated"):
        MESSAGES.answer_to_chat(answer)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": ["x"]},
        {"choices": [{"message": None}]},
        completion(content=7),
        completion(content=[7]),
        completion(content=[{"type": "text", "text": 7}]),
        completion(tool_calls="x"),
        completion(tool_calls=["x"]),
        completion(tool_calls=[{"function": {"arguments": "{}"}}]),
        completion(tool_calls=[{"function": {"name": "f", "arguments": "[]"}}]),
        completion(tool_calls=[{"function": {"name": "f", "arguments": '{"a'}}]),
        completion(tool_calls=[{"function": {"name": "f", "arguments": 7}}]),
        completion(thinking_blocks="x"),
        completion(thinking_blocks=[{"type": "thinking"}]),
    ],
)
def test_what_is_no_chat_answer_is_the_upstreams_failure(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be translated"):
        MESSAGES.answer_from_chat(answer, {})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("Bad.", param="tools[0].name"), 400, "invalid_request_error"),
        (InvalidKey("Who?"), 401, "authentication_error"),
        (Forbidden("No."), 403, "permission_error"),
        (UnknownModel("None."), 404, "not_found_error"),
        (TooLarge("Large."), 413, "request_too_large"),
        (RateLimited("Slow.", retry_after=2.5), 429, "rate_limit_error"),
        (GatewayError("Ours."), 500, "api_error"),
        (UpstreamFailed("Theirs."), 502, "api_error"),
        (Overloaded("Later."), 503, "overloaded_error"),
        (UpstreamTimeout("Silent."), 504, "timeout_error"),
    ],
)
def test_our_errors_are_anthropics(error: GatewayError, status: int, kind: str) -> None:
    got, headers, body = MESSAGES.refusal(error)
    document = orjson.loads(body)
    assert (got, document["type"], document["error"]["type"]) == (status, "error", kind)
    assert document["error"]["code"] == error.code
    assert error.message in document["error"]["message"]
    assert error.param is None or error.param in document["error"]["message"]
    assert headers.get("retry-after") == ("3" if error.retry_after else None)
    assert MESSAGES.broken_off(error) == b"event: error\ndata: " + body + b"\n\n"


@pytest.mark.parametrize(
    ("document", "status", "expected"),
    [
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow."}},
            429,
            ("Slow.", "rate_limit_error", "rate_limit_error"),
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Full."}},
            529,
            ("Full.", "server_error", "overloaded_error"),
        ),
        (
            {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}},
            400,
            ("prompt is too long: 9 tokens > 8 maximum", "invalid_request_error", "context_length_exceeded"),
        ),
        ({"error": "no"}, 404, ("no", "invalid_request_error", "not_found_error")),
        ({"message": "Gone."}, 500, ("Gone.", "server_error", "api_error")),
    ],
)
def test_anthropics_errors_are_openais(document: dict[str, Any], status: int, expected: tuple[str, ...]) -> None:
    error = MESSAGES.refused_to_chat(document, status)["error"]
    assert (error["message"], error["type"], error["code"]) == expected


@pytest.mark.parametrize(
    ("document", "status", "expected"),
    [
        (
            {"error": {"message": "Bad.", "type": "invalid_request_error", "param": "stop", "code": "bad_stop"}},
            400,
            {"type": "invalid_request_error", "message": "stop: Bad.", "param": "stop", "code": "bad_stop"},
        ),
        ({"error": {"message": "Slow."}}, 429, {"type": "rate_limit_error", "message": "Slow."}),
        ({"error": "down"}, 503, {"type": "overloaded_error", "message": "down"}),
        ({"detail": "x"}, 422, {"type": "invalid_request_error", "message": '{"detail": "x"}'}),
    ],
)
def test_openais_errors_are_anthropics(document: dict[str, Any], status: int, expected: dict[str, str]) -> None:
    assert MESSAGES.refused_from_chat(document, status) == {"type": "error", "error": expected}


def test_a_cap_is_the_smaller_of_ours_and_the_callers() -> None:
    body = {"max_tokens": 50}
    assert MESSAGES.output(body) == (50, 1, "max_tokens")
    assert [MESSAGES.prepare(body, cap, stream=True)["max_tokens"] for cap in (10, 90, None)] == [10, 50, 50]
    assert MESSAGES.prepare({}, 10, stream=False) == {"max_tokens": 10}
    assert MESSAGES.tally(body, None).usage is None


@pytest.mark.parametrize(
    ("body", "param"), [({}, "messages"), ({"messages": []}, "messages"), ({"messages": [{}]}, "messages[0]")]
)
def test_what_is_no_conversation_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        MESSAGES.check(body)
    assert refused.value.param == param
    MESSAGES.check({"messages": [{"role": "user", "content": "x"}]})
