"""Windows of time that budgets are kept in: aligned, in UTC, and the same for every process that asks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

_DURATION = re.compile(r"([1-9][0-9]{0,3})(m|h|d|w|mo)")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: 1970-01-05, a Monday: weeks begin there.
_MONDAY = 4 * 86400
_LONGEST = 366 * 86400


class Window(NamedTuple):
    """From `start` (inclusive) until `end`, UTC epoch seconds. One that never ends has no `end`."""

    start: int
    end: int | None


def is_duration(text: str) -> bool:
    """Whether `text` is one: `15m`, `1h`, `1d`, `1w`, `30d`, or `1mo` for calendar months. At most 366 days."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return False
    count, unit = int(found[1]), found[2]
    return count <= 12 if unit == "mo" else count * _SECONDS[unit] <= _LONGEST


def window(duration: str | None, moment: float) -> Window:
    """The window of `duration` that `moment` (UTC epoch seconds) is in; without a duration, all of time.

    Windows of minutes, hours and days begin at multiples since 1970-01-01, weeks on Mondays, months on the first
    (several of them: in January first). Raises `ValueError` for what is no duration.
    """
    if duration is None:
        return Window(0, None)
    if not is_duration(duration):
        raise ValueError(duration)
    count, unit = int(duration.rstrip("mhdwo")), duration.lstrip("0123456789")
    if unit == "mo":
        return _months(count, moment)
    length, first = count * _SECONDS[unit], _MONDAY if unit == "w" else 0
    start = int((moment - first) // length) * length + first
    return Window(start, start + length)


def _months(count: int, moment: float) -> Window:
    at = datetime.fromtimestamp(moment, UTC)
    first = (at.year * 12 + at.month - 1) // count * count
    return Window(_first_of(first), _first_of(first + count))


def _first_of(month: int) -> int:
    """The first second of a month, counted from the year 0."""
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())
