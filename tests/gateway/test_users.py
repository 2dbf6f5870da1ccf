"""For whom a call is: told by a header or in the body, as every client does, and never a text no list can hold."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from gateway import users

LONG = "x" * 201


def sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@pytest.mark.parametrize(
    ("header", "body", "named"),
    [
        (None, {}, ""),
        (None, {"user": "ann"}, "ann"),
        (None, {"user": "ann", "metadata": {"user_id": "bob"}}, "ann"),
        (None, {"safety_identifier": "ann"}, "ann"),
        (None, {"metadata": {"user_id": "bob"}}, "bob"),
        (None, {"metadata": {"user_id": None}}, ""),
        (None, {"metadata": "text"}, ""),
        (None, {"user": 5}, ""),
        (None, {"user": ["ann"]}, ""),
        (b"carl", {"user": "ann"}, "carl"),
        (b"", {"user": "ann"}, ""),
        ("Zoë".encode(), {}, "Zoë"),
        (b"\xff", {}, sha("\udcff")),
        (None, {"user": "x" * 200}, "x" * 200),
        (None, {"user": LONG}, sha(LONG)),
        (None, {"user": "a\x00b"}, sha("a\x00b")),
        (None, {"user": "a\nb"}, sha("a\nb")),
        (None, {"user": "\ud800"}, sha("\ud800")),
    ],
)
def test_who_is_named(header: bytes | None, body: dict[str, Any], named: str) -> None:
    assert users.named({} if header is None else {users.HEADER: header}, body) == named
