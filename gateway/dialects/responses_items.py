"""Output items of a Responses stream as they grow: each says the events of its own beginning, pieces and end."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.dialects.dialect import Document
from gateway.dialects.responses_input import REDACTED


class Emit(Protocol):
    """Sends one event."""

    def __call__(self, kind: str, /, **fields: Any) -> None: ...


def _nothing(kind: str, /, **fields: Any) -> None:
    """Sends no event: its caller has had it."""


class Item:
    """One item of the output. `item` is what it is so far; `at` is its place among all."""

    def __init__(self, emit: Emit, at: int, item: Document) -> None:
        self.item = item
        self._emit = emit
        self._at = at
        self._open = True
        # Joined once, at the end: a text that grows by each piece is copied at each.
        self._pieces: list[str] = []
        emit("response.output_item.added", output_index=at, item=item)

    def close(self, status: str) -> None:
        """End the item, once: what is said of it afterwards is the whole."""
        if self._open:
            self._open = False
            self._end(status)
            self._emit("response.output_item.done", output_index=self._at, item=self.item)

    def _end(self, status: str) -> None:
        self.item["status"] = status

    def _joined(self) -> str:
        """The pieces so far, which begin anew."""
        pieces, self._pieces = self._pieces, []
        return "".join(pieces)

    def _say(self, kind: str, **fields: Any) -> None:
        self._emit(kind, item_id=self.item["id"], output_index=self._at, **fields)


class Reasoning(Item):
    """What a model thought: shown as a summary, which is what clients show, and sealed by who can read it again.

    It has no status: OpenAI refuses one in the items that are sent back.
    """

    def __init__(self, emit: Emit, at: int, tail: str) -> None:
        super().__init__(emit, at, {"id": f"rs_{tail}_{at}", "type": "reasoning", "summary": []})

    def think(self, text: str) -> None:
        """More of the thought."""
        summary = self.item["summary"]
        if not summary:
            summary.append({"type": "summary_text", "text": ""})
            self._say("response.reasoning_summary_part.added", summary_index=0, part=summary[0])
        self._pieces.append(text)
        self._say("response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def seal(self, signature: str) -> None:
        """What proves the thought to the provider that thought it."""
        self.item["encrypted_content"] = signature

    def redact(self, data: str) -> None:
        """A thought that only its provider can read."""
        self.item["encrypted_content"] = REDACTED + data

    def _end(self, status: str) -> None:
        for part in self.item["summary"]:
            part["text"] = self._joined()
            self._say("response.reasoning_summary_text.done", summary_index=0, text=part["text"])
            self._say("response.reasoning_summary_part.done", summary_index=0, part=part)


class Message(Item):
    """What a model said, or why it refused to: a part for each."""

    def __init__(self, emit: Emit, at: int, tail: str) -> None:
        item = {
            "id": f"msg_{tail}_{at}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        super().__init__(emit, at, item)

    @classmethod
    def resumed(cls, emit: Emit, begun: Document, text: str | None) -> Message:
        """A message that its caller knows as `begun`, and of it `text` (None: not even that there is a text)."""
        message = cls(_nothing, 0, "")
        message.item["id"] = begun.get("id")
        if text is not None:
            message.say(text, [])
        message._emit = emit
        return message

    def say(self, text: str, logprobs: list[Any]) -> None:
        """More text."""
        part, at = self._part({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        self._pieces.append(text)
        part["logprobs"] += logprobs
        self._say("response.output_text.delta", content_index=at, delta=text, logprobs=logprobs)

    def refuse(self, text: str) -> None:
        """More of a refusal."""
        _, at = self._part({"type": "refusal", "refusal": ""})
        self._pieces.append(text)
        self._say("response.refusal.delta", content_index=at, delta=text)

    def annotate(self, note: Document) -> None:
        """Where a text's claim came from."""
        part, at = self._part({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        place = len(part["annotations"])
        part["annotations"].append(note)
        self._say("response.output_text.annotation.added", content_index=at, annotation_index=place, annotation=note)

    def _part(self, empty: Document) -> tuple[Document, int]:
        """The part under way, if it is of the type of `empty`; else that one."""
        content = self.item["content"]
        if not content or content[-1]["type"] != empty["type"]:
            self._end_part()
            content.append(empty)
            self._say("response.content_part.added", content_index=len(content) - 1, part=empty)
        return content[-1], len(content) - 1

    def _end_part(self) -> None:
        content = self.item["content"]
        if not content:
            return
        part, at = content[-1], len(content) - 1
        part["refusal" if part["type"] == "refusal" else "text"] = self._joined()
        if part["type"] == "refusal":
            self._say("response.refusal.done", content_index=at, refusal=part["refusal"])
        else:
            text, logprobs = part["text"], part["logprobs"]
            self._say("response.output_text.done", content_index=at, text=text, logprobs=logprobs)
        self._say("response.content_part.done", content_index=at, part=part)

    def _end(self, status: str) -> None:
        self._end_part()
        super()._end(status)


class Call(Item):
    """A call of a function, or with `custom` of a custom tool."""

    def __init__(self, emit: Emit, at: int, tail: str, call_id: str, name: str, *, custom: bool) -> None:
        self._field, self._kind = (
            ("input", "custom_tool_call_input") if custom else ("arguments", "function_call_arguments")
        )
        kind, prefix = ("custom_tool_call", "ctc") if custom else ("function_call", "fc")
        item = {"id": f"{prefix}_{tail}_{at}", "type": kind, "status": "in_progress", "call_id": call_id, "name": name}
        super().__init__(emit, at, {**item, self._field: ""})

    def add(self, text: str) -> None:
        """More of what the tool is called with."""
        self._pieces.append(text)
        self._say(f"response.{self._kind}.delta", delta=text)

    def _end(self, status: str) -> None:
        self.item[self._field] = self._joined()
        name = {"name": self.item["name"]} if self._field == "arguments" else {}
        self._say(f"response.{self._kind}.done", **{self._field: self.item[self._field]}, **name)
        super()._end(status)
