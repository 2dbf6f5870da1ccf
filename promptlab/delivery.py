"""One message to a webhook: signed as MLflow signs, sent to an address that was looked at, never to one inside.

A name is resolved once, and the connection goes to the address that was found: a name that is made to point inside
between the look and the call (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import time
import uuid
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from promptlab.entities_webhooks import Sent
from promptlab.errors import InvalidParameter

#: Seconds a message may take.
PATIENCE = 10.0
#: Bytes of an answer that are read.
_MOST = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class Delivery:
    """Sends messages. `private`: also to addresses that the internet does not know."""

    def __init__(self, *, private: bool = False) -> None:
        self._private = private

    def check(self, url: str) -> None:
        """Raise `InvalidParameter` unless `url` may be sent to, which resolves its name."""
        self._address(_parts(url))

    def send(self, url: str, secret: str | None, body: str) -> Sent:
        """How `body` was taken. Blocks for ten seconds at most, and some."""
        try:
            parts = _parts(url)
            address = self._address(parts)
        except InvalidParameter as error:
            return Sent(wrong=error.message)
        connection = _connection(parts, address)
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", place, body.encode(), _headers(secret, body))
            answer = connection.getresponse()
            text = answer.read(_MOST).decode("utf-8", "replace")
            return Sent(answer.status, text, retry_after=_seconds(answer.headers.get("retry-after")))
        except (OSError, http.client.HTTPException) as error:
            return Sent(wrong=f"It could not be reached: {type(error).__name__}")
        finally:
            connection.close()

    def _address(self, parts: SplitResult) -> str:
        host = parts.hostname or ""
        try:
            found = socket.getaddrinfo(host, parts.port or _PORTS[parts.scheme], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise InvalidParameter(f"Cannot resolve Webhook URL hostname '{host}': {error}") from None
        addresses = [str(one[4][0]).partition("%")[0] for one in found]
        inside = [one for one in addresses if not _is_public(one)]
        if inside and not self._private:
            raise InvalidParameter(
                f"The Webhook URL hostname '{host}' resolves to {inside[0]}, which is no public address. Whoever runs "
                "this server can allow it: PROMPTYARD_PRIVATE_WEBHOOKS=true."
            )
        return addresses[0]


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or not url.isascii() or any(letter <= " " for letter in url):
        raise InvalidParameter(
            "A Webhook URL begins with https:// or http:// and a hostname, as https://example.com/hook"
        )
    if parts.username or parts.password:
        raise InvalidParameter("A Webhook URL must not hold a user name or a password: sign with a secret instead")
    return parts


def _is_public(address: str) -> bool:
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address):
        # An address of IPv4 inside one of IPv6 is what it leads to.
        inner = known.ipv4_mapped or known.sixtofour
        if inner is None and known in _NAT64:
            inner = ipaddress.IPv4Address(int(known) & 0xFFFFFFFF)
        known = inner or known
    return known.is_global and not known.is_multicast


def _connection(parts: SplitResult, address: str) -> http.client.HTTPConnection:
    """A connection that goes to `address` and speaks to the host that was named."""
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if parts.scheme == "http":
        return _Pinned(host, port, address)
    return _PinnedTls(host, port, address)


class _Pinned(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, address: str) -> None:
        super().__init__(host, port, timeout=PATIENCE)
        self._address = address

    def connect(self) -> None:
        """Connect to the address that was looked at."""
        self.sock = socket.create_connection((self._address, self.port), PATIENCE)


class _PinnedTls(_Pinned):
    def connect(self) -> None:
        """As above, and prove that it is the host that was named."""
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _headers(secret: str | None, body: str) -> Mapping[str, str]:
    delivery, at = str(uuid.uuid4()), str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "promptyard",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": at,
    }
    if secret:
        mac = hmac.new(secret.encode(), f"{delivery}.{at}.{body}".encode(), hashlib.sha256).digest()
        headers["X-MLflow-Signature"] = f"v1,{base64.b64encode(mac).decode()}"
    return headers


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.strip().isdigit() else None
