"""How long an upstream asks to wait, whatever it wrote into the header."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from gateway.timing import retry_after


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("9999999", 3600.0),
        ("inf", 3600.0),
        ("nan", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Fri, 01 Jan 2027 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 1900 00:00:00 GMT", 0.0),
    ],
)
def test_a_number_is_believed_up_to_a_bound_and_nonsense_is_none(said: str | None, seconds: float | None) -> None:
    assert retry_after(said, 3600.0) == seconds


def test_a_date_is_a_wait_too() -> None:
    assert retry_after(formatdate(time.time() + 100, usegmt=True), 3600.0) == pytest.approx(100, abs=5)
    assert retry_after(formatdate(time.time() - 100, usegmt=True), 3600.0) == 0.0
