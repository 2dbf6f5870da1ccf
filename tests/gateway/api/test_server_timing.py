"""Where a call's time went, from the moments noted of it."""

from __future__ import annotations

import pytest

from gateway.api.server_timing import server_timing
from gateway.trace import Marks


@pytest.mark.parametrize(
    ("marks", "now", "value"),
    [
        # A body that took 5 s to arrive is the caller's time; 2 ms of an attempt that failed are an upstream's.
        (
            Marks(10.0, authenticated=10.00005, read=15.0, admitted=15.0001, answered=15.0141, upstream=0.012),
            15.0142,
            "auth;dur=0.05, limit;dur=0.10, route;dur=2.00, upstream;dur=12.00, own;dur=2.25",
        ),
        # Answered without an upstream.
        (
            Marks(1.0, authenticated=1.0, read=1.0, admitted=1.0, answered=1.001),
            1.001,
            "auth;dur=0.00, limit;dur=0.00, route;dur=1.00, upstream;dur=0.00, own;dur=1.00",
        ),
    ],
)
def test_every_millisecond_is_somebodys(marks: Marks, now: float, value: str) -> None:
    assert server_timing(marks, now) == value
