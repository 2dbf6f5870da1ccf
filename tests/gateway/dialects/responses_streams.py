"""Scripted streams of chat chunks and of Responses events, and what a client makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.dialects.responses import ResponsesDialect

RESPONSES = ResponsesDialect()
ASKED = {
    "model": "fast",
    "input": "Hi",
    "instructions": "Be brief",
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "reasoning": {"effort": "low"},
    "text": {"verbosity": "low"},
    "metadata": {"a": "b"},
    "max_output_tokens": 90,
    "temperature": 0.5,
}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
COUNTED = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 13,
}
SHARED = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up"}


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {**SHARED, "choices": [{"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish}]}


def call(index: int, arguments: str = "", id_: str | None = None, name: str = "f", **more: Any) -> dict[str, Any]:
    head = {"id": id_, "type": "function"} if id_ else {}
    function = {"name": name, "arguments": arguments} if id_ else {"arguments": arguments}
    return {"index": index, **head, "function": function, **more}


def thought(text: str | None = None, signature: str | None = None, index: int = 0) -> dict[str, Any]:
    piece = {"thinking": text} if text else {"signature": signature}
    said = {"reasoning_content": text} if text else {}
    return {**said, "thinking_blocks": [{"index": index, "type": "thinking", **piece}]}


ROLE = delta(role="assistant", content="")
LAST = {**SHARED, "choices": [], "usage": USAGE}
LOGPROB = {"token": "Hel", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
CITED = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 3, "title": "t", "url": "u"}}
CALLS = [delta(tool_calls=[call(0, id_="c1")]), delta(tool_calls=[call(0, '{"a"')]), delta(tool_calls=[call(0, ":1}")])]
WOVEN = [
    delta(tool_calls=[call(0, id_="c1"), call(1, "{", id_="c2", name="g")]),
    delta(tool_calls=[call(0, "{")]),
    delta(tool_calls=[call(1, "}"), call(0, "}")]),
]
STREAMS: dict[str, list[dict[str, Any]]] = {
    "text": [ROLE, delta(content="Hel"), delta(content="lo"), delta("stop"), LAST],
    "nothing": [ROLE, delta("stop")],
    "everything in one chunk": [{**delta("stop", role="assistant", content="Hello"), "usage": USAGE}],
    "cut short": [ROLE, delta(content="Hel"), delta("length"), LAST],
    "filtered": [ROLE, delta(content="Hel"), delta("content_filter"), LAST],
    "refusal": [ROLE, delta(refusal="I "), delta(refusal="won't"), delta("stop"), LAST],
    "text and refusal": [ROLE, delta(content="Well"), delta(refusal="no"), delta("stop"), LAST],
    "call": [ROLE, *CALLS, delta("tool_calls"), LAST],
    "calls woven into each other": [ROLE, *WOVEN, delta("tool_calls"), LAST],
    "text and calls": [ROLE, delta(content="So"), *WOVEN, delta("tool_calls"), LAST],
    "custom": [
        ROLE,
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "x", "input": ""}}]),
        delta(tool_calls=[{"index": 0, "custom": {"input": "A"}}]),
        delta("tool_calls"),
        LAST,
    ],
    "reasoning": [
        *(ROLE, delta(reasoning_content="h"), delta(reasoning_content="m"), delta(content="Hi"), delta("stop"), LAST),
    ],
    "signed thought": [
        *(ROLE, delta(**thought("h")), delta(**thought("m")), delta(**thought(signature="S")), delta(content="Hi")),
        *(delta("stop"), LAST),
    ],
    "thoughts between calls": [
        *(ROLE, delta(**thought("a")), delta(**thought(signature="S"))),
        *(
            delta(**{**thought("b", index=1), "reasoning_content": "\n\nb"}),
            delta(**thought(signature="T", index=1)),
            *CALLS,
            delta("tool_calls"),
            LAST,
        ),
    ],
    "sealed thought": [ROLE, delta(**thought(signature="S")), delta(content="Hi"), delta("stop"), LAST],
    "sources": [ROLE, delta(content="Hello"), delta(annotations=[CITED]), delta("stop"), LAST],
    "log probabilities": [
        ROLE,
        {
            **SHARED,
            "choices": [
                {"index": 0, "delta": {"content": "Hel"}, "logprobs": {"content": [LOGPROB]}, "finish_reason": None}
            ],
        },
        *(delta("stop"), LAST),
    ],
    "tier": [{**ROLE, "service_tier": "flex"}, delta(content="Hi"), delta("stop"), {**LAST, "service_tier": "flex"}],
}


def encoded(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    encoder = RESPONSES.encoder(ASKED)
    data = b"".join([*map(encoder.feed, chunks), encoder.end()])
    events = []
    for event in data.split(b"\n\n")[:-1]:
        name, line = event.split(b"\n")
        events.append(orjson.loads(line.removeprefix(b"data: ")))
        assert name == b"event: " + events[-1]["type"].encode()
    return events


def decoded(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    decoder = RESPONSES.decoder()
    return [chunk for event in events for chunk in decoder.feed(event)]


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat completion that a stream of chunks says, as a client puts it together."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": None}
    answer = {**chunks[-1], "object": "chat.completion", "choices": [choice]}
    for one in [one for chunk in chunks for one in chunk["choices"]]:
        for name, value in one["delta"].items():
            if name in ("content", "refusal", "reasoning_content") and value:
                message[name] = (message.get(name) or "") + value
            elif name == "annotations":
                notes = [{key: said for key, said in note.items() if key != "index"} for note in value]
                message.setdefault(name, []).extend(notes)
            elif name == "tool_calls":
                for piece in value:
                    _call_piece(message.setdefault(name, []), piece)
            elif name == "thinking_blocks":
                for piece in value:
                    _thought_piece(message.setdefault(name, []), piece)
        choice["finish_reason"] = one["finish_reason"] or choice["finish_reason"]
        if one.get("logprobs"):
            choice["logprobs"] = {"content": one["logprobs"]["content"], "refusal": None}
    message["thinking_blocks"] = [block for block in message.get("thinking_blocks", ()) if "signature" in block]
    return {**answer, "choices": [{**choice, "message": {name: said for name, said in message.items() if said != []}}]}


def _call_piece(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    of = "custom" if "custom" in piece else "function"
    if piece["index"] == len(calls):
        calls.append({"id": piece["id"], "type": piece["type"], of: dict(piece[of])})
    else:
        says = "input" if of == "custom" else "arguments"
        calls[piece["index"]][of][says] += piece[of][says]


def _thought_piece(blocks: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    if piece["index"] == len(blocks):
        blocks.append({"type": "thinking", "thinking": ""})
    blocks[-1]["thinking"] += piece.get("thinking", "")
    blocks[-1] |= {"signature": piece["signature"]} if "signature" in piece else {}


def event(kind: str, at: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "sequence_number": 0, **({} if at is None else {"output_index": at}), **fields}


def response(*output: dict[str, Any], status: str = "completed", **fields: Any) -> dict[str, Any]:
    shared = {"id": "resp_1", "object": "response", "created_at": 1.5, "model": "up", "error": None}
    return {**shared, "status": status, "output": list(output), "usage": COUNTED, "incomplete_details": None, **fields}


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], **fields}


def message(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": list(content), **fields}


def wrong(value: Any) -> Iterator[Any]:
    """`value` with one thing in it changed to something of another type, or gone: every way there is."""
    for other in (None, True, 7, "x", [], {}, [None], {"type": []}, [[]], {"role": 1}):
        yield other
    if isinstance(value, dict):
        for name in value:
            yield {one: said for one, said in value.items() if one != name}
            for other in wrong(value[name]):
                yield {**value, name: other}
    elif isinstance(value, list):
        for at, one in enumerate(value):
            for other in wrong(one):
                yield [*value[:at], other, *value[at + 1 :]]
