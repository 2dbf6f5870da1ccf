"""Streams: Anthropic's events as chat chunks, and chat chunks as Anthropic's events.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.dialects import lenient, sse
from gateway.dialects.dialect import Document
from gateway.dialects.messages_answer import (
    head,
    message_id,
    opening,
    read_arguments,
    reasoning_of,
    text_of,
    thinking_blocks,
    tier_to_chat,
)
from gateway.dialects.messages_words import finish_reason, odd, shows_reasoning, stopped, usage_from_chat, usage_to_chat
from gateway.errors import UpstreamFailed


class Decoder:
    """Reads Anthropic's events (`dialect.Decoder`). Pings, and events and blocks of types that are new, say nothing."""

    def __init__(self) -> None:
        self._head: Document | None = None
        self._usage: Document = {}
        self._stop_reason: Any = None
        #: By the index of a block that calls a tool: the index of its call, and whether arguments came.
        self._calls: dict[Any, tuple[int, bool]] = {}
        self._thoughts = 0

    def feed(self, document: Document) -> Iterable[Document]:
        """The chunks of one event: the end of the answer waits for `message_stop`, so that no cut stream has one."""
        kind = document.get("type")
        if kind == "error":
            raise UpstreamFailed(f"The provider broke its stream off: {sse.said(document.get('error'))}")
        if kind == "message_start":
            return self._start(_object(document, "message"))
        if not isinstance(kind, str) or kind not in _EVENTS:
            return ()
        if self._head is None:
            raise odd("its stream does not begin with 'message_start'")
        match kind:
            case "content_block_start":
                return self._block(document.get("index"), _object(document, "content_block"))
            case "content_block_delta":
                return self._delta(document.get("index"), _object(document, "delta"))
            case "content_block_stop":
                return self._block_stop(document.get("index"))
            case "message_delta":
                self._stop_reason = _object(document, "delta").get("stop_reason") or self._stop_reason
                self._note_usage(document.get("usage"))
                return ()
            case _:
                return self._end()

    def _start(self, message: Document) -> Iterable[Document]:
        if self._head is not None:
            raise odd("its stream begins twice")
        self._head = head(message, "chat.completion.chunk")
        self._note_usage(message.get("usage"))
        return self._chunk({"role": "assistant", "content": ""})

    def _note_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):  # each count is the total so far
            self._usage |= {name: value for name, value in usage.items() if value is not None}

    def _chunk(self, delta: Document, finish: str | None = None) -> Iterable[Document]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return ({**(self._head or {}), "choices": [choice]},)

    def _thought(self, kind: str, **said: str) -> Iterable[Document]:
        """A piece of the thinking under way. OpenAI's client joins the pieces of a list by their `index` only."""
        piece = {"index": max(0, self._thoughts - 1), "type": kind, **said}
        beside = {"reasoning_content": said["thinking"]} if said.get("thinking") else {}
        return self._chunk({**beside, "thinking_blocks": [piece]})

    def _block(self, index: Any, block: Document) -> Iterable[Document]:
        if block.get("type") in ("thinking", "redacted_thinking"):
            self._thoughts += 1
        match block.get("type"):
            case "text" if block.get("text"):
                return self._chunk({"content": _text(block, "text")})
            case "thinking" if block.get("thinking"):
                return self._thought("thinking", thinking=_text(block, "thinking"))
            case "redacted_thinking":
                return self._thought("redacted_thinking", data=_text(block, "data"))
            case "tool_use":
                if not isinstance(index, int) or index in self._calls:
                    raise odd("a block in its stream has no index of its own")
                given = block.get("input")
                arguments = lenient.text(given) if given else ""
                self._calls[index] = (len(self._calls), bool(arguments))
                function = {"name": _text(block, "name"), "arguments": arguments}
                call = {"index": self._calls[index][0], "id": _text(block, "id"), "type": "function"}
                return self._chunk({"tool_calls": [{**call, "function": function}]})
            case _:
                return ()

    def _delta(self, index: Any, delta: Document) -> Iterable[Document]:
        match delta.get("type"):
            case "text_delta":
                return self._chunk({"content": _text(delta, "text")})
            case "thinking_delta":
                return self._thought("thinking", thinking=_text(delta, "thinking"))
            case "signature_delta":
                return self._thought("thinking", thinking="", signature=_text(delta, "signature"))
            case "input_json_delta":
                return self._arguments(index, _text(delta, "partial_json"))
            case _:
                return ()

    def _arguments(self, index: Any, arguments: str) -> Iterable[Document]:
        # Blocks that are no calls of ours have arguments too: those of tools that run at Anthropic.
        if not arguments or not isinstance(index, int) or index not in self._calls:
            return ()
        number = self._calls[index][0]
        self._calls[index] = (number, True)
        return self._chunk({"tool_calls": [{"index": number, "function": {"arguments": arguments}}]})

    def _block_stop(self, index: Any) -> Iterable[Document]:
        if isinstance(index, int) and index in self._calls and not self._calls[index][1]:
            return self._arguments(index, "{}")
        return ()

    def _end(self) -> Iterable[Document]:
        usage = {**(self._head or {}), "choices": [], "usage": usage_to_chat(self._usage)}
        return (*self._chunk({}, finish_reason(self._stop_reason)), usage | tier_to_chat(self._usage))


