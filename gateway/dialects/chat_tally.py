"""What an upstream's stream of chat completion chunks says: also the one of the older completions."""

from __future__ import annotations

from typing import Any

from gateway.dialects import sse
from gateway.dialects.alike import Alike, Said, alike
from gateway.dialects.sse import Tally, Through
from gateway.errors import UpstreamFailed
from gateway.money import Tokens

DONE = b"data: [DONE]\n\n"
#: How many events of a stream are looked at for what all have in common. The first often has a role besides.
_LOOKS = 4
_TEXT, _NOISE = "another text", "another noise"


class ChatTally(Tally):
    """Reads OpenAI's chunks. With `hide_usage` it takes out the usage event that only we asked for."""

    __slots__ = ("_alike", "_hide_usage", "_looks")

    def __init__(self, through: Through | None = None, *, hide_usage: bool = False) -> None:
        super().__init__(through)
        self._hide_usage = hide_usage
        self._alike: Alike | None = None
        self._looks = _LOOKS

    def feed(self, chunk: bytes) -> bytes:
        """The whole events `chunk` completes (`Tally.feed`). Those that are like one before are not parsed."""
        said = self.plain(chunk)
        if said is None:
            return super().feed(chunk)
        self.hear(said)
        return chunk

    def plain(self, chunk: bytes) -> Said | None:
        """What `chunk` says, where its events differ from one before in their text alone (`Tally.plain`)."""
        return None if self._alike is None or self._rest else self._alike.read(chunk)

    def _read(self, event: bytes) -> bytes:
        before = self.pieces
        passed = super()._read(event)
        # Who translates or listens has to have each document.
        if self.pieces > before and self._looks and self.through is None and self.witness is None:
            self._looks -= 1
            found = alike(event)
            if found is not None and _says_text_alone(found):
                self._alike = found
        return passed

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
        self.usage.tier = sse.served(document)
        return self._hide_usage and not choices

    def _note_choice(self, choice: dict[str, Any]) -> None:
        if finish := choice.get("finish_reason"):
            if finish == "error":
                raise _broken_off({"choices": [choice]})
            self.finished = True
        text = _text(choice)
        if text and isinstance(text, str):
            self.pieces += 1
            self.written += sse.size(text)
        elif isinstance(delta := choice.get("delta"), dict):
            self.say(*_rest_of(delta))


def _text(choice: dict[str, Any]) -> Any:
    """What stands in a choice's place for text: chat says `delta`, completions say `text`."""
    delta = choice.get("delta")
    return delta.get("content") if isinstance(delta, dict) else choice.get("text")


def _says_text_alone(found: Alike) -> bool:
    """Whether any text put into events like those found is what their one choice says, and nothing else is said."""
    try:
        document = sse.parsed(found.of(_TEXT.encode(), _NOISE.encode()))
    except UpstreamFailed:
        return False
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return False
    if isinstance(document.get("usage"), dict) or choices[0].get("finish_reason"):
        return False
    return _text(choices[0]) == _TEXT and (not found.between or document.get("obfuscation") == _NOISE)


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
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    found = Tokens(sse.count(usage, "prompt_tokens"), sse.count(usage, "completion_tokens"))
    if read:
        found.cached = sse.count(read, "cached_tokens")
        found.written = sse.count(read, "cache_write_tokens")
        found.heard = sse.count(read, "audio_tokens")
    if written:
        found.reasoning = sse.count(written, "reasoning_tokens")
        found.spoken = sse.count(written, "audio_tokens")
    if "cache_creation_input_tokens" in usage:
        found.written = found.written or sse.count(usage, "cache_creation_input_tokens")
    return found
