"""Scorers of what was measured: how long an answer is, how long it took, what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from promptlab.evaluation.scorers.scorer import Kind, Mark, Misused, Scorer, Seen, Unscorable, yes


@dataclass(frozen=True)
class Length(Scorer):
    """Whether the answer's length is between `min` and `max`, in `words` or `characters`."""

    type = "length"
    value = None
    min: float | None = None
    max: float | None = None
    unit: str = "words"

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if self.unit not in ("words", "characters"):
            raise Misused(f"unit must be words or characters, not '{self.unit[:40]}'.")
        if self.min is None and self.max is None:
            raise Misused("min or max is missing.")

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        size = len(seen.answer.text.split()) if self.unit == "words" else len(seen.answer.text)
        fits = (self.min is None or size >= self.min) and (self.max is None or size <= self.max)
        return yes(fits, f"It has {size} {self.unit}.")


@dataclass(frozen=True)
class _Amount(Scorer):
    kind = Kind.AMOUNT
    value: ClassVar[Any] = None
    threshold: ClassVar[float | None] = None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        found = self.amount(seen)
        if found is None:
            raise Unscorable(f"Nobody says its {self.type}.")
        return Mark(float(found))

    def amount(self, seen: Seen) -> float | None:
        """How much, where somebody knows."""
        return None


@dataclass(frozen=True)
class Latency(_Amount):
    """Seconds until the answer was whole; `threshold` is how many it may take."""

    type = "latency"

    def amount(self, seen: Seen) -> float | None:
        """As `_Amount.amount`."""
        return seen.answer.latency


@dataclass(frozen=True)
class Cost(_Amount):
    """USD the answer cost; `threshold` is how many it may."""

    type = "cost"

    def amount(self, seen: Seen) -> float | None:
        """As `_Amount.amount`."""
        return seen.answer.cost


@dataclass(frozen=True)
class OutputTokens(_Amount):
    """Tokens of the answer as the provider counted them; `threshold` is how many it may have."""

    type = "output-tokens"

    def amount(self, seen: Seen) -> float | None:
        """As `_Amount.amount`."""
        return seen.answer.output_tokens


@dataclass(frozen=True)
class Levenshtein(_Amount):
    """How many characters must change to make the answer the value; `threshold` is how many may."""

    type = "levenshtein"
    value = "{{expected}}"
    threshold = 5.0

    def amount(self, seen: Seen) -> float | None:
        """As `_Amount.amount`."""
        from rapidfuzz.distance import Levenshtein as Distance

        return Distance.distance(seen.answer.text, seen.text)


def number_of(value: Any) -> float | None:
    """A number that is one, or the text of one."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Numeric(Scorer):
    """Whether the answer's last number is the value, give or take `tolerance` (absolute) or `relative` (a share)."""

    type = "numeric"
    tolerance: float = 0.0
    relative: float = 0.0

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        wanted = number_of(seen.value)
        if wanted is None:
            raise Unscorable("The value is not a number.")
        found = _last_number(seen.answer.text)
        if found is None:
            return Mark(0.0, "There is no number in it.")
        near = abs(found - wanted) <= max(self.tolerance, self.relative * abs(wanted))
        return yes(near, f"It says {found:g}, not {wanted:g}.")


def _last_number(text: str) -> float | None:
    import re

    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?", text[-10_000:])
    return float(found[-1].replace(",", "")) if found else None
