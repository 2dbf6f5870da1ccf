"""End users: for whom an application says it asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

#: The header that says so, whatever the body says.
HEADER = b"x-promptyard-user"
_LONGEST = 200


def named(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> str:
    """The end user of a request; "" where none is named.

    Told by our header, or in the body as OpenAI has it (`user`, and `safety_identifier` in its place) or Anthropic
    (`metadata.user_id`). A name that no list could show, or that is longer than 200 characters, is its SHA-256.
    https://platform.openai.com/docs/api-reference/chat/create  https://docs.anthropic.com/en/api/messages
    """
    if HEADER in headers:
        return shown(headers[HEADER].decode("utf-8", "surrogateescape").strip())
    name = body.get("user") or body.get("safety_identifier")
    if name is None and "metadata" in body:
        metadata = body["metadata"]
        name = metadata.get("user_id") if isinstance(metadata, dict) else None
    return shown(name) if name and isinstance(name, str) else ""


def shown(name: str) -> str:
    """`name` where it can be shown and stored, else its SHA-256."""
    if len(name) <= _LONGEST and name.isprintable():
        return name
    return "sha256:" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
