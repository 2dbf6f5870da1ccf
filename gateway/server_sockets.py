"""The sockets that callers reach, of one process or of several that share a port."""

from __future__ import annotations

import ipaddress
import socket
import sys

from gateway.errors import ConfigError
from gateway.settings import Settings

#: Bytes of answers that the kernel takes for one caller beyond what is on its way.
_UNSENT = 64 * 1024
#: Connections that queue while nobody accepts them.
_QUEUE = 2048


def listen(settings: Settings) -> list[socket.socket]:
    """One listening socket for each worker, all on one port; one where there are no workers.

    Each has its own queue, and the kernel shares callers out among them (on Linux; elsewhere all are one). Whoever
    holds them all holds what queues while a worker is started again. Raises `ConfigError`.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(f"--host: '{settings.host}' is not an address of this machine.") from None
    if settings.admin_key is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ConfigError(
            f"--host: {settings.host} can be reached from other machines, and without an admin key whoever reaches "
            "this server may use it. Set PROMPTYARD_ADMIN_KEY (for example to the output of: openssl rand -hex 32), "
            "or leave --host at 127.0.0.1."
        )
    if settings.workers == 1:
        return [_listening(settings, family, address, shared=False)]
    if not sys.platform.startswith("linux"):
        first = _listening(settings, family, address, shared=False)
        return [first, *(first.dup() for _ in range(settings.workers - 1))]
    # Alone first: a port that another server shares among its own workers would be shared with it.
    with _listening(settings, family, address, shared=False) as alone:
        address = alone.getsockname()
    return [_listening(settings, family, address, shared=True) for _ in range(settings.workers)]


def _listening(settings: Settings, family: int, address: object, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Each connection has it from here. The kernel would hold megabytes for a caller who does not read.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    try:
        listener.bind(address)  # type: ignore[arg-type]  # as getaddrinfo has it
        # From here on connections queue, also while the rest of the start is still under way.
        listener.listen(_QUEUE)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--port: {settings.host}:{settings.port} cannot be listened on ({error.strerror}). "
            "Stop what uses it, or choose another with --port."
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Where this server is reached from this machine."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
