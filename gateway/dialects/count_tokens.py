"""Anthropic's counting of a conversation's input tokens, before it is asked.

https://platform.claude.com/docs/en/api/messages/count_tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dialect import Document, Output
from gateway.dialects.messages import MessagesDialect
from gateway.money import Tokens


class CountTokensDialect(MessagesDialect):
    """Asks as Messages do, and is answered `{"input_tokens": n}`. It uses no tokens."""

    def output(self, body: Mapping[str, Any]) -> Output:
        """None (`Dialect.output`)."""
        return Output(0, 1)

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """The request as it is: it has no `max_tokens` (`Dialect.prepare`)."""
        return dict(body)

    def usage(self, document: Mapping[str, Any]) -> Tokens:
        """None: what is counted was not used (`Dialect.usage`)."""
        return Tokens()
