"""Windows of budgets: aligned in UTC, through leap days, months' ends and changes of local time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.windows import Window, is_duration, window


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("duration", "moment", "start", "end"),
    [
        ("15m", "2026-11-26T10:14:59", "2026-11-26T10:00:00", "2026-11-26T10:15:00"),
        ("15m", "2026-11-26T10:15:00", "2026-11-26T10:15:00", "2026-11-26T10:30:00"),
        ("1h", "2026-11-26T23:59:59", "2026-11-26T23:00:00", "2026-11-27T00:00:00"),
        ("1d", "2026-02-28T12:00:00", "2026-02-28T00:00:00", "2026-03-01T00:00:00"),
        ("1d", "2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-01T00:00:00"),
        # Clocks change in Berlin on this day and in New York on that one: UTC has neither.
        ("1d", "2026-03-29T01:30:00", "2026-03-29T00:00:00", "2026-03-30T00:00:00"),
        ("1d", "2026-11-01T06:30:00", "2026-11-01T00:00:00", "2026-11-02T00:00:00"),
        ("1w", "2026-11-29T23:59:59", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
        ("1w", "2026-11-30T00:00:00", "2026-11-30T00:00:00", "2026-12-07T00:00:00"),
        ("1mo", "2026-01-31T23:59:59", "2026-01-01T00:00:00", "2026-02-01T00:00:00"),
        ("1mo", "2028-02-29T23:59:59", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ("1mo", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("3mo", "2026-11-26T00:00:00", "2026-10-01T00:00:00", "2027-01-01T00:00:00"),
        ("12mo", "2026-11-26T00:00:00", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("1h", "1970-01-01T00:00:00", "1970-01-01T00:00:00", "1970-01-01T01:00:00"),
    ],
)
def test_a_moment_is_in_one_window(duration: str, moment: str, start: str, end: str) -> None:
    assert window(duration, at(moment)) == Window(at(start), at(end))


@pytest.mark.parametrize("duration", ["7m", "1h", "5d", "30d", "1w", "2w", "1mo", "5mo"])
def test_windows_follow_each_other_without_gap_or_overlap(duration: str) -> None:
    one = window(duration, at("2027-12-15T00:00:00"))
    for _ in range(40):
        assert one.end is not None
        assert window(duration, one.end - 1) == one
        following = window(duration, one.end)
        assert following.start == one.end
        one = following


def test_without_a_duration_a_budget_is_for_ever() -> None:
    assert window(None, 1e9) == Window(0, None)


@pytest.mark.parametrize("text", ["", "1", "d", "0d", "01d", "1.5h", "-1d", "1y", "13mo", "367d", "9999h", "1D", " 1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    assert not is_duration(text)
    with pytest.raises(ValueError, match=f"^{text}$"):
        window(text, 0)
