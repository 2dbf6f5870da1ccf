"""From one dialect of a conversation into another, through chat: requests, answers, streams and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import lenient
from gateway.dialects.dialect import Decoder, Document, Encoder, Losses
from gateway.dialects.registry import CONVERSATIONS
from gateway.routes import Task


def request(body: Mapping[str, Any], spoken: Task, upstream: Task, losses: Losses) -> Document:
    """`body`, in the dialect `spoken` by the caller, as the `upstream`'s. Raises `BadRequest` for what has no words."""
    return CONVERSATIONS[upstream].from_chat(CONVERSATIONS[spoken].to_chat(body, losses), losses)


def answer(document: Mapping[str, Any], spoken: Task, upstream: Task, body: Mapping[str, Any]) -> bytes:
    """The `upstream`'s whole answer as one to `body`, the caller's request. Raises `UpstreamFailed` for no answer."""
    chat = CONVERSATIONS[upstream].answer_to_chat(document)
    return lenient.dumps(CONVERSATIONS[spoken].answer_from_chat(chat, body))


def refused(document: Mapping[str, Any], spoken: Task, upstream: Task, status: int) -> bytes:
    """The `upstream`'s error body as the caller's. Tasks that are no conversation have OpenAI's, but for one."""
    chat = CONVERSATIONS[upstream].refused_to_chat(document, status)
    spoken = Task.MESSAGES if spoken is Task.COUNT_TOKENS else spoken
    return lenient.dumps(CONVERSATIONS[spoken].refused_from_chat(chat, status) if spoken in CONVERSATIONS else chat)


class Translator:
    """One stream on its way from the `upstream`'s dialect to the one `spoken` by the caller (`sse.Through`)."""

    def __init__(self, body: Mapping[str, Any], spoken: Task, upstream: Task) -> None:
        self._decoder: Decoder = CONVERSATIONS[upstream].decoder()
        self.encoder: Encoder = CONVERSATIONS[spoken].encoder(body)

    def feed(self, document: Document) -> bytes:
        """One of the upstream's events as the caller's."""
        return b"".join([self.encoder.feed(chunk) for chunk in self._decoder.feed(document)])

    def end(self) -> bytes:
        """The end of the caller's stream."""
        return self.encoder.end()
