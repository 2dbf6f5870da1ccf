"""A stream that broke off after its first byte, continued on the next deployment as if nothing had happened.

Only text can be continued: what was begun of a tool's arguments, of reasoning or of several choices cannot, and its
stream ends with an error event. A deployment that takes an assistant's beginning is given what was said so far. Any
other is asked from the start, and has to say the same again before what follows is passed on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

from gateway.attempts import attempt
from gateway.dialects.dialect import Document, Encoder
from gateway.dialects.registry import CONVERSATIONS, DIALECTS
from gateway.dialects.responses_begun import Begun
from gateway.dialects.responses_encoder import resumed
from gateway.dialects.sse import Tally
from gateway.dialects.translation import Translator
from gateway.errors import UpstreamFailed
from gateway.fallback import Way
from gateway.routes import Task
from gateway.types import Answer, Attempt
from gateway.usage import Meter

log = logging.getLogger(__name__)

# Found by name on the class, a member of an enumeration costs a call.
_RESPONSES = Task.RESPONSES


class TextRescue:
    """Rescues one call's stream (`Rescue`). `way` is where the call may still go."""

    def __init__(self, way: Way, meter: Meter) -> None:
        self._way = way
        self._meter = meter
        self._call = way.call
        self._said = _Said()
        self._encoder: Encoder | None = None
        #: Of a stream of Responses that passed as it was.
        self._begun: Begun | None = None

    def watch(self, tally: Tally) -> None:
        """Hear what the first stream says (`Rescue.watch`)."""
        spoken, asked = self._call.attempt.task if self._call.attempt else Task.CHAT, self._call.request.task
        decoder = CONVERSATIONS[spoken].decoder()
        begun = self._begun = Begun() if spoken is asked is _RESPONSES else None

        def hear(document: Document) -> None:
            self._said.hear(decoder.feed(document))
            if begun is not None:
                begun.hear(document)

        tally.witness = hear
        if isinstance(tally.through, Translator):
            self._encoder = tally.through.encoder

    async def continued(self, error: UpstreamFailed, tally: Tally) -> tuple[AsyncGenerator[bytes, None], Tally] | None:
        """The next attempt's stream (`Rescue.continued`)."""
        call, broken = self._call, self._call.attempt
        plain = self._said.plain and (self._begun is None or self._begun.plain)
        if broken is None or not plain or tally.finished:
            return None
        broken.end(broken=True)
        while (step := await self._way.next()) is not None:
            route, deployment = step
            one = Attempt(deployment, call.request.task)
            known = self._begin(one)
            try:
                refused = await self._way.reserve(route, one)
                outcome = refused or await attempt(self._way.router, call, route, one, self._way.begin)
            except BaseException:  # the caller leaves while we wait: the call is settled as the stream that broke
                self._meter.left(call, one)
                raise
            if not isinstance(outcome, Answer):
                self._way.failed(outcome)
                self._meter.failed(call, one, outcome.outcome)
            elif outcome.chunks is None:
                one.end()
                self._meter.failed(call, one, outcome)
                log.warning("%s: %s cannot go on: HTTP %d", call.request.id, deployment.id, outcome.status)
            else:
                log.warning("%s: %s goes on for %s", call.request.id, deployment.id, broken.deployment.id)
                self._meter.broken(call, broken, tally, error)
                call.attempt = one
                return outcome.chunks, self._tally(one, known)
        return None

    def _begin(self, one: Attempt) -> str:
        """Have `one` asked to go on, where its provider can; what it will say again first."""
        said, asked = self._said.text, self._call.request
        # A beginning that ends in a space is refused by Anthropic.
        beginning = said.rstrip()
        given = self._way.router.provider(one.deployment).prefill(one.deployment.model)
        if given is None or not beginning:
            return said
        one.body = {**_with_beginning(asked.task, asked.body, beginning), **given}
        cap, _, param = DIALECTS[asked.task].output(asked.body)
        if cap is not None:
            one.body[param] = max(1, cap - self._said.tokens)
        return said[len(beginning) :]

    def _tally(self, one: Attempt, known: str) -> Tally:
        asked = self._call.request
        if self._encoder is None and self._begun is not None:
            self._encoder = resumed(asked.body, self._begun, self._said.text)
        if self._encoder is None:
            self._encoder = CONVERSATIONS[asked.task].encoder(asked.body)
            self._encoder.feed(self._said.beginning())  # it has been sent; the encoder has to know
        through = _Continuation(one.task, self._encoder, self._said, known, prefilled=one.body is not None)
        return DIALECTS[one.task].tally(asked.body, through)


