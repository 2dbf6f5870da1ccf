"""What an upstream's stream of chat completion chunks says: also the one of the older completions."""

from __future__ import annotations

from typing import Any

from gateway.dialects import sse
from gateway.dialects.sse import Tally, Through
from gateway.errors import UpstreamFailed
from gateway.money import Tokens

DONE = b"data: [DONE]\n\n"


class ChatTally(Tally):
    """Reads OpenAI's chunks. With `hide_usage` it takes out the usage event that only we asked for."""

    __slots__ = ("_hide_usage",)

    def __init__(self, through: Through | None = None, *, hide_usage: bool = False) -> None:
        super().__init__(through)
        self._hide_usage = hide_usage

    def _note(self, document: dict[str, Any]) -> bool:
        if document.get("error") or document.get("object") == "error":
            raise _broken_off(document)
        choices = document.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if not isinstance(choice, dict):
                    raise UpstreamFailed("The provider's stream holds a choice that is not a JSON object.")
                self._note_choice(choice)
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return False
        self.usage = read_usage(usage)
        return self._hide_usage and not choices

    def _note_choice(self, choice: dict[str, Any]) -> None:
        if finish := choice.get("finish_reason"):
            if finish == "error":
                raise _broken_off({"choices": [choice]})
            self.finished = True
        delta = choice.get("delta")
        # Chat says `delta`, completions say `text`.
        text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        if text and isinstance(text, str):
            self.pieces += 1
            self.written += sse.size(text)
        elif isinstance(delta, dict):
            self.say(*_rest_of(delta))


def _broken_off(document: dict[str, Any]) -> UpstreamFailed:
    return UpstreamFailed(f"The provider broke its stream off: {sse.said(sse.error_in(document))}")


def _rest_of(delta: dict[str, Any]) -> list[Any]:
    """What a delta without plain text says: reasoning, refusals and tool calls are output too.

    Only counted, never judged: content in parts, and whatever else is new, is between caller and upstream.
    """
    said = [delta.get(name) for name in ("content", "reasoning_content", "reasoning", "refusal")]
    tools = delta.get("tool_calls")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            said += (function.get("name"), function.get("arguments"))
    return said


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens from OpenAI's `usage` object; what is missing or not a number counts as none."""
    return Tokens(
        input=sse.count(usage, "prompt_tokens"),
        output=sse.count(usage, "completion_tokens"),
        cached=sse.count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning=sse.count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )
