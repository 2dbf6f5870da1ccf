"""The one HTTP door to upstreams: POST a body, get an `Answer`, in bytes as the upstream sent them.

Our own because proxying is what this project is for: beside aiohttp it answers half as many calls again a CPU-second
(`tests/bench`), and hears of a connection its upstream has closed before it would be used once more.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs
from pydantic import SecretStr

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.lanes import Chunks, Taker
from gateway.providers.connection import BROKEN_OFF, Connection
from gateway.providers.tunnel import REFUSED as PROXY_REFUSED
from gateway.providers.tunnel import HttpProxy
from gateway.types import Answer

#: A whole (not streamed) answer larger than this is an upstream gone wrong.
MAX_ANSWER = 256 * 1024 * 1024
#: Seconds an idle connection is kept. Plain HTTP is mostly uvicorn on our own network, which hangs up after five:
#: a request that meets the end of a connection fails, and may not be sent twice. Behind TLS stands a load balancer.
KEEPALIVE = {"http": 4.5, "https": 30.0}
_PASSED_DOWN = ("content-type", "retry-after")
_REFUSED = "could not be reached: the connection was refused or has no route."


class _Address(NamedTuple):
    """Where a URL leads, how a request to it begins, and the idle connections to that place, shared by all its paths.

    Plain HTTP through a proxy leads to the proxy.
    """

    scheme: str
    host: str
    port: int
    head: bytes
    idle: deque[Connection]


class Transport:
    """Connections shared by every provider. Redirects are not followed, cookies not kept, proxies not read from the
    environment: nothing but the configured address ever sees the credential.

    `ca_bundle` is a file of the only authorities that are trusted, instead of the system's.
    """

    def __init__(self, proxy: HttpProxy | None = None, ca_bundle: Path | None = None) -> None:
        self._proxy = proxy
        self._ca_bundle = ca_bundle
        self._branches: dict[tuple[str, Path | None, int], Transport] = {}
        self._addresses: dict[str, _Address] = {}
        self._idle: dict[tuple[str, str, int], deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._making_tls: asyncio.Task[ssl.SSLContext] | None = None
        self._pruning: asyncio.TimerHandle | None = None

    def through(self, proxy: SecretStr | None, ca_bundle: Path | None) -> Transport:
        """The transport whose calls leave through `proxy` and trust `ca_bundle`: itself where there is neither.

        It has connections of its own, and is closed with this one.
        """
        if proxy is None and ca_bundle is None:
            return self
        url = proxy.get_secret_value() if proxy else ""
        # A bundle that was written anew is read anew when the configuration is.
        way = (url, ca_bundle, ca_bundle.stat().st_mtime_ns if ca_bundle else 0)
        if way not in self._branches:
            self._branches[way] = Transport(HttpProxy(url) if proxy else None, ca_bundle)
        return self._branches[way]

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], connect: float, *, stream: bool) -> Answer:
        """The upstream's answer to `body`; its `chunks` are set when `stream` and the status is below 400.

        `connect` is in seconds and covers name, TCP and TLS; how long to wait for the answer is
        the caller's to bound, by cancelling. Raises `UpstreamFailed` or `UpstreamTimeout`.
        """
        address = self._addresses.get(url) or self._address(url)
        request = _request(address, headers, body)
        connection = _kept(address) or await self._connection(address, connect)
        finished = False
        try:
            connection.ask(request)
            while not connection.headed and connection.lost is None:
                await connection.wait()
            if not connection.headed:
                raise connection.lost or UpstreamFailed(BROKEN_OFF)
            if connection.status == 407 and self._proxy is not None:
                raise UpstreamFailed(PROXY_REFUSED)
            passed = {name: connection.headers[name] for name in _PASSED_DOWN if name in connection.headers}
            if stream and connection.status < 400:
                finished = True
                return Answer(connection.status, passed, chunks=_Chunks(self, address, connection))
            if not connection.done or connection.size > MAX_ANSWER:
                await _whole(connection)
            answer = Answer(connection.status, passed, connection.take())
            finished = True
            self.give_back(address, connection)
            return answer
        finally:
            if not finished:
                connection.abort()

    async def close(self) -> None:
        """Close every idle connection; those in use end with their answers."""
        if self._pruning is not None:
            self._pruning.cancel()
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
            idle.clear()
        for branch in self._branches.values():
            await branch.close()

    async def _connection(self, address: _Address, connect: float) -> Connection:
        who = "The provider's proxy" if self._proxy else "The provider"
        try:
            async with asyncio.timeout(connect):
                return await self._open(address)
        except TimeoutError:
            raise UpstreamTimeout(f"{who} did not accept a connection in time.") from None
        except socket.gaierror as error:
            raise UpstreamFailed(f"{who} has a host name that is not known.") from error
        except ssl.SSLError as error:
            raise UpstreamFailed("The provider's TLS certificate or handshake was not accepted.") from error
        except OSError as error:
            raise UpstreamFailed(f"{who} {_REFUSED}") from error

    async def _open(self, address: _Address) -> Connection:
        loop = asyncio.get_running_loop()
        proxy = self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (address.host, address.port)
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Tries IPv6 and IPv4 a quarter of a second apart: a host whose IPv6 is dead still answers in time.
        tls = await self._context() if address.scheme == "https" else None
        sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=0.25)
        try:
            if proxy and tls:
                await proxy.tunnel(sock, address.host, address.port)
            _, connection = await loop.create_connection(
                Connection, sock=sock, ssl=tls, server_hostname=address.host if tls else None
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _context(self) -> ssl.SSLContext:
        """The one context, made in a thread: reading the system's certificates would hold every call up for 20 ms."""
        if self._tls is None:
            if self._making_tls is None or self._making_tls.done():
                self._making_tls = asyncio.create_task(asyncio.to_thread(_trusting, self._ca_bundle))
            # Shielded: others wait for it too when this call is given up.
            self._tls = await asyncio.shield(self._making_tls)
        return self._tls

    def give_back(self, address: _Address, connection: Connection) -> None:
        """Keep a connection whose answer has been read for the next request, if it will carry one."""
        if not connection.reusable or connection.closed:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        address.idle.append(connection)
        if self._pruning is None:
            self._pruning = asyncio.get_running_loop().call_later(min(KEEPALIVE.values()), self._prune)

    def _prune(self) -> None:
        """Hang up what has been idle for too long; the newest are used first, so the oldest stand in front."""
        self._pruning = None
        now = time.monotonic()
        for (scheme, _, _), idle in self._idle.items():
            while idle and (idle[0].closed or idle[0].idle_since < now - KEEPALIVE[scheme]):
                idle.popleft().abort()
        if any(self._idle.values()):
            self._pruning = asyncio.get_running_loop().call_later(min(KEEPALIVE.values()), self._prune)

    def _address(self, url: str) -> _Address:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
            host.encode("idna" if "." in host else "ascii")
            where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            place = parts.netloc.rpartition("@")[2]
            plain = self._proxy if parts.scheme == "http" else None
            if plain:
                where = f"http://{place}{where}"
            said = f"POST {where} HTTP/1.1\r\nhost: {place}\r\n{plain.credential if plain else ''}"
            head = said.encode("ascii")
        except ValueError:
            raise UpstreamFailed("The provider's base_url is not a usable address.") from None
        if parts.scheme not in KEEPALIVE or not host:
            raise UpstreamFailed("The provider's base_url is not a usable address.")
        idle = self._idle.setdefault((parts.scheme, host, port), deque())
        known = self._addresses[url] = _Address(parts.scheme, host, port, head, idle)
        return known


