"""What tokens are and what they cost: exact rates, whole nano-dollars."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact

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
    """Tokens of one answer as the provider counted them; `cached` and `reasoning` are parts of the other two."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per token. `cached` and `reasoning` are None where they cost as input and output do."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    reasoning: Decimal | None = None
    #: Input, cached, output and reasoning in whole numbers of the same unit, and how many of it a nano-dollar has.
    whole: tuple[int, int, int, int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cached = self.input if self.cached is None else self.cached
        reasoning = self.output if self.reasoning is None else self.reasoning
        rates = [EXACT.multiply(rate, _NANO) for rate in (self.input, cached, self.output, reasoning)]
        unit = 10 ** max(0, *(-int(rate.as_tuple().exponent) for rate in rates))
        whole = [int(EXACT.multiply(rate, unit)) for rate in rates]
        object.__setattr__(self, "whole", (*whole, unit))


@dataclass(frozen=True, slots=True)
class Price:
    """What one deployment costs. `tiers` are the rates of a whole call whose input is above so many tokens."""

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def cost(self, tokens: Tokens) -> int:
        """Nano-dollars for `tokens`, exact and then rounded up once.

        Cached and reasoning tokens are parts of input and output; counts that say otherwise are bounded.
        """
        rates = next((tier for above, tier in reversed(self.tiers) if tokens.input > above), self.rates)
        read, written = max(tokens.input, 0), max(tokens.output, 0)
        cached, reasoning = min(max(tokens.cached, 0), read), min(max(tokens.reasoning, 0), written)
        new, again, out, thought, unit = rates.whole
        total = (read - cached) * new + cached * again + (written - reasoning) * out + reasoning * thought
        return -(-total // unit)

    def most(self, read: int, written: int) -> int:
        """Nano-dollars that up to `read` tokens in and `written` out cost at most."""
        costs = [0]
        for above, rates in ((0, self.rates), *self.tiers):
            if read > above or not above:
                new, again, out, thought, unit = rates.whole
                costs.append(-(-(read * max(new, again) + written * max(out, thought)) // unit))
        return max(costs)


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
