"""Scorers of likeness: edit distance, BLEU, chrF and ROUGE between an answer and the value."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from promptlab.evaluation.scorers.scorer import Kind, Mark, Scorer, Seen


@dataclass(frozen=True)
class _Like(Scorer):
    kind = Kind.SHARE
    threshold = 0.75

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`: the best of several values, where it is a list."""
        return Mark(max(self.likeness(seen.answer.text, text) for text in seen.texts()))

    def likeness(self, text: str, wanted: str) -> float:
        """From 0 to 1."""
        return float(text == wanted)


@dataclass(frozen=True)
class Similarity(_Like):
    """Likeness by edit distance: 1 less the share of characters that must change. `ignore_case` folds them first."""

    type = "similarity"
    ignore_case: bool = False

    def likeness(self, text: str, wanted: str) -> float:
        """As `_Like.likeness`."""
        from rapidfuzz.distance import Levenshtein

        if self.ignore_case:
            text, wanted = text.casefold(), wanted.casefold()
        return Levenshtein.normalized_similarity(text, wanted)


@dataclass(frozen=True)
class Bleu(_Like):
    """Sentence BLEU as sacrebleu has it (13a tokens, smoothed), from 0 to 1; several values are all references."""

    type = "bleu"
    threshold = 0.5

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return Mark(_bleu().sentence_score(seen.answer.text, seen.texts()).score / 100)


@dataclass(frozen=True)
class Chrf(_Like):
    """Sentence chrF as sacrebleu has it, from 0 to 1."""

    type = "chrf"
    threshold = 0.5

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return Mark(_chrf().sentence_score(seen.answer.text, seen.texts()).score / 100)


@dataclass(frozen=True)
class Gleu(_Like):
    """Google's sentence BLEU: runs of one to four words in common, as a share of the larger text's.

    https://arxiv.org/abs/1609.08144, section 5. Words are what stands between spaces.
    """

    type = "gleu"
    threshold = 0.5

    def likeness(self, text: str, wanted: str) -> float:
        """As `_Like.likeness`."""
        found, expected = text.split(), wanted.split()
        hits = read = written = 0
        for size in range(1, 5):
            ours, theirs = _ngrams(found, size), _ngrams(expected, size)
            hits += sum((ours & theirs).values())
            read, written = read + sum(ours.values()), written + sum(theirs.values())
        return hits / max(read, written) if hits else 0.0


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@dataclass(frozen=True)
class _Rouge(_Like):
    """ROUGE's F-measure: https://aclanthology.org/W04-1013/, with the tokens of Google's rouge-score, unstemmed."""

    size: ClassVar[int] = 1

    def likeness(self, text: str, wanted: str) -> float:
        """As `_Like.likeness`."""
        found, expected = _ngrams(_tokens(text), self.size), _ngrams(_tokens(wanted), self.size)
        return _f1(sum((found & expected).values()), sum(found.values()), sum(expected.values()))


@dataclass(frozen=True)
class Rouge1(_Rouge):
    """Words in common."""

    type = "rouge1"


@dataclass(frozen=True)
class RougeN(Rouge1):
    """The name promptfoo has for `rouge1`."""

    type = "rouge-n"


@dataclass(frozen=True)
class Rouge2(_Rouge):
    """Pairs of words in common."""

    type = "rouge2"
    size = 2


@dataclass(frozen=True)
class RougeL(_Rouge):
    """The longest run of words in common, gaps allowed."""

    type = "rougeL"

    def likeness(self, text: str, wanted: str) -> float:
        """As `_Like.likeness`."""
        found, expected = _tokens(text), _tokens(wanted)
        return _f1(_common(found, expected), len(found), len(expected))


@dataclass(frozen=True)
class RougeLsum(_Rouge):
    """`rougeL` line by line: each line of the value beside the whole answer."""

    type = "rougeLsum"

    def likeness(self, text: str, wanted: str) -> float:
        """As `_Like.likeness`."""
        found = [tokens for line in text.split("\n") if line and (tokens := _tokens(line))]
        expected = [tokens for line in wanted.split("\n") if line and (tokens := _tokens(line))]
        left_found = Counter(word for line in found for word in line)
        left_expected = Counter(word for line in expected for word in line)
        read, written = sum(left_found.values()), sum(left_expected.values())
        hits = 0
        for line in expected:
            for place in sorted({place for other in found for place in _common_places(line, other)}):
                word = line[place]
                if left_found[word] > 0 and left_expected[word] > 0:
                    hits += 1
                    left_found[word] -= 1
                    left_expected[word] -= 1
        return _f1(hits, read, written)


def _tokens(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def _ngrams(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[place : place + size]) for place in range(len(tokens) - size + 1))


def _f1(hits: int, found: int, expected: int) -> float:
    if not hits:
        return 0.0
    precision, recall = hits / found, hits / expected
    return 2 * precision * recall / (precision + recall)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How long the longest common subsequence is."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, against in enumerate(other):
            row.append(before[place] + 1 if word == against else max(row[-1], before[place + 1]))
        before = row
    return before[-1]


def _common_places(line: Sequence[str], other: Sequence[str]) -> list[int]:
    """Places in `line` of one longest common subsequence with `other`, as rouge-score picks it."""
    table = [[0] * (len(other) + 1)]
    for word in line:
        before, row = table[-1], [0]
        for place, against in enumerate(other):
            row.append(before[place] + 1 if word == against else max(row[-1], before[place + 1]))
        table.append(row)
    places = []
    i, j = len(line), len(other)
    while i and j:
        if line[i - 1] == other[j - 1]:
            places.append(i - 1)
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places[::-1]
