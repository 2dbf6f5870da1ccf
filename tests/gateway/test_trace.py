"""What is read of a caller's `traceparent`, a request's settings and an answer's own words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.routes import Deployment
from gateway.trace import Parent, Trace, asked, parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KNOWN = Parent(int(TRACE, 16), int(SPAN, 16), 1)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (f"00-{TRACE}-{SPAN}-01", KNOWN),
        (f"00-{TRACE}-{SPAN}-00", KNOWN._replace(flags=0)),
        (f"01-{TRACE}-{SPAN}-01", KNOWN),
        (f"01-{TRACE}-{SPAN}-01-more", KNOWN),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_as_w3c_has_it(header: str | None, known: Parent | None) -> None:
    assert parent(header) == known


R = "gen_ai.request."


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {R + "max_tokens": 5}),
        ({"max_completion_tokens": 7, "max_tokens": 5}, {R + "max_tokens": 7}),
        ({"max_output_tokens": 9}, {R + "max_tokens": 9}),
        ({"temperature": 1, "top_p": 0.5, "top_k": 40}, {R + "temperature": 1.0, R + "top_p": 0.5, R + "top_k": 40.0}),
        ({"frequency_penalty": 0.1}, {R + "frequency_penalty": 0.1}),
        ({"presence_penalty": -1}, {R + "presence_penalty": -1.0}),
        ({"seed": 3, "n": 2}, {R + "seed": 3, R + "choice.count": 2}),
        ({"n": 1}, {}),
        # What OTLP has no room for, or is of the wrong kind, is left out.
        ({"seed": 2**63, "max_tokens": "5", "temperature": True, "n": 1.5, "top_p": None}, {}),
        # Never a word of the caller's.
        ({"messages": [{"role": "user", "content": "secret"}], "stop": ["secret"], "user": "me", "prompt": "x"}, {}),
    ],
)  # fmt: skip
def test_settings_become_attributes_and_text_does_not(body: dict[str, Any], attributes: dict[str, Any]) -> None:
    assert asked(body, stream=False) == attributes
    assert asked(body, stream=True) == {R + "stream": True, **attributes}


@pytest.mark.parametrize(
    ("answer", "model", "reasons"),
    [
        ({"model": "m", "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}, "m", ("stop", "length")),
        ({"model": "m", "stop_reason": "end_turn", "type": "message"}, "m", ("end_turn",)),
        ({"data": [], "model": "e"}, "e", ()),
        ({"model": 5, "choices": [{"finish_reason": None}, "x"]}, None, ()),
        ({"choices": 7}, None, ()),
        ({}, None, ()),
    ],
)
def test_an_answer_says_who_wrote_it_and_why_it_ended(
    answer: dict[str, Any], model: str | None, reasons: tuple[str, ...]
) -> None:
    trace = Trace(1, 2, None, 0.0)
    trace.read(answer)
    assert (trace.model, trace.finish_reasons) == (model, reasons)


def test_each_attempt_has_a_span_of_its_own_and_its_upstream_is_told_it() -> None:
    trace = Trace(KNOWN.trace, 2, None, 0.0)
    first, second = trace.attempt(Deployment("a", "m")), trace.attempt(Deployment("b", "m"))
    assert parent(trace.traceparent(first)) == Parent(KNOWN.trace, first.span, 1)
    assert len({first.span, second.span, trace.span}) == 3
