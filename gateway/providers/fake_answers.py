"""A fake provider's answers in OpenAI's shapes: pure functions of a request and a step."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.providers.fake_script import FakeStep
from gateway.routes import Task
from gateway.types import UpstreamRequest

_ECHO_WORDS = 64
_DIMENSIONS = 256
_MAX_DIMENSIONS = 8192
_MAX_CHOICES = 128


class Malformed(Exception):
    """The request is not what OpenAI would accept."""


@dataclass(slots=True)
class Reply:
    """An answer before it takes its wire form: for each choice, its pieces."""

    chat: bool
    head: dict[str, Any]
    choices: list[list[str]]
    tool: dict[str, Any] | None
    finish_reasons: list[str]
    usage: dict[str, Any] | None
    include_usage: bool

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        choices = []
        for index, pieces in enumerate(self.choices):
            choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": self.finish_reasons[index]}
            text = "".join(pieces)
            if not self.chat:
                choice["text"] = text
            elif self.tool is None:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                call = {**self.tool, "function": {**self.tool["function"], "arguments": text}}
                choice["message"] = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
            choices.append(choice)
        kind = "chat.completion" if self.chat else "text_completion"
        whole = {**self.head, "object": kind, "choices": choices}
        return whole if self.usage is None else {**whole, "usage": self.usage}

    def pieces(self) -> Iterator[bytes]:
        """The events that carry text, choice by choice."""
        for index, pieces in enumerate(self.choices):
            for number, piece in enumerate(pieces):
                yield self._event([{"index": index, **self._piece(piece, number == 0)}])

    def ending(self) -> Iterator[bytes]:
        """The events after the text: why each choice ends, usage if asked for, and `[DONE]`."""
        for index, reason in enumerate(self.finish_reasons):
            empty = {} if self.choices[index] else {"role": "assistant", "content": ""}
            rest: dict[str, Any] = {"delta": empty} if self.chat else {"text": ""}
            yield self._event([{"index": index, **rest, "logprobs": None, "finish_reason": reason}])
        if self.include_usage and self.usage is not None:
            yield self._event([], self.usage)
        yield b"data: [DONE]\n\n"

    def _piece(self, piece: str, first: bool) -> dict[str, Any]:
        rest = {"logprobs": None, "finish_reason": None}
        if not self.chat:
            return {"text": piece, **rest}
        # The role travels with the first text, so that a script's `cut: 2` means two pieces of text.
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if self.tool is None:
            return {"delta": {**delta, "content": piece}, **rest}
        call: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
        if first:
            call = {"index": 0, **self.tool, "function": {**self.tool["function"], "arguments": piece}}
        return {"delta": {**delta, "tool_calls": [call]}, **rest}

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        event = {**self.head, "object": kind, "choices": choices}
        if self.include_usage:
            event["usage"] = usage
        return b"data: " + orjson.dumps(event) + b"\n\n"


def reply_to(request: UpstreamRequest, step: FakeStep, number: str) -> Reply:
    """What a chat or completion call gets."""
    body, chat = request.document, request.task is Task.CHAT
    prompts = [_last_and_all(body.get("messages"))] if chat else [(text, text) for text in _texts(body, "prompt")]
    tool, arguments = _tool(body, step, number) if chat else (None, "")
    most = _count(body, "max_completion_tokens") or _count(body, "max_tokens")
    choices, reasons = [], []
    for said, _ in prompts:
        pieces = [arguments] if tool else step.chunks if step.chunks is not None else _words(_text(step, said))
        cut = most is not None and len(pieces) > most
        reason = "length" if cut else "tool_calls" if tool else "stop"
        copies = min(_count(body, "n") or 1, _MAX_CHOICES)
        choices += [pieces[:most]] * copies
        reasons += [step.finish_reason or reason] * copies
    options = body.get("stream_options")
    return Reply(
        chat=chat,
        head={
            "id": f"chatcmpl-{number}" if chat else f"cmpl-{number}",
            "created": int(time.time()),
            "model": request.model,
        },
        choices=choices,
        tool=tool,
        finish_reasons=reasons,
        usage=_usage(step, sum(_tokens(everything) for _, everything in prompts), sum(map(len, choices))),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _text(step: FakeStep, said: str) -> str:
    if step.answer is not None:
        return step.answer
    return " ".join(["echo:", *said.split(" ", _ECHO_WORDS)[:_ECHO_WORDS]])


def _tool(body: Mapping[str, Any], step: FakeStep, number: str) -> tuple[dict[str, Any] | None, str]:
    """The tool to call without its arguments, and the arguments as JSON text.

    Unscripted, only a caller who insists gets one: the tool it named, or the first.
    """
    choice, name, arguments = body.get("tool_choice"), None, "{}"
    if step.tool_call is not None:
        name, arguments = step.tool_call.name, orjson.dumps(step.tool_call.arguments).decode()
    elif step.answer is None and step.chunks is None and body.get("tools"):
        try:
            if isinstance(choice, Mapping):
                name = choice["function"]["name"]
            elif choice == "required":
                name = body["tools"][0]["function"]["name"]
        except (KeyError, IndexError, TypeError):
            raise Malformed("'tools' and 'tool_choice' must name functions") from None
    if name is None:
        return None, ""
    return {"id": f"call_{number}", "type": "function", "function": {"name": name}}, arguments


def _usage(step: FakeStep, prompt: int, completion: int) -> dict[str, Any] | None:
    if step.no_usage:
        return None
    cached = reasoning = 0
    if step.usage is not None:
        cached, reasoning = step.usage.cached_tokens, step.usage.reasoning_tokens
        prompt = prompt if step.usage.prompt_tokens is None else step.usage.prompt_tokens
        completion = completion if step.usage.completion_tokens is None else step.usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def embeddings(request: UpstreamRequest, step: FakeStep) -> dict[str, Any]:
    """A unit vector for each input; equal inputs get equal ones."""
    texts = _texts(request.document, "input")
    size = min(_count(request.document, "dimensions") or _DIMENSIONS, _MAX_DIMENSIONS)
    encode = request.document.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = step.embedding or _vector(text, size)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encode else vector
        data.append({"object": "embedding", "index": index, "embedding": packed})
    body: dict[str, Any] = {"object": "list", "data": data, "model": request.model}
    usage = _usage(step, sum(map(_tokens, texts)), 0)
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]}
    return body


def _vector(text: str, size: int) -> list[float]:
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * size)
    numbers = struct.unpack(f"<{size}h", digest)
    # Half a step off zero: no text gets a vector of length zero.
    length = math.sqrt(sum((number + 0.5) ** 2 for number in numbers))
    return [(number + 0.5) / length for number in numbers]


def _count(body: Mapping[str, Any], name: str) -> int | None:
    """A positive whole number of the request, where it is one."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Malformed(f"'{name}' must be a positive whole number")
    return value


def _tokens(text: str) -> int:
    return text.count(" ") + 1 if text else 0


def _words(text: str) -> list[str]:
    """The words of `text`, each with the space that follows it."""
    first, *rest = text.split(" ")[::-1]
    return [word + " " for word in rest[::-1]] + ([first] if first else [])


def _last_and_all(messages: Any) -> tuple[str, str]:
    """The text of the last message, and of all of them."""
    if not isinstance(messages, list) or not messages:
        raise Malformed("'messages' must be a list with at least one message")
    texts = [_content(message) for message in messages]
    return texts[-1], " ".join(text for text in texts if text)


def _content(message: Any) -> str:
    if not isinstance(message, Mapping):
        raise Malformed("each of 'messages' must be an object")
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and "text" in part)


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    """The inputs of a call: a text, texts, or lists of token numbers."""
    value = body.get(name)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return list(value)
        if all(isinstance(item, int) for item in value):
            return [" ".join(map(str, value))]
        if all(isinstance(item, list) for item in value):
            return [" ".join(map(str, item)) for item in value]
    raise Malformed(f"'{name}' must be a text or a list of texts")
