"""An HTTP proxy on the way to an upstream: where it is, what it wants to hear, and the tunnel through it."""

from __future__ import annotations

import asyncio
import base64
import socket
from urllib.parse import unquote, urlsplit

from gateway.errors import UpstreamFailed

REFUSED = "The provider's proxy refused its user and password (HTTP 407)."
#: A proxy's answer to CONNECT has a head and no more; a longer one is a proxy gone wrong.
_MAX_HEAD = 64 * 1024


class HttpProxy:
    """A proxy at `http://host:port` or `http://user:password@host:port`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.credential = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self.credential = f"proxy-authorization: Basic {base64.b64encode(pair).decode()}\r\n"

    async def tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Have the proxy join `sock`, which is connected to it, to the upstream. Raises `UpstreamFailed`, `OSError`.

        https://www.rfc-editor.org/rfc/rfc9110#CONNECT
        """
        loop = asyncio.get_running_loop()
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        await loop.sock_sendall(
            sock, f"CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n{self.credential}\r\n".encode("ascii")
        )
        head = b""
        while b"\r\n\r\n" not in head:
            part = await loop.sock_recv(sock, 4096)
            head += part
            if not part or len(head) > _MAX_HEAD:
                raise UpstreamFailed("The provider's proxy broke off.")
        status = head.split(b" ", 2)[1:2]
        # An upstream says nothing before TLS begins: whatever follows the head is not from there.
        if status == [b"200"] and head.endswith(b"\r\n\r\n"):
            return
        if status == [b"407"]:
            raise UpstreamFailed(REFUSED)
        said = f" (HTTP {status[0].decode()})" if status and status[0].isdigit() and len(status[0]) == 3 else ""
        raise UpstreamFailed(f"The provider's proxy did not connect to the provider{said}.")
