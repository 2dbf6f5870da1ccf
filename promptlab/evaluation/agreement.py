"""A judge beside people: how often they agree beyond chance, and where they do not."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptlab.evaluation import evidence
from promptlab.evaluation.evidence import Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a judge and people said of the same answers. `table` counts by (people's label, judge's label)."""

    labels: tuple[str, ...]
    table: Mapping[tuple[str, str], int]
    agreed: Estimate
    kappa: float | None
    low: float | None
    high: float | None


def agreement(people: Sequence[str], judge: Sequence[str]) -> Agreement | None:
    """Cohen's kappa with its interval, and the confusion table. None of nothing; no kappa where all say one thing."""
    pairs = list(zip(people, judge, strict=True))
    if not pairs:
        return None
    table = Counter(pairs)
    labels = tuple(sorted({*people, *judge}))
    same = sum(count for (one, other), count in table.items() if one == other)
    agreed = Estimate(same / len(pairs), *evidence.wilson(same, len(pairs)), len(pairs))
    return Agreement(labels, table, agreed, *_kappa(labels, table, len(pairs)))


def label(value: object) -> bool | None:
    """What a person's label says: a number from 0.5 on is yes; None where it says nothing."""
    text = str(value).strip().casefold() if value is not None else ""
    if text in _YES or text in _NO:
        return text in _YES
    try:
        return float(text) >= 0.5
    except ValueError:
        return None


_YES = ("yes", "true", "y", "pass", "passed", "good", "correct")
_NO = ("no", "false", "n", "fail", "failed", "bad", "wrong", "incorrect")


def corrected(judge: Sequence[float], labelled: Sequence[tuple[float, float]]) -> Estimate | None:
    """The rate that people would find in all answers: the judge's, put right by the pairs (people, judge) of some.

    Prediction-powered inference, https://doi.org/10.1126/science.adi6000, with the weight of the judge that makes
    the interval narrowest: where it knows nothing, only the labels count. `judge` are its values of the others. None
    of fewer than two pairs.
    """
    if len(labelled) < 2:
        return None
    people, seen = [one for one, _ in labelled], [other for _, other in labelled]
    few, many = len(labelled), len(judge)
    mean_people, mean_seen = statistics.fmean(people), statistics.fmean(seen)
    both = sum((one - mean_people) * (other - mean_seen) for one, other in labelled) / (few - 1)
    spread = statistics.variance([*seen, *judge])
    weight = min(1.0, max(0.0, both / ((1 + few / many) * spread))) if many and spread else 0.0
    left = [one - weight * other for one, other in labelled]
    value = statistics.fmean(left) + (weight * statistics.fmean(judge) if many else 0.0)
    variance = statistics.variance(left) / few + (weight**2 * _variance(judge) / many if many else 0.0)
    half = statistics.NormalDist().inv_cdf((1 + evidence.CONFIDENCE) / 2) * variance**0.5
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), few + many)


def _variance(values: Sequence[float]) -> float:
    return statistics.variance(values) if len(values) > 1 else 0.0


def _kappa(
    labels: Sequence[str], table: Mapping[tuple[str, str], int], count: int
) -> tuple[float | None, float | None, float | None]:
    """Kappa with the large-sample interval of Fleiss, Cohen and Everitt (https://doi.org/10.1037/h0028106)."""
    share = {(one, other): table.get((one, other), 0) / count for one, other in itertools.product(labels, labels)}
    row = {one: sum(share[one, other] for other in labels) for one in labels}
    column = {other: sum(share[one, other] for one in labels) for other in labels}
    seen, chance = sum(share[one, one] for one in labels), sum(row[one] * column[one] for one in labels)
    if chance >= 1:
        return None, None, None
    kappa = (seen - chance) / (1 - chance)
    on = sum(share[one, one] * (1 - (row[one] + column[one]) * (1 - kappa)) ** 2 for one in labels)
    off = (1 - kappa) ** 2 * sum(
        share[one, other] * (column[one] + row[other]) ** 2
        for one, other in itertools.product(labels, labels)
        if one != other
    )
    spread = max(0.0, on + off - (kappa - chance * (1 - kappa)) ** 2)
    half = statistics.NormalDist().inv_cdf((1 + evidence.CONFIDENCE) / 2) * (spread / count) ** 0.5 / (1 - chance)
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half)
