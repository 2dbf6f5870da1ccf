"""Server-sent events of OpenAI's streams: read for usage and text as they pass, byte for byte."""

from __future__ import annotations

import re
from typing import Any

from gateway.dialects import lenient
from gateway.errors import GatewayError, UpstreamFailed, to_openai
from gateway.types import Tokens

#: One event larger than this is an upstream gone wrong.
MAX_EVENT = 16 * 1024 * 1024
DONE = b"data: [DONE]\n\n"
# No answer has more tokens. A provider that says so must not overflow a column, or the sum of one.
_MOST = 2**31 - 1
_BLANK = re.compile(rb"\n\r?\n")
_LONE_CR = re.compile(rb"\r[^\n]")


class Tally:
    """What a stream has said so far. `feed` it the upstream's bytes and send on what it returns.

    `usage` is the provider's own count once it came. `text` is what the model wrote, in
    UTF-8, and stands in for a count when a stream is cut. `pieces` counts chunks that
    carried something. `begun` says that an event came, `done` that the stream came to an end of its own.
    """

    __slots__ = ("_hide_usage", "_rest", "begun", "done", "failed", "finished", "pieces", "text", "usage")

    def __init__(self, *, hide_usage: bool = False) -> None:
        self._hide_usage = hide_usage
        self._rest = b""
        self.usage: Tokens | None = None
        self.text = bytearray()
        self.pieces = 0
        self.begun = False
        self.failed: UpstreamFailed | None = None
        self.finished = False
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """The whole events `chunk` completes, less our own usage event. An event cut short waits for its rest.

        Raises `UpstreamFailed` when what came is not an event stream of JSON objects; where good events came
        with the bad one, they are returned and the error waits in `failed`.
        """
        if self._rest:
            chunk = self._rest + chunk
        end = _end(chunk)
        self._rest = rest = chunk[end:]
        # Nobody ends lines with CR alone. Taken for one endless event, such a stream would be kept back whole.
        if rest and (len(rest) > MAX_EVENT or (b"\r" in rest and _LONE_CR.search(rest))):
            self.failed = UpstreamFailed("The provider's stream does not keep to events.")
            if not end:
                raise self.failed
        if not end:
            return b""
        events = chunk[:end] if self._rest else chunk
        if events.count(b"\n\n") == 1 and b"\r" not in events:
            return b"" if self._read(events) else events
        passed = []
        for event in _split(events):
            try:
                if not self._read(event):
                    passed.append(event)
            except UpstreamFailed as error:
                if not passed:
                    raise
                self.failed = error
                break
        return b"".join(passed)

    def close(self) -> bytes:
        """The upstream ended: what is left to send on. Raises `UpstreamFailed` when its answer was not complete."""
        rest, self._rest = self._rest, b""
        if rest.strip():
            # Some servers leave out the last blank line.
            self.done = _data(rest) == b"[DONE]"
        if not self.done and (rest.strip() or not self.finished):
            raise UpstreamFailed("The provider's stream broke off before the answer was complete.")
        return rest

    def _read(self, event: bytes) -> bool:
        """Note what `event` says; whether it is the usage event that only we asked for."""
        data = _data(event)
        if data is None:
            return False
        if data == b"[DONE]":
            self.begun = self.done = True
            return False
        taken = self._note(data)
        self.begun = True
        return taken

    def _note(self, data: bytes) -> bool:
        try:
            document = lenient.loads(data)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise UpstreamFailed("The provider's stream holds an event that is not a JSON object.")
        choices = document.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if not isinstance(choice, dict):
                    raise UpstreamFailed("The provider's stream holds a choice that is not a JSON object.")
                self._note_choice(choice)
        if not choices and document.get("error"):
            raise UpstreamFailed(f"The provider broke its stream off: {_message(document['error'])}")
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return False
        self.usage = read_usage(usage)
        return self._hide_usage and not choices

    def _note_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason"):
            self.finished = True
        delta = choice.get("delta")
        # Chat says `delta`, completions say `text`.
        text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        if not (text and isinstance(text, str)):
            text = _rest_of(delta) if isinstance(delta, dict) else ""
        if text:
            self.pieces += 1
            self.text += text.encode("utf-8", "surrogatepass")


def _rest_of(delta: dict[str, Any]) -> str:
    """What a delta without plain text says: reasoning, refusals and tool calls are output too.

    Only counted, never judged: content in parts, and whatever else is new, is between caller and upstream.
    """
    said = [delta.get(name) for name in ("content", "reasoning_content", "reasoning", "refusal")]
    tools = delta.get("tool_calls")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            said += (function.get("name"), function.get("arguments"))
    return "".join(lenient.text(part) for part in said if part)


def read_usage(usage: dict[str, Any]) -> Tokens:
    """Tokens from OpenAI's `usage` object; what is missing or not a number counts as none."""
    return Tokens(
        input=_count(usage, "prompt_tokens"),
        output=_count(usage, "completion_tokens"),
        cached=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def error_event(error: GatewayError) -> bytes:
    """How a stream that broke says so: an event the official client raises as `APIError`, and no `[DONE]`."""
    return b"data: " + to_openai(error)[2] + b"\n\n"


def _count(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return min(value, _MOST) if isinstance(value, int) and value > 0 else 0


def _message(error: Any) -> str:
    return lenient.said(error.get("message", error) if isinstance(error, dict) else error)


def _data(event: bytes) -> bytes | None:
    """What the `data` lines of an event say; None where it has none."""
    if event.startswith(b"data:"):
        line = event[5:].strip()
        if b"\n" not in line and b"\r" not in line:
            return line
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _end(chunk: bytes) -> int:
    """Where the last whole event ends."""
    if chunk.endswith((b"\n\n", b"\n\r\n")):
        return len(chunk)
    ends = [at + len(blank) for blank in (b"\n\n", b"\n\r\n") if (at := chunk.rfind(blank)) >= 0]
    return max(ends, default=0)


def _split(events: bytes) -> list[bytes]:
    """Each event with its own blank line, whichever line ends the upstream uses, or mixes."""
    split, begin = [], 0
    for blank in _BLANK.finditer(events):
        split.append(events[begin : blank.end()])
        begin = blank.end()
    if begin < len(events):
        split.append(events[begin:])  # one more line end after a blank line
    return split
