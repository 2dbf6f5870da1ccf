"""Traces of an experiment as HTML: the table, and what is thought of one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from promptlab.entities_traces import COST, SESSION, TOKEN_USAGE, TRACE_NAME, USER
from promptlab.workbench.figures import dollars, seconds, whole
from promptlab.workbench.runs_table import ago

_TEXT = 160
_TONES = {"ERROR": "bad", "IN_PROGRESS": "live"}
_WORDS = {"IN_PROGRESS": "running", "STATE_UNSPECIFIED": "unknown"}

STARTED, TOOK = "timestamp_ms", "execution_time_ms"


def traces_table(traces: Sequence[Mapping[str, Any]], chosen: str, order: str) -> str:
    """One row a trace; a click on its name opens it."""
    rows = "".join(_row(info, is_chosen=info["trace_id"] == chosen) for info in traces)
    return (
        '<div class="scroll runs traces"><table><thead><tr><th>Trace</th><th>In</th><th>Out</th><th>State</th>'
        f"{_head('Started', STARTED, order)}{_head('Took', TOOK, order, 'num')}"
        '<th class="num">Tokens</th><th class="num">Cost</th><th>For</th><th>Thought of it</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(info: Mapping[str, Any], *, is_chosen: bool) -> str:
    trace_id, tags, metadata = escape(info["trace_id"]), info.get("tags") or {}, info.get("trace_metadata") or {}
    name = escape(str(tags.get(TRACE_NAME) or info["trace_id"]))
    usage, cost = _json(metadata.get(TOKEN_USAGE)), _json(metadata.get(COST))
    tokens = "–"
    if usage:
        tokens = (
            f'<span title="In → out">{whole(usage.get("input_tokens"))} → {whole(usage.get("output_tokens"))}</span>'
        )
    whom = " · ".join(escape(str(metadata[key])) for key in (USER, SESSION) if metadata.get(key))
    return (
        f'<tr{" aria-current=true" if is_chosen else ""}><th scope="row" title="{trace_id}"><button type="button" '
        f'data-act="trace" data-value="{trace_id}">{name}</button></th>{_text(info.get("request_preview"))}'
        f"{_text(info.get('response_preview'))}<td>{state(info)}</td><td>{ago(_moment(info))}</td>"
        f'<td class="num">{took(info)}</td><td class="num">{tokens}</td>'
        f'<td class="num">{dollars(cost.get("total_cost"))}</td><td>{whom}</td><td>{_thought(info)}</td></tr>'
    )


def state(info: Mapping[str, Any]) -> str:
    """How a trace ended, as a badge."""
    said = str(info.get("state", "STATE_UNSPECIFIED"))
    return f'<span class="badge {_TONES.get(said, "")}">{escape(_WORDS.get(said, said.lower()))}</span>'


def took(info: Mapping[str, Any]) -> str:
    """How long it took."""
    text = str(info.get("execution_duration") or "")
    try:
        return seconds(float(text.removesuffix("s"))) if text else "–"
    except ValueError:
        return "–"


def _thought(info: Mapping[str, Any]) -> str:
    """Names and values of what counts of its assessments, as short as can be."""
    said = [_brief(one) for one in info.get("assessments") or () if one.get("valid", True)]
    return " ".join(said[:4]) + (f" +{len(said) - 4}" if len(said) > 4 else "")


def _brief(one: Mapping[str, Any]) -> str:
    value = _value(one)
    tone = {True: "good", False: "bad"}.get(value, "") if isinstance(value, bool) else ""
    text = {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else _short(value)
    return f'<span class="badge {tone}">{escape(str(one.get("assessment_name", "")))}: {escape(text)}</span>'


def assessments_part(info: Mapping[str, Any]) -> str:
    """What is thought of a trace, who says so, and a form to say more."""
    rows = "".join(_assessment(one) for one in info.get("assessments") or ())
    table = ""
    if rows:
        table = (
            '<div class="scroll"><table><thead><tr><th>Name</th><th>Value</th><th>Why</th><th>Who</th><th>Said</th>'
            f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return (
        '<div class="part thought"><div class="part-head"><h3>What is thought of it</h3></div>'
        f'{table}<form data-form="feedback"><input type="text" name="name" value="good" aria-label="Name" '
        'autocomplete="off" spellcheck="false" maxlength="250"><input type="text" name="value" list="values" '
        'placeholder="yes, no, a number or a word" aria-label="Value" autocomplete="off" required>'
        '<datalist id="values"><option value="yes"><option value="no"></datalist>'
        '<input type="text" name="why" placeholder="Why" aria-label="Why" autocomplete="off">'
        '<button type="submit" class="btn small primary">Say so</button></form></div>'
    )


def _assessment(one: Mapping[str, Any]) -> str:
    source = one.get("source") or {}
    who = f"{source.get('source_id', '')} ({str(source.get('source_type', '')).replace('_', ' ').lower()})"
    kind = "" if "feedback" in one else " <small>expected</small>" if "expectation" in one else " <small>issue</small>"
    error = (one.get("feedback") or {}).get("error") or one.get("error")
    value = escape(_short(_value(one), 2000))
    if error:
        value = f'<span class="problem">{escape(str(error.get("error_message") or error.get("error_code")))}</span>'
    gone = "" if one.get("valid", True) else ' class="gone" title="Another one took its place"'
    identity = escape(str(one.get("assessment_id", "")))
    return (
        f'<tr{gone}><th scope="row">{escape(str(one.get("assessment_name", "")))}{kind}</th><td>{value}</td>'
        f"<td>{escape(str(one.get('rationale') or ''))}</td><td>{escape(who)}</td>"
        f'<td>{ago(_time(one.get("create_time")))}</td><td><button type="button" class="link" '
        f'data-act="unsay" data-value="{identity}">Remove</button></td></tr>'
    )


def _value(one: Mapping[str, Any]) -> Any:
    for kind in ("feedback", "expectation"):
        found = one.get(kind)
        if isinstance(found, dict):
            if "value" in found:
                return found["value"]
            return _parsed((found.get("serialized_value") or {}).get("value"))
    return (one.get("issue") or {}).get("issue_name")


def _short(value: Any, most: int = 40) -> str:
    text = value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(value: Any) -> str:
    if not value:
        return '<td class="muted">–</td>'
    text = str(value)
    return f'<td title="{escape(text[:500])}">{escape(text[:_TEXT])}</td>'


def _head(name: str, key: str, order: str, style: str = "") -> str:
    by, _, direction = order.rpartition(" ")
    arrow, sort = "", "none"
    if by == key:
        arrow, sort = (" ↓", "descending") if direction == "DESC" else (" ↑", "ascending")
    return (
        f'<th class="{style}" aria-sort="{sort}"><button type="button" data-act="sort" data-value="{key}">'
        f"{name}{arrow}</button></th>"
    )


def _moment(info: Mapping[str, Any]) -> int | None:
    return _time(info.get("request_time"))


def _time(text: Any) -> int | None:
    """Milliseconds of a time as the wire has it."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except ValueError:
        return None


def _json(text: Any) -> dict[str, Any]:
    found = _parsed(text)
    return found if isinstance(found, dict) else {}


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return text