_EVENTS = {
    *("content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop"),
}


def _object(document: Mapping[str, Any], name: str) -> Document:
    value = document.get(name)
    if not isinstance(value, dict):
        raise odd(f"the '{name}' of an event is not an object")
    return value


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise odd(f"the '{name}' of an event is not a string")
    return value


class Encoder:
    """Writes Anthropic's events (`dialect.Encoder`).

    Its blocks come one after the other, while chat's calls may come mixed. So blocks queue: the first is written as it
    comes, the others wait until all of it is there.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._shows_reasoning = shows_reasoning(body)
        self._id = ""
        self._opening: Document | None = None
        self._started = False
        self._usage: Any = None
        self._choice: Document = {}
        self._queue: list[_Block] = []
        self._index = 0
        self._calls: dict[Any, _Block] = {}
        self._wrote = False
        self._refused = False

    def feed(self, chunk: Document) -> bytes:
        """The events of `chunk`. What ends the message waits for `end`: chat says its usage last."""
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise odd("the choices in its stream are not a list of objects")
        if not choices:
            return b""
        started = self._start(chunk)
        for choice in choices:
            if choice.get("index") in (None, 0):
                self._hear(choice)
        return started + self._advance()

    def end(self) -> bytes:
        """The end of every block and of the message."""
        started = self._start({})
        written = self._advance(last=True)
        reason, sequence = stopped(self._choice, self._body, tools=bool(self._calls), refused=self._refused_all())
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        ended = _event({"type": "message_delta", "delta": delta, "usage": usage_from_chat(self._usage)})
        return started + written + ended + _event({"type": "message_stop"})

    def _refused_all(self) -> bool:
        return self._refused and not self._wrote

    def _start(self, chunk: Document) -> bytes:
        if self._started:
            return b""
        self._started = True
        self._id = message_id(chunk)
        message = {**opening(self._id, chunk), "usage": usage_from_chat(self._usage)}
        return _event({"type": "message_start", "message": message})

    def _hear(self, choice: Document) -> None:
        self._choice |= {
            name: choice[name] for name in ("finish_reason", "stop_reason") if choice.get(name) is not None
        }
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise odd("a delta in its stream is not an object")
        if "thinking_blocks" in delta or "reasoning_content" in delta or "reasoning" in delta:
            self._think(delta)
        text, refusal = text_of(delta.get("content")), delta.get("refusal")
        if text:
            self._wrote = True
        elif isinstance(refusal, str) and refusal:
            text, self._refused = refusal, True
        if text:
            self._last("text").say({"type": "text_delta", "text": text})
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise odd("the calls in its stream are not a list of objects")
        for call in calls:
            self._call(call)

    def _think(self, delta: Document) -> None:
        blocks = thinking_blocks(delta)
        for block in blocks:
            if block.get("type") == "redacted_thinking":
                self._queue.append(_Block("redacted", {"type": "redacted_thinking", "data": _text(block, "data")}))
                continue
            waiting = self._last("thinking")
            if block.get("thinking"):
                waiting.say({"type": "thinking_delta", "thinking": _text(block, "thinking")})
            if block.get("signature"):
                waiting.say({"type": "signature_delta", "signature": _text(block, "signature")})
                waiting.sealed = True  # what is thought now is another block
        text = reasoning_of(delta)
        if text and not blocks and self._shows_reasoning:
            self._last("thinking").say({"type": "thinking_delta", "thinking": text})

    def _last(self, kind: str) -> _Block:
        """The block of this kind that is being written, or a new one."""
        if not self._queue or self._queue[-1].kind != kind or self._queue[-1].sealed:
            self._queue.append(_Block(kind, dict(_EMPTY[kind])))
        return self._queue[-1]

    def _call(self, call: Document) -> None:
        function = call.get("function") or {}
        if not isinstance(function, dict):
            raise odd("a call in its stream is not one of a function")
        given, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
        block = self._called(call.get("index"), given, starts=bool(name))
        if block.start is None and isinstance(name, str) and name:
            block.start = {"type": "tool_use", "id": block.identity, "name": name, "input": {}}
        if isinstance(arguments, dict):
            arguments = lenient.text(arguments)
        if arguments is not None and not isinstance(arguments, str):
            raise odd("the arguments of a call in its stream are not a string")
        if arguments and block.closed and arguments.strip():
            raise odd("a call in its stream goes on after its end")
        if arguments and not block.closed:
            block.arguments.append(arguments)
            block.say({"type": "input_json_delta", "partial_json": arguments})

    def _called(self, index: Any, given: Any, *, starts: bool) -> _Block:
        """The call that is meant. Some servers number none, or all 0: there a new id and name begin a new one."""
        key = index if isinstance(index, int) else None
        block = self._calls.get(key)
        named = isinstance(given, str) and bool(given)
        if block is None or (starts and named and block.given and block.given != given):
            block = _Block("tool", None)
            block.given = given if named else ""
            block.identity = block.given or f"toolu_{self._id}_{len(self._calls)}"
            if key in self._calls:
                self._calls[object()] = self._calls[key]
            self._calls[key] = block
            self._queue.append(block)
        return block

    def _advance(self, *, last: bool = False) -> bytes:
        """What can be written now; at the `last` all."""
        written = []
        while self._queue:
            block = self._queue[0]
            written += block.written(self._index)
            if not (last or (len(self._queue) > 1 and block.complete())):
                break
            if last:
                block.check(cut=self._choice.get("finish_reason") == "length")
            written.append(_event({"type": "content_block_stop", "index": self._index}))
            block.closed = True
            self._queue.pop(0)
            self._index += 1
        return b"".join(written)


_EMPTY: Mapping[str, Document] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class _Block:
    """One block on its way: how it starts (None: not yet known), and what waits to be written of it."""

    def __init__(self, kind: str, start: Document | None) -> None:
        self.kind = kind
        self.start = start
        self.given = ""
        self.identity = ""
        self.arguments: list[str] = []
        self.sealed = False
        self.closed = False
        self._started = False
        self._waiting: list[Document] = []

    def say(self, delta: Document) -> None:
        """Add to what waits."""
        self._waiting.append(delta)

    def written(self, index: int) -> list[bytes]:
        """The events of what waited."""
        if self.start is None:
            return []
        events = []
        if not self._started:
            self._started = True
            events.append(_event({"type": "content_block_start", "index": index, "content_block": self.start}))
        waited, self._waiting = self._waiting, []
        return events + [_event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in waited]

    def complete(self) -> bool:
        """Whether nothing can follow: of a call, once its arguments are a whole object."""
        if self.kind != "tool":
            return True
        if self.start is None or not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            read_arguments("".join(self.arguments), cut=False)
        except UpstreamFailed:
            return False
        return True

    def check(self, *, cut: bool) -> None:
        """Raise `UpstreamFailed` for a call that is none: nameless, or with arguments that are no object."""
        if self.kind != "tool":
            return
        if self.start is None:
            raise odd("a call in its stream has no name")
        read_arguments("".join(self.arguments), cut=cut)


def _event(document: Document) -> bytes:
    return sse.event(document, document["type"])
