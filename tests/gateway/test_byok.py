"""The caller's own credential: where it may come, and what one looks like."""

from __future__ import annotations

import pytest

from gateway import byok
from gateway.errors import BadRequest
from gateway.routes import Deployment, Route

OPEN = Route("own", (Deployment("p", "m"),), byok=True)
SHUT = Route("ours", (Deployment("p", "m"),))


def test_it_is_taken_where_the_route_says_so() -> None:
    found = byok.credential({byok.HEADER.encode(): b"sk-theirs"}, OPEN)
    assert found is not None
    assert found.get_secret_value() == "sk-theirs"
    assert "sk-theirs" not in repr(found)


@pytest.mark.parametrize("route", [OPEN, SHUT])
def test_without_one_ours_is_used(route: Route) -> None:
    assert byok.credential({b"authorization": b"Bearer our-own-key"}, route) is None


@pytest.mark.parametrize(
    ("route", "sent", "said"),
    [
        (SHUT, b"sk-theirs", "The model 'ours' takes no credential of a caller's. Remove the header"),
        (OPEN, b"", "alone"),
        (OPEN, b"sk theirs", "alone"),
        (OPEN, b"sk-theirs\r\nx: y", "alone"),
        (OPEN, b"sk-\xff", "alone"),
        (OPEN, b"k" * 8193, "alone"),
    ],
)
def test_what_is_refused(route: Route, sent: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        byok.credential({byok.HEADER.encode(): sent}, route)
    assert caught.value.param == byok.HEADER
    assert "sk-theirs" not in caught.value.message
