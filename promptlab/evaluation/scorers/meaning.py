"""Likeness of meaning: the cosine between embeddings of an answer and the value."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptlab.evaluation.scorers.scorer import Ask, Kind, Mark, Scorer, Seen, Unscorable


@dataclass(frozen=True)
class EmbeddingSimilarity(Scorer):
    """The cosine of the embeddings of answer and value (the best of several) by `route`; below 0 counts as 0."""

    type = "embedding-similarity"
    kind = Kind.SHARE
    threshold = 0.75
    task = "embeddings"
    route: str

    @property
    def routes(self) -> tuple[str, ...]:
        """As `Scorer.routes`."""
        return (self.route,)

    def sample(self, seen: Seen, tokens: int) -> list[dict[str, Any]]:
        """As `Scorer.sample`."""
        return [self._body("word" * tokens), *map(self._body, seen.texts())]

    async def judged(self, seen: Seen, ask: Ask) -> Mark:
        """As `Scorer.judged`."""
        if not seen.answer.text.strip():
            return Mark(0.0, "It is empty.")
        ours = _vector((await ask(self._body(seen.answer.text), 0)).text)
        theirs = [_vector((await ask(self._body(text), 0)).text) for text in seen.texts() if text.strip()]
        if not theirs:
            raise Unscorable("The value is empty.")
        return Mark(max(0.0, min(1.0, max(_cosine(ours, one) for one in theirs))))

    def _body(self, text: str) -> dict[str, Any]:
        return {"model": self.route, "input": text}


@dataclass(frozen=True)
class Similar(EmbeddingSimilarity):
    """The name promptfoo has for `embedding-similarity`."""

    type = "similar"


def _vector(text: str) -> list[float]:
    found: list[float] = json.loads(text)
    return found


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        raise Unscorable("The two embeddings are not of one length.")
    length = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0
