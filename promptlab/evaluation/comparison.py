"""Two variants on the same cases: which is better, by how much, and whether that is settled."""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from promptlab.evaluation import evidence

#: A difference is settled where chance alone would show one as large this seldom.
ALPHA = 1 - evidence.CONFIDENCE


class Verdict(enum.StrEnum):
    """What the evidence says of a candidate beside the baseline."""

    VALIDATED = "VALIDATED"
    REJECTED = "REJECTED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate beside the baseline by one metric, over the cases both have.

    `difference` is the candidate's mean less the baseline's. `p` is the test's, `adjusted` what Holm makes of it among
    all comparisons of the evaluation. `effect` is Cohen's g of a rate (from -0.5 to 0.5), else the rank-biserial
    correlation (from -1 to 1). `more` cases would likely settle it, where more would.
    """

    metric: str
    candidate: str
    baseline: str
    cases: int
    difference: float
    low: float | None
    high: float | None
    test: str
    p: float
    effect: float
    less_is_better: bool
    adjusted: float = 1.0
    verdict: Verdict = Verdict.INCONCLUSIVE
    more: int | None = None
    #: The difference in each case.
    differences: tuple[float, ...] = field(default=(), repr=False)


def compare(
    metric: str,
    names: tuple[str, str],
    candidate: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    less_is_better: bool = False,
) -> Comparison | None:
    """Both by their values of each case, before `settle`. None where they have no case in common."""
    shared = [case for case in candidate if case in baseline]
    if not shared:
        return None
    ours, theirs = [candidate[case] for case in shared], [baseline[case] for case in shared]
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(differences)
    if not less_is_better and evidence.is_binary(ours) and evidence.is_binary(theirs):
        test, p, effect, ends = _rates(differences)
    else:
        test, p, effect, ends = _means(differences)
    low, high = ends or (None, None)
    return Comparison(
        metric=metric,
        candidate=names[0],
        baseline=names[1],
        cases=len(shared),
        difference=mean,
        low=low,
        high=high,
        test=test,
        p=p,
        effect=effect,
        less_is_better=less_is_better,
        differences=tuple(differences),
    )


def settle(comparisons: Sequence[Comparison], *, alpha: float = ALPHA) -> list[Comparison]:
    """The comparisons with Holm's correction over all of them, and their verdicts.

    Settled is what both the test and the interval call so: ranks can say what a mean does not.
    """
    adjusted = holm([one.p for one in comparisons])
    found = []
    for one, p in zip(comparisons, adjusted, strict=True):
        away = one.low is not None and one.high is not None and (one.low > 0 or one.high < 0)
        verdict = Verdict.INCONCLUSIVE
        if p < alpha and away:
            better = (one.difference < 0) is one.less_is_better
            verdict = Verdict.VALIDATED if better else Verdict.REJECTED
        # All the others beside it make it harder to settle.
        more = _more(one.differences, alpha / len(comparisons)) if verdict is Verdict.INCONCLUSIVE else None
        found.append(replace(one, adjusted=p, verdict=verdict, more=more))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: what each p is worth among all (https://www.jstor.org/stable/4615733)."""
    order = sorted(range(len(p)), key=p.__getitem__)
    found, worst = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[number]))
        found[number] = worst
    return found


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: `gained` cases changed one way, `lost` the other."""
    from scipy import stats

    return 1.0 if gained + lost == 0 else float(stats.binomtest(gained, gained + lost).pvalue)


def wilcoxon(differences: Sequence[float]) -> float:
    """The two-sided p of Wilcoxon's signed-rank test; exact for few cases without ties."""
    changed = [one for one in differences if one]
    if not changed:
        return 1.0
    from scipy import stats

    # scipy is exact up to 50 without ties; with ties in so few it would permute, which is exact as well.
    ties = len({abs(one) for one in changed}) < len(changed)
    method = "exact" if len(changed) <= 50 and not ties else "asymptotic"
    if ties and len(changed) <= 13:
        return _permuted(changed)
    return float(stats.wilcoxon(changed, method=method, correction=method == "asymptotic").pvalue)


def _permuted(changed: Sequence[float]) -> float:
    """The exact p of signed ranks with ties: over every way their signs could have fallen."""
    from scipy import stats

    ranks = [round(2 * float(rank)) for rank in stats.rankdata([abs(one) for one in changed])]
    total = sum(ranks)
    ways = {0: 1}
    for rank in ranks:
        after = dict(ways)
        for value, count in ways.items():
            after[value + rank] = after.get(value + rank, 0) + count
        ways = after
    up = sum(rank for rank, one in zip(ranks, changed, strict=True) if one > 0)
    least = min(up, total - up)
    tail = sum(count for value, count in ways.items() if value <= least)
    return min(1.0, float(2 * tail / 2 ** len(ranks)))


def rank_biserial(differences: Sequence[float]) -> float:
    """How far the ranks lean one way, from -1 to 1: Kerby's simple difference (https://doi.org/10.2466/11.IT.3.1)."""
    changed = [one for one in differences if one]
    if not changed:
        return 0.0
    from scipy import stats

    ranks = stats.rankdata([abs(one) for one in changed])
    up = float(sum(rank for rank, one in zip(ranks, changed, strict=True) if one > 0))
    total = float(sum(ranks))
    return (2 * up - total) / total


def difference_of_rates(gained: int, lost: int, count: int) -> tuple[float, float]:
    """The interval of a difference of paired rates, by Bonett and Price (https://doi.org/10.3102/1076998611411915)."""
    z = statistics.NormalDist().inv_cdf((1 + evidence.CONFIDENCE) / 2)
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def _rates(differences: Sequence[float]) -> tuple[str, float, float, tuple[float, float] | None]:
    gained, lost = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    effect = gained / (gained + lost) - 0.5 if gained + lost else 0.0
    return "McNemar", mcnemar(gained, lost), effect, difference_of_rates(gained, lost, len(differences))


def _means(differences: Sequence[float]) -> tuple[str, float, float, tuple[float, float] | None]:
    return "Wilcoxon", wilcoxon(differences), rank_biserial(differences), evidence.bca(differences)


def _more(differences: Sequence[float], alpha: float) -> int | None:
    wanted = evidence.cases_for_mean(differences, alpha=alpha)
    return None if wanted is None else max(1, wanted - len(differences))
