"""Spans are put in order and shown whatever they say of themselves."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from promptlab.workbench.trace_spans import span_part, spans_of, tree


def span(identity: int, parent: int | None = None, **more: Any) -> dict[str, Any]:
    def encoded(number: int) -> str:
        return base64.b64encode(number.to_bytes(8, "big")).decode()

    made: dict[str, Any] = {"span_id": encoded(identity), "name": str(identity), "start_time_unix_nano": identity}
    return made | ({} if parent is None else {"parent_span_id": encoded(parent)}) | more


def said(**attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in attributes.items()]


@pytest.mark.parametrize(
    ("parents", "order"),
    [
        ({1: None, 2: 1, 3: 1, 4: 2}, [(0, "1"), (1, "2"), (2, "4"), (1, "3")]),
        ({1: None, 2: 9, 3: 2}, [(0, "1"), (0, "2"), (1, "3")]),
        ({1: None, 2: 3, 3: 2}, [(0, "1"), (0, "2"), (0, "3")]),
        ({1: 1}, [(0, "1")]),
        ({}, []),
    ],
)
def test_each_stands_below_its_parent_and_none_is_lost(
    parents: dict[int, int | None], order: list[tuple[int, str]]
) -> None:
    found = spans_of({"spans": [span(one, parent) for one, parent in reversed(parents.items())]})
    assert [(depth, one.name) for depth, one in found] == order


def test_a_thousand_spans_deep_and_long_texts_are_bounded() -> None:
    found = spans_of({"spans": [span(at, at - 1 or None) for at in range(1, 1001)]})
    assert found[-1][0] == 999
    shown = tree(found, found[0][1].id)
    assert shown.count("<li") == 500
    assert "500 more spans are not shown." in shown
    long = span(1, attributes=said(mlflow__spanInputs={"string_value": "<x>" * 10**6}))
    assert len(span_part(spans_of({"spans": [long]})[0][1], 0)) < 10**6


@pytest.mark.parametrize(
    ("value", "shown", "hidden"),
    [
        ({"string_value": '{"messages": [{"role": "user", "content": "<i>"}], "n": 1}'}, "&lt;i&gt;", "<i>"),
        ({"string_value": '{"messages": "no list"}'}, "no list", None),
        ({"string_value": '{"choices": [null, {"message": null}]}'}, "null", None),
        ({"string_value": '{"type": "message", "role": "assistant", "content": [{"type": "text", "text": "ab"}]}'},
         '<pre tabindex="0">ab</pre>', None),
        ({"string_value": '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]}]}'},
         "&quot;tool_calls&quot;", None),
        ({"string_value": "{broken"}, "{broken", None),
        ({"int_value": "12"}, "12", None),
        ({}, "", None),
    ],
)  # fmt: skip
def test_what_went_in_is_shown_as_what_it_is(value: dict[str, Any], shown: str, hidden: str | None) -> None:
    found = spans_of({"spans": [span(1, attributes=said(mlflow__spanInputs=value))]})
    part = span_part(found[0][1], 0)
    assert shown in part
    assert hidden is None or hidden not in part
