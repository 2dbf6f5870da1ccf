"""Numbers are short, carry their unit, and one column keeps to one unit."""

from __future__ import annotations

import math
import sys

import pytest

from promptlab.workbench.figures import dollars, figure, seconds, whole, writer


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234567.0, "1,234,567"),
        (0.00001234, "1.234e-05"),
        (3.14159, "3.142"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-sys.float_info.max, "−∞"),
        (1.5e300, "1.5e+300"),
        (None, "–"),
        (-2.5, "-2.5"),
    ],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (59.5, "59.50 s"),
        (60.0, "1 min"),
        (61.2, "1 min 1 s"),
        (3_599.9, "1 h"),
        (46_920.0, "13 h 2 min"),
        (111_600.0, "1 d 7 h"),
    ],
)
def test_times(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "$0"),
        (1e-9, "$0.0000000010"),
        (0.0000024, "$0.0000024"),
        (0.000535, "$0.00053"),
        (0.01234, "$0.0123"),
        (1234.5, "$1,234.50"),
        (math.nan, "$nan"),
    ],
)
def test_costs(value: float | None, text: str) -> None:
    assert dollars(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (12_345_678.0, "12,345,678"), (0.5, "0.5"), (math.nan, "NaN"), (math.inf, "∞")]
)
def test_counts(value: float | None, text: str) -> None:
    assert whole(value) == text


@pytest.mark.parametrize(
    ("metric", "found", "texts"),
    [
        ("latency", [0.2, 0.9], ["200 ms", "900 ms"]),
        ("latency", [0.2, 9.0], ["0.20 s", "9.00 s"]),
        ("first_token", [], []),
        ("latency", [0.2, 90.0], ["200 ms", "1 min 30 s"]),
        ("cost", [0.0, 0.5], ["$0", "$0.5000"]),
        ("input_tokens", [16.0, 20000.0], ["16", "20,000"]),
        ("accuracy", [0.5], ["0.5"]),
    ],
)
def test_a_metric_keeps_to_one_unit(metric: str, found: list[float], texts: list[str]) -> None:
    assert [writer(metric, found)(value) for value in found] == texts
