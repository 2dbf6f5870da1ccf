"""uvicorn's HTTP protocol with the bounds it has none of: on headers, 64 KB and 10 s; on bodies, 60 s without progress.

Beyond them stands a bare 431 or 408.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from httptools import HttpParserError, parse_url
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.cycle import WHEN_GONE, Cycle, Flow

MAX_HEAD = 64 * 1024
PATIENCE = 10.0
#: Seconds without reading anything of what is waiting for it after which a caller is taken for gone.
STALLED = 60.0
#: Seconds without a byte of a body that is waited for after which a caller is taken for gone. Looked at in quarters.
PROGRESS = 60.0
_LOOKS = 4
#: Paths and queries of fewer bytes are remembered.
_SHORT = 64
#: Bytes of a body that nobody has read yet beyond which its sender is made to wait.
HIGH_WATER = 64 * 1024
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The clock runs from its first moment, and again from the first byte of each later request.

    A body that was refused unread is thrown away for as long, so that its sender can read why.
    What uvicorn does for each request is done here in fewer steps: half of a small answer's time was spent in them.
    """

    cycle: Cycle  # type: ignore[assignment]  # uvicorn's own has more, of which it uses what ours has too
    flow: Flow  # type: ignore[assignment]

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
        #: When the last answer ended; 0 while a request is under way.
        self._idle_since = 0.0
        #: Requests that came before the answer to the one before them was complete.
        self._waiting: deque[tuple[Cycle, dict[str, Any]]] = deque()
        self._answering: Cycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself does
        """A caller is here; it has 10 s to ask something."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._late = self.loop.call_later(PATIENCE, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._on_time()
        self._reads_again()
        self._body_ended()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        # uvicorn tells the newest request, which may be one that waits behind this.
        cycle = self._answering
        if cycle is not None and cycle is not self.cycle and not cycle.response_complete:
            cycle.disconnected = True
            cycle.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came. What is not yet understood is counted whole: the parser keeps all of it."""
        if self.parser is None or self.transport.is_closing():
            return
        self._head += len(data)
        self._idle_since = 0.0
        if self._between:
            data, self._kept = _without_upgrade(self._kept + data)
        if data:
            try:
                self.parser.feed_data(data)
            except HttpParserError:
                self.send_400_response("")
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

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """All headers are here. Raising makes the parser stop and the request be refused, before any application."""
        self._on_time()
        came, self._head = self._head, 0
        # More came than a head may have: it may be the body's.
        if came > MAX_HEAD and self._size() > MAX_HEAD:
            self._refusal = b"431 Request Header Fields Too Large"
            raise ValueError("headers too large")
        parser = self.parser
        # An offer that was overlooked, in a second head of one packet: what follows would be lost.
        if parser.should_upgrade():
            raise ValueError("no other protocol is spoken here")
        self._between = False
        version = parser.get_http_version()
        before, method = self.cycle, parser.get_method().decode("ascii")
        self.cycle = Cycle(
            self.transport,
            self.flow,
            _lines(self.server_state.default_headers),
            self.on_response_complete,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects=self.expect_100_continue,
            bodiless=method == "HEAD",
        )
        scope = self._scope(version, method)
        if before is None or before.response_complete:
            self._begin(self.cycle, scope)
        else:
            # A second request in a packet waits for the answer to the first.
            self.flow.pause_reading()
            self._waiting.append((self.cycle, scope))

    def _scope(self, version: str, method: str) -> dict[str, Any]:
        path, raw, query = _known_place(self.url) if len(self.url) < _SHORT else _place(self.url)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
            "state": {},
            "method": method,
            "path": path,
            "raw_path": raw,
            "query_string": query,
            "extensions": {WHEN_GONE: self.cycle.when_gone},
        }

    def _begin(self, cycle: Cycle, scope: dict[str, Any]) -> None:
        self._answering = cycle
        task = self.loop.create_task(cycle.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the application bounds."""
        self._head = 0
        self._body_came += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.parts.append(body)
            cycle.size += len(body)
            if cycle.size > HIGH_WATER:
                self.flow.pause_reading()
            cycle.set()

    def on_message_complete(self) -> None:
        """The end of a request; the next may begin."""
        self._head = 0
        self._between = True
        self._body_ended()
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.set()

    def on_response_complete(self) -> None:
        """The end of an answer; the next request may begin, or has."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._waiting:
            self._begin(*self._waiting.popleft())
            return
        # One timer for a connection, armed again where it fires too early: most never fire at all.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._look_whether_it_idles)

    def _look_whether_it_idles(self) -> None:
        self.timeout_keep_alive_task = None
        if not self._idle_since:
            return  # busy: armed again after the answer
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if rest <= 0:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(rest, self._look_whether_it_idles)

    def pause_writing(self) -> None:
        """The caller does not read. Whoever never does would hold its call, and the upstream's, for ever."""
        self.flow.pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(STALLED, self._look_whether_it_reads)

    def resume_writing(self) -> None:
        """It has read."""
        self._reads_again()
        self.flow.resume_writing()

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
        untouched = self.flow.read_paused or cycle.parts or cycle.waiting_for_100_continue
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


def _place(url: bytes) -> tuple[str, bytes, bytes]:
    """A request's path, decoded and as it came, and its query."""
    parsed = parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_known_place = functools.lru_cache(1024)(_place)

_lines_of: tuple[Sequence[tuple[bytes, bytes]], bytes] = ((), b"")


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Headers of every answer as bytes. uvicorn makes a new list of them each second, for the date."""
    global _lines_of
    if headers is not _lines_of[0]:
        _lines_of = (headers, b"".join([b"%b: %b\r\n" % header for header in headers]))
    return _lines_of[1]


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
    # `find`: with bytes, `in` makes an error on its way that nobody sees.
    if data.find(b"pgrade") >= 0 or data.find(b"PGRADE") >= 0:
        return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end][:whole]) + data[end:whole], data[whole:]
    return data[:whole], data[whole:]


def _begins(tail: bytes) -> bool:
    return b"\r\nupgrade".startswith(tail) or b"\r\n\r".startswith(tail)
