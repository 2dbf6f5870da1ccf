"""What a native stream of Anthropic's events says: read for usage and text as it passes."""

from __future__ import annotations

from typing import Any

from gateway.dialects import sse
from gateway.dialects.messages_words import tokens
from gateway.dialects.sse import Tally, Through
from gateway.errors import UpstreamFailed


class MessagesTally(Tally):
    """Reads Anthropic's events. None of them is only ours: it always says its usage."""

    __slots__ = ("_counted",)

    def __init__(self, through: Through | None = None) -> None:
        super().__init__(through)
        self._counted: dict[str, Any] = {}

    def _note(self, document: dict[str, Any]) -> bool:
        match document.get("type"):
            case "error":
                raise UpstreamFailed(f"The provider broke its stream off: {sse.said(document.get('error'))}")
            case "message_start":
                message = document.get("message")
                self._count(message.get("usage") if isinstance(message, dict) else None)
            case "content_block_start":
                self._say(document.get("content_block"), ("text", "thinking", "data", "name", "input"))
            case "content_block_delta":
                self._say(document.get("delta"), ("text", "thinking", "partial_json"))
            case "message_delta":
                self._count(document.get("usage"))
            case "message_stop":
                self.finished = self.done = True
        return False

    def _count(self, usage: Any) -> None:
        """Each count is the total so far; what is not said again stands."""
        if isinstance(usage, dict):
            self._counted |= {name: value for name, value in usage.items() if value is not None}
            self.usage = tokens(self._counted)

    def _say(self, holder: Any, names: tuple[str, ...]) -> None:
        if isinstance(holder, dict):
            self.say(*(holder.get(name) for name in names))
        # Its count of the output comes last. Should it be cut before: each piece was a token or more, of four bytes.
        if self.usage is not None:
            self.usage.output = max(self.usage.output, self.pieces, self.written // 4)
