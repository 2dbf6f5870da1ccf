"""JSON as providers write it: what a caller's own client would read must not fail here."""

from __future__ import annotations

import json
from typing import Any

import orjson


def loads(data: bytes) -> Any:
    """What `data` says. Raises `ValueError` when Python's own reader cannot read it either."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    # NaN, infinities and half a surrogate pair: servers in Python send them, and clients in Python read them.
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(document: Any) -> bytes:
    """`document` as JSON, also with half a surrogate pair or digits beyond 64 bits, which an upstream may have sent."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document).encode()


def text(value: Any) -> str:
    """`value` as text: itself if it is one, else its JSON. It may hold half a surrogate pair."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError):  # deeper, or with more digits, than Python writes
        return "…"


def said(value: Any) -> str:
    """The beginning of `value` as text that can be put into an error."""
    return text(value)[:500].encode("utf-8", "replace").decode()
