"""What a call used, from what is known of it: its request, its answer, or the part of a stream that came."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from gateway import tokens, units
from gateway.dialects.sse import Tally
from gateway.errors import UpstreamFailed
from gateway.money import Tokens
from gateway.routes import Task
from gateway.types import Attempt, Call


def rest(call: Call, tally: Tally) -> bytes | None:
    """What is left of a stream whose model said that it had finished, and which then fell silent.

    None where it did not say so, for all the answers that were asked for, or where what came last was not whole.
    """
    answers = call.request.output[1] if call.request.output else 1
    if not tally.finished or tally.failed or answers != 1:
        return None
    with contextlib.suppress(UpstreamFailed):
        return tally.close()
    return None


def cut(call: Call, tally: Tally) -> Tokens:
    """What a stream used that was cut: it brought no usage, or the beginning of it.

    Each piece is a token or more, of four bytes or so. Whoever translates another's stream into Anthropic's (as we do)
    begins with an input of none, for want of knowing.
    """
    told = tally.usage or Tokens()
    told.input = told.input or input_of(call)
    told.output = max(told.output, tally.pieces, tally.written // 4)
    return told


def prompt(call: Call, attempt: Attempt | None) -> Tokens:
    """What an attempt used that has no answer: its prompt, where an upstream was asked."""
    if attempt is None or not attempt.asked:
        return Tokens()
    return Tokens(input_of(call), billed=units.expected(attempt.deployment.listing.price, call.request))


def bill(call: Call, used: Tokens, document: Mapping[str, Any], *, counted: bool) -> bool:
    """Note what a whole answer is billed beside its tokens; whether anything of it is only estimated."""
    price = None if call.attempt is None else call.attempt.deployment.listing.price
    if price is None or price.unit is None or (counted and not price.by_unit):
        return not counted
    used.billed, guessed = units.billed(price, call.request, document)
    return guessed


def input_of(call: Call) -> int:
    """The likely input of a call whose provider did not count it. What limits claim is more: an upper estimate."""
    if call.request.task is Task.COUNT_TOKENS:
        return 0
    return call.input_estimate if call.counted else tokens.likely(call.request.body)
