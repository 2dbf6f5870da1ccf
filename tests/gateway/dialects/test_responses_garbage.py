"""Whatever is in a body or an answer, the Responses dialect refuses it as what it is, and never fails itself."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gateway.dialects.dialect import Losses
from gateway.errors import BadRequest, UpstreamFailed
from tests.gateway.dialects.responses_streams import (
    ASKED,
    RESPONSES,
    STREAMS,
    accumulated,
    decoded,
    encoded,
    wrong,
)
from tests.gateway.dialects.test_responses_request import SAME


@pytest.mark.parametrize("body", SAME, ids=range(len(SAME)))
def test_garbage_in_a_request_is_refused_by_name_and_never_a_fault_of_ours(body: dict[str, Any]) -> None:
    for changed in wrong({"model": "m", "stream_options": {}, **body}):
        if isinstance(changed, dict):
            for step in (RESPONSES.check, RESPONSES.output, lambda one: RESPONSES.prepare(one, 5, stream=True)):
                _refused(step, changed)
            _refused(lambda one: RESPONSES.to_chat(one, Losses()), changed)
    chat = RESPONSES.to_chat({"model": "m", **body}, Losses(drop=True))
    for changed in wrong({"stream_options": {}, "thinking": {"type": "enabled"}, **chat}):
        if isinstance(changed, dict):
            _refused(lambda one: RESPONSES.from_chat(one, Losses(drop=True)), changed)


def test_a_callers_own_long_word_is_not_echoed() -> None:
    body = {"model": "m", "input": [{"role": "user", "content": "x", "y" * 100_000: 1}]}
    with pytest.raises(BadRequest) as refused:
        RESPONSES.to_chat(body, Losses())
    assert refused.value.param is not None
    assert refused.value.param.startswith("input[0].yyy")
    assert len(refused.value.message) < 500
    dropping = Losses(drop=True)
    RESPONSES.to_chat(body, dropping)
    assert dropping.names == [refused.value.param]


def test_nor_is_a_long_type() -> None:
    said: list[tuple[Any, dict[str, Any]]] = [
        (RESPONSES.to_chat, {"model": "m", "input": [{"type": "y" * 100_000}]}),
        (RESPONSES.from_chat, {"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "y" * 100_000}}),
    ]
    for translate, body in said:
        with pytest.raises(BadRequest) as refused:
            translate(body, Losses())
        assert len(refused.value.message) < 500


def _refused(step: Any, body: dict[str, Any]) -> None:
    try:
        step(body)
    except BadRequest as refused:
        assert refused.param, body  # noqa: PT017  any error but this one fails the test by itself


@pytest.mark.parametrize("name", ["signed thought", "custom", "call", "sources", "log probabilities", "refusal"])
def test_garbage_from_an_upstream_is_its_fault_and_never_ours(name: str) -> None:
    events = encoded(STREAMS[name])
    for steps, said in ((encoded, STREAMS[name]), (decoded, events)):
        for at, one in enumerate(said):
            for changed in (other for other in wrong(one) if isinstance(other, dict)):
                _tried(steps, [*said[:at], changed, *said[at + 1 :]])
    for changed in wrong(events[-1]["response"]):
        if isinstance(changed, dict):
            _tried(RESPONSES.answer_to_chat, changed)
    for changed in wrong(accumulated(STREAMS[name])):
        if isinstance(changed, dict):
            _tried(lambda one: RESPONSES.answer_from_chat(one, ASKED), changed)


def ended_with(changed: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """An answer, and a stream of it, that say `changed` at their end."""
    events = encoded(STREAMS["call"])
    last = {**events[-1]["response"], **changed}
    begun = [one for one in events[:-1] if one["type"] != "response.output_item.done"]
    return last, [*begun, {**events[-1], "response": last}]


def test_a_number_where_none_can_stand_is_an_upstreams_fault_too() -> None:
    last, stream = ended_with({"output": [7]})
    with pytest.raises(UpstreamFailed):
        RESPONSES.answer_to_chat(last)
    with pytest.raises(UpstreamFailed):
        decoded(stream)


@pytest.mark.parametrize("endless", [float("inf"), float("nan")])
def test_a_time_that_is_none_is_left_out(endless: float) -> None:
    last, stream = ended_with({"created_at": endless})
    assert RESPONSES.answer_to_chat(last)["created"] == 0
    assert all(isinstance(chunk["created"], int) for chunk in decoded(stream))


def _tried(step: Any, said: Any) -> None:
    with contextlib.suppress(UpstreamFailed):
        step(said)
