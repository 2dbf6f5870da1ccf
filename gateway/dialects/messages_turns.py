"""A conversation: Anthropic's system prompt and messages, and chat's messages, each as the other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.messages_parts import blocks, collapsed, mark, part, parts
from gateway.dialects.messages_words import NOT_IN_CHAT, NOT_IN_MESSAGES, lose_rest, says_nothing, too_deep
from gateway.dialects.reading import need_flag, need_list, need_object, need_text, wrong
from gateway.errors import BadRequest

_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
_COMMON = {"role", "content", "cache_control"}
_KNOWN = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    "tool": _COMMON | {"tool_call_id"},
    "assistant": _COMMON | {"tool_calls", "refusal", "thinking_blocks", "reasoning_content"},
}


def to_chat(body: Mapping[str, Any], losses: Losses) -> list[Document]:
    """Chat's messages for the `system` and `messages` of an Anthropic request."""
    said = [] if body.get("system") is None else _system(body["system"], "system", losses)
    for at, message in enumerate(need_list(body.get("messages"), "messages")):
        path = f"messages[{at}]"
        message = need_object(message, path)
        content = message.get("content")
        lose_rest(message, ("role", "content"), path, losses, NOT_IN_CHAT)
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        content = need_list(content, f"{path}.content")
        match need_text(message.get("role"), f"{path}.role"):
            case "user":
                said += _user(content, f"{path}.content", losses)
            case "assistant":
                said.append(_assistant(content, f"{path}.content", losses))
            case "system":
                said += _system(content, f"{path}.content", losses)
            case _:
                raise wrong(f"{path}.role", "'user', 'assistant' or 'system'")
    return said


def _system(content: Any, path: str, losses: Losses) -> list[Document]:
    found = parts(content, path, losses)
    return [{"role": "system", "content": collapsed(found)}] if found else []


def _user(content: list[Any], path: str, losses: Losses) -> list[Document]:
    """Results of tools, which chat wants right after their calls, then the rest of the message."""
    results: list[Document] = []
    rest: list[Document] = []
    for at, block in enumerate(content):
        block = need_object(block, f"{path}[{at}]")
        if block.get("type") == "tool_result":
            result, beside = _result(block, f"{path}[{at}]", losses)
            results.append(result)
            rest += beside
        else:
            rest += part(block, f"{path}[{at}]", losses)
    return results + ([{"role": "user", "content": collapsed(rest)}] if rest else [])


def _result(block: Document, path: str, losses: Losses) -> tuple[Document, list[Document]]:
    """A tool's result, and what of it has to follow from the user: chat's tools answer in text."""
    call = need_text(block.get("tool_use_id"), f"{path}.tool_use_id")
    content = block.get("content")
    found = parts([] if content is None else content, f"{path}.content", losses)
    texts = [one for one in found if one["type"] == "text"]
    beside = [one for one in found if one["type"] != "text"]
    if need_flag(block.get("is_error"), f"{path}.is_error"):
        texts = _as_error(texts)
    if beside:
        texts = texts or [{"type": "text", "text": "The result follows in the next message."}]
        beside = [{"type": "text", "text": f"Result of {call}:"}, *beside]
    lose_rest(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), path, losses, NOT_IN_CHAT)
    result: Document = {"role": "tool", "tool_call_id": call, "content": collapsed(texts) if texts else ""}
    return _marked(result, block), beside


def _as_error(texts: list[Document]) -> list[Document]:
    """Chat has no flag for a tool that failed: its result has to say so."""
    first = texts[0]["text"] if texts else ""
    if "error" in first[:40].lower():
        return texts
    said = {**(texts[0] if texts else {"type": "text"}), "text": f"Error: {first}" if first else "Error"}
    return [said, *texts[1:]]


def _marked(message: Document, block: Document) -> Document:
    cache_control = block.get("cache_control")
    return message if cache_control is None else {**message, "cache_control": cache_control}


def _assistant(content: list[Any], path: str, losses: Losses) -> Document:
    texts: list[Document] = []
    thinking: list[Document] = []
    calls: list[Document] = []
    message: Document = {"role": "assistant", "content": None}
    for at, block in enumerate(content):
        here = f"{path}[{at}]"
        block = need_object(block, here)
        match block.get("type"):
            case "thinking":
                need_text(block.get("thinking"), f"{here}.thinking")
                thinking.append(block)
            case "redacted_thinking":
                need_text(block.get("data"), f"{here}.data")
                thinking.append(block)
            case "tool_use":
                calls.append(_call(block, here, losses))
                message = _marked(message, block)
            case _:
                texts += part(block, here, losses)
    if texts:
        message["content"] = collapsed(texts)
    elif not calls:
        message["content"] = ""
    return message | _thought(thinking) | ({"tool_calls": calls} if calls else {})


def _thought(thinking: list[Document]) -> Document:
    """Thinking as the pivot carries it: blocks that somebody signed, and the text of all."""
    said: Document = {}
    text = "".join(block["thinking"] for block in thinking if block["type"] == "thinking")
    if text:
        said["reasoning_content"] = text
    signed = [block for block in thinking if block["type"] != "thinking" or block.get("signature")]
    if signed:
        said["thinking_blocks"] = signed
    return said


