"""A trace's spans as HTML: the tree with what took how long, and what went into one of them and came out."""

from __future__ import annotations

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from promptlab.entities_traces import SPAN_COST, SPAN_INPUTS, SPAN_OUTPUTS, SPAN_TYPE, SPAN_USAGE
from promptlab.workbench.figures import dollars, seconds, whole

_SPANS, _DEEPEST = 500, 12
#: Characters of one text that are shown.
_LONGEST = 100_000
#: What has a place of its own, or says nothing that is not seen.
_ELSEWHERE = frozenset({SPAN_INPUTS, SPAN_OUTPUTS, SPAN_TYPE, SPAN_USAGE, SPAN_COST, "mlflow.traceRequestId"})
_STACK = "exception.stacktrace"


@dataclass(frozen=True, slots=True)
class Shown:
    """One span as the server tells of it. Times are nanoseconds."""

    id: str
    parent: str
    name: str
    start: int
    end: int | None
    failed: bool
    message: str
    attributes: Mapping[str, Any]
    events: Sequence[tuple[int, str, Mapping[str, Any]]]

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Shown:
        """The span in a message of OpenTelemetry's."""
        status = found.get("status") or {}
        ended = found.get("end_time_unix_nano")
        return cls(
            id=_hex(found.get("span_id")),
            parent=_hex(found.get("parent_span_id")),
            name=str(found.get("name", "")),
            start=int(found.get("start_time_unix_nano") or 0),
            end=None if ended is None else int(ended),
            failed=status.get("code") == "STATUS_CODE_ERROR",
            message=str(status.get("message") or ""),
            attributes=_attributes(found),
            events=[
                (int(one.get("time_unix_nano") or 0), str(one.get("name", "")), _attributes(one))
                for one in found.get("events") or ()
            ],
        )

    @property
    def type(self) -> str:
        """LLM, TOOL, …; "" where nobody says."""
        said = self.attributes.get(SPAN_TYPE)
        return said if isinstance(said, str) and said != "UNKNOWN" else ""


def spans_of(trace: Mapping[str, Any]) -> list[tuple[int, Shown]]:
    """The spans of a `Trace` message, each under its parent and with how deep it is, siblings as they began."""
    spans = sorted((Shown.read(one) for one in trace.get("spans") or ()), key=lambda one: one.start)
    known = {one.id for one in spans}
    below: dict[str, list[Shown]] = defaultdict(list)
    for one in spans:
        below[one.parent if one.parent in known and one.parent != one.id else ""].append(one)
    walked = list(_walk(below))
    seen = {one.id for _, one in walked}
    # Those that say they are below each other are below nobody.
    return walked + [(0, one) for one in spans if one.id not in seen]


def _walk(below: Mapping[str, list[Shown]]) -> Iterator[tuple[int, Shown]]:
    waiting = [(0, one) for one in reversed(below.get("", ()))]
    while waiting:
        depth, one = waiting.pop()
        yield depth, one
        waiting += [(depth + 1, child) for child in reversed(below.get(one.id, ()))]


def tree(spans: Sequence[tuple[int, Shown]], chosen: str) -> str:
    """One row a span: its name below its parent's, and when it ran within the whole."""
    begin = min(one.start for _, one in spans)
    total = max(max((one.end or one.start) - begin for _, one in spans), 1)
    rows = ""
    for depth, one in spans[:_SPANS]:
        took = "–" if one.end is None else seconds((one.end - one.start) / 1e9)
        left = 100 * (one.start - begin) / total
        width = 0.0 if one.end is None else 100 * (one.end - one.start) / total
        kind = f"<small>{escape(one.type.lower().replace('_', ' '))}</small>" if one.type else "<small></small>"
        state = ' data-failed="true"' if one.failed else ""
        rows += (
            f'<li style="--depth:{min(depth, _DEEPEST)};--left:{left:.2f}%;--width:{width:.2f}%"><button type="button" '
            f'data-act="span" data-value="{one.id}" aria-pressed="{"true" if one.id == chosen else "false"}"{state}>'
            f'<b title="{escape(one.name)}">{escape(one.name)}</b>{kind}<span class="track"><i></i></span>'
            f'<span class="num">{took}</span></button></li>'
        )
    more = len(spans) - _SPANS
    rest = f'<p class="note">{more} more spans are not shown.</p>' if more > 0 else ""
    return f'<ol class="tree" aria-label="Spans">{rows}</ol>{rest}'


