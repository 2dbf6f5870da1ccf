"""What follows from spans: totals counted once, sizes, previews."""

from __future__ import annotations

from typing import Any

import pytest

from promptlab.entities_traces import Span
from promptlab.traces_derived import Node, previews, size_stats, total_cost, total_tokens


def node(name: str, parent: str | None, tokens: int | None) -> Node:
    return Node(name, parent, None if tokens is None else {"input_tokens": tokens, "total_tokens": tokens})


@pytest.mark.parametrize(
    ("nodes", "total"),
    [
        ([], None),
        ([node("a", None, None)], None),
        ([node("a", None, 5), node("b", "a", 2), node("c", "b", 3)], 5),
        ([node("a", None, None), node("b", "a", 2), node("c", "a", 3), node("d", "c", 3)], 5),
        ([node("b", "elsewhere", 2), node("c", "elsewhere", 3)], 5),
        # What goes round in a circle belongs to no trace.
        ([node("a", "b", 2), node("b", "a", 3)], None),
        ([node("a", "a", 2)], 2),
    ],
)
def test_tokens_are_counted_once(nodes: list[Node], total: int | None) -> None:
    counted = total_tokens(nodes)
    assert (counted and counted["total_tokens"]) == total


def test_a_cost_is_what_can_be_added() -> None:
    nodes = [Node("a", None, {"total_cost": 0.5, "input_cost": "much"}), Node("b", None, {"total_cost": True})]
    assert total_cost(nodes) == {"input_cost": 0.0, "output_cost": 0.0, "total_cost": 0.5}


def test_sizes() -> None:
    assert size_stats([4]) == {"total_size_bytes": 4, "num_spans": 1, "max": 4, "p25": 4, "p50": 4, "p75": 4}
    assert size_stats([1, 2, 3, 10])["p50"] == 2


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        (None, None),
        ("plain", "plain"),
        ({"x": 1}, '{"x": 1}'),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "tool"}]}, "b"),
        ('{"messages": [{"role": "assistant", "content": [{"text": "from "}, {"text": "parts"}, 5]}]}', "from parts"),
        ({"messages": [5]}, '{"messages": [5]}'),
        ({"messages": "x"}, '{"messages": "x"}'),
        ("y" * 2000, "y" * 997 + "..."),
    ],
)
def test_previews(inputs: Any, shown: str | None) -> None:
    span = Span("1" * 32, "2" * 16, None, "s", "OK", 1, 2, {"mlflow.spanInputs": inputs})
    assert previews(span) == (shown, None)
