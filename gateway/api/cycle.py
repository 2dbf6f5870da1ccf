"""One request and its answer on a connection: what uvicorn's own cycle does, in a third of its time.

It speaks ASGI, and to those who stand right behind it in shorter words: a whole answer at once (`Cycle.answer`), what
of the body is there already (`Cycle.ready`), and a call when the caller leaves (`Cycle.when_gone`), where ASGI would
have a task wait.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
#: In a scope's extensions: `Cycle.when_gone`.
WHEN_GONE = "promptyard.when_gone"
#: A body larger than this is not copied behind its head.
_COPIED = 64 * 1024

_NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_log = logging.getLogger(__name__)


def _status_line(status: int) -> bytes:
    try:
        return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
    except ValueError:
        return b"HTTP/1.1 %d \r\n" % status


_STATUS = {status: _status_line(status) for status in range(100, 600)}


class Flow:
    """Whether a connection is read from and written to: uvicorn's, without an event for each connection."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable: asyncio.Event | None = None
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        """Return once the caller has read enough for more to be written."""
        if self.write_paused:
            self._writable = self._writable or asyncio.Event()
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Take no more from the caller for now."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The transport holds enough."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """It has room again, or is gone."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None


class Cycle:
    """One request and its answer. The protocol adds to `parts` and calls `set`; the application does the rest."""

    __slots__ = (
        *(
            "_bodiless",
            "_chunked",
            "_defaults",
            "_event",
            "_finished",
            "_flow",
            "_gone",
            "_left",
            "_news",
            "_transport",
        ),
        *("disconnected", "keep_alive", "more_body", "parts", "response_complete", "response_started", "size"),
        "waiting_for_100_continue",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        flow: Flow,
        defaults: bytes,
        finished: Callable[[], None],
        *,
        keep_alive: bool,
        expects: bool,
        bodiless: bool,
    ) -> None:
        self._transport = transport
        self._flow = flow
        self._defaults = defaults
        self._finished = finished
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self._bodiless = bodiless
        self.disconnected = False
        self.parts: list[bytes] = []
        self.size = 0
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self._chunked = False
        self._left = 0
        self._news = False
        self._event: asyncio.Event | None = None
        self._gone: Callable[[], object] | None = None

    @property
    def message_event(self) -> Cycle:
        """What uvicorn's protocol tells of news: that is us."""
        return self

    def set(self) -> None:
        """There is news: more of the body, or its end, or the answer's, or the caller's."""
        self._news = True
        if self._event is not None:
            self._event.set()
        if self.disconnected and self._gone is not None:
            gone, self._gone = self._gone, None
            gone()

    def when_gone(self, then: Callable[[], object] | None) -> None:
        """Have `then` called when the caller leaves before its answer is complete, at once if it has; None: nothing.

        For the application that has read the body; one that wants both waits in `receive`.
        """
        self._gone = then
        self._flow.resume_reading()
        if self.disconnected:
            self.set()

    async def run(self, app: App, scope: Scope) -> None:
        """Have `app` answer. One that does not is answered for, where nothing was said yet."""
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            _log.error("An application failed", exc_info=error)
            await self._amend()
        else:
            if not self.response_complete and not self.disconnected:
                _log.error("An application ended without a whole answer")
                await self._amend()
        finally:
            # A connection outlives its requests: nothing of this one may stay with it.
            self._finished = _nothing
            self._gone = None

    async def _amend(self) -> None:
        if self.response_started:
            self._transport.close()
            return
        headers = {"content-type": "text/plain; charset=utf-8", "connection": "close"}
        await self.answer(500, headers, b"Internal Server Error")

    def ready(self) -> Message | None:
        """What `receive` would give without a wait; None where there is nothing yet."""
        if not self._news or self._event is not None or self.waiting_for_100_continue or self._flow.read_paused:
            return None
        if self.disconnected or self.response_complete:
            return None
        self._news = False
        return self._take()

    def _take(self) -> Message:
        parts, self.parts, self.size = self.parts, [], 0
        return {"type": "http.request", "body": b"".join(parts), "more_body": self.more_body}

    async def receive(self) -> Message:
        """The next piece of the body, or that the caller is gone or the answer complete (ASGI)."""
        if self.waiting_for_100_continue and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not (self.disconnected or self.response_complete):
            self._flow.resume_reading()
            if not self._news:
                if self._event is None:
                    self._event = asyncio.Event()
                await self._event.wait()
            self._news = False
            if self._event is not None:
                self._event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        return self._take()

    async def send(self, message: Message) -> None:
        """Take the answer's start, or the next piece of its body (ASGI)."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started and not self.response_complete:
            self._body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"An application may not send '{kind}' now.")

    def part(self, body: bytes) -> bool:
        """Send a piece of the body at once, as `send` would; False where that would have to wait, or cannot be."""
        if self._flow.write_paused or self.disconnected or not self._chunked or self.response_complete or not body:
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer, in one write. Names of `headers` are in lower case."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("There is an answer already.")
        self._whole(status, headers, body)

    def _whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        said = [f"{name}: {value}" for name, value in headers.items()]
        # A line break in a value would begin a header, or an answer, of its own.
        text = "".join(said)
        if "\n" in text or "\r" in text or "\0" in text:
            raise RuntimeError("A header holds what none may.")
        if not self.keep_alive:
            if "connection" not in headers:
                said.append("connection: close")
        elif headers.get("connection") == "close":
            self.keep_alive = False
        said.append(f"content-length: {len(body)}\r\n\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = "\r\n".join(said).encode("latin-1", "replace")
        if self._bodiless:
            body = b""
        if len(body) > _COPIED:
            self._transport.write(b"".join((_STATUS[status], self._defaults, lines)))
            self._transport.write(body)
        else:
            self._transport.write(b"".join((_STATUS[status], self._defaults, lines, body)))
        self._complete()

    def _start(self, status: int, headers: Any) -> None:
        content = [_STATUS[status], self._defaults]
        framed = False
        for name, value in headers:
            if _NO_NAME.search(name) or _NO_VALUE.search(value):
                raise RuntimeError("A header holds what none may.")
            lower = name.lower()
            if lower == b"content-length" and not framed:
                framed, self._left = True, int(value)
            elif lower == b"transfer-encoding" and value.lower() == b"chunked":
                framed = self._chunked = True
            elif lower == b"connection":
                if b"close" in [token.strip() for token in value.lower().split(b",")]:
                    self.keep_alive = False
                else:
                    content += (lower, b": ", value, b"\r\n")
                continue
            content += (lower, b": ", value, b"\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        if not framed and not self._bodiless and status not in (204, 304):
            self._chunked = True
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        self._transport.write(b"".join(content))

    def _body(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            self._left = 0
        elif self._chunked:
            if body:
                self._transport.write(b"%x\r\n%b\r\n%b" % (len(body), body, b"" if more else b"0\r\n\r\n"))
            elif not more:
                self._transport.write(b"0\r\n\r\n")
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("The answer is longer than its Content-Length.")
            self._transport.write(body)
        if not more:
            if self._left:
                raise RuntimeError("The answer is shorter than its Content-Length.")
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            self._transport.close()
        self._finished()


def _nothing() -> None:
    pass