class _Chunks(Chunks):
    """The body of a streamed answer. Written out: a generator that nobody began would not hang up when closed."""

    def __init__(self, transport: Transport, address: _Address, connection: Connection) -> None:
        self._transport = transport
        self._address = address
        self._connection: Connection | None = connection

    def divert(self, taker: Taker) -> None:
        """Have `taker` offered what comes (`Chunks.divert`)."""
        if self._connection is not None:
            self._connection.taker = taker

    async def asend(self, value: None) -> bytes:
        """The next bytes, as they come."""
        return await self.__anext__()

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration
        try:
            while not connection.size:
                if connection.done:
                    raise StopAsyncIteration
                if connection.lost is not None:
                    raise connection.lost
                await connection.wait()
        except BaseException:
            self._end()
            raise
        return connection.take()

    async def athrow(self, kind: Any, value: Any = None, trace: Any = None) -> bytes:
        """Hang up, unless all was read: `aclose` ends here."""
        self._end()
        raise kind

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.taker = None
        if connection.done and not connection.size:
            self._transport.give_back(self._address, connection)
        else:
            connection.abort()


def _kept(address: _Address) -> Connection | None:
    """The connection that was used last, if it may be used once more."""
    idle = address.idle
    while idle:
        connection = idle.pop()
        if not connection.closed and connection.idle_since >= time.monotonic() - KEEPALIVE[address.scheme]:
            return connection
        connection.abort()
    return None


def _trusting(ca_bundle: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_bundle)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _request(address: _Address, headers: Mapping[str, str], body: bytes) -> bytes:
    said = [f"{name}: {value}" for name, value in headers.items()]
    # A line break in a value would begin a header, or a request, of its own.
    text = "".join(said)
    if "\n" in text or "\r" in text:
        raise UpstreamFailed("A header for the provider holds a line break.")
    said.append(f"accept-encoding: identity\r\ncontent-length: {len(body)}\r\n\r\n")
    try:
        lines = "\r\n".join(said).encode("latin-1")
    except UnicodeEncodeError:
        raise UpstreamFailed("A header for the provider holds characters that no header may have.") from None
    return b"".join((address.head, lines, body))


async def _whole(connection: Connection) -> None:
    """Return once the answer is there. Raises `UpstreamFailed` for one that breaks off, or has no end."""
    while not connection.done and connection.size <= MAX_ANSWER:
        if connection.lost is not None:
            raise connection.lost
        await connection.wait()
    # Before joining: that takes as much memory again.
    if connection.size > MAX_ANSWER:
        raise UpstreamFailed(f"The provider's answer is larger than {MAX_ANSWER >> 20} MiB.")