def span_part(one: Shown, begin: int) -> str:
    """All that one span says; its moments count from `begin`."""
    took = "still running" if one.end is None else seconds((one.end - one.start) / 1e9)
    facts = [("Took", took), ("Began after", seconds(max(0, one.start - begin) / 1e9))]
    usage, cost = one.attributes.get(SPAN_USAGE), one.attributes.get(SPAN_COST)
    if isinstance(usage, dict):
        read, written = (whole(_number(usage.get(f"{side}_tokens"))) for side in ("input", "output"))
        facts.append(("Tokens", f'<span title="In → out">{read} → {written}</span>'))
    if isinstance(cost, dict) and (total := _number(cost.get("total_cost"))) is not None:
        facts.append(("Cost", dollars(total)))
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    failed = ""
    if one.failed:
        failed = f'<p class="problem"><b>It failed.</b> {escape(one.message)}</p>'
    texts = "".join(
        f"<section><h4>{title}</h4>{_content(one.attributes.get(key))}</section>"
        for title, key in (("In", SPAN_INPUTS), ("Out", SPAN_OUTPUTS))
        if one.attributes.get(key) not in (None, "", {})
    )
    kind = f'<span class="badge">{escape(one.type)}</span>' if one.type else ""
    return (
        f'<div class="part span"><div class="part-head"><h3>{escape(one.name)}</h3>{kind}</div>'
        f"<dl>{shown}</dl>{failed}{texts}{_events(one, begin)}{_rest(one)}</div>"
    )


def _events(one: Shown, begin: int) -> str:
    if not one.events:
        return ""
    rows = "".join(
        f'<tr><td class="num">{seconds(max(0, moment - begin) / 1e9)}</td><th scope="row">{escape(name)}</th>'
        # A stack is read line by line.
        f"<td>{_plain(attributes.get(_STACK) or attributes) if attributes else ''}</td></tr>"
        for moment, name, attributes in one.events
    )
    table = f'<div class="scroll"><table class="facts events"><tbody>{rows}</tbody></table></div>'
    return f"<section><h4>Events</h4>{table}</section>"


def _rest(one: Shown) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_plain(value)}</td></tr>'
        for name, value in sorted(one.attributes.items())
        if name not in _ELSEWHERE
    )
    if not rows:
        return ""
    return (
        '<details><summary>Attributes</summary><div class="scroll"><table class="facts"><tbody>'
        f"{rows}</tbody></table></div></details>"
    )


def _content(value: Any) -> str:
    """A conversation as its messages, the rest beneath; anything else as what it is."""
    value = _parsed(value)
    messages, rest = _messages(value)
    if not messages:
        return f'<pre tabindex="0">{_plain(value)}</pre>'
    shown = "".join(
        f'<div class="message"><h4>{escape(role)}</h4><pre tabindex="0">{_plain(content)}</pre></div>'
        for role, content in messages
    )
    if rest:
        shown += f'<details><summary>The rest</summary><pre tabindex="0">{_plain(rest)}</pre></details>'
    return shown


def _messages(value: Any) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Who says what in a request or an answer of OpenAI's or Anthropic's, and what else it holds."""
    if not isinstance(value, dict):
        return [], {}
    found: list[Any] = []
    taken: set[str] = set()
    for name in ("system", "instructions"):
        if isinstance(value.get(name), str):
            found.append({"role": "system", "content": value[name]})
            taken.add(name)
    if isinstance(value.get("messages"), list):
        found += value["messages"]
        taken.add("messages")
    elif isinstance(value.get("choices"), list):
        found += [one.get("message") for one in value["choices"] if isinstance(one, dict)]
        taken.add("choices")
    elif value.get("type") == "message" and "content" in value:
        found.append(value)
        taken |= {"content", "role", "type"}
    else:
        return [], {}
    if not found or not all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in found):
        return [], {}
    return [(one["role"], _said(one)) for one in found], {
        name: part for name, part in value.items() if name not in taken
    }


def _said(message: Mapping[str, Any]) -> Any:
    """A message's text; with its tool calls, or where it is in parts of other kinds, all of it."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    calls = message.get("tool_calls")
    if not calls and message.get("tool_call_id") is None:
        return content
    rest = {name: value for name, value in message.items() if name not in ("role", "content") and value}
    said = f"{content}\n\n" if isinstance(content, str) and content else ""
    return said + json.dumps(rest, indent=2, ensure_ascii=False)


def _plain(value: Any) -> str:
    """A text as it is, anything else as JSON; escaped."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return escape(text)


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _attributes(found: Mapping[str, Any]) -> dict[str, Any]:
    return {str(one["key"]): _value(one.get("value") or {}) for one in found.get("attributes") or ()}


def _value(found: Mapping[str, Any]) -> Any:
    """What a value of OpenTelemetry's JSON says."""
    for kind, said in found.items():
        match kind:
            case "kvlist_value":
                return {str(one["key"]): _value(one.get("value") or {}) for one in said.get("values") or ()}
            case "array_value":
                return [_value(one) for one in said.get("values") or ()]
            case "int_value":
                return int(said)
            case _:
                return said
    return None


def _hex(given: Any) -> str:
    try:
        return base64.b64decode(given or "", validate=True).hex()
    except (binascii.Error, ValueError, TypeError):
        return ""
