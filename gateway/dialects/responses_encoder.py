"""Chat completion chunks as the events of a Responses stream, and a chat completion as a whole answer.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import responses_usage, sse
from gateway.dialects.dialect import Document
from gateway.dialects.reading import need_list, need_object, need_text
from gateway.dialects.responses_begun import Begun
from gateway.dialects.responses_fields import from_upstream, some, tail
from gateway.dialects.responses_items import Call, Item, Message, Reasoning
from gateway.errors import UpstreamFailed

#: What of a request an answer says again.
_ECHOED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "temperature", "top_p", "top_logprobs", "user"),
    *("safety_identifier", "prompt_cache_key", "service_tier"),
)
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole(document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
    """A chat completion as an answer to `body` (`Dialect.answer_from_chat`): what a stream of it would end with."""
    with from_upstream("answer"):
        choices = need_list(document.get("choices"), "choices")
        choice = need_object(choices[0] if choices else None, "choices[0]")
        message = need_object(choice.get("message"), "choices[0].message")
        calls = [
            {**need_object(call, f"choices[0].message.tool_calls[{at}]"), "index": at}
            for at, call in enumerate(need_list(message.get("tool_calls") or [], "choices[0].message.tool_calls"))
        ]
    encoder = Encoder(body)
    encoder.feed({**document, "choices": [{**choice, "index": 0, "delta": {**message, "tool_calls": calls}}]})
    encoder.end()
    return encoder.response


def resumed(body: Mapping[str, Any], begun: Begun, said: str) -> Encoder:
    """What goes on with a stream of which a caller has had `begun`, and in it `said`."""
    encoder = Encoder(body)
    encoder.go_on(begun, said)
    return encoder


class Encoder:
    """Writes one caller's stream (`dialect.Encoder`). `response` is the answer as far as it has come.

    Thought, text and calls are items in the order they come in. Chat may send calls a piece of each in turn: they
    stay open beside each other until the answer is finished.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._number = 0
        self._out = bytearray()
        self._items: list[Item] = []
        self._reasoning: Reasoning | None = None
        self._thought_at: Any = None
        self._message: Message | None = None
        self._calls: dict[int, _Call] = {}
        self._tail = ""
        self._finish = ""
        self.response: Document = {}

    def go_on(self, begun: Begun, said: str) -> None:
        """Take over where another stream broke off (`resumed`)."""
        if not begun.response:
            return
        self._number, self.response = begun.number, dict(begun.response)
        self._tail = tail(begun.response.get("id"))
        if begun.item is not None:
            self._message = Message.resumed(self._emit, begun.item, None if begun.part is None else said)
            self._items.append(self._message)

    def feed(self, chunk: Document) -> bytes:
        """The bytes of the events that `chunk` stands for. Raises `UpstreamFailed` for what is no chunk."""
        with from_upstream("stream"):
            if not self.response:
                if not (chunk.get("id") or chunk.get("choices")):
                    return b""  # Azure speaks of its filters first, in nobody's name
                self._begin(chunk)
            self.response |= some(chunk, "service_tier")
            if chunk.get("usage") is not None:
                self.response["usage"] = responses_usage.from_chat(chunk["usage"])
            for at, choice in enumerate(need_list(chunk.get("choices") or [], "choices")):
                if need_object(choice, f"choices[{at}]").get("index") in (
                    0,
                    None,
                ):  # nobody can ask here for a second one
                    self._read(choice)
        return self._taken()

    def end(self) -> bytes:
        """The end of every item still open, then the whole answer. Raises `UpstreamFailed` where nothing came."""
        if not self.response:
            raise UpstreamFailed("The provider's stream ended before it began.")
        self._close()
        reason = _INCOMPLETE.get(self._finish)
        status = "incomplete" if reason else "completed"
        self.response["status"] = status
        self.response["incomplete_details"] = {"reason": reason} if reason else None
        self.response["output"] = [item.item for item in self._items]
        self._emit(f"response.{status}", response=self.response)
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = bytes(self._out), bytearray()
        return out

    def _emit(self, kind: str, /, **fields: Any) -> None:
        self._out += sse.event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1

    def _begin(self, chunk: Document) -> None:
        self._tail = tail(chunk.get("id"))
        self.response = _response(self._body, chunk, self._tail)
        self._emit("response.created", response=self.response)
        self._emit("response.in_progress", response=self.response)

    def _read(self, choice: Document) -> None:
        delta = need_object(choice.get("delta") or {}, "choices[0].delta")
        self._think(delta)
        self._say(delta, choice)
        calls = need_list(delta.get("tool_calls") or [], "choices[0].delta.tool_calls")
        for at, call in enumerate(calls):
            self._call(need_object(call, f"choices[0].delta.tool_calls[{at}]"), f"choices[0].delta.tool_calls[{at}]")
        if choice.get("finish_reason"):
            self._finish = need_text(choice["finish_reason"], "choices[0].finish_reason")
            self._close()

    def _think(self, delta: Document) -> None:
        path = "choices[0].delta.thinking_blocks"
        blocks = need_list(delta.get("thinking_blocks") or [], path)
        for at, block in enumerate(blocks):
            block = need_object(block, f"{path}[{at}]")
            if self._reasoning is not None and block.get("index") != self._thought_at:
                self._hush()
            self._thought_at = block.get("index")
            if block.get("type") == "redacted_thinking":
                self._hush()
                self._thought().redact(need_text(block.get("data"), f"{path}[{at}].data"))
                self._hush()
            if block.get("thinking"):
                self._thought().think(need_text(block["thinking"], f"{path}[{at}].thinking"))
            if block.get("signature"):
                self._thought().seal(need_text(block["signature"], f"{path}[{at}].signature"))
                self._hush()  # what is thought after it is another thought
        said = delta.get("reasoning_content") or delta.get("reasoning")
        if said and not any(block.get("thinking") for block in blocks):
            self._thought().think(need_text(said, "choices[0].delta.reasoning_content"))

    def _say(self, delta: Document, choice: Document) -> None:
        found = choice.get("logprobs")
        logprobs = found.get("content") if isinstance(found, dict) else None
        content = delta.get("content")
        if content and isinstance(content, str):
            self._said().say(content, need_list(logprobs or [], "choices[0].logprobs.content"))
        elif content:
            for at, part in enumerate(need_list(content, "choices[0].delta.content")):
                path = f"choices[0].delta.content[{at}]"
                self._said().say(need_text(need_object(part, path).get("text"), f"{path}.text"), [])
        if delta.get("refusal"):
            self._said().refuse(need_text(delta["refusal"], "choices[0].delta.refusal"))
        for note in need_list(delta.get("annotations") or [], "choices[0].delta.annotations"):
            cited = need_object(note, "choices[0].delta.annotations").get("url_citation")
            self._said().annotate({"type": "url_citation", **cited} if isinstance(cited, dict) else note)

    def _call(self, delta: Document, path: str) -> None:
        index, id_ = delta.get("index"), delta.get("id")
        # Some servers leave the index out: an id begins a call, what has none goes on with the last.
        at = index if isinstance(index, int) else max(self._calls, default=-1) + (1 if id_ or not self._calls else 0)
        call = self._calls.get(at)
        custom = isinstance(delta.get("custom"), dict)
        inner = need_object(delta.get("custom" if custom else "function") or {}, f"{path}.function")
        name = need_text(inner.get("name") or "", f"{path}.function.name")
        # Others give every call the same index: another id with a name is another call.
        if call is None or (id_ and name and call.name and id_ != call.id):
            call = self._calls[at] = _Call(
                need_text(id_ or f"call_{self._tail}_{len(self._items)}", f"{path}.id"), custom
            )
        call.name = call.name or name
        call.waiting += need_text(inner.get("input" if custom else "arguments") or "", f"{path}.function.arguments")
        if call.item is None and call.name:
            self._hush()
            call.item = Call(self._emit, len(self._items), self._tail, call.id, call.name, custom=call.custom)
            self._items.append(call.item)
        if call.item is not None and call.waiting:
            call.item.add(call.waiting)
            call.waiting = ""

    def _thought(self) -> Reasoning:
        if self._reasoning is None:
            self._hush()
            self._reasoning = Reasoning(self._emit, len(self._items), self._tail)
            self._items.append(self._reasoning)
        return self._reasoning

    def _said(self) -> Message:
        if self._message is None:
            self._hush()
            self._message = Message(self._emit, len(self._items), self._tail)
            self._items.append(self._message)
        return self._message

    def _hush(self) -> None:
        """End what was being thought or said: something else follows."""
        for speaking in (self._reasoning, self._message):
            if speaking is not None:
                speaking.close("completed")
        self._reasoning = self._message = None

    def _close(self) -> None:
        if any(call.item is None for call in self._calls.values()):
            raise UpstreamFailed("The provider's answer calls a tool that it does not name.")
        for item in self._items:
            item.close("incomplete" if self._finish in _INCOMPLETE else "completed")
        self._reasoning = self._message = None


class _Call:
    """A call under way, which begins for the caller once its name is known."""

    __slots__ = ("custom", "id", "item", "name", "waiting")

    def __init__(self, id_: str, custom: bool) -> None:
        self.id = id_
        self.custom = custom
        self.name = ""
        self.waiting = ""
        self.item: Call | None = None


def _response(body: Mapping[str, Any], chunk: Mapping[str, Any], tail_: str) -> Document:
    """The answer before anything of it came. It says of the request what OpenAI's own says."""
    created, model = chunk.get("created"), chunk.get("model")
    asked = body.get("reasoning"), body.get("text")
    reasoning, shape = (said if isinstance(said, dict) else {} for said in asked)
    parallel = body.get("parallel_tool_calls")
    return {
        "id": f"resp_{tail_}",
        "object": "response",
        "created_at": created if isinstance(created, int | float) else 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        **{name: body.get(name) for name in _ECHOED},
        "metadata": body.get("metadata") or {},
        "model": model if model and isinstance(model, str) else body.get("model"),
        "output": [],
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": False,
        "text": {"format": {"type": "text"}, **shape},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "truncation": "disabled",
        "usage": None,
    }
