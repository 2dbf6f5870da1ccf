"""Answers of Anthropic's, whole and as the stream that says the same; and what reads and joins them in tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from gateway.dialects.sse import event

Document = dict[str, Any]


def message(*content: Document, stop: str = "end_turn", usage: Document | None = None, **fields: Any) -> Document:
    """A whole answer."""
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage or {"input_tokens": 10, "output_tokens": 5},
        **fields,
    }


def thinking(said: str, signature: str = "c2ln") -> Document:
    return {"type": "thinking", "thinking": said, "signature": signature}


def text(said: str) -> Document:
    return {"type": "text", "text": said}


def use(identity: str, name: str, **given: Any) -> Document:
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


HIDDEN = {"type": "redacted_thinking", "data": "eHl6"}
CACHED = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 3000,
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 20},
}
ANSWERS = [
    message(text("Hello")),
    message(text("Grüße 🌍, wie geht es?"), stop="max_tokens"),
    message(text("a"), text("b"), stop="stop_sequence"),
    message(),
    message(text("No."), stop="refusal"),
    message(text("…"), stop="pause_turn"),
    message(text("…"), stop="model_context_window_exceeded"),
    message(text("…"), stop="something_new"),
    message(use("toolu_1", "look"), stop="tool_use"),
    message(use("toolu_1", "look", where="hier", list=[1, {"a": None}]), stop="tool_use"),
    message(text("Let me see."), use("toolu_1", "look", a=1), use("toolu_2", "look", b="é"), stop="tool_use"),
    message(thinking("Hm, well."), text("So."), usage=CACHED),
    message(thinking("One."), thinking("Two.", "c2lnMg=="), HIDDEN, text("So."), use("toolu_1", "f"), stop="tool_use"),
    message(thinking("", "b21pdHRlZA=="), text("So.")),
    message(HIDDEN, text("So.")),
    message(text("Priority."), usage={"input_tokens": 1, "output_tokens": 2, "service_tier": "priority"}),
]


def events(answer: Document, size: int = 3) -> Iterator[Document]:
    """The stream that says `answer`, its texts in pieces of `size` characters."""
    usage = answer["usage"]
    yield {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None,
                                                "usage": {**usage, "output_tokens": 1}}}  # fmt: skip
    yield {"type": "ping"}
    for index, block in enumerate(answer["content"]):
        deltas: list[Document] = []
        start = {**block}
        match block["type"]:
            case "text":
                start["text"] = ""
                deltas = [{"type": "text_delta", "text": part} for part in pieces(block["text"], size)]
            case "thinking":
                start |= {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": part} for part in pieces(block["thinking"], size)]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "tool_use":
                start["input"] = {}
                given = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
                deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *pieces(given, size)]]
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": answer["stop_reason"], "stop_sequence": answer["stop_sequence"]}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def pieces(said: str, size: int) -> list[str]:
    return [said[at : at + size] for at in range(0, len(said), size)]


def sent(documents: Iterable[Document]) -> bytes:
    """Events as they are on the wire."""
    return b"".join(event(one, one["type"]) for one in documents)


def received(stream: bytes) -> list[Document]:
    """The events of a stream; each says its type twice."""
    found = []
    for one in stream.decode().split("\n\n")[:-1]:
        name, data = one.split("\n")
        document = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        found.append(document)
    return found


def joined(chunks: Iterable[Document]) -> Document:
    """The chat completion that chat chunks add up to, as a client adds them."""
    said: Document = {"content": "", "reasoning_content": "", "thinking_blocks": [], "calls": {}, "finish_reason": None}
    for chunk in chunks:
        said |= {name: chunk[name] for name in ("id", "model", "usage", "service_tier") if name in chunk}
        for choice in chunk["choices"]:
            assert said["finish_reason"] is None, "something after the end"
            delta = choice["delta"]
            said["content"] += delta.get("content") or ""
            said["reasoning_content"] += delta.get("reasoning_content") or ""
            for block in delta.get("thinking_blocks") or ():
                join_thinking(said["thinking_blocks"], block)
            for call in delta.get("tool_calls") or ():
                whole = said["calls"].setdefault(call["index"], {"arguments": ""})
                whole |= {"id": call["id"]} if "id" in call else {}
                whole |= {"name": call["function"]["name"]} if "name" in call["function"] else {}
                whole["arguments"] += call["function"]["arguments"]
            said["finish_reason"] = choice["finish_reason"]
    calls = said.pop("calls")
    said["calls"] = [(calls[at]["id"], calls[at]["name"], json.loads(calls[at]["arguments"])) for at in sorted(calls)]
    return said


def join_thinking(blocks: list[Document], piece: Document) -> None:
    if piece["type"] == "redacted_thinking" or not blocks or blocks[-1].get("signature") or "data" in blocks[-1]:
        blocks.append({"type": "thinking", "thinking": "", "signature": ""} if "data" not in piece else {})
    assert piece["index"] == len(blocks) - 1, "OpenAI's client joins by it"
    for name, value in piece.items():
        if name == "index":
            continue
        blocks[-1][name] = blocks[-1].get(name, "") + value if name == "thinking" else value


def plain(completion: Document) -> Document:
    """A whole chat completion in the form of `joined`."""
    choice = completion["choices"][0]
    said = choice["message"]
    return {
        **{name: completion[name] for name in ("id", "model", "usage", "service_tier") if name in completion},
        "content": said["content"] or "",
        "reasoning_content": said.get("reasoning_content", ""),
        "thinking_blocks": said.get("thinking_blocks", []),
        "calls": [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in said.get("tool_calls", ())
        ],
        "finish_reason": choice["finish_reason"],
    }
