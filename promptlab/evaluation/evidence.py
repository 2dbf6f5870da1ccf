"""How sure a number is: intervals of rates and means, and how many cases would settle a question.

The unit is the case: its repeats are averaged first, since answers to one case are alike.
numpy and scipy are imported when they are needed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: 95 %.
CONFIDENCE = 0.95
#: Resamples of a bootstrap, and numbers drawn at most: with many cases fewer resamples say as much.
_RESAMPLES, _LEAST_RESAMPLES, _DRAWN = 9_999, 1_999, 20_000_000
#: Numbers drawn at once, which bounds the memory.
_AT_ONCE = 2_000_000
_SEED = 20_250_101
#: More cases than this are no advice.
_COUNTABLE = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `cases`, with the interval that holds the true one 95 times of 100; None where nobody can say."""

    value: float
    low: float | None
    high: float | None
    cases: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def estimate(values: Sequence[float], *, amounts: bool = False, confidence: float = CONFIDENCE) -> Estimate | None:
    """The mean of `values`, one for each case: of zeros and ones by Wilson, of others by bootstrap. None of nothing.

    `amounts` are no shares, also where each happens to be 0 or 1.
    """
    if not values:
        return None
    count, mean = len(values), statistics.fmean(values)
    if is_binary(values) and not amounts:
        low, high = wilson(round(sum(values)), count, confidence=confidence)
        return Estimate(mean, low, high, count)
    ends = bca(values, confidence=confidence)
    return Estimate(mean, ends[0] if ends else None, ends[1] if ends else None, count)


def more_cases(count: int) -> str:
    """How many more cases it takes, as people are told."""
    if count > _COUNTABLE:
        return "more cases than anybody has would settle it"
    return f"about {count} more case{'s' if count != 1 else ''} would settle it"


def is_binary(values: Sequence[float]) -> bool:
    """Whether each is 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def wilson(hits: int, count: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a rate: https://doi.org/10.1080/01621459.1927.10502953."""
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} is no rate")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    rate, share = hits / count, z * z / count
    middle = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / count + share / (4 * count))
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == count else middle + half)


def bca(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The bias-corrected and accelerated bootstrap interval of a mean; None of fewer than two values.

    Widened for few cases as Hesterberg advises (https://doi.org/10.1080/00031305.2015.1089789): plain bootstrap
    intervals are too narrow by what a normal one is beside Student's. The same values always have the same interval.
    """
    count = len(values)
    if count < 2:
        return None
    if min(values) == max(values):
        return (values[0], values[0])
    import numpy as np

    sample = np.asarray(values, dtype=float)
    means = np.sort(_resampled(sample))
    mean = float(sample.mean())
    normal = statistics.NormalDist()
    below = (float((means < mean).sum()) + float((means == mean).sum()) / 2) / len(means)
    bias = normal.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    off = sample - mean
    acceleration = float((off**3).sum() / (6 * (off**2).sum() ** 1.5))
    half = _half_width(count, confidence)
    ends = []
    for z in (-half, half):
        moved = bias + (bias + z) / (1 - acceleration * (bias + z))
        ends.append(float(np.quantile(means, normal.cdf(moved))))
    return ends[0], ends[1]


def _half_width(count: int, confidence: float) -> float:
    """Student's quantile, and what dividing by n instead of n - 1 takes off."""
    from scipy import stats

    return math.sqrt(count / (count - 1)) * float(stats.t.ppf((1 + confidence) / 2, count - 1))


def _resampled(sample: Any) -> Any:
    """The means of resamples."""
    import numpy as np

    count = len(sample)
    wanted = min(_RESAMPLES, max(_LEAST_RESAMPLES, _DRAWN // count))
    generator = np.random.default_rng(_SEED)
    at_once = max(1, _AT_ONCE // count)
    parts = []
    for done in range(0, wanted, at_once):
        size = min(at_once, wanted - done)
        parts.append(sample[generator.integers(0, count, (size, count))].mean(axis=1))
    return np.concatenate(parts)


def cases_for_mean(differences: Sequence[float], *, alpha: float = 1 - CONFIDENCE, power: float = 0.8) -> int | None:
    """How many cases in all would settle a mean difference like this one, were it the true one; None where it is 0.

    At least as many as let an exact test of signs fall below `alpha` at all.
    """
    count, changed = len(differences), sum(one != 0 for one in differences)
    if count < 2 or not changed:
        return None
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    if mean == 0:
        return None
    normal = statistics.NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    least = math.ceil(math.log2(2 / alpha)) * count / changed
    return max(count + 1, math.ceil((z * spread / mean) ** 2) + 2, math.ceil(least))


def cases_for_bound(estimated: Estimate, bound: float, *, power: float = 0.5) -> int | None:
    """How many cases in all would put the interval on one side of `bound`, were the value to stay; None: none would."""
    if estimated.low is None or estimated.high is None:
        return None
    gap = abs(estimated.value - bound)
    half = (estimated.high - estimated.low) / 2
    if gap == 0 or half == 0:
        return None
    normal = statistics.NormalDist()
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    factor = (z + normal.inv_cdf(power)) / z if power != 0.5 else 1.0
    return max(estimated.cases + 1, math.ceil(estimated.cases * (half * factor / gap) ** 2))
