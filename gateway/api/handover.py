"""Connections handed over: a worker answers calls, and gives away whoever asks for anything else, socket and all.

What it has read of the request goes with the socket, so that whoever takes it over starts where the caller did, and
nothing is copied between the two from then on: streams, uploads and the lab's open pages are as quick as anybody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from gateway.api.faces import is_call
from gateway.api.protocol import MAX_HEAD, PATIENCE, BoundedProtocol

log = logging.getLogger(__name__)

#: A message is one byte, and two descriptors beside it: the caller's socket, and where to read what came through it.
_MESSAGE = b"c"
#: Seconds until a message is tried again that the other did not take, or what a caller has not read yet was looked at.
_AGAIN = 0.02
#: Bytes read at once of what came.
_PIECE = 256 * 1024

Hand = Callable[[int, bytes], None]


class HandingProtocol(BoundedProtocol):
    """A worker's connection. Looked at before each request is parsed: its first line says whose it is."""

    def __init__(self, hand: Hand, *args: Any, **kwargs: Any) -> None:
        """`hand` is given the descriptor of a connection that is not ours, and what came through it."""
        super().__init__(*args, **kwargs)
        self._hand = hand
        #: What came of a first line that is not whole yet.
        self._first = b""

    def data_received(self, data: bytes) -> None:
        """As `BoundedProtocol` has it, if this is a call."""
        if self._between and not self._head and (self.cycle is None or self.cycle.response_complete):
            data = self._first + data
            path = _path(data)
            if path is None and len(data) <= MAX_HEAD:
                self._first, self._idle_since = data, 0.0
                if self._late is None:
                    self._late = self.loop.call_later(PATIENCE, self._too_late)
                return
            self._first = b""
            if path is not None and not is_call(path):
                self._give_away(data)
                return
        super().data_received(data)

    def _give_away(self, came: bytes) -> None:
        if self.transport.is_closing():
            return
        self._on_time()
        self.transport.pause_reading()
        if self.transport.get_write_buffer_size():  # the end of an answer that it has not read yet
            self.loop.call_later(_AGAIN, self._give_away, came)
            return
        connection = os.dup(self.transport.get_extra_info("socket").fileno())
        self.transport.abort()  # of our descriptor: the connection itself stays open
        self._hand(connection, came)


class TakenProtocol(BoundedProtocol):
    """A connection that was handed over: it begins with what its caller had said already."""

    def __init__(self, came: bytes, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._came = came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself does
        """Before anything is read: what was said later must not overtake it."""
        super().connection_made(transport)
        came, self._came = self._came, b""
        self.data_received(came)


def _path(data: bytes) -> str | None:
    """The path that a request asks for; None while that is not there yet. What is no request is ours to refuse."""
    line, end, _ = data.lstrip(b"\r\n").partition(b"\n")
    words = line.split(b" ", 2)
    if len(words) < 3:
        return "/v1/" if end else None
    place = words[1]
    if place.startswith((b"http://", b"https://")):
        place = b"/" + place.split(b"/", 3)[3] if place.count(b"/") > 2 else b"/"
    return unquote(place.partition(b"?")[0].decode("latin-1"))


class Giver:
    """A worker's end: hands connections to the control process, in the order in which they came."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting: list[tuple[int, bytes]] = []
        self._again: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def give(self, connection: int, came: bytes) -> None:
        """Hand over a connection, whose descriptor is the giver's from now on, and what came through it."""
        self._waiting.append((connection, came))
        if self._again is None:
            self._give()

    def _give(self) -> None:
        self._again = None
        while self._waiting:
            connection, came = self._waiting[0]
            ours, theirs = socket.socketpair()
            try:
                socket.send_fds(self._end, [_MESSAGE], [connection, theirs.fileno()])
            except BlockingIOError:
                ours.close()
                self._again = asyncio.get_running_loop().call_later(_AGAIN, self._give)
                return
            except OSError:  # it is gone, and we are about to go too
                ours.close()
            else:
                self._send(ours, came)
            finally:
                theirs.close()
            self._waiting.pop(0)
            os.close(connection)

    def _send(self, ours: socket.socket, came: bytes) -> None:
        task = asyncio.create_task(_sent(ours, came))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def close(self) -> None:
        """Take no more."""
        if self._again is not None:
            self._again.cancel()
        for connection, _ in self._waiting:
            os.close(connection)
        self._waiting.clear()
        self._end.close()


async def _sent(ours: socket.socket, came: bytes) -> None:
    ours.setblocking(False)
    with ours, contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(ours, came)


class Taker:
    """The control process's end: answers the connections that one worker hands over."""

    def __init__(self, end: socket.socket, make: Callable[[bytes], asyncio.Protocol]) -> None:
        """`make` gives the protocol of a connection, made with what came through it already (`TakenProtocol`)."""
        end.setblocking(False)
        self._end = end
        self._make = make
        self._taking: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(end.fileno(), self._read)

    def _read(self) -> None:
        try:
            message, handed, _, _ = socket.recv_fds(self._end, 1, 2)
        except BlockingIOError:
            return
        except OSError:
            message, handed = b"", []
        if not message:
            asyncio.get_running_loop().remove_reader(self._end.fileno())
        elif len(handed) != 2:
            log.error("A connection could not be taken over: no more files may be open.")
            for one in handed:
                os.close(one)
        else:
            task = asyncio.create_task(self._take(*(socket.socket(fileno=one) for one in handed)))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _take(self, connection: socket.socket, told: socket.socket) -> None:
        connection.setblocking(False)
        try:
            with told:
                told.setblocking(False)
                async with asyncio.timeout(PATIENCE):
                    came = await _all_of(told)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._make(came), connection)
        except (OSError, TimeoutError):
            connection.close()

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._end.fileno())
        for task in self._taking:
            task.cancel()
        self._end.close()


async def _all_of(told: socket.socket) -> bytes:
    loop, pieces = asyncio.get_running_loop(), []
    while piece := await loop.sock_recv(told, _PIECE):
        pieces.append(piece)
    return b"".join(pieces)
