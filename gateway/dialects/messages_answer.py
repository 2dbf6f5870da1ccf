"""Whole answers: an Anthropic message as a chat completion, and a chat completion as an Anthropic message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway.dialects import lenient
from gateway.dialects.dialect import Document
from gateway.dialects.messages_words import (
    finish_reason,
    odd,
    shows_reasoning,
    stopped,
    too_deep,
    usage_from_chat,
    usage_to_chat,
)

_TIERS = {"standard": "default", "priority": "priority"}


def to_chat(document: Mapping[str, Any]) -> Document:
    """A chat completion that says what an Anthropic message says (`Dialect.answer_to_chat`).

    Blocks of other types than text, thinking and calls come only of tools that chat cannot ask for.
    """
    content = document.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise odd("its content is not a list of blocks")
    texts = [_text(block, "text") for block in content if block.get("type") == "text"]
    calls = [_call(block) for block in content if block.get("type") == "tool_use"]
    message: Document = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    message |= _thought(content)
    if calls:
        message["tool_calls"] = calls
    usage = document.get("usage")
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(document.get("stop_reason")),
    }
    return {**head(document, "chat.completion"), "choices": [choice]} | (
        {"usage": usage_to_chat(usage), **tier_to_chat(usage)} if isinstance(usage, dict) else {}
    )


def head(document: Mapping[str, Any], kind: str) -> Document:
    """What every chat completion and chunk begins with."""
    return {
        "id": _text(document, "id"),
        "object": kind,
        "created": int(time.time()),
        "model": _text(document, "model"),
    }


def tier_to_chat(usage: Mapping[str, Any]) -> Document:
    """The tier of service an answer came by, where chat knows it."""
    tier = usage.get("service_tier")
    return {"service_tier": _TIERS[tier]} if isinstance(tier, str) and tier in _TIERS else {}


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise odd(f"its '{name}' is not a string")
    return value


def _call(block: Document) -> Document:
    if not isinstance(block.get("input"), dict):
        raise odd("the input of a tool is not an object")
    function = {"name": _text(block, "name"), "arguments": lenient.text(block["input"])}
    return {"id": _text(block, "id"), "type": "function", "function": function}


def _thought(content: list[Document]) -> Document:
    blocks = []
    for block in content:
        if block.get("type") == "thinking":
            signature = block.get("signature")
            blocks.append({"type": "thinking", "thinking": _text(block, "thinking"), "signature": signature or ""})
        elif block.get("type") == "redacted_thinking":
            blocks.append({"type": "redacted_thinking", "data": _text(block, "data")})
    text = "".join(block.get("thinking", "") for block in blocks)
    return ({"reasoning_content": text} if text else {}) | ({"thinking_blocks": blocks} if blocks else {})


def from_chat(document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
    """An Anthropic message that says what a chat completion says (`Dialect.answer_from_chat`)."""
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise odd("it holds no message")
    identity = message_id(document)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise odd("its 'tool_calls' are not a list")
    cut = choice.get("finish_reason") == "length"
    uses = [_use(call, f"{identity}_{at}", cut) for at, call in enumerate(calls)]
    text = text_of(message.get("content"))
    refusal = message.get("refusal")
    refused = not text and isinstance(refusal, str) and bool(refusal)
    content = thinking_of(message, unsigned=shows_reasoning(body))
    content += [{"type": "text", "text": text or refusal}] if text or refused else []
    reason, sequence = stopped(choice, body, tools=bool(uses), refused=refused)
    return {
        **opening(identity, document),
        "content": content + uses,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": {**usage_from_chat(document.get("usage")), **_tier(document)},
    }


def opening(identity: str, document: Mapping[str, Any]) -> Document:
    """A message before anything was said in it."""
    model = document.get("model")
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model if isinstance(model, str) else "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def message_id(document: Mapping[str, Any]) -> str:
    """The id of an answer, as Anthropic's begin."""
    given = document.get("id")
    name = given if isinstance(given, str) and given else "unnamed"
    return name if name.startswith("msg_") else f"msg_{name}"


def text_of(content: Any) -> str:
    """The text of a chat message's `content`: a string, nothing, or (from some servers) parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise odd("its content is neither text nor a list of parts")
    return "".join(_text(part, "text") for part in content if part.get("type") == "text")


def reasoning_of(holder: Mapping[str, Any]) -> str:
    """The unsigned reasoning in a message or delta, under either name that servers give it."""
    for name in ("reasoning_content", "reasoning"):
        text = holder.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def thinking_blocks(holder: Mapping[str, Any]) -> list[Document]:
    """The pivot's `thinking_blocks` of a message or delta."""
    blocks = holder.get("thinking_blocks") or []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise odd("its 'thinking_blocks' are not a list of objects")
    return blocks


def thinking_of(message: Mapping[str, Any], *, unsigned: bool) -> list[Document]:
    """The thinking in a chat message as blocks; reasoning that nobody signed only with `unsigned`."""
    blocks = []
    for block in thinking_blocks(message):
        if block.get("type") == "redacted_thinking":
            blocks.append({"type": "redacted_thinking", "data": _text(block, "data")})
        else:
            signature = block.get("signature")
            blocks.append({"type": "thinking", "thinking": _text(block, "thinking"), "signature": signature or ""})
    text = reasoning_of(message)
    if text and not blocks and unsigned:
        blocks.append({"type": "thinking", "thinking": text, "signature": ""})
    return blocks


def _use(call: Any, name: str, cut: bool) -> Document:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise odd("a call in it is not one of a function")
    arguments = function.get("arguments")
    given = call.get("id")
    return {
        "type": "tool_use",
        "id": given if isinstance(given, str) and given else f"toolu_{name}",
        "name": _text(function, "name"),
        "input": arguments if isinstance(arguments, dict) else read_arguments(arguments or "", cut=cut),
    }


def read_arguments(text: Any, *, cut: bool) -> Document:
    """The arguments of a call. Where its answer was `cut` at the cap they may be incomplete, and then count as none."""
    if not isinstance(text, str):
        raise odd("the arguments of a call are not a string")
    try:
        found = lenient.loads(text.encode("utf-8", "surrogatepass")) if text.strip() else {}
    except ValueError:
        found = None
    if isinstance(found, dict) and not too_deep(found, text):
        return found
    if cut:
        return {}
    raise odd("the arguments of a call are not a JSON object")


def _tier(document: Mapping[str, Any]) -> Document:
    tiers = {chat: messages for messages, chat in _TIERS.items()}
    tier = document.get("service_tier")
    return {"service_tier": tiers[tier]} if isinstance(tier, str) and tier in tiers else {}
