"""What is not billed by tokens: images, characters, seconds of sound, queries; at most before, and as it was after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gateway import tokens
from gateway.money import Price, Unit
from gateway.routes import Task
from gateway.types import Request

_UNITS = {Task.IMAGES: "image", Task.SPEECH: "character", Task.TRANSCRIPTIONS: "second", Task.RERANK: "query"}
_NANO = 10**9
#: Bytes of a second of sound where its file does not say how long it is: at least (8 kbit/s), and usually (64 kbit/s).
_LEAST_BYTES, _USUAL_BYTES = 1000, 8000
#: A search unit of a reranker: up to so many documents, of so many tokens. https://docs.cohere.com/docs/rate-limits
_DOCUMENTS, _DOCUMENT_TOKENS = 100, 500
_MOST_IMAGES = 1000


def of(price: Price | None, task: Task) -> Unit | None:
    """What `task` is billed by beside or instead of tokens; None: by tokens alone."""
    unit = None if price is None else price.unit
    return unit if unit is not None and unit.kind == _UNITS.get(task) else None


def prices(price: Price | None, task: Task) -> bool:
    """Whether `price` says what `task` costs: one of another unit's says nothing of tokens."""
    return price is not None and (not price.by_unit or of(price, task) is not None)


def expected(price: Price | None, request: Request) -> Fraction | None:
    """Nano-dollars that `request` is billed beside tokens, as far as it says so itself; None: nothing.

    Of a file in a format we cannot read, the seconds it has at a usual rate.
    """
    unit = of(price, request.task)
    return None if unit is None else _nano(unit, request, _asked(unit, request, _USUAL_BYTES))


def billed(price: Price | None, request: Request, document: Mapping[str, Any]) -> tuple[Fraction | None, bool]:
    """Nano-dollars that an answer is billed beside tokens (None: nothing), and whether that is only as expected."""
    unit = of(price, request.task)
    if unit is None:
        return None, False
    count = _answered(unit, document)
    said = count is not None or unit.kind == "character"
    return _nano(unit, request, _asked(unit, request, _USUAL_BYTES) if count is None else count), not said


def most(unit: Unit, request: Request) -> int:
    """Nano-dollars that `request` may be billed at most beside the tokens of its input."""
    rate = max(_rates(unit, request.body).values(), default=unit.rate or Decimal(0))
    return math.ceil(Fraction(rate) * _NANO * Fraction(_asked(unit, request)))


def _nano(unit: Unit, request: Request, count: Decimal) -> Fraction:
    rates, size = _rates(unit, request.body), request.body.get("size")
    usual = f"standard/{size if isinstance(size, str) and size != 'auto' else '1024x1024'}"
    rate = rates[usual] if usual in rates else max(rates.values(), default=unit.rate or Decimal(0))
    return Fraction(rate) * _NANO * Fraction(count)


def _rates(unit: Unit, body: Mapping[str, Any]) -> dict[str, Decimal]:
    """What an image of the size and quality that are asked for may cost, by both; where they are left open, any."""
    size, quality = body.get("size"), body.get("quality")
    any_size, any_quality = size in (None, "auto"), quality in (None, "auto")
    return {
        name: usd
        for name, usd in unit.sizes.items()
        if (any_size or name.rpartition("/")[2] == size)
        and (any_quality or name.rpartition("/")[0] == quality or ("/" not in name and quality == "standard"))
    }


def _asked(unit: Unit, request: Request, rate: int = _LEAST_BYTES) -> Decimal:
    """How many of its unit a request asks for, rather too many; sound that says nothing of its length at `rate`."""
    body = request.body
    if unit.kind == "image":
        asked = body.get("n")
        return Decimal(min(asked, _MOST_IMAGES) if type(asked) is int and asked > 0 else 1)
    if unit.kind == "character":
        return Decimal(len(body["input"]) if isinstance(body.get("input"), str) else 0)
    if unit.kind == "second":
        return _seconds(request, rate)
    documents = body.get("documents")
    parts = [max(1, -(-tokens.estimate({"input": one}) // _DOCUMENT_TOKENS)) for one in documents or ()]
    return Decimal(max(1, -(-sum(parts) // _DOCUMENTS)))


def _answered(unit: Unit, document: Mapping[str, Any]) -> Decimal | None:
    """How many an answer says there were; None where it does not."""
    count: Any = None
    if unit.kind == "image":
        images = document.get("data")
        count = len(images) if isinstance(images, list) else None
    elif unit.kind == "second":
        usage = document.get("usage")
        count = usage.get("seconds") if isinstance(usage, dict) else None
        count = document.get("duration") if count is None else count
    elif unit.kind == "query":
        meta = document.get("meta")
        units = meta.get("billed_units") if isinstance(meta, dict) else None
        count = units.get("search_units") if isinstance(units, dict) else None
    return _number(count)


def _number(count: Any) -> Decimal | None:
    try:
        found = Decimal(str(count)) if type(count) in (int, float, str) else None
    except ArithmeticError:
        return None
    return found if found is not None and found.is_finite() and 0 <= found <= 10**9 else None


def _seconds(request: Request, rate: int) -> Decimal:
    """How long the sound in a form is, as far as its file says; else as its size makes it at `rate` bytes a second."""
    file = request.body.get("file")
    told = file if isinstance(file, dict) else {}
    exact = _number(told.get("seconds"))
    if exact is not None:
        return exact
    size = told.get("size")
    return Decimal(-(-size // rate) if type(size) is int else 0)