def _call(block: Document, path: str, losses: Losses) -> Document:
    known = {"type", "id", "name", "input", "cache_control"}
    if block.get("caller") == {"type": "direct"}:
        known.add("caller")
    lose_rest(block, known, path, losses, NOT_IN_CHAT)
    arguments = orjson.dumps(need_object(block.get("input"), f"{path}.input")).decode()
    function = {"name": need_text(block.get("name"), f"{path}.name"), "arguments": arguments}
    return {"id": need_text(block.get("id"), f"{path}.id"), "type": "function", "function": function}


def from_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """The `system` and `messages` of an Anthropic request for chat's messages.

    System messages all go to the top, wherever they stood: only Anthropic's newest models take them elsewhere.
    Neighbours of one role become one message, as it wants the results of parallel calls.
    """
    system: list[Document] = []
    turns: list[Document] = []
    for at, message in enumerate(need_list(body.get("messages"), "messages")):
        path = f"messages[{at}]"
        message = need_object(message, path)
        role = need_text(message.get("role"), f"{path}.role")
        if role == "function":
            losses.lose(path, "the older calls of functions have no id, which Anthropic needs.")
            continue
        if role not in _KNOWN:
            raise wrong(f"{path}.role", "'system', 'developer', 'user', 'assistant' or 'tool'")
        lose_rest(message, _KNOWN[role], path, losses, NOT_IN_MESSAGES)
        found = _blocks(message, role, path, losses)
        if role in ("system", "developer"):
            system += found
            continue
        speaker = "assistant" if role == "assistant" else "user"
        if found and turns and turns[-1]["role"] == speaker:
            turns[-1]["content"] += found
        elif found:
            turns.append({"role": speaker, "content": found})
    if not turns:
        raise BadRequest("'messages' must hold what a user says: Anthropic's models need it.", param="messages")
    said = [{**turn, "content": collapsed(turn["content"])} for turn in turns]
    return {"messages": said} | ({"system": collapsed(system)} if system else {})


def _blocks(message: Document, role: str, path: str, losses: Losses) -> list[Document]:
    found = blocks(message.get("content"), f"{path}.content", losses)
    if role in ("system", "developer"):
        for at, block in enumerate(found):
            if block["type"] != "text":
                losses.lose(f"{path}.content[{at}]", "Anthropic's system prompt is text.")
        found = [block for block in found if block["type"] == "text"]
    elif role == "assistant":
        if not found and message.get("refusal") is not None:
            found = blocks(message["refusal"], f"{path}.refusal", losses)
        found = [*_thinking(message, path, losses), *found, *_uses(message, path)]
    elif role == "tool":
        found = [_tool_result(message, found, path)]
    return mark(found, message.get("cache_control"))


def _tool_result(message: Document, found: list[Document], path: str) -> Document:
    call = need_text(message.get("tool_call_id"), f"{path}.tool_call_id")
    result: Document = {"type": "tool_result", "tool_use_id": _id(call)}
    if found:
        result["content"] = collapsed(found)
    return result


def _thinking(message: Document, path: str, losses: Losses) -> list[Document]:
    """Thinking that Anthropic signed; it takes no other back."""
    unsigned = "Anthropic takes thinking back only with its own signature."
    found = []
    given = message.get("thinking_blocks")
    for at, block in enumerate([] if given is None else need_list(given, f"{path}.thinking_blocks")):
        here = f"{path}.thinking_blocks[{at}]"
        block = need_object(block, here)
        match block.get("type"):
            case "thinking":
                need_text(block.get("thinking"), f"{here}.thinking")
                if block.get("signature"):
                    found.append({name: block[name] for name in ("type", "thinking", "signature")})
                else:
                    losses.lose(here, unsigned)
            case "redacted_thinking":
                found.append({"type": "redacted_thinking", "data": need_text(block.get("data"), f"{here}.data")})
            case _:
                raise wrong(f"{here}.type", "'thinking' or 'redacted_thinking'")
    if not found and not says_nothing(message.get("reasoning_content")):
        losses.lose(f"{path}.reasoning_content", unsigned)
    return found


def _uses(message: Document, path: str) -> list[Document]:
    calls = message.get("tool_calls")
    found = []
    for at, call in enumerate([] if calls is None else need_list(calls, f"{path}.tool_calls")):
        here = f"{path}.tool_calls[{at}]"
        call = need_object(call, here)
        if call.get("type", "function") != "function":
            raise BadRequest(f"'{here}' must be the call of a function: Anthropic has no other.", param=here)
        function = need_object(call.get("function"), f"{here}.function")
        found.append(
            {
                "type": "tool_use",
                "id": _id(need_text(call.get("id"), f"{here}.id")),
                "name": need_text(function.get("name"), f"{here}.function.name"),
                "input": _input(function.get("arguments"), f"{here}.function.arguments"),
            }
        )
    return found


def _input(arguments: Any, path: str) -> Document:
    text = need_text("" if arguments is None else arguments, path)
    try:
        found = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or too_deep(found, text):
        raise wrong(path, "a JSON object, written as a string, of no more than 240 levels")
    return found


def _id(call: str) -> str:
    """The id of a call in the letters Anthropic allows, the same for a call and its result."""
    clean = _NO_ID.sub("_", call)
    if clean == call and call:
        return call
    # Two ids that differ only in what is not allowed stay two.
    return f"{clean}_{hashlib.blake2s(call.encode(errors='surrogatepass'), digest_size=6).hexdigest()}"
