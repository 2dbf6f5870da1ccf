"""Anthropic's Messages.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects import lenient, messages_answer, messages_request, sse, stored
from gateway.dialects.dialect import Document, Losses, Output
from gateway.dialects.messages_stream import Decoder, Encoder
from gateway.dialects.messages_tally import MessagesTally
from gateway.dialects.messages_words import tokens
from gateway.dialects.numbers import positive
from gateway.dialects.sse import Through
from gateway.errors import BadRequest, GatewayError, to_openai
from gateway.money import Tokens

#: https://platform.claude.com/docs/en/api/errors
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_CHAT_TYPES = {
    "overloaded_error": "server_error",
    "api_error": "server_error",
    "timeout_error": "server_error",
    "not_found_error": "invalid_request_error",
    "request_too_large": "invalid_request_error",
}
#: How Anthropic says that a prompt does not fit; OpenAI has a code for it.
_TOO_LONG = ("prompt is too long", "exceed context limit")


class MessagesDialect:
    """Anthropic's Messages (`Conversation`)."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what is no conversation (`Dialect.check`)."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("'messages' must be a list of at least one message.", param="messages")
        for number, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise BadRequest("A message must be an object with a 'role'.", param=f"messages[{number}]")
        stored.check_messages(body)

    def output(self, body: Mapping[str, Any]) -> Output:
        """Its `max_tokens`, which Anthropic wants said, and one answer (`Dialect.output`)."""
        return Output(positive(body, "max_tokens"), 1)

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """With `cap` where the caller set none or a higher one (`Dialect.prepare`). Usage comes unasked."""
        prepared = dict(body)
        if cap is not None:
            prepared["max_tokens"] = min(cap, positive(body, "max_tokens") or cap)
        return prepared

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """The tokens a whole answer states (`Dialect.usage`)."""
        usage = document.get("usage")
        return tokens(usage) if isinstance(usage, dict) else None

    def tally(self, body: Mapping[str, Any], through: Through | None) -> MessagesTally:
        """Reads Anthropic's events (`Dialect.tally`)."""
        return MessagesTally(through)

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """Anthropic's error, with our `code` and `param` beside its own words (`Dialect.refusal`)."""
        status, headers, _ = to_openai(error)
        return status, headers, orjson.dumps(_error(error.message, status, error.param, error.code))

    def broken_off(self, error: GatewayError) -> bytes:
        """An event the official client raises as an error (`Dialect.broken_off`)."""
        return sse.event(_error(error.message, error.status, error.param, error.code), "error")

    def to_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """A chat request (`Dialect.to_chat`)."""
        return messages_request.to_chat(body, losses)

    def from_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """A request for one of Anthropic's models, `body["model"]` (`Dialect.from_chat`)."""
        return messages_request.from_chat(body, losses)

    def answer_to_chat(self, document: Mapping[str, Any]) -> Document:
        """A chat completion (`Dialect.answer_to_chat`)."""
        return messages_answer.to_chat(document)

    def answer_from_chat(self, document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
        """A message (`Dialect.answer_from_chat`)."""
        return messages_answer.from_chat(document, body)

    def decoder(self) -> Decoder:
        """Reads events (`Dialect.decoder`)."""
        return Decoder()

    def encoder(self, body: Mapping[str, Any]) -> Encoder:
        """Writes events (`Dialect.encoder`)."""
        return Encoder(body)

    def refused_to_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """OpenAI's error, its `code` Anthropic's type of error (`Dialect.refused_to_chat`)."""
        error = document.get("error")
        given = error.get("type") if isinstance(error, dict) else None
        code = given if isinstance(given, str) else _type(status)
        message = sse.said(error or document)
        kind = _CHAT_TYPES.get(code, code)
        if any(words in message.lower() for words in _TOO_LONG):
            code = "context_length_exceeded"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def refused_from_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """Anthropic's error, with OpenAI's `code` and `param` beside its own words (`Dialect.refused_from_chat`)."""
        error = document.get("error")
        details = error if isinstance(error, dict) else {}
        return _error(sse.said(error or document), status, details.get("param"), details.get("code"))


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def _error(message: str, status: int, param: Any, code: Any) -> Document:
    if isinstance(param, str) and param and param not in message:
        message = f"{lenient.said(param)}: {message}"
    error: Document = {"type": _type(status), "message": message}
    error |= {name: lenient.said(value) for name, value in (("param", param), ("code", code)) if value is not None}
    return {"type": "error", "error": error}
