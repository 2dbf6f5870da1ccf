"""uvicorn's HTTP protocol with a bound on headers, which it has none of: 64 KB and 10 s, or a bare 431 or 408."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
PATIENCE = 10.0
#: Seconds without reading anything of what is waiting for it after which a caller is taken for gone.
STALLED = 60.0
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The clock runs from its first moment, and again from the first byte of each later request.

    A body that was refused unread is thrown away for as long, so that its sender can read why.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Bytes since the last that brought a request forward: a head so far, or trailers, or blank lines.
        self._head = 0
        self._between = True
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._unread = 0
        self._refusal = b"400 Bad Request"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself does
        """A caller is here; it has 10 s to ask something."""
        super().connection_made(transport)
        self._late = self.loop.call_later(PATIENCE, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._on_time()
        self._reads_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. What is not yet understood is counted whole: the parser keeps all of it."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._between and (b"pgrade" in data or b"PGRADE" in data):
            data = _without_upgrade(data)
        self._head += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head > MAX_HEAD:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._late is None and (self.cycle is None or self.cycle.response_complete):
            # An unfinished head; or what is left of a body that was refused before it was read.
            self._late = self.loop.call_later(PATIENCE, self._too_late)

    def on_headers_complete(self) -> None:
        """All headers are here. Raising makes the parser stop and uvicorn refuse, before any application sees it."""
        self._on_time()
        came, self._head = self._head, 0
        # More came than a head may have: it may be the body's.
        if came > MAX_HEAD and self._size() > MAX_HEAD:
            self._refusal = b"431 Request Header Fields Too Large"
            raise ValueError("headers too large")
        self._between = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the application bounds."""
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request; the next may begin."""
        self._head = 0
        self._between = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The caller does not read. Whoever never does would hold its call, and the upstream's, for ever."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(STALLED, self._look_whether_it_reads)

    def resume_writing(self) -> None:
        """It has read."""
        self._reads_again()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What could not be parsed is answered as curtly as it was asked."""
        self._refuse(self._refusal)

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_late(self) -> None:
        self._late = None
        # Nothing asked yet (no header, no byte of one): nothing to answer.
        if self._head:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _look_whether_it_reads(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._unread < before:
            self._stalled = self.loop.call_later(STALLED, self._look_whether_it_reads)
        else:
            self.transport.abort()

    def _reads_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: bytes) -> None:
        self._on_time()
        cycle = self.cycle
        # Never into the middle of an answer, nor after the answer to the same request.
        if cycle is None or not cycle.response_started or (cycle.response_complete and self._between):
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """`data`, its first head without an Upgrade header.

    Nobody here speaks another protocol. Java's HTTP client and `curl --http2` offer one with every first request, and
    httptools takes the body after such a head for it: the request would arrive empty.
    """
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end]) + data[end:]
