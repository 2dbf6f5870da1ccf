"""A Responses stream that broke off, as far as another can go on with it under the same names and numbers."""

from __future__ import annotations

from gateway.dialects.dialect import Document


class Begun:
    """What a caller has had of a stream that passed as its upstream sent it.

    `plain`: one message in one part of text, which has not ended. `number` is that of the next event, `response` the
    answer as it began; `item` and `part` are the message and its text, once they were begun.
    """

    def __init__(self) -> None:
        self.plain = True
        self.number = 0
        self.response: Document = {}
        self.item: Document | None = None
        self.part: Document | None = None

    def hear(self, event: Document) -> None:
        """Note one event."""
        number = event.get("sequence_number")
        self.number = (number if isinstance(number, int) else self.number) + 1
        kind = event.get("type")
        if kind in ("response.created", "response.in_progress", "response.queued"):
            response = event.get("response")
            self.response = response if isinstance(response, dict) else self.response
        elif kind == "response.output_item.added":
            self.item = self._only(self.item, event, "output_index", "item", "message")
        elif kind == "response.content_part.added":
            self.part = self._only(self.part, event, "content_index", "part", "output_text")
        elif kind != "response.output_text.delta" or self.part is None:
            self.plain = False

    def _only(self, known: Document | None, event: Document, at: str, name: str, of: str) -> Document | None:
        found = event.get(name)
        if known is not None or event.get(at) != 0 or not isinstance(found, dict) or found.get("type") != of:
            self.plain = False
            return known
        return found
