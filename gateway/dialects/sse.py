"""Server-sent events of an upstream: read for usage and text as they pass, byte for byte or through a translator."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from gateway.dialects import lenient
from gateway.dialects.alike import Said
from gateway.errors import UpstreamFailed
from gateway.money import Tokens

#: The content type of a stream of events.
EVENTS = "text/event-stream"
#: One event larger than this is an upstream gone wrong.
MAX_EVENT = 16 * 1024 * 1024
# No answer has more tokens. A provider that says so must not overflow a column, or the sum of one.
_MOST = 2**31 - 1
_BLANK = re.compile(rb"\n\r?\n")
_LONE_CR = re.compile(rb"\r[^\n]")


class Through(Protocol):
    """What a stream goes through when its caller speaks another dialect than its upstream."""

    def feed(self, document: dict[str, Any]) -> bytes:
        """One of the upstream's events as the caller's, or nothing yet."""

    def end(self) -> bytes:
        """The end of the caller's stream, once the upstream's came."""


class Tally(ABC):
    """What a stream has said so far. `feed` it the upstream's bytes and send on what it returns.

    `usage` is the provider's own count once it came. `written` is how much the model wrote, in bytes of
    UTF-8, and stands in for a count when a stream is cut. `pieces` counts chunks that
    carried something. `begun` says that an event came, `done` that the stream came to an end of its own.
    A dialect's own tally says in `_note` what its events mean. A `witness` hears every good event too.
    """

    __slots__ = ("_rest", "begun", "done", "failed", "finished", "pieces", "through", "usage", "witness", "written")

    def __init__(self, through: Through | None = None) -> None:
        self._rest = bytearray()
        self.through = through
        self.witness: Callable[[dict[str, Any]], None] | None = None
        self.usage: Tokens | None = None
        self.written = 0
        self.pieces = 0
        self.begun = False
        self.failed: UpstreamFailed | None = None
        self.finished = False
        self.done = False

    @abstractmethod
    def _note(self, document: dict[str, Any]) -> bool:
        """Note what one event says; whether it is one that only we asked for. Raises `UpstreamFailed` for an error."""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events `chunk` completes, less our own usage event. An event cut short waits for its rest.

        Raises `UpstreamFailed` when what came is not an event stream of JSON objects; where good events came
        with the bad one, they are returned and the error waits in `failed`.
        """
        if self._rest:
            chunk = self._gathered(chunk)
        end = _end(chunk)
        rest = chunk[end:]
        if rest:
            self._rest += rest
            self._check(rest)
        if not end:
            if self.failed is not None:
                raise self.failed
            return b""
        events = chunk[:end] if rest else chunk
        if events.count(b"\n\n") == 1 and b"\r" not in events:
            return self._read(events)
        passed: list[bytes] = []
        for event in _split(events):
            try:
                passed.append(self._read(event))
            except UpstreamFailed as error:
                if not any(passed):
                    raise
                self.failed = error
                break
        return b"".join(passed)

    def plain(self, chunk: bytes) -> Said | None:
        """What `chunk` says, where that is a text and nothing more, and `feed` would return it as it is; else None.

        Nothing is noted of it: whoever passes it on tells `hear`.
        """
        return None

    def hear(self, said: Said) -> None:
        """Count what a `plain` chunk says."""
        pieces, written = said
        self.pieces += pieces
        self.written += written

    def _gathered(self, chunk: bytes) -> bytes:
        """What waited, with `chunk`; nothing as long as no event is whole.

        A picture is one event in hundreds of chunks: only what is new is searched, and the seam before it.
        """
        new = bytes(self._rest[-2:]) + chunk
        self._rest += chunk
        if not _end(new):
            self._check(new)
            return b""
        gathered = bytes(self._rest)
        self._rest.clear()
        return gathered

    def _check(self, new: bytes) -> None:
        """Give up on a rest that is too long, or in whose `new` part lines end with CR alone.

        Nobody ends lines so. Taken for one endless event, such a stream would be kept back whole.
        """
        if len(self._rest) > MAX_EVENT or (b"\r" in new and _LONE_CR.search(new)):
            self.failed = UpstreamFailed("The provider's stream does not keep to events.")

    def close(self) -> bytes:
        """The upstream ended: what is left to send on. Raises `UpstreamFailed` when its answer was not complete."""
        rest = bytes(self._rest)
        self._rest.clear()
        ended = self.done
        if rest.strip():
            # Some servers leave out the last blank line.
            self.done = _data(rest) == b"[DONE]"
        if not self.done and (rest.strip() or not self.finished):
            raise UpstreamFailed("The provider's stream broke off before the answer was complete.")
        if self.through is None:
            return rest
        return b"" if ended else self.through.end()

    def _read(self, event: bytes) -> bytes:
        """What goes on to the caller for one `event`, having noted what it says."""
        data = _data(event)
        through = self.through
        if data is None or (through is not None and self.done):
            return event if through is None else b""
        if data == b"[DONE]":
            ended, self.begun, self.done = self.done, True, True
            return event if through is None else b"" if ended else through.end()
        document = _document(data)
        taken = self._note(document)
        self.begun = True
        if self.witness is not None:
            self.witness(document)
        if through is not None:
            return through.feed(document) + (through.end() if self.done else b"")
        return b"" if taken else event

    def say(self, *parts: Any) -> None:
        """Count what the model wrote, in one chunk: text, reasoning, arguments of tools. Nothing counts as nothing."""
        said = "".join(lenient.text(part) for part in parts if part)
        if said:
            self.pieces += 1
            self.written += size(said)


def size(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count(holder: Any, name: str) -> int:
    """A number of tokens from a provider's `usage`; what is missing or no number counts as none."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return min(value, _MOST) if isinstance(value, int) and value > 0 else 0


def served(document: Mapping[str, Any]) -> str:
    """How an answer was served: `flex`, `priority`; "" where that is nothing special."""
    tier = document.get("service_tier")
    return tier if isinstance(tier, str) else ""


def error_in(document: dict[str, Any]) -> Any:
    """The error that an answer or chunk of chat's kind holds, however it calls itself; nothing where it holds none.

    Some begin their answer with 200 and fail later: OpenRouter then says `error` beside the choices or in one, Mistral
    a finish reason of that name, older vLLM an object of it.
    """
    if document.get("error") or document.get("object") == "error":
        return document.get("error") or document
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") == "error":
            return choice.get("error") or "its finish_reason is 'error'"
    return None


def said(error: Any) -> str:
    """The message of an upstream's `error`, as text that can be put into ours."""
    return lenient.said(error.get("message", error) if isinstance(error, dict) else error)


def event(document: dict[str, Any], name: str | None = None) -> bytes:
    """One event that says `document`."""
    data = lenient.dumps(document)
    return b"data: %b\n\n" % data if name is None else b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def documents(raw: bytes) -> Iterator[dict[str, Any]]:
    """What each event of `raw` says; what is cut short, or no JSON object, says nothing."""
    for event in _split(raw):
        with contextlib.suppress(UpstreamFailed):
            if document := parsed(event):
                yield document


def parsed(event: bytes) -> dict[str, Any]:
    """What the data of `event` says; nothing where it has none. Raises `UpstreamFailed` for what is no JSON object."""
    data = _data(event)
    return {} if data is None else _document(data)


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = lenient.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamFailed("The provider's stream holds an event that is not a JSON object.")
    return document


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
