"""A fake provider's answers, as chat says them: pure functions of a request and a step."""

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

from gateway.dialects.dialect import Document
from gateway.providers.fake_schema import least
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
    """An answer before it takes its wire form: for each choice, the deltas it comes in."""

    chat: bool
    head: dict[str, Any]
    choices: list[list[Document]]
    finish_reasons: list[str]
    usage: dict[str, Any] | None
    include_usage: bool
    #: Whether a stream begins with the count of what was read, as Anthropic's do.
    counts_first: bool = False

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        choices = []
        for index, pieces in enumerate(self.choices):
            choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": self.finish_reasons[index]}
            said = {"message": _message(pieces)} if self.chat else {"text": _joined(pieces, "content")}
            choices.append({**choice, **said})
        kind = "chat.completion" if self.chat else "text_completion"
        whole = {**self.head, "object": kind, "choices": choices}
        return whole if self.usage is None else {**whole, "usage": self.usage}

    def pieces(self) -> Iterator[Document]:
        """The chunks that say something, choice by choice."""
        for index, pieces in enumerate(self.choices):
            for number, piece in enumerate(pieces):
                rest = {"logprobs": None, "finish_reason": None}
                # The role travels with the first text, so that a script's `cut: 2` means two pieces of text.
                delta = {"role": "assistant", **piece} if number == 0 else piece
                said: Document = {"delta": delta} if self.chat else {"text": piece["content"]}
                yield self._chunk([{"index": index, **said, **rest}], self._read() if number == 0 else None)

    def ending(self) -> Iterator[Document]:
        """The chunks after them: why each choice ends, and usage if asked for."""
        for index, reason in enumerate(self.finish_reasons):
            empty = {} if self.choices[index] else {"role": "assistant", "content": ""}
            rest: dict[str, Any] = {"delta": empty} if self.chat else {"text": ""}
            yield self._chunk([{"index": index, **rest, "logprobs": None, "finish_reason": reason}])
        if self.include_usage and self.usage is not None:
            yield self._chunk([], self.usage)

    def _read(self) -> dict[str, Any] | None:
        if self.usage is None or not self.counts_first:
            return None
        return {**self.usage, "completion_tokens": 0, "completion_tokens_details": {}}

    def _chunk(self, choices: list[Document], usage: dict[str, Any] | None = None) -> Document:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        chunk = {**self.head, "object": kind, "choices": choices}
        return {**chunk, "usage": usage} if self.include_usage else chunk


def _message(pieces: list[Document]) -> Document:
    """What the deltas of one choice come to."""
    calls = [
        {name: part for name, part in call.items() if name != "index"}
        for piece in pieces
        for call in piece.get("tool_calls", ())
    ]
    message: Document = {"role": "assistant", "content": _joined(pieces, "content"), "refusal": None}
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    if reasoning := _joined(pieces, "reasoning_content"):
        message["reasoning_content"] = reasoning
    sealed = next(
        (block for piece in pieces for block in piece.get("thinking_blocks", ()) if "signature" in block), None
    )
    if sealed:
        message["thinking_blocks"] = [{**sealed, "thinking": reasoning}]
    return message


def _joined(pieces: list[Document], name: str) -> str:
    return "".join(piece.get(name, "") for piece in pieces)


