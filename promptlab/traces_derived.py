"""What follows from the spans of a trace: how long it took, how it ended, what it used and cost, its previews."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from promptlab.entities_traces import SESSION, SPAN_INPUTS, SPAN_OUTPUTS, TAG_PREFIX, USER, Span

MAX_PREVIEW = 1000
# No trace counts this much: it is what still can be written.
MAX_COUNT = 2**63 - 1
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")
_MORE_TOKENS = ("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr")
_COSTS = ("input_cost", "output_cost", "total_cost")
_SAID = {SESSION: ("session.id", "gen_ai.conversation.id"), USER: ("user.id",)}


@dataclass(frozen=True, slots=True)
class Node:
    """A span's place in its tree, and one thing that it counts."""

    id: str
    parent: str | None
    counts: Mapping[str, Any] | None


def total_tokens(nodes: Sequence[Node]) -> dict[str, int | float] | None:
    """The tokens a trace used, or None where no span says."""
    return _total(nodes, _TOKENS, _MORE_TOKENS, 0)


def total_cost(nodes: Sequence[Node]) -> dict[str, int | float] | None:
    """What a trace cost in dollars, or None where no span says."""
    return _total(nodes, _COSTS, (), 0.0)


def _total(
    nodes: Sequence[Node], keys: Sequence[str], more: Sequence[str], zero: int | float
) -> dict[str, int | float] | None:
    """The sums; a span below one that counts too adds nothing, for that one's counts hold its own."""
    outermost = list(_outermost(nodes))
    if not outermost:
        return None
    total: dict[str, int | float] = dict.fromkeys(keys, zero)
    for counts in outermost:
        for key in (*keys, *more):
            value = counts.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                total[key] = min(total.get(key, zero) + value, MAX_COUNT)
    return total


def _outermost(nodes: Sequence[Node]) -> Iterator[Mapping[str, Any]]:
    known = {node.id for node in nodes}
    children: dict[str | None, list[Node]] = defaultdict(list)
    for node in nodes:
        children[node.parent if node.parent in known and node.parent != node.id else None].append(node)
    waiting = list(children[None])
    while waiting:
        node = waiting.pop()
        if node.counts is not None:
            yield node.counts
        else:
            waiting += children[node.id]


def size_stats(sizes: Sequence[int]) -> dict[str, int]:
    """How large the spans of a trace are, as MLflow's client says it."""
    low, middle, high = statistics.quantiles(sizes if len(sizes) > 1 else [*sizes, *sizes], n=4, method="inclusive")
    return {
        "total_size_bytes": sum(sizes),
        "num_spans": len(sizes),
        "max": max(sizes),
        "p25": int(low),
        "p50": int(middle),
        "p75": int(high),
    }


def root_of(spans: Sequence[Span]) -> Span | None:
    """The span without a parent, if it is among these."""
    return next((span for span in spans if span.parent is None), None)


def tags_of(spans: Sequence[Span]) -> dict[str, str]:
    """The tags that spans give their trace: what their process says of itself, and what the root says on purpose."""
    tags: dict[str, str] = {}
    for span in spans:
        for key, value in span.resource.items():
            if not key.startswith(("telemetry.sdk.", "mlflow.")):
                tags[key] = text_of(value)
    root = root_of(spans)
    for key, value in root.attributes.items() if root else ():
        if key.startswith(TAG_PREFIX):
            tags[key.removeprefix(TAG_PREFIX)] = text_of(value)
    return tags


def metadata_of(spans: Sequence[Span]) -> dict[str, str]:
    """The session and the user that spans name."""
    found: dict[str, str] = {}
    for key, names in _SAID.items():
        said = (span.attributes[name] for span in spans for name in names if span.attributes.get(name))
        value = next(said, None)
        if value is not None:
            found[key] = text_of(value)
    return found


def previews(root: Span) -> tuple[str | None, str | None]:
    """What went into a trace and what came out, short: of a chat its last message."""
    return _preview(root.attributes.get(SPAN_INPUTS), "user"), _preview(root.attributes.get(SPAN_OUTPUTS), "assistant")


def _preview(value: object, role: str) -> str | None:
    if value is None:
        return None
    parsed = _parsed(value)
    text = _last_message(parsed, role) or (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_PREVIEW else text[: MAX_PREVIEW - 3] + "..."


def _last_message(value: object, role: str) -> str | None:
    if not isinstance(value, dict):
        return None
    messages = value.get("messages")
    if messages is None and isinstance(choices := value.get("choices"), list):
        messages = [choice.get("message") for choice in choices if isinstance(choice, dict)]
    if not isinstance(messages, list):
        return None
    messages = [one for one in messages if isinstance(one, dict)]
    chosen = [one for one in messages if one.get("role") == role] or messages
    content = chosen[-1].get("content") if chosen else None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def _parsed(value: object) -> object:
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        return value


def text_of(value: object) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
