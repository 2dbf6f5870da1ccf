"""What an evaluation will take before it begins: calls, tokens and USD, each with a range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptlab.client_calls import Answer, Offer

#: Bytes of UTF-8 in a token: prose has four; code, JSON and other scripts have fewer, plain English more.
_BYTES_LEAST, _BYTES_LIKELY, _BYTES_MOST = 5.5, 4.0, 2.0
#: Tokens that a chat template puts around a message, and around all of them.
_AROUND, _FRAME = 4, 8
#: Tokens of an answer nobody bounds: likely, and at most.
_LIKELY_ANSWER, _LONGEST_ANSWER = 256, 4096


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known yet: at least, likely, at most."""

    least: float = 0.0
    likely: float = 0.0
    most: float = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(self.least + other.least, self.likely + other.likely, self.most + other.most)

    def times(self, factor: float) -> Range:
        """It, so many times."""
        return Range(self.least * factor, self.likely * factor, self.most * factor)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to be done. `cached` answers are there already and cost nothing.

    `usd` leaves out calls to the `unpriced` routes, whose prices the server does not know.
    """

    calls: int
    cached: int
    judge_calls: int = 0
    input_tokens: Range = field(default_factory=Range)
    output_tokens: Range = field(default_factory=Range)
    usd: Range = field(default_factory=Range)
    unpriced: tuple[str, ...] = ()


class Experience:
    """What answers so far have been like, by variant: better than any guess at what is to come."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, float]] = {}

    def note(self, name: str, answer: Answer) -> None:
        """Learn from one answer."""
        if answer.output_tokens is None:
            return
        count, total, most = self._seen.get(name, (0, 0.0, 0.0))
        tokens = float(answer.output_tokens)
        self._seen[name] = (count + 1, total + tokens, max(most, tokens))

    def of(self, name: str) -> tuple[float, float] | None:
        """The mean and the largest number of tokens, where it was seen at least five times."""
        count, total, most = self._seen.get(name, (0, 0.0, 0.0))
        return (total / count, most) if count >= 5 else None


def of_call(
    body: Mapping[str, Any], offer: Offer | None, known: tuple[float, float] | None = None
) -> tuple[Range, Range, Range]:
    """Tokens in, tokens out and USD of one call; USD are 0 where the price is not known."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(body))
    around = _AROUND * len(body["messages"]) + _FRAME if "messages" in body else 0
    read = Range(size / _BYTES_LEAST + 1, size / _BYTES_LIKELY + around, size / _BYTES_MOST + 2 * around)
    written = _output(body, offer, known) if around else Range()
    pricing = offer.pricing if offer else None
    if pricing is None:
        return read, written, Range()
    likely_in, likely_out = (pricing.input + pricing.most_input) / 2, (pricing.output + pricing.most_output) / 2
    usd = Range(
        read.least * pricing.input + written.least * pricing.output,
        read.likely * likely_in + written.likely * likely_out,
        read.most * pricing.most_input + written.most * pricing.most_output,
    )
    return read, written, usd


def _output(body: Mapping[str, Any], offer: Offer | None, known: tuple[float, float] | None) -> Range:
    asked = [body.get(name) for name in ("max_completion_tokens", "max_tokens")]
    bounds = [float(one) for one in asked if isinstance(one, int | float) and not isinstance(one, bool)]
    if offer is not None and offer.longest is not None:
        bounds.append(float(offer.longest))
    most = min(bounds, default=float(_LONGEST_ANSWER))
    if known is not None:
        mean, largest = known
        return Range(min(1.0, most), min(mean, most), min(most, 2 * largest))
    return Range(min(1.0, most), min(float(_LIKELY_ANSWER), most), most)


def total(calls: Iterable[tuple[tuple[Range, Range, Range], int]]) -> tuple[Range, Range, Range]:
    """The sums over calls, each so many times."""
    read = written = usd = Range()
    for (one_read, one_written, one_usd), times in calls:
        read, written, usd = (
            read + one_read.times(times),
            written + one_written.times(times),
            usd + one_usd.times(times),
        )
    return read, written, usd


def _texts(value: Any) -> list[str]:
    """Every text that a request sends to a model."""
    found: list[str] = []
    rest = [value.get(name) for name in ("messages", "tools", "response_format", "input")]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, Mapping):
            rest.extend(one.values())
        elif isinstance(one, list | tuple):
            rest.extend(one)
    return found
