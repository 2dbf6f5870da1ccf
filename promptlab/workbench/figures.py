"""Numbers as they are read on a page: no more digits than matter, and their unit where it is known."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

# Below this four decimals would leave fewer than two digits that matter.
_SMALL = 0.001
_LONG = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def figure(value: float | None) -> str:
    """A number in at most four digits that matter."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    # MLflow's server keeps an infinity as the largest number there is.
    if abs(value) >= sys.float_info.max:
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    text = f"{value:.4g}"
    return text if "e" in text else f"{float(text):,}"


def whole(value: float | None) -> str:
    """A count, its thousands apart."""
    if value is None or not math.isfinite(value) or value != round(value):
        return figure(value)
    return f"{round(value):,}"


def seconds(value: float | None) -> str:
    """A time with its unit."""
    if value is None:
        return "–"
    if value >= 60:
        return duration(value)
    return f"{1000 * value:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def duration(value: float) -> str:
    """A time from a minute to many days, in its two largest units."""
    total = round(value)
    for length, unit, below, smaller in _LONG:
        if total >= length:
            rest = total % length // below
            return f"{total // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{total} s"


def dollars(value: float | None) -> str:
    """A cost in US dollars, to two digits that matter."""
    if value is None:
        return "–"
    if value == 0:
        return "$0"
    if abs(value) >= _SMALL or not math.isfinite(value):
        return f"${value:,.4f}" if abs(value) < 1 else f"${value:,.2f}"
    return f"${value:.{1 - math.floor(math.log10(abs(value)))}f}"


def writer(metric: str, found: Iterable[float]) -> Callable[[float | None], str]:
    """How values of one of the playground's metrics are written, all in the same unit so that they compare."""
    if metric == "cost":
        return dollars
    if metric in ("input_tokens", "output_tokens"):
        return whole
    if metric not in ("latency", "first_token"):
        return figure
    longest = max(found, default=0.0)
    if longest < 0.9995:
        return seconds
    if longest < 60:
        return _in_seconds
    return seconds


def _in_seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
