"""Scorers of a retriever: the answer is a JSON list of what it found, best first; the value is what is relevant."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptlab.evaluation.cases import text_of
from promptlab.evaluation.scorers.scorer import Kind, Mark, Misused, Scorer, Seen, Unscorable


@dataclass(frozen=True)
class _AtK(Scorer):
    """What the first `k` are worth: as MLflow's metrics of that name have it."""

    kind = Kind.SHARE
    value = "{{expected_documents}}"
    threshold = 0.5
    k: int = 3

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.k < 1:
            raise Misused("k must be 1 or more.")

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return Mark(self.worth(_listed(seen.answer.text)[: self.k], _listed(seen.value)))

    def worth(self, found: Sequence[str], relevant: Sequence[str]) -> float:
        """From 0 to 1."""
        return float(list(found) == list(relevant))


@dataclass(frozen=True)
class PrecisionAtK(_AtK):
    """The share of what was found that is relevant; 0 where nothing was found."""

    type = "precision-at-k"

    def worth(self, found: Sequence[str], relevant: Sequence[str]) -> float:
        """As `_AtK.worth`."""
        return sum(one in relevant for one in found) / len(found) if found else 0.0


@dataclass(frozen=True)
class RecallAtK(_AtK):
    """The share of what is relevant that was found; where nothing is, 1 if nothing was found."""

    type = "recall-at-k"

    def worth(self, found: Sequence[str], relevant: Sequence[str]) -> float:
        """As `_AtK.worth`."""
        wanted = set(relevant)
        return len(wanted & set(found)) / len(wanted) if wanted else float(not found)


@dataclass(frozen=True)
class NdcgAtK(_AtK):
    """How far up the relevant ones stand, beside the best order there could be; each is relevant once."""

    type = "ndcg-at-k"

    def worth(self, found: Sequence[str], relevant: Sequence[str]) -> float:
        """As `_AtK.worth`."""
        if not found or not relevant:
            return float(not found and not relevant)
        wanted = _told_apart(relevant)
        gained = sum(1 / math.log2(place + 2) for place, one in enumerate(_told_apart(found)) if one in wanted)
        best = sum(1 / math.log2(place + 2) for place in range(min(len(wanted), self.k)))
        return gained / best


def _told_apart(names: Sequence[str]) -> list[tuple[str, int]]:
    """The second of two equal ones is another."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append((name, seen[name]))
        seen[name] += 1
    return found


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise Unscorable("What was found and what is relevant must be lists.")
    return [text_of(one) for one in value]


RETRIEVAL: tuple[type[Scorer], ...] = (PrecisionAtK, RecallAtK, NdcgAtK)
