"""A provider without a model: it answers at once, or as a script says. For tests, ours and our users'.

It speaks every dialect there is, or those it is told to. Unscripted it echoes: the same request always gets the same
answer. A script makes it slow, wrong or absent, one step a call:

    providers:
      flaky:
        type: fake
        cycle: true
        script:
          - {error: {status: 429, message: slow down, retry_after: 2}}
          - {answer: Hello there, delay: 0.2, pause: 0.05}
          - {chunks: [Hel, lo], cut: 1}

`FakeStep` describes every key of a step. A word is a token here, in prompts and answers.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

import orjson

from gateway.dialects import translation
from gateway.dialects.dialect import Encoder, Losses
from gateway.dialects.registry import CONVERSATIONS
from gateway.errors import BadRequest, UpstreamFailed
from gateway.providers import fake_tasks
from gateway.providers.fake_answers import Malformed, Reply, embeddings, reply_to
from gateway.providers.fake_script import FakeScript, FakeStep
from gateway.providers.http import checked
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

_DIALECTS = {
    "chat": Task.CHAT,
    "completions": Task.COMPLETIONS,
    "embeddings": Task.EMBEDDINGS,
    "messages": Task.MESSAGES,
    "responses": Task.RESPONSES,
}
_ECHO = FakeStep.model_validate({})
_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream; charset=utf-8"}
_HTML = b"<html><head><title>503</title></head><body><h1>503 Service Unavailable</h1></body></html>\n"


class FakeProvider:
    """Answers without a model. One object counts its script's steps over all its callers."""

    secrets: Sequence[str] = ()

    def __init__(self, spec: ProviderSpec) -> None:
        self.name = spec.name
        script = FakeScript.model_validate(dict(spec.options))
        self._steps = script.script or [_ECHO]
        self._cycle = script.cycle
        self._prefill = script.prefill
        self._spoken = frozenset(_DIALECTS[name] for name in script.dialects or _DIALECTS)
        self._calls = itertools.count()

    def speaks(self, task: Task, model: str) -> bool:
        """Every task, of a conversation the dialects its configuration names (`Provider.speaks`)."""
        return task in self._spoken or task in fake_tasks.TASKS

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """As its configuration says (`Provider.prefill`)."""
        return {} if self._prefill else None

    async def start(self) -> None:
        """Nothing to begin."""

    async def close(self) -> None:
        """Nothing to release."""

    def status(self) -> str:
        """Always ready."""
        return "ready"

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer one attempt as the script's next step says; what no client could read fails, as anyone's would."""
        return await checked(await self._answer(request), self.name, request.task)

    async def _answer(self, request: UpstreamRequest) -> Answer:
        number = next(self._calls)
        step = self._steps[number % len(self._steps) if self._cycle else min(number, len(self._steps) - 1)]
        if step.delay:
            await asyncio.sleep(step.delay)
        fixed = _fixed(step, request)
        if fixed is not None:
            return fixed
        try:
            if request.task in fake_tasks.TASKS:
                return await _told(fake_tasks.told(request), step, stream=request.stream)
            if request.task is Task.EMBEDDINGS:
                return await _whole(embeddings(request, step), step)
            reply = _reply(request, step, f"fake-{number}")
        except (Malformed, BadRequest) as error:
            return _error(request.task, 400, str(error), "invalid_request_error", "invalid_request")
        spoken = CONVERSATIONS.get(request.task, CONVERSATIONS[Task.CHAT])
        if request.stream:
            return Answer(200, dict(_SSE), chunks=_stream(reply, step, spoken.encoder(request.document)))
        return await _whole(spoken.answer_from_chat(reply.whole(), request.document), step)


def _reply(request: UpstreamRequest, step: FakeStep, number: str) -> Reply:
    """What the step answers to `request`, thought of as chat. Raises `Malformed` or `BadRequest`."""
    if request.task in (Task.CHAT, Task.COMPLETIONS):
        return reply_to(request.document, request, step, number)
    body = CONVERSATIONS[request.task].to_chat(request.document, Losses(drop=True))
    # Those other dialects say their usage unasked.
    return reply_to({**body, "stream_options": {"include_usage": True}}, request, step, number)


async def _whole(body: dict[str, Any], step: FakeStep) -> Answer:
    """The answer in one piece, unless the step breaks it."""
    if step.stall is not None:
        await asyncio.Event().wait()
    if step.cut is not None or step.truncate is not None:
        raise UpstreamFailed("the fake provider broke the connection, as its script says")
    raw = orjson.dumps(body)
    return Answer(200, dict(_JSON), raw[: len(raw) // 2] if step.garbage else raw)


async def _stream(reply: Reply, step: FakeStep, encoder: Encoder) -> AsyncGenerator[bytes, None]:
    """The events of `reply`, broken off, slowed or cut up as the step says."""
    sent = 0
    ends = step.truncate if step.truncate is not None else math.inf
    for chunk in reply.pieces():
        if sent >= ends:
            return
        await _disturb(step, sent)
        for part in _split(encoder.feed(chunk), step.split):
            yield part
        sent += 1
    await _disturb(step, sent)
    # A step that says more chunks than there are still breaks the stream, before its end.
    if step.cut is not None or step.stall is not None:
        await _disturb(step, max(step.cut or 0, step.stall or 0))
    if step.truncate is not None:
        return
    ending = [*map(encoder.feed, reply.ending()), encoder.end()]
    for events in filter(None, ending):
        if step.garbage:
            yield events[: events.index(b"\n\n") // 2]
            return
        for part in _split(events, step.split):
            yield part


async def _disturb(step: FakeStep, sent: int) -> None:
    """What the step says happens once `sent` pieces are out."""
    if step.cut is not None and sent >= step.cut:
        raise UpstreamFailed("the fake provider broke the connection, as its script says")
    if step.stall is not None and sent >= step.stall:
        await asyncio.Event().wait()
    if step.pause and sent:
        await asyncio.sleep(step.pause)


def _split(events: bytes, size: int | None) -> Iterator[bytes]:
    for start in range(0, len(events), size or len(events)):
        yield events[start : start + (size or len(events))]


def _fixed(step: FakeStep, request: UpstreamRequest) -> Answer | None:
    """The answer of a step that does not look at the request."""
    if step.error is not None:
        wrong = step.error
        return _error(request.task, wrong.status, wrong.message, wrong.type, wrong.code, wrong.retry_after)
    if step.html:
        return Answer(503, {"content-type": "text/html; charset=utf-8"}, _HTML)
    if step.raw is None:
        return None
    body = step.raw.encode()
    headers = {"content-type": step.content_type or (_SSE if request.stream else _JSON)["content-type"]}
    if not request.stream or step.status >= 400:
        return Answer(step.status, headers, body)
    return Answer(step.status, headers, chunks=_raw(body, step.split))


async def _raw(body: bytes, size: int | None) -> AsyncGenerator[bytes, None]:
    for part in _split(body, size):
        yield part


def _error(
    task: Task, status: int, message: str, kind: str, code: str | None, retry_after: float | None = None
) -> Answer:
    headers = dict(_JSON)
    if retry_after is not None:
        headers["retry-after"] = f"{retry_after:g}"
    error = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Answer(status, headers, translation.refused(error, task, Task.CHAT, status))


async def _told(told: fake_tasks.Told, step: FakeStep, *, stream: bool) -> Answer:
    """An answer that is no conversation, whole or in its pieces, slowed or broken off as the step says."""
    if stream:
        return Answer(200, {"content-type": told.kind}, chunks=_pieces(told.pieces, step))
    answer = await _whole({}, step)
    body = answer.body if step.garbage else b"".join(told.pieces)
    return Answer(200, {"content-type": told.kind}, body)


async def _pieces(pieces: list[bytes], step: FakeStep) -> AsyncGenerator[bytes, None]:
    for sent, piece in enumerate(pieces):
        await _disturb(step, sent)
        yield piece
    # A step that says more pieces than there are breaks off before the end all the same.
    await _disturb(step, max(len(pieces), step.cut or 0, step.stall or 0))
