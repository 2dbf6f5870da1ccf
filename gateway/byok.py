"""Bring your own key: the credential a caller sends along for the provider, where its route says `byok: true`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr

from gateway.errors import BadRequest
from gateway.routes import Route

HEADER = "x-promptyard-provider-key"
_NAME = HEADER.encode()
_LONGEST = 8192


def credential(headers: Mapping[bytes, bytes], route: Route) -> SecretStr | None:
    """The caller's credential for the provider of `route`; None where it brought none, and ours is used.

    It is for the attempts on `route` itself: a fallback may be another provider's. Raises `BadRequest` where the
    route takes none, or what came cannot be one. No message holds it.
    """
    raw = headers.get(_NAME)
    if raw is None:
        return None
    if not route.byok:
        raise BadRequest(
            f"The model '{route.name}' takes no credential of a caller's. Remove the header {HEADER}, "
            "or ask for `byok: true` on its route.",
            param=HEADER,
        )
    if len(raw) > _LONGEST or not re.fullmatch(rb"[!-~]+", raw):
        raise BadRequest(f"{HEADER} must hold the provider's key alone: printable ASCII, no spaces.", param=HEADER)
    return SecretStr(raw.decode("ascii"))
