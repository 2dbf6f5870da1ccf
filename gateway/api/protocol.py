"""uvicorn's HTTP protocol with the bounds it has none of: on headers, 64 KB and 10 s; on bodies, 60 s without progress.

Beyond them stands a bare 431 or 408.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
PATIENCE = 10.0
#: Seconds without reading anything of what is waiting for it after which a caller is taken for gone.
STALLED = 60.0
#: Seconds without a byte of a body that is waited for after which a caller is taken for gone. Looked at in quarters.
PROGRESS = 60.0
_LOOKS = 4
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
        #: The end of an unfinished head that may be the beginning of what `_without_upgrade` looks for.
        self._kept = b""
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._unread = 0
        self._body_look: asyncio.TimerHandle | None = None
        self._body_came, self._body_seen, self._body_quiet = 0, -1, 0
        self._refusal = b"400 Bad Request"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself does
        """A caller is here; it has 10 s to ask something."""
        super().connection_made(transport)
        self._late = self.loop.call_later(PATIENCE, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._on_time()
        self._reads_again()
        self._body_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. What is not yet understood is counted whole: the parser keeps all of it."""
        if self.parser is None or self.transport.is_closing():
            return
        self._head += len(data)
        if self._between:
            data, self._kept = _without_upgrade(self._kept + data)
        if data:
            super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head > MAX_HEAD:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._late is None and (self.cycle is None or self.cycle.response_complete):
            # An unfinished head; or what is left of a body that was refused before it was read.
            self._late = self.loop.call_later(PATIENCE, self._too_late)
        elif not self._between and self._body_look is None:
            self._body_seen, self._body_quiet = -1, 0
            self._body_look = self.loop.call_later(PROGRESS / _LOOKS, self._look_whether_it_sends)

    def on_headers_complete(self) -> None:
        """All headers are here. Raising makes the parser stop and uvicorn refuse, before any application sees it."""
        self._on_time()
        came, self._head = self._head, 0
        # More came than a head may have: it may be the body's.
        if came > MAX_HEAD and self._size() > MAX_HEAD:
            self._refusal = b"431 Request Header Fields Too Large"
            raise ValueError("headers too large")
        # An offer that was overlooked, in a second head of one packet: what follows would be lost.
        if self.parser.should_upgrade():
            raise ValueError("no other protocol is spoken here")
        self._between = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the application bounds."""
        self._head = 0
        self._body_came += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request; the next may begin."""
        self._head = 0
        self._between = True
        self._body_ended()
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

    def _look_whether_it_sends(self) -> None:
        self._body_look = self.loop.call_later(PROGRESS / _LOOKS, self._look_whether_it_sends)
        before, self._body_seen = self._body_seen, self._body_came
        if self._body_came > before or not self._waits_for_body():
            self._body_quiet = 0
            return
        self._body_quiet += 1
        if self._body_quiet >= _LOOKS:
            self._refuse(b"408 Request Timeout")

    def _waits_for_body(self) -> bool:
        """Whether the application has had all that came, was asked for it, and has not begun to answer."""
        cycle = self.cycle
        untouched = self.flow.read_paused or cycle.body or cycle.waiting_for_100_continue
        return not (untouched or cycle.response_started)

    def _body_ended(self) -> None:
        if self._body_look is not None:
            self._body_look.cancel()
            self._body_look = None

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
        self._body_ended()
        cycle = self.cycle
        # Never into the middle of an answer, nor after the answer to the same request.
        if cycle is None or not cycle.response_started or (cycle.response_complete and self._between):
            body = _BODY % _WORDS[status]
            head = b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


_BODY = b'{"error":{"message":"%b","type":"invalid_request_error","param":null,"code":"invalid_http"}}'
_WORDS = {
    b"400 Bad Request": b"This is not an HTTP request.",
    b"408 Request Timeout": b"The request did not arrive in time.",
    b"431 Request Header Fields Too Large": b"The request's headers are larger than 64 KB.",
}


def _without_upgrade(data: bytes) -> tuple[bytes, bytes]:
    """`data`, its first head without an Upgrade header, and apart from it what can only be told with the next bytes.

    Nobody here speaks another protocol. Java's HTTP client and `curl --http2` offer one with every first request, and
    httptools takes the body after such a head for it: the request would arrive empty.
    """
    end = data.find(b"\r\n\r\n")
    kept = 0
    if end < 0:
        end = len(data)
        kept = next((size for size in range(9, 0, -1) if _begins(data[-size:].lower())), 0)
    whole = len(data) - kept
    if b"pgrade" in data or b"PGRADE" in data:
        return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end][:whole]) + data[end:whole], data[whole:]
    return data[:whole], data[whole:]


def _begins(tail: bytes) -> bool:
    return b"\r\nupgrade".startswith(tail) or b"\r\n\r".startswith(tail)