class _Said:
    """What the caller has been told so far, as long as it is `plain`: text of one choice."""

    def __init__(self) -> None:
        self.plain = True
        self.head: Document = {}
        #: Pieces it came in: a token or more each.
        self.tokens = 0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def hear(self, chunks: Iterable[Document]) -> None:
        """Note what `chunks` tell the caller."""
        for chunk in chunks:
            self.head = self.head or {name: chunk[name] for name in _HEAD if name in chunk}
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                self.plain = self.plain and not choice.get("index") and _is_text(delta)
                if self.plain:
                    self.add(delta.get("content") or "")

    def add(self, text: str) -> None:
        """More text."""
        if text:
            self._parts.append(text)
            self.tokens += 1

    def beginning(self) -> Document:
        """All of it as one chunk."""
        delta = {"role": "assistant", "content": self.text}
        return {**self.head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class _Continuation:
    """A new stream as the rest of the old one (`Through`). `known` has to be said again first, and is left out."""

    def __init__(self, spoken: Task, encoder: Encoder, said: _Said, known: str, *, prefilled: bool) -> None:
        self._decoder = CONVERSATIONS[spoken].decoder()
        self._encoder = encoder
        self._said = said
        self._known = known
        self._earlier = said.tokens if prefilled else 0

    def feed(self, document: Document) -> bytes:
        """The caller's events for one of the new upstream's. Raises `UpstreamFailed` where it says something else."""
        return b"".join([self._encoder.feed(self._rest_of(chunk)) for chunk in self._decoder.feed(document)])

    def end(self) -> bytes:
        """The end of the caller's stream."""
        return self._encoder.end()

    def _rest_of(self, chunk: Document) -> Document:
        rest = {**chunk, **self._said.head, "choices": [self._choice(one) for one in chunk.get("choices") or ()]}
        if self._earlier and isinstance(usage := chunk.get("usage"), dict):
            more = {name: usage[name] + self._earlier for name in _WRITTEN if isinstance(usage.get(name), int)}
            rest["usage"] = {**usage, **more}
        return rest

    def _choice(self, choice: Document) -> Document:
        delta = {name: value for name, value in (choice.get("delta") or {}).items() if name != "role"}
        plain = _is_text(delta) and not choice.get("index")
        text = delta.get("content") or ""
        if self._known:
            again = min(len(text), len(self._known)) if plain else 0
            ended = choice.get("finish_reason") and again < len(self._known)
            if not plain or ended or text[:again] != self._known[:again]:
                raise UpstreamFailed("The answer could not be continued: the next provider says something else.")
            self._known, delta["content"] = self._known[again:], text[again:]
        self._said.plain = self._said.plain and plain
        if plain:
            self._said.add(delta.get("content") or "")
        return {**choice, "delta": delta}


#: What counts an answer's tokens in `usage`.
_WRITTEN = ("completion_tokens", "total_tokens")


def _is_text(delta: Mapping[str, Any]) -> bool:
    """Whether a delta holds text and nothing else that another model could not go on from."""
    said = {name for name, value in delta.items() if value}
    return said <= {"role", "content"} and isinstance(delta.get("content") or "", str)


def _with_beginning(task: Task, body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The request with what the assistant has said so far as its last words."""
    beginning = {"role": "assistant", "content": text}
    if task is _RESPONSES:
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
        return {**body, "input": [*items, beginning]}
    return {**body, "messages": [*body.get("messages", ()), beginning]}
