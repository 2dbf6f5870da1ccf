"""OpenAI's chat completions: the pivot through which every other dialect is translated.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.dialects import sse, stored
from gateway.dialects.chat_tally import DONE, ChatTally, read_usage
from gateway.dialects.dialect import Document, Losses, Output
from gateway.dialects.numbers import positive
from gateway.dialects.sse import Through
from gateway.errors import BadRequest, GatewayError, to_openai
from gateway.money import Tokens

#: What OpenAI calls, and has called, the caller's own cap on an answer's tokens. Upstreams differ in which they obey.
_CAPS = ("max_completion_tokens", "max_tokens")
#: How many answers a caller asks for.
_ANSWERS = ("n", "best_of")
#: What the pivot carries for other dialects, and chat itself has no word for.
_FOREIGN_PART = ("thinking_blocks", "cache_control")
_FOREIGN = ("top_k", "thinking")
_ELSEWHERE = "it means something to other providers only."


class ChatDialect:
    """Chat completions."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what is no conversation (`Dialect.check`)."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("'messages' must be a list of at least one message.", param="messages")
        for number, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise BadRequest("A message must be an object with a 'role'.", param=f"messages[{number}]")
        stored.check_chat(messages)
        _check_options(body)

    def output(self, body: Mapping[str, Any]) -> Output:
        """The larger of its two caps, since upstreams differ in which they obey (`Dialect.output`)."""
        cap, param, answers = None, _CAPS[1], 1
        for name in _CAPS:
            if name in body and (asked := positive(body, name)) is not None and (cap is None or asked > cap):
                cap, param = asked, name
        for name in _ANSWERS:
            if name in body:
                answers = max(answers, positive(body, name) or 1)
        return Output(cap, answers, param)

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """With usage asked for on a stream, and `cap` where the caller set none or a higher one (`Dialect.prepare`)."""
        prepared = dict(body)
        if stream:
            prepared["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        if cap is not None:
            asked = {name: value for name in _CAPS if (value := positive(body, name)) is not None}
            prepared |= {name: min(value, cap) for name, value in asked.items()} or {"max_tokens": cap}
        return prepared

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """The tokens a whole answer states (`Dialect.usage`)."""
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return None
        found = read_usage(usage)
        found.tier = sse.served(document)
        return found

    def tally(self, body: Mapping[str, Any], through: Through | None) -> ChatTally:
        """Reads chunks; the usage event is for callers who asked for it (`Dialect.tally`)."""
        return ChatTally(through, hide_usage=not wants_usage(body))

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """OpenAI's error (`Dialect.refusal`)."""
        return to_openai(error)

    def broken_off(self, error: GatewayError) -> bytes:
        """An event the official client raises as `APIError`, and no `[DONE]` (`Dialect.broken_off`)."""
        return b"data: " + to_openai(error)[2] + b"\n\n"

    def to_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """The request itself: nothing of it can be lost on the pivot (`Dialect.to_chat`)."""
        return dict(body)

    def from_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """A request from the pivot as any server that speaks chat understands it (`Dialect.from_chat`)."""
        said = dict(body)
        for name in _FOREIGN:
            if said.pop(name, None) is not None:
                losses.lose(name, _ELSEWHERE)
        messages = said.get("messages")
        if isinstance(messages, list):
            said["messages"] = [_plain_message(one, losses) for one in messages]
        tools = said.get("tools")
        if isinstance(tools, list):
            said["tools"] = [_plain(one, losses) for one in tools]
        return said

    def answer_to_chat(self, document: Mapping[str, Any]) -> Document:
        """The answer itself (`Dialect.answer_to_chat`)."""
        return dict(document)

    def answer_from_chat(self, document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
        """The answer itself (`Dialect.answer_from_chat`)."""
        return dict(document)

    def decoder(self) -> _Same:
        """Every event is a chunk already (`Dialect.decoder`)."""
        return _Same()

    def encoder(self, body: Mapping[str, Any]) -> _Encoder:
        """Writes chunks as OpenAI does (`Dialect.encoder`)."""
        return _Encoder(wants_usage(body))

    def refused_to_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """The error itself (`Dialect.refused_to_chat`)."""
        return dict(document)

    def refused_from_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """The error itself (`Dialect.refused_from_chat`)."""
        return dict(document)


class CompletionsDialect(ChatDialect):
    """The older completions, which nothing is translated into or from."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what has no prompt (`Dialect.check`)."""
        if not isinstance(body.get("prompt"), str | list):
            raise BadRequest("'prompt' must be a string or a list.", param="prompt")
        _check_options(body)

    def output(self, body: Mapping[str, Any]) -> Output:
        """As chat's, for each prompt: a list of tokens is one (`Dialect.output`)."""
        cap, answers, param = super().output(body)
        prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            answers *= len(prompt)
        return Output(cap, answers, param)


class _Same:
    """A stream of chunks as it is."""

    def feed(self, document: Document) -> Iterable[Document]:
        """The chunk."""
        return (document,)


class _Encoder:
    """Chunks as server-sent events; the one that carries usage alone only for callers who asked for it."""

    def __init__(self, usage: bool) -> None:
        self._usage = usage

    def feed(self, chunk: Document) -> bytes:
        """One event. Thinking with its signatures stays in: its caller has to send it back."""
        return sse.event(chunk) if self._usage or chunk.get("choices") else b""

    def end(self) -> bytes:
        """OpenAI's end."""
        return DONE


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the caller of a stream asked for the chunk that carries usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _check_options(body: Mapping[str, Any]) -> None:
    if "stream_options" in body and not isinstance(body["stream_options"] or {}, dict):
        raise BadRequest("'stream_options' must be an object.", param="stream_options")


def _plain_message(message: Any, losses: Losses) -> Any:
    """A message without the pivot's own words. Unsigned reasoning goes up in the form that servers of chat know."""
    if not isinstance(message, dict):
        return message
    if isinstance(content := message.get("content"), list):
        message = {**message, "content": [_plain(part, losses) for part in content]}
    if any(map(_signed, message.get("thinking_blocks") or ())):
        losses.lose("thinking", "only the provider that signed it can read it.")
        message = {name: value for name, value in message.items() if name != "reasoning_content"}
    return _plain(message, losses)


def _signed(block: Any) -> bool:
    return isinstance(block, dict) and (block.get("type") == "redacted_thinking" or bool(block.get("signature")))


def _plain(value: Any, losses: Losses) -> Any:
    """An object without the pivot's own words; marks of a cache are lost by name."""
    if not isinstance(value, dict) or not any(name in value for name in _FOREIGN_PART):
        return value
    if value.get("cache_control") is not None:
        losses.lose("cache_control", "it decides by itself what it caches.")
    return {name: part for name, part in value.items() if name not in _FOREIGN_PART}