def reply_to(body: Mapping[str, Any], request: UpstreamRequest, step: FakeStep, number: str) -> Reply:
    """What a chat or completion call gets; `body` is the request, as chat if it came in another dialect."""
    chat = request.task is not Task.COMPLETIONS
    prompts = [_last_and_all(body.get("messages"))] if chat else [(text, text) for text in _texts(body, "prompt")]
    calls = _calls(body, step, number) if chat else []
    thought = _thought(step, sealed=request.task is not Task.CHAT) if chat else []
    most = _count(body, "max_completion_tokens") or _count(body, "max_tokens")
    choices, reasons = [], []
    for said, _ in prompts:
        pieces = [*thought, *({"content": text} for text in _pieces(body, step, said, calls=bool(calls))), *calls]
        reason = "length" if most is not None and len(pieces) > most else "tool_calls" if calls else "stop"
        copies = min(_count(body, "n") or 1, _MAX_CHOICES)
        choices += [pieces[:most]] * copies
        reasons += [step.finish_reason or reason] * copies
    options = body.get("stream_options")
    reasoned = sum("reasoning_content" in piece for pieces in choices for piece in pieces)
    return Reply(
        chat=chat,
        head={
            "id": f"chatcmpl-{number}" if chat else f"cmpl-{number}",
            "created": int(time.time()),
            "model": request.model,
        },
        choices=choices,
        finish_reasons=reasons,
        usage=_usage(step, sum(_tokens(everything) for _, everything in prompts), sum(map(len, choices)), reasoned),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        counts_first=request.task is Task.MESSAGES,
    )


def _pieces(body: Mapping[str, Any], step: FakeStep, said: str, *, calls: bool) -> list[str]:
    """The text of one choice in pieces: none beside calls, unless the step says some."""
    if step.chunks is not None:
        return step.chunks
    if step.answer is not None:
        return _words(step.answer)
    schema = _wanted(body)
    if schema is not None and not calls:
        return _words(orjson.dumps(least(schema)).decode())
    return [] if calls else _words(" ".join(["echo:", *said.split(" ", _ECHO_WORDS)[:_ECHO_WORDS]]))


def _wanted(body: Mapping[str, Any]) -> Any:
    """The JSON Schema the caller wants an answer to keep to."""
    wanted = body.get("response_format")
    described = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    return described.get("schema") if isinstance(described, Mapping) else None


def _thought(step: FakeStep, *, sealed: bool) -> list[Document]:
    """The deltas of the step's reasoning, word by word. What seals it comes with the last: chat has no word for it."""
    words = _words(step.reasoning or "")
    deltas: list[Document] = [{"reasoning_content": word} for word in words]
    if sealed and step.signature is not None:
        for delta, word in zip(deltas, words, strict=True):
            delta["thinking_blocks"] = [{"index": 0, "type": "thinking", "thinking": word}]
        deltas[-1]["thinking_blocks"][0]["signature"] = step.signature
    return deltas


def _calls(body: Mapping[str, Any], step: FakeStep, number: str) -> list[Document]:
    """The tools to call, a delta each. Unscripted, only who insists gets one: the tool it named, or the first."""
    wanted = [step.tool_call] if step.tool_call else step.tool_calls or []
    functions = [(call.name, call.arguments) for call in wanted]
    if not functions and step.answer is None and step.chunks is None and body.get("tools"):
        functions = _insisted(body["tools"], body.get("tool_choice"))
    deltas = []
    for index, (name, arguments) in enumerate(functions):
        function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
        identity = f"call_{number}" + (f"_{index}" if index else "")
        deltas.append({"tool_calls": [{"index": index, "id": identity, "type": "function", "function": function}]})
    return deltas


def _insisted(tools: Any, choice: Any) -> list[tuple[str, Any]]:
    """The tool a caller insists on, with the least arguments that it takes."""
    try:
        if choice == "required":
            wanted = tools[0]["function"]
        elif isinstance(choice, Mapping):
            name = choice["function"]["name"]
            wanted = next((one["function"] for one in tools if one["function"]["name"] == name), {"name": name})
        else:
            return []
        return [(wanted["name"], least(wanted.get("parameters") or {"type": "object"}))]
    except (KeyError, IndexError, TypeError):
        raise Malformed("'tools' and 'tool_choice' must name functions") from None


def _usage(step: FakeStep, prompt: int, completion: int, reasoning: int = 0) -> dict[str, Any] | None:
    if step.no_usage:
        return None
    cached = 0
    if step.usage is not None:
        cached = step.usage.cached_tokens
        reasoning = reasoning if step.usage.reasoning_tokens is None else step.usage.reasoning_tokens
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
