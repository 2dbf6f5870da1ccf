"""Charts drawn as HTML and SVG by small pure functions. They take the width they are given, down to 200 pixels."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeGuard

from promptlab.workbench.figures import figure

_HEIGHT = 120.0
# How a chart of histories begins.
LINES = '<figure class="chart lines">'


@dataclass(frozen=True, slots=True)
class Series:
    """One run's points of one metric: (step, value), in order. `tint` is the index of its colour."""

    label: str
    tint: int
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float | None:
        """The latest value."""
        return self.points[-1][1] if self.points else None


def tint(index: int) -> str:
    """The attribute that gives an element, and what is in it, the colour of the run at `index`."""
    return f'style="--tint:var(--c{index + 1})"'


def chart(name: str, series: Sequence[Series], write: Callable[[float | None], str] = figure) -> str:
    """A metric of several runs: bars of single values, or lines over steps where there is a history.

    `write` turns a value into text, its unit included.
    """
    kind = "lines" if any(len(one.points) > 1 for one in series) else "bars" if len(series) > 1 else "single"
    drawn = _lines(series, write) if kind == "lines" else ""
    return (
        f'<figure class="chart {kind}"><figcaption title="{escape(name)}">{escape(name)}</figcaption>'
        f"{drawn}{_bars(series, write, with_bars=kind == 'bars')}</figure>"
    )


def _bars(series: Sequence[Series], write: Callable[[float | None], str], *, with_bars: bool) -> str:
    """One row a run: its bar from zero, its value, and how far it is from the first run's."""
    finite = [abs(one.last) for one in series if _is_finite(one.last)]
    longest = max(finite, default=0.0) or 1.0
    first = series[0].last if series else None
    rows = ""
    for index, one in enumerate(series):
        value = one.last
        share = abs(value) / longest if _is_finite(value) else 0.0
        bar = f'<i style="width:{100 * share:.1f}%"></i>' if with_bars else ""
        exact = "" if value is None else f' title="{escape(one.label)}: {value!r}"'
        rows += (
            f"<li {tint(one.tint)}{exact}>"
            f'<span class="track">{bar}</span><b>{escape(write(value))}</b>'
            f"<small>{_change(first, value) if index else ''}</small></li>"
        )
    return f"<ul>{rows}</ul>"


def _change(first: float | None, value: float | None) -> str:
    if not _is_finite(first) or not _is_finite(value) or not first:
        return ""
    change = (value - first) / abs(first)
    if change == 0:
        return "same"
    if abs(change) >= 10:
        return f"×{figure(round(value / first))}" if math.isfinite(value / first) else ""
    if abs(change) < 0.0005:
        return "≈ same"
    return f"{'+' if change > 0 else '−'}{abs(change):.{0 if abs(change) >= 0.1 else 1}%}"


def _is_finite(value: float | None) -> TypeGuard[float]:
    """Whether it can be drawn; MLflow's server keeps an infinity as the largest number there is."""
    return value is not None and math.isfinite(value) and abs(value) < sys.float_info.max


def _lines(series: Sequence[Series], write: Callable[[float | None], str]) -> str:
    """Values over steps. Only the lines scale with the width; the axis labels are text beside them."""
    points = [point for one in series for point in one.points if _is_finite(point[1])]
    if not points:
        return ""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0
    paths = ""
    for one in series:
        path = " ".join(
            f"{100 * (x - left) / wide:.2f},{_HEIGHT - 4 - (_HEIGHT - 8) * (y - low) / tall:.2f}"
            for x, y in one.points
            if _is_finite(y)
        )
        if " " in path:
            paths += f'<polyline points="{path}" style="stroke:var(--c{one.tint + 1})"/>'
    return (
        f'<div class="plot"><span class="y"><b>{escape(write(high))}</b><b>{escape(write(low))}</b></span>'
        f'<svg viewBox="0 0 100 {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="Values over steps">{paths}</svg>'
        f'<span class="x"><b>step {figure(left)}</b><b>{figure(right)}</b></span></div>'
    )
