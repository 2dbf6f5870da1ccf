"""Tasks that are no conversation, one dialect each: what passes goes through as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.dialects.dialect import Document, Output
from gateway.dialects.plain_tally import EventsTally, read_tokens
from gateway.dialects.sse import Through
from gateway.errors import BadRequest, GatewayError, to_openai
from gateway.money import Tokens
from gateway.routes import Task

#: Tasks whose answers need not be JSON, nor their streams events: audio, or text in a form the caller chose.
NOT_JSON = frozenset((Task.SPEECH, Task.TRANSCRIPTIONS))


class Need(NamedTuple):
    """A field that a request has to hold: its name, its kinds, and what these are called."""

    field: str
    kinds: tuple[type, ...]
    called: str


class PlainDialect:
    """A task whose request has to hold `needs`, and whose answer is not written in tokens we could cap."""

    def __init__(self, *needs: Need) -> None:
        self._needs = needs

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what has nothing to work on (`Dialect.check`)."""
        for need in self._needs:
            if not isinstance(body.get(need.field), need.kinds):
                raise BadRequest(f"'{need.field}' must be {need.called}.", param=need.field)

    def output(self, body: Mapping[str, Any]) -> Output:
        """No tokens (`Dialect.output`)."""
        return Output(0, 1)

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """The request as it is (`Dialect.prepare`)."""
        return dict(body)

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """The tokens an answer states, by whichever of their names (`Dialect.usage`)."""
        return read_tokens(document)

    def tally(self, body: Mapping[str, Any], through: Through | None) -> EventsTally:
        """Reads events named by their `type` (`Dialect.tally`)."""
        return EventsTally(through)

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """OpenAI's error (`Dialect.refusal`)."""
        return to_openai(error)

    def broken_off(self, error: GatewayError) -> bytes:
        """OpenAI's error as an event (`Dialect.broken_off`)."""
        return b"data: " + to_openai(error)[2] + b"\n\n"


_TEXTS = (str, list)
#: Every plain task. A rerank asks as Cohere and Jina do: https://docs.cohere.com/reference/rerank
PLAIN: Mapping[Task, PlainDialect] = {
    Task.EMBEDDINGS: PlainDialect(Need("input", _TEXTS, "a string or a list")),
    Task.MODERATIONS: PlainDialect(Need("input", _TEXTS, "a string or a list")),
    Task.IMAGES: PlainDialect(Need("prompt", (str,), "a string")),
    Task.SPEECH: PlainDialect(Need("input", (str,), "a string")),
    Task.TRANSCRIPTIONS: PlainDialect(Need("file", (dict,), "a file: a part with a `filename`")),
    Task.RERANK: PlainDialect(
        Need("query", (str, dict), "a string or an object"), Need("documents", (list,), "a list")
    ),
}
