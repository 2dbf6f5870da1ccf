"""One HTTP/1.1 connection to an upstream: a request at a time out, its answer parsed as it comes in."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from gateway.errors import UpstreamFailed
from gateway.lanes import Taker

#: Unread bytes of an answer beyond which the upstream is made to wait, and as many are read at once: what a caller
#: who hardly reads makes us hold is a few times this, and there may be thousands of them.
HIGH_WATER = 32 * 1024
#: What is read goes through here: one event loop reads one connection at a time, and takes it out before the next.
_READ = memoryview(bytearray(HIGH_WATER))
#: A status line and headers larger than this are an upstream gone wrong.
MAX_HEAD = 256 * 1024
BROKEN_OFF = "The provider broke the connection off before its answer was complete."


class Connection(asyncio.BufferedProtocol):
    """Send a request with `ask`, then `wait` until what is wanted is there: `headed`, `parts`, or `done`.

    `lost` says why there will be no more. After `done`, `reusable` tells whether another
    request may follow. A `taker`, if there is one, is offered what comes of the body while it is waited for, and
    nobody wakes for what it takes.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self._paused = False
        self.reusable = False
        self._loop = asyncio.get_running_loop()
        self.taker: Taker | None = None
        self._reset()
        self.done = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.headed = False
        self.done = False
        if not self.reusable:
            # Else the one there is has read a whole answer, and goes on with the next.
            self._parser = httptools.HttpResponseParser(self)
        self.reusable = False
        self.lost: UpstreamFailed | None = None
        self.size = 0
        self._parts: list[bytes] = []
        self._head_size = 0
        self._to_the_end = False
        self._paused = False
        self.taker = None
        self._waiter: asyncio.Future[None] | None = None

    def ask(self, request: bytes) -> None:
        """Send one request, head and body."""
        if self._paused and self.transport is not None:
            self.transport.resume_reading()
        self._reset()
        if self.transport is None or self.transport.is_closing():
            self.lost = UpstreamFailed(BROKEN_OFF)
            return
        self.transport.write(request)

    async def wait(self) -> None:
        """Return when anything has changed."""
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """What has come of the body since the last time; empty when nothing has."""
        parts, self._parts, self.size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self) -> None:
        """Hang up at once: it is how an upstream learns that nobody wants its answer."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def closed(self) -> bool:
        """Whether it can no longer carry a request."""
        return self.transport is None or self.transport.is_closing()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upstream took the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came."""
        if self.done:
            # Nobody asked for this; whatever follows it could be taken for the next answer.
            self.reusable = False
            self.abort()
            return
        if not self.headed:
            self._head_size += nbytes
        try:
            self._parser.feed_data(_READ[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("The provider does not answer in HTTP.")
        if not self.headed and self._head_size > MAX_HEAD:
            self._fail("The provider's headers do not end.")
        if self.taker is not None and self._taken(self.taker):
            return
        if self.size > HIGH_WATER and not (self.done or self._paused) and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; where the answer has no length of its own, that is its end."""
        self.transport = None
        self.reusable = False
        if not self.done:
            if self.headed and self._to_the_end and exc is None:
                self.done = True
            else:
                self.lost = self.lost or UpstreamFailed(BROKEN_OFF)
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins. A second one is nobody's; raising makes the parser stop."""
        if self.done:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """All of them; those of a 1xx are only a prelude."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = {}
            return
        self.status = status
        self.headed = True
        self._to_the_end = "content-length" not in self.headers and "transfer-encoding" not in self.headers

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunked framing taken off."""
        self._parts.append(body)
        self.size += len(body)

    def on_message_complete(self) -> None:
        """The answer has ended by itself."""
        if self.headed:
            self.done = True
            self.reusable = self._parser.should_keep_alive()

    def _taken(self, taker: Taker) -> bool:
        """Whether all there is was taken by `taker`. What somebody was woken for already is theirs."""
        waiter = self._waiter
        if not self.size or self.done or self.lost is not None or waiter is None or waiter.done():
            return False
        parts = self._parts
        if not taker(parts[0] if len(parts) == 1 else b"".join(parts)):
            return False
        parts.clear()
        self.size = 0
        return True

    def _fail(self, message: str) -> None:
        self.lost = self.lost or UpstreamFailed(message)
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
