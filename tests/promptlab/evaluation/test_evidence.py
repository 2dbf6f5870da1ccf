"""Intervals and tests: known values, reference implementations, and what simulation says of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from promptlab.evaluation import comparison, evidence
from promptlab.evaluation.agreement import agreement
from promptlab.evaluation.comparison import Verdict, compare, holm, mcnemar, settle, wilcoxon

SOAK = os.environ.get("PROMPTYARD_TEST_SOAK") == "1"
#: In full, what is promised is measured to half a per cent; else a slip of a formula is seen.
DRAWS, SLACK, SIZES = (2000, 0.0, [30, 100]) if SOAK else (200, 0.03, [30])


# Newcombe 1998 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_the_published_one(hits: int, count: int, low: float, high: float) -> None:
    assert evidence.wilson(hits, count) == pytest.approx((low, high), abs=5e-5)


@given(some.integers(1, 500).flatmap(lambda count: some.tuples(some.integers(0, count), some.just(count))))
def test_wilson_agrees_with_scipy_and_holds_the_rate(pair: tuple[int, int]) -> None:
    hits, count = pair
    low, high = evidence.wilson(hits, count)
    theirs = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= low <= hits / count <= high <= 1


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no rate"):
        evidence.wilson(1, 0)


def test_bca_is_scipys_where_it_is_widened_alike() -> None:
    sample = np.random.default_rng(5).exponential(size=60)
    level = 2 * stats.norm.cdf(evidence._half_width(60, 0.95)) - 1
    theirs = stats.bootstrap((sample,), np.mean, confidence_level=level, method="BCa", random_state=1)
    low, high = evidence.bca(list(sample)) or (0, 0)
    assert (low, high) == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high), rel=0.02)


def test_the_same_values_have_the_same_interval() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.5]
    assert evidence.bca(values) == evidence.bca(values)
    assert evidence.bca([0.5, 0.5]) == (0.5, 0.5)
    assert evidence.bca([0.5]) is None
    assert evidence.estimate([]) is None


def test_amounts_are_no_rates() -> None:
    shares, amounts = evidence.estimate([0.0, 0.0, 0.0]), evidence.estimate([0.0, 0.0, 0.0], amounts=True)
    assert shares is not None
    assert amounts is not None
    assert (shares.low, shares.high) == pytest.approx((0, 0.5615), abs=1e-4)
    assert (amounts.low, amounts.high) == (0, 0)


POPULATIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda draw, size: draw.normal(0, 1, size), 0.0),
    "scores": (lambda draw, size: draw.beta(5, 2, size), 5 / 7),
    "skewed": (lambda draw, size: draw.exponential(1, size), 1.0),
}


@pytest.mark.soak
@pytest.mark.parametrize("kind", POPULATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_the_interval_of_a_mean_holds_the_true_one_95_times_of_100(kind: str, size: int) -> None:
    draw, (make, mean) = np.random.default_rng(11), POPULATIONS[kind]
    held = 0
    for _ in range(DRAWS):
        low, high = evidence.bca(list(make(draw, size))) or (0, 0)
        held += low <= mean <= high
    assert 0.93 - SLACK <= held / DRAWS <= 0.97 + SLACK


@pytest.mark.parametrize(("rate", "size"), [(0.5, 50), (0.9, 100), (0.2, 400)])
def test_the_interval_of_a_rate_does_too(rate: float, size: int) -> None:
    draws = np.random.default_rng(12).binomial(size, rate, 2000)
    held = sum(low <= rate <= high for low, high in (evidence.wilson(int(hits), size) for hits in draws))
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.parametrize("size", [40, 200])
def test_the_interval_of_a_difference_of_rates_does_too(size: int) -> None:
    draws = np.random.default_rng(13).multinomial(size, [0.15, 0.10, 0.75], 2000)
    held = 0
    for gained, lost, _ in draws:
        low, high = comparison.difference_of_rates(int(gained), int(lost), size)
        held += low <= 0.05 <= high
    assert 0.93 <= held / 2000 <= 0.985


@pytest.mark.parametrize("kind", ["rates", "skewed", "three candidates"])
def test_what_is_no_better_is_seldom_validated(kind: str) -> None:
    draw, size, false = np.random.default_rng(14), 40, 0
    for _ in range(DRAWS):
        made = []
        for _ in range(3 if kind == "three candidates" else 1):
            both = draw.random((2, size)) < 0.7 if kind == "rates" else draw.exponential(1, (2, size))
            ours, theirs = ({str(n): float(value) for n, value in enumerate(row)} for row in both)
            made.append(compare("m", ("b", "a"), ours, theirs))
        false += any(one.verdict is Verdict.VALIDATED for one in settle([one for one in made if one]))
    assert false / DRAWS <= 0.05


def test_what_is_better_is_validated_and_what_is_worse_rejected() -> None:
    worse = {str(number): float(number % 4 == 0) for number in range(100)}
    better = {str(number): float(number % 4 != 0) for number in range(100)}
    up, down = compare("m", ("b", "a"), better, worse), compare("m", ("b", "a"), worse, better)
    cheap = compare("cost", ("b", "a"), worse, better, less_is_better=True)
    assert up is not None
    assert down is not None
    assert cheap is not None
    assert [one.verdict for one in settle([up, down, cheap])] == [
        Verdict.VALIDATED,
        Verdict.REJECTED,
        Verdict.VALIDATED,
    ]
    assert up.difference == 0.5
    assert up.effect == 0.25


def test_what_is_open_says_how_many_more_cases_it_takes() -> None:
    ours = {str(number): float(number in (1, 2, 3)) for number in range(20)}
    theirs = {str(number): float(number == 5) for number in range(20)}
    made = compare("m", ("b", "a"), ours, theirs)
    assert made is not None
    [one] = settle([made])
    assert one.verdict is Verdict.INCONCLUSIVE
    assert one.more is not None
    assert 30 < one.more < 300
    # With so many more of the same kind it is settled.
    times = math.ceil((20 + one.more) / 20)
    again = compare("m", ("b", "a"), _times(ours, times), _times(theirs, times))
    assert again is not None
    assert settle([again])[0].verdict is Verdict.VALIDATED


def _times(values: dict[str, float], times: int) -> dict[str, float]:
    return {f"{name} {number}": value for name, value in values.items() for number in range(times)}


def test_nothing_in_common_is_no_comparison() -> None:
    assert compare("m", ("b", "a"), {"1": 1.0}, {"2": 1.0}) is None


@given(some.lists(some.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_helps_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [adjusted[number] for number in order] == sorted(adjusted)


def test_holm_is_the_published_one() -> None:
    # https://en.wikipedia.org/wiki/Holm-Bonferroni_method: p of 0.01, 0.04, 0.03, 0.005 become
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1), (6, 0, 0.03125), (10, 2, 0.03857421875), (5, 5, 1)])
def test_mcnemar_is_exact(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


@settings(max_examples=40, deadline=None)
@given(some.lists(some.integers(-4, 4), min_size=1, max_size=10))
def test_wilcoxon_with_ties_is_exact(differences: list[int]) -> None:
    changed = [float(one) for one in differences if one]
    if not changed:
        assert wilcoxon(differences) == 1
        return
    ranks = stats.rankdata(np.abs(changed))
    seen = min(float(ranks[np.array(changed) > 0].sum()), float(ranks[np.array(changed) < 0].sum()))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(changed))).reshape(len(changed), -1)
    sums = ranks @ signs
    extreme = np.minimum(sums, ranks.sum() - sums) <= seen + 1e-9
    assert wilcoxon(differences) == pytest.approx(extreme.mean())


def test_wilcoxon_without_ties_is_scipys() -> None:
    differences = [0.1, -0.25, 0.3, 0.45, -0.05, 0.6, 0.7]
    assert wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_kappa_is_scikit_learns_and_its_interval_holds_it() -> None:
    draw = np.random.default_rng(3)
    people = [str(one) for one in draw.integers(0, 3, 200)]
    judge = [one if draw.random() < 0.7 else str(draw.integers(0, 3)) for one in people]
    found = agreement(people, judge)
    assert found is not None
    assert found.kappa == pytest.approx(cohen_kappa_score(people, judge))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.kappa < found.high
    assert sum(found.table.values()) == 200
    assert agreement(["yes", "yes"], ["yes", "yes"]).kappa is None  # type: ignore[union-attr]
    assert agreement([], []) is None
