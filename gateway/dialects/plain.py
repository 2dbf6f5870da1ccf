"""Tasks that are no conversation, one dialect each: what passes goes through as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import sse
from gateway.dialects.chat_tally import ChatTally, read_usage
from gateway.dialects.dialect import Document, Output
from gateway.dialects.sse import Through
from gateway.errors import BadRequest, GatewayError, to_openai
from gateway.money import Tokens


class PlainDialect:
    """A task whose request has to hold `field`, of one of `kinds`, and whose answer has no tokens of its own."""

    def __init__(self, field: str, kinds: tuple[type, ...], called: str) -> None:
        self._field = field
        self._kinds = kinds
        self._called = called

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what has nothing to work on (`Dialect.check`)."""
        if not isinstance(body.get(self._field), self._kinds):
            raise BadRequest(f"'{self._field}' must be {self._called}.", param=self._field)

    def output(self, body: Mapping[str, Any]) -> Output:
        """No tokens (`Dialect.output`)."""
        return Output(0, 1)

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """The request as it is (`Dialect.prepare`)."""
        return dict(body)

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """OpenAI's `usage`, under either of its names for a token in (`Dialect.usage`)."""
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return None
        found = read_usage(usage)
        found.input = found.input or sse.count(usage, "input_tokens")
        found.output = found.output or sse.count(usage, "output_tokens")
        return found

    def tally(self, body: Mapping[str, Any], through: Through | None) -> ChatTally:
        """Reads what streams there are as chat's (`Dialect.tally`)."""
        return ChatTally(through)

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """OpenAI's error (`Dialect.refusal`)."""
        return to_openai(error)

    def broken_off(self, error: GatewayError) -> bytes:
        """OpenAI's error as an event (`Dialect.broken_off`)."""
        return b"data: " + to_openai(error)[2] + b"\n\n"


EMBEDDINGS = PlainDialect("input", (str, list), "a string or a list")
