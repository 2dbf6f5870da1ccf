"""What an upstream of the Responses dialect answers, streamed or whole, as chat."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.errors import UpstreamFailed
from gateway.money import Tokens
from tests.gateway.dialects.responses_streams import (
    ASKED,
    COUNTED,
    LOGPROB,
    RESPONSES,
    SHARED,
    USAGE,
    accumulated,
    decoded,
    delta,
    encoded,
    event,
    message,
    response,
    text,
)

FUNCTION_CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
SUMMARY = [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": SUMMARY, "encrypted_content": "gA"}
CITATION = {"type": "url_citation", "start_index": 0, "end_index": 1, "title": "t", "url": "u"}
UPSTREAM: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "summaries in two parts": (
        [
            event("response.output_item.added", 0, item={**REASONING, "summary": [], "encrypted_content": "early"}),
            event("response.reasoning_summary_part.added", 0, summary_index=0, part={}),
            event("response.reasoning_summary_text.delta", 0, summary_index=0, delta="o"),
            event("response.reasoning_summary_text.delta", 0, summary_index=0, delta="ne"),
            event("response.reasoning_summary_text.delta", 0, summary_index=1, delta="two"),
            event("response.output_item.done", 0, item=REASONING),
        ],
        response(REASONING),
    ),
    "reasoning in full": (
        [
            event("response.output_item.added", 0, item={"type": "reasoning", "id": "rs_1", "summary": []}),
            event("response.reasoning_text.delta", 0, content_index=0, delta="hm"),
        ],
        response(
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
        ),
    ),
    "two messages": (
        [
            event("response.output_item.added", 0, item=message()),
            event("response.output_text.delta", 0, content_index=0, delta="One", logprobs=[]),
            event("response.output_item.added", 1, item=message()),
            event("response.output_text.delta", 1, content_index=0, delta="Two", logprobs=[]),
            event("response.output_text.annotation.added", 1, annotation=CITATION, annotation_index=0),
            event("response.output_item.done", 1, item=message(text("Two", annotations=[CITATION]))),
        ],
        response(message(text("One")), message(text("Two", annotations=[CITATION]))),
    ),
    "no deltas": (
        [
            event("response.output_item.done", 0, item=message(text("Hello"))),
            event("response.output_item.done", 1, item=FUNCTION_CALL),
        ],
        response(message(text("Hello")), FUNCTION_CALL),
    ),
    "the end of the arguments only in the item": (
        [
            event("response.output_item.added", 0, item={**FUNCTION_CALL, "arguments": ""}),
            event("response.function_call_arguments.delta", 0, delta='{"a"'),
            event("response.output_item.done", 0, item=FUNCTION_CALL),
        ],
        response(FUNCTION_CALL),
    ),
    "nothing but the end": ([], response(REASONING, message(text("Hello")), FUNCTION_CALL)),
    "a call whole at its beginning, and a message nobody announced": (
        [event("response.output_item.added", 0, item=FUNCTION_CALL)],
        response(FUNCTION_CALL, message(text("Hello"))),
    ),
    "other places in the end than on the way": (
        [
            event("response.output_item.added", 0, item=message()),
            event("response.output_text.delta", 0, delta="Hello"),
            event("response.output_item.done", 0, item=message(text("Hello"))),
        ],
        response({"type": "reasoning", "id": "rs_1", "summary": []}, message(text("Hello"))),
    ),
    "hosted tools": (
        [
            event("response.output_item.added", 0, item={"type": "web_search_call", "id": "ws_1"}),
            event("response.web_search_call.searching", 0),
            event("response.output_item.done", 0, item={"type": "web_search_call", "id": "ws_1"}),
            event("response.output_item.added", 1, item=message()),
            event("response.output_text.delta", 1, delta="Found"),
        ],
        response({"type": "web_search_call", "id": "ws_1"}, message(text("Found"))),
    ),
    "incomplete": (
        [
            event("response.output_item.added", 0, item=message()),
            event("response.output_text.delta", 0, delta="Hel"),
        ],
        response(message(text("Hel")), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ),
}


@pytest.mark.parametrize(("events", "final"), UPSTREAM.values(), ids=UPSTREAM)
def test_an_upstreams_stream_says_what_its_whole_answer_says(
    events: list[dict[str, Any]], final: dict[str, Any]
) -> None:
    begin = [event("response.created", response=response(status="in_progress")), event("brand.new", 9)]
    chunks = decoded([*begin, *events, event(f"response.{final['status']}", response=final)])
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert accumulated(chunks) == RESPONSES.answer_to_chat(final)
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}


def test_a_whole_answer_as_a_chat_completion() -> None:
    found = RESPONSES.answer_to_chat(
        response(
            REASONING,
            message(text("One")),
            message(text("Two", annotations=[CITATION], logprobs=[{**LOGPROB, "bytes": None}])),
            FUNCTION_CALL,
            {"type": "custom_tool_call", "call_id": "c2", "name": "x", "input": "A"},
            service_tier="flex",
        )
    )
    assert found == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "service_tier": "flex",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "logprobs": {"content": [{**LOGPROB, "bytes": None}], "refusal": None},
                "message": {
                    "role": "assistant",
                    "content": "One\n\nTwo",
                    "refusal": None,
                    "reasoning_content": "one\n\ntwo",
                    "thinking_blocks": [{"type": "thinking", "thinking": "one\n\ntwo", "signature": "gA"}],
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {"start_index": 5, "end_index": 6, "title": "t", "url": "u"},
                        }
                    ],
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                        {"id": "c2", "type": "custom", "custom": {"name": "x", "input": "A"}},
                    ],
                },
            }
        ],
    }


def test_tokens_written_to_a_cache_keep_their_name() -> None:
    written = {**COUNTED, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3}}
    chat = RESPONSES.answer_to_chat(response(message(text("a")), usage=written))
    assert chat["usage"]["cache_creation_input_tokens"] == 3
    assert RESPONSES.answer_from_chat(chat, ASKED)["usage"] == written
    assert RESPONSES.usage({"usage": written}) == Tokens(input=9, output=4, cached=5, reasoning=2, written=3)
    assert RESPONSES.usage({}) is None


ODD_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({}, "output"),
    (response(status="failed", error={"code": "server_error", "message": "out of memory"}), "out of memory"),
    (response(status="queued"), "not complete"),
    (response({"type": "message", "content": "Hello"}), "content"),
    (response({"type": "function_call", "name": "f"}), "call_id"),
    (response({"type": 3}), "type"),
    ({**response(), "output": ["Hello"]}, r"output\[0\]"),
]
ODD_EVENTS: list[tuple[dict[str, Any], str]] = [
    (event("error", message="too much", code="x", param=None), "too much"),
    (event("error", error={"type": "tokens", "code": "rate_limit_exceeded", "message": "too fast"}), "too fast"),
    ({"error": {"message": "plain"}}, "plain"),
    (event("response.failed", response={"error": {"message": "it broke"}}), "it broke"),
    (event("response.output_text.delta", 0), "delta"),
    (event("response.output_text.delta", delta="x"), "output_index"),
    (event("response.function_call_arguments.delta", 0, delta="x"), "not begun"),
    (event("response.output_item.added", 0, item="x"), "item"),
    (event("response.completed"), "response"),
]
ODD_CHUNKS: list[dict[str, Any]] = [
    {**SHARED, "choices": "x"},
    {**SHARED, "choices": ["x"]},
    delta(content=3),
    delta(content=[{"type": "image"}]),
    delta(tool_calls="x"),
    delta(tool_calls=[{"index": 0, "id": 3, "function": {"name": "f"}}]),
    delta(thinking_blocks=["x"]),
    delta("tool_calls", tool_calls=[{"index": 0, "id": "c1"}]),
]


@pytest.mark.parametrize(("answer", "why"), ODD_ANSWERS)
def test_an_odd_answer_is_the_upstreams_fault(answer: dict[str, Any], why: str) -> None:
    with pytest.raises(UpstreamFailed, match=why):
        RESPONSES.answer_to_chat(answer)


@pytest.mark.parametrize(("odd", "why"), ODD_EVENTS)
def test_an_odd_event_is_the_upstreams_fault(odd: dict[str, Any], why: str) -> None:
    with pytest.raises(UpstreamFailed, match=why):
        decoded([odd])


@pytest.mark.parametrize("chunk", ODD_CHUNKS)
def test_an_odd_chunk_is_the_upstreams_fault(chunk: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        encoded([chunk])


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": "x"}]}])
def test_no_completion_is_the_upstreams_fault(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        RESPONSES.answer_from_chat(answer, ASKED)


def wire(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)


PIECES = [
    event("response.created", response=response(status="in_progress", usage=None)),
    event("response.reasoning_summary_text.delta", 0, delta="hm "),
    event("response.output_text.delta", 1, delta="Grüße "),
    event("response.refusal.delta", 1, delta="no "),
    event("response.function_call_arguments.delta", 2, delta="{}"),
    event("response.output_text.done", 1, text="not counted twice"),
]


@pytest.mark.parametrize("end", ["completed", "incomplete"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_of_ones_own_dialect_passes_byte_for_byte_and_is_counted(end: str, size: int) -> None:
    stream = wire(*PIECES, event(f"response.{end}", response=response(status=end)))
    tally = RESPONSES.tally(ASKED, None)
    passed = b"".join(tally.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + tally.close()
    assert passed == stream
    assert (tally.usage, tally.done, tally.finished) == (Tokens(9, 4, 5, 2), True, True)
    assert (tally.written, tally.pieces) == (len("hm Grüße no {}".encode()), 4)


def test_a_stream_that_ends_without_its_end_broke_off() -> None:
    tally = RESPONSES.tally(ASKED, None)
    tally.feed(wire(*PIECES))
    with pytest.raises(UpstreamFailed, match="broke off"):
        tally.close()


@pytest.mark.parametrize(("odd", "why"), ODD_EVENTS[1:2] + ODD_EVENTS[3:4])
def test_a_stream_that_says_it_failed_has(odd: dict[str, Any], why: str) -> None:
    with pytest.raises(UpstreamFailed, match=why):
        RESPONSES.tally(ASKED, None).feed(wire(odd))
