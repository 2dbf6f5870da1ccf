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


@pytest.mark.parametrize("changed", [{"output": [7]}, {"created_at": float("inf")}, {"created_at": float("nan")}])
def test_numbers_where_none_can_stand_are_an_upstreams_fault_too(changed: dict[str, Any]) -> None:
    events = encoded(STREAMS["call"])
    last = {**events[-1]["response"], **changed}
    begun = [one for one in events[:-1] if one["type"] != "response.output_item.done"]
    _tried(RESPONSES.answer_to_chat, last)
    _tried(decoded, [*begun, {**events[-1], "response": last}])


def _tried(step: Any, said: Any) -> None:
    with contextlib.suppress(UpstreamFailed):
        step(said)
