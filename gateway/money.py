"""What tokens are and what they cost: exact rates, whole nano-dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact
from fractions import Fraction

# Prices have up to 17 digits and token counts up to 12. A product that does not fit raises; it is never rounded.
EXACT = Context(prec=100, traps=[Inexact])
_NANO = Decimal(10**9)


def nano(usd: Decimal) -> int:
    """Whole nano-dollars of `usd`, rounded down."""
    return int(usd * _NANO)


def usd(nano: int) -> str:
    """Nano-dollars as people read them, no digit lost: $0.25."""
    whole, rest = divmod(nano, 10**9)
    return f"${whole}" + (f".{rest:09}".rstrip("0") if rest else "")


@dataclass(slots=True)
class Tokens:
    """Tokens of one answer as the provider counted them.

    Parts of `input` are `cached` (read from a cache), `written` (to one) and `kept` (to one, for an hour), `heard`
    (sound) and `seen` (pictures); parts of `output` are `reasoning` and `spoken` (sound). `tier` is the provider's word
    for how it was served, where that costs otherwise; `billed` what it bills by other units, in exact nano-dollars.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    written: int = 0
    kept: int = 0
    heard: int = 0
    seen: int = 0
    spoken: int = 0
    tier: str = ""
    billed: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per token. None where a part of the input costs as the rest of it does, or a part of the output."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    reasoning: Decimal | None = None
    written: Decimal | None = None
    kept: Decimal | None = None
    heard: Decimal | None = None
    seen: Decimal | None = None
    spoken: Decimal | None = None
    #: Input, cached, output and reasoning in whole numbers of the same unit, and how many of it a nano-dollar has.
    whole: tuple[int, int, int, int, int] = field(init=False, repr=False, compare=False)
    #: What `written`, `kept`, `heard`, `seen` and `spoken` cost beyond the rest, in that unit; empty where nothing.
    beyond: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cached = self.input if self.cached is None else self.cached
        reasoning = self.output if self.reasoning is None else self.reasoning
        written = self.input if self.written is None else self.written
        kept = written if self.kept is None else self.kept
        others = (written, kept, *(self.input if one is None else one for one in (self.heard, self.seen)))
        spoken = self.output if self.spoken is None else self.spoken
        rates = [EXACT.multiply(rate, _NANO) for rate in (self.input, cached, self.output, reasoning, *others, spoken)]
        unit = 10 ** max(0, *(-int(rate.as_tuple().exponent) for rate in rates))
        new, again, out, thought, *rest = [int(EXACT.multiply(rate, unit)) for rate in rates]
        beyond = (*(one - new for one in rest[:-1]), rest[-1] - out)
        object.__setattr__(self, "whole", (new, again, out, thought, unit))
        object.__setattr__(self, "beyond", beyond if any(beyond) else ())


#: What may be billed by other than tokens.
UNITS = ("image", "character", "second", "query")


@dataclass(frozen=True, slots=True)
class Unit:
    """What one of something other than tokens costs, in USD; its `kind` is `image`, `character`, `second` or `query`.

    `sizes` are the prices of images by what is asked for: `1024x1024`, or `high/1024x1024`.
    """

    kind: str
    rate: Decimal | None
    sizes: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Price:
    """What one deployment costs. `tiers` are the rates of a whole call whose input is above so many tokens.

    `unit` is what it bills beside or instead of tokens; `served` the prices of other ways to be served, by the
    provider's words for them (`Tokens.tier`).
    """

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    unit: Unit | None = None
    served: Mapping[str, Price] = field(default_factory=dict)
    #: Whether nothing costs anything, however much it becomes.
    free: bool = field(init=False, repr=False, compare=False)
    #: Whether tokens cost nothing, and something else does.
    by_unit: bool = field(init=False, repr=False, compare=False)
    #: Whether it matters to `most` what a request asks for (`dear`).
    odd: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Know once what every call asks."""
        costs = self.most(1, 1, dear=True) > 0
        object.__setattr__(self, "free", self.unit is None and not costs)
        object.__setattr__(self, "by_unit", self.unit is not None and not costs)
        rates = (self.rates, *(rates for _, rates in self.tiers))
        object.__setattr__(self, "odd", bool(self.served) or any(one.beyond for one in rates))

    def cost(self, tokens: Tokens) -> int:
        """Nano-dollars for `tokens`, exact and then rounded up once.

        Parts are never more than what they are of: counts that say otherwise are bounded.
        """
        if tokens.tier and (other := self.served.get(tokens.tier)):
            return other.cost(tokens)
        rates = next((tier for above, tier in reversed(self.tiers) if tokens.input > above), self.rates)
        read, written = max(tokens.input, 0), max(tokens.output, 0)
        cached, reasoning = min(max(tokens.cached, 0), read), min(max(tokens.reasoning, 0), written)
        new, again, out, thought, unit = rates.whole
        total = (read - cached) * new + cached * again + (written - reasoning) * out + reasoning * thought
        if rates.beyond:
            total += _beyond(rates.beyond, tokens, read - cached, written - reasoning)
        if tokens.billed is not None:
            return math.ceil(Fraction(total, unit) + tokens.billed)
        return -(-total // unit)

    def most(self, read: int, written: int, *, dear: bool = False) -> int:
        """Nano-dollars that up to `read` tokens in and `written` out cost at most.

        Input may be written to a cache. `dear`: it may be kept there, be sound or pictures, and be served otherwise.
        """
        costs = [0]
        for above, rates in ((0, self.rates), *self.tiers):
            if read > above or not above:
                new, again, out, thought, unit = rates.whole
                *ins, spoken = rates.beyond or (0, 0)
                more = max(0, *ins) if dear else max(0, ins[0])
                wrote = max(out, thought, out + spoken) if dear else max(out, thought)
                costs.append(-(-(read * max(new + more, again) + written * wrote) // unit))
        if dear:
            costs += [other.most(read, written, dear=True) for other in self.served.values()]
        return max(costs)


def _beyond(beyond: tuple[int, ...], tokens: Tokens, read: int, written: int) -> int:
    """What parts cost more (or less) than the `read` and `written` tokens that they are of."""
    *ins, spoken = beyond
    total = 0
    for count, more in zip((tokens.written, tokens.kept, tokens.heard, tokens.seen), ins, strict=True):
        part = min(max(count, 0), read)
        read -= part
        total += part * more
    return total + min(max(tokens.spoken, 0), written) * spoken


FREE = Price(Rates(Decimal(0), Decimal(0)))


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of a model: its price and how many tokens it takes and gives. None: not stated."""

    price: Price | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None

    def over(self, other: Listing) -> Listing:
        """This listing, with what it does not state taken from `other`."""
        return Listing(
            self.price or other.price,
            self.max_input_tokens or other.max_input_tokens,
            self.max_output_tokens or other.max_output_tokens,
        )


UNLISTED = Listing()
