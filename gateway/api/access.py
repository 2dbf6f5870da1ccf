"""Who is asking: the key of a request, and in protected mode whether it comes from this machine at all."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import Forbidden, InvalidKey
from gateway.keys import Keys
from gateway.owners import Key, Scope

HttpScope = Mapping[str, Any]
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """Recognises callers. `hosts` are further names this server goes by in protected mode."""

    def __init__(self, keys: Keys, hosts: Iterable[str] = ()) -> None:
        self._keys = keys
        self._hosts = _LOOPBACK | set(hosts)

    def key(self, headers: Mapping[bytes, bytes]) -> Key:
        """The caller's key, from Bearer, `x-api-key` or a Basic password. Raises `InvalidKey` or `Forbidden`."""
        if self._keys.protected:
            self._check_origin(headers)
        return self._keys.recognise(secret(headers))

    def allow(self, headers: Mapping[bytes, bytes], scope: Scope) -> Key:
        """The caller's key if it has `scope`."""
        return self.allow_one_of(headers, (scope,))

    def allow_one_of(self, headers: Mapping[bytes, bytes], scopes: Iterable[Scope]) -> Key:
        """The caller's key if it has one of `scopes`, of which the first is what it needs for everything here."""
        key, wanted = self.key(headers), tuple(scopes)
        if key.scopes.isdisjoint(wanted):
            raise Forbidden(f"This key has no scope '{wanted[0]}'; it has: {', '.join(sorted(key.scopes)) or 'none'}.")
        return key

    async def caller(self, headers: Mapping[bytes, bytes], scope: Scope) -> Key:
        """The caller's key if it has `scope`, also where it was made a moment ago. Raises as `allow` does."""
        try:
            return self.allow(headers, scope)
        except InvalidKey:
            if not await self.look_again(headers):
                raise
            return self.allow(headers, scope)

    async def look_again(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether asking once more may help: the key was made a moment ago (`Keys.look_again`)."""
        return await self._keys.look_again(secret(headers))

    def check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """In protected mode, refuse what a foreign web page could make a browser send. Raises `Forbidden`."""
        if self._keys.protected:
            self._check_origin(headers)

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        # A page elsewhere whose name was made to point here (DNS rebinding) shows in Host, a plain one in Origin.
        if not self._is_ours(f"//{headers.get(b'host', b'').decode('latin-1')}"):
            raise Forbidden(
                "This server runs without an admin key, for callers on this machine only: its address must be "
                "localhost or 127.0.0.1. Set PROMPTYARD_ADMIN_KEY to serve others.",
                code="foreign_host",
            )
        origin = headers.get(b"origin")
        cross = headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-mode") != b"navigate"
        if cross or (origin is not None and not self._is_ours(origin.decode("latin-1"))):
            raise Forbidden(
                "This server runs without an admin key and refuses requests from other web sites.",
                code="foreign_origin",
            )

    def _is_ours(self, address: str) -> bool:
        """Whether `address` names us, by a name of ours or any address of the loopback, which nobody can redirect."""
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname or "", parts.port  # which raises for what is no number
            return host in self._hosts or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def secret(headers: Mapping[bytes, bytes]) -> str | None:
    """The key's secret a request carries, however its client sends it."""
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer" if value.strip():
            return value.strip()
        case "basic":
            try:
                return base64.b64decode(value, validate=True).decode("latin-1").partition(":")[2] or None
            except ValueError:  # binascii.Error is one; letters beyond ASCII raise the plain kind
                return None
    given = headers.get(b"x-api-key", b"").decode("latin-1").strip()
    return given or None
