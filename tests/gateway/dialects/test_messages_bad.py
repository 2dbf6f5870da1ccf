"""A body that is wrong anywhere is refused by name, in either direction, whatever stands there."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dialects.dialect import Losses
from gateway.dialects.messages import MessagesDialect
from gateway.errors import BadRequest, UpstreamFailed
from tests.gateway.dialects import test_messages_request as rows
from tests.gateway.dialects.messages_scripts import ANSWERS, events
from tests.gateway.dialects.test_messages_stream import MIXED

MESSAGES = MessagesDialect()
Place = tuple[str | int, ...]

BAD_TO_CHAT = [
    ({"messages": "x"}, "messages"),
    ({"messages": ["x"]}, "messages[0]"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [], "system": 1}, "system"),
    ({"messages": [], "tools": {}}, "tools"),
    ({"messages": [], "tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"messages": [], "tools": [rows.TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"messages": [], "tools": [rows.TOOL], "tool_choice": {"type": "x"}}, "tool_choice.type"),
    ({"messages": [], "max_tokens": 0}, "max_tokens"),
    ({"messages": [], "temperature": "hot"}, "temperature"),
    ({"messages": [], "stop_sequences": "END"}, "stop_sequences"),
    ({"messages": [], "thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"messages": [], "thinking": {"type": "wild"}}, "thinking.type"),
    ({"messages": [], "output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"messages": [], "service_tier": "gold"}, "service_tier"),
]
BAD_FROM_CHAT = [
    (rows.chat({"role": "wizard"}), "messages[0].role"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    (rows.chat(rows.result("x", 1)), "messages[0].tool_call_id"),  # type: ignore[arg-type]  # wrong on purpose
    (rows.chat(rows.assistant(None, tool_calls=[{"id": "1"}])), "messages[0].tool_calls[0].function"),
    (
        rows.chat(rows.assistant(None, tool_calls=[rows.call("f", "{")])),
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        rows.chat(rows.assistant(None, tool_calls=[rows.call("f", '{"a":' * 300 + "1" + "}" * 300)])),
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        rows.chat(rows.user([{"type": "image_url", "image_url": {"url": "data:image/png,x"}}])),
        "messages[0].content[0].image_url.url",
    ),
    (rows.chat(tools=[rows.FUNCTION], tool_choice="maybe"), "tool_choice"),
    (rows.chat(stop=[1]), "stop[0]"),
    (rows.chat(response_format={"type": "xml"}), "response_format.type"),
]


@pytest.mark.parametrize(
    ("translate", "body", "lost"),
    [
        (MESSAGES.to_chat, rows.native(tool_choice={"type": "any"}), ["tool_choice"]),
        (MESSAGES.to_chat, rows.native(tool_choice={"type": "auto"}), []),
        (MESSAGES.from_chat, rows.chat(tool_choice="required"), ["tool_choice"]),
        (MESSAGES.from_chat, rows.chat(tools=[], tool_choice="auto"), []),
        (MESSAGES.from_chat, rows.chat(stream_options={"include_obfuscation": True}),
         ["stream_options.include_obfuscation"]),
    ],
)  # fmt: skip
def test_what_stands_beside_nothing_is_lost_by_name(translate: Any, body: dict[str, Any], lost: list[str]) -> None:
    losses = Losses(drop=True)
    translate(body, losses)
    assert losses.names == lost


@pytest.mark.parametrize(
    ("translate", "body", "param"),
    [(MESSAGES.to_chat, *row) for row in BAD_TO_CHAT] + [(MESSAGES.from_chat, *row) for row in BAD_FROM_CHAT],
)
def test_the_wrong_field_is_named(translate: Any, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate(body, Losses())
    assert refused.value.param == param
    assert param in refused.value.message


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place in `value`."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inside:
        yield from places(part, (*at, name))


def changed(body: dict[str, Any], at: Place, value: Any) -> dict[str, Any]:
    """`body` with another `value` at one place."""
    whole = copy.deepcopy(body)
    holder: Any = whole
    for name in at[:-1]:
        holder = holder[name]
    holder[at[-1]] = value
    return whole


@pytest.mark.parametrize("wrong", [None, 7, -1.5, True, "", "x", [], [None], ["x"], [[]], {}, {"type": "text"}, [{}]])
def test_nothing_but_a_refusal_comes_of_a_wrong_value_anywhere(wrong: Any) -> None:
    bodies = [(MESSAGES.to_chat, body) for body in rows.EQUAL] + [(MESSAGES.to_chat, row[0]) for row in rows.TO_CHAT]
    bodies += [(MESSAGES.from_chat, row[0]) for row in rows.FROM_CHAT]
    bodies += [(MESSAGES.from_chat, MESSAGES.to_chat(body, Losses())) for body in rows.EQUAL]
    tried = 0
    nameless: list[BadRequest] = []
    for translate, body in bodies:
        for at in places(body):
            if at:
                tried += 1
                try:
                    translate(changed(body, at, wrong), Losses(drop=tried % 2 == 0))
                except BadRequest as refused:
                    nameless += [] if refused.param else [refused]
    assert tried > 1000
    assert not nameless


@pytest.mark.parametrize("wrong", [None, 7, -1.5, True, "", "x", [], [None], ["x"], {}, {"type": "text"}, [{}]])
def test_nothing_but_the_upstreams_failure_comes_of_a_wrong_value_in_an_answer(wrong: Any) -> None:
    def stream(script: Any) -> None:
        decoder, encoder = MESSAGES.decoder(), MESSAGES.encoder({})
        for one in script:
            for chunk in decoder.feed(one):
                encoder.feed(chunk)
        encoder.end()

    def chunks(script: Any) -> None:
        encoder = MESSAGES.encoder({"stop_sequences": wrong})
        for one in script:
            encoder.feed(one)
        encoder.end()

    tries: list[tuple[Any, Any]] = [(MESSAGES.answer_to_chat, answer) for answer in ANSWERS]
    tries += [(lambda one: MESSAGES.answer_from_chat(one, {}), MESSAGES.answer_to_chat(one)) for one in ANSWERS]
    tries += [(lambda one: MESSAGES.refused_to_chat(one, 400), {"error": {"type": "x", "message": "m"}})]
    tries += [(lambda one: MESSAGES.refused_from_chat(one, 400), {"error": {"param": "x", "message": "m", "code": 1}})]
    tries += [(stream, list(events(ANSWERS[11], 100))), (stream, list(events(ANSWERS[10], 100)))]
    tries += [(chunks, row[0]) for row in MIXED]
    for read, whole in tries:
        for at in places(whole):
            if len(at) > isinstance(whole, list):  # events are objects: who reads the stream sees to that
                with contextlib.suppress(UpstreamFailed):
                    read(changed(whole, at, wrong))
