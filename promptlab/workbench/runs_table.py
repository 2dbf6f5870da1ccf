"""The table of an experiment's runs, as HTML."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from promptlab.workbench.figures import figure, seconds, writer

_METRICS, _PARAMS = 8, 4
# Long texts have no place in a table; they are compared below it.
_LONG = 60
_LAST = ("prompt_template", "system_prompt", "route_type")
_TONES = {"FAILED": "bad", "KILLED": "warn", "RUNNING": "live"}

_NUMBER = re.compile(r"-?[0-9]+\.[0-9]+(e-?[0-9]+)?")

Writers = dict[str, Callable[[float | None], str]]


def name_of(run: dict[str, Any]) -> str:
    """The run's name, or the start of its id."""
    info = run["info"]
    return str(info.get("run_name") or info["run_id"][:8])


def values(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """The run's `params`, `metrics` or `tags` by key."""
    return {entry["key"]: entry["value"] for entry in run.get("data", {}).get(kind, ())}


def number(value: Any) -> float:
    """A metric's value; MLflow's wire has NaN and the infinities as text."""
    return float(value)


def is_ours(run: dict[str, Any]) -> bool:
    """Whether the playground logged it, so that the units of its metrics are known."""
    return bool(values(run, "tags").get("mlflow.runSourceType") == "PROMPT_ENGINEERING")


def runs_table(runs: Sequence[dict[str, Any]], chosen: Sequence[str], order: str) -> str:
    """One row a run, with a box to choose it; headers sort."""
    metrics, params = _common(runs, "metrics", _METRICS), _common(runs, "params", _PARAMS)
    heads = [
        _head("Run", "attributes.run_name", order),
        _head("Started", "attributes.start_time", order),
        '<th class="num">Took</th><th>State</th>',
        *(_head(name, f"params.`{name}`", order) for name in params),
        *(_head(name, f"metrics.`{name}`", order, "num") for name in metrics),
    ]
    ours = [values(run, "metrics") for run in runs if is_ours(run)]
    writers = {name: writer(name, [number(found[name]) for found in ours if name in found]) for name in metrics}
    rows = "".join(_row(run, writers, params, run["info"]["run_id"] in chosen) for run in runs)
    return (
        '<div class="scroll runs"><table><thead><tr><th class="box"></th>'
        f"{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(run: dict[str, Any], writers: Writers, params: Sequence[str], is_chosen: bool) -> str:
    info = run["info"]
    run_id, name = escape(info["run_id"]), escape(name_of(run))
    given = values(run, "params")
    cells = "".join(_text_cell(given.get(key)) for key in params) + _measured(run, writers)
    start, end = info.get("start_time"), info.get("end_time")
    took = seconds((int(end) - int(start)) / 1000) if start and end else "–"
    status = str(info.get("status", ""))
    nested = "mlflow.parentRunId" in values(run, "tags")
    below = '<i title="Below another run (nested)">↳</i> ' if nested else ""
    return (
        f'<tr><td class="box"><input type="checkbox" data-run="{run_id}" aria-label="Compare {name}"'
        f'{" checked" if is_chosen else ""}></td><th scope="row" title="{name}&#10;{run_id}">{below}{name}</th>'
        f'<td>{ago(start)}</td><td class="num">{took}</td>'
        f'<td><span class="badge {_TONES.get(status, "")}">{escape(status.lower())}</span></td>{cells}</tr>'
    )


def _measured(run: dict[str, Any], writers: Writers) -> str:
    found, ours = values(run, "metrics"), is_ours(run)
    cells = ""
    for key, write in writers.items():
        text = "–"
        if key in found:
            text = (write if ours else figure)(number(found[key]))
        elif key == "cost" and ours:
            text = '<span class="muted" title="No price was known for this model">unpriced</span>'
        cells += f'<td class="num">{text}</td>'
    return cells


def _text_cell(value: Any) -> str:
    if value is None:
        return '<td class="muted">–</td>'
    return f'<td title="{escape(str(value)[:500])}">{escape(_brief(str(value)))}</td>'


def _brief(text: str) -> str:
    """A param for a cell: a number's digits that matter, the beginning of a text."""
    if len(text) > 8 and _NUMBER.fullmatch(text):
        return f"{float(text):.6g}"
    return text[:_LONG]


def _head(name: str, key: str, order: str, style: str = "") -> str:
    by, _, direction = order.rpartition(" ")
    arrow, sort = "", "none"
    if by == key:
        arrow, sort = (" ↓", "descending") if direction == "DESC" else (" ↑", "ascending")
    return (
        f'<th class="{style}" aria-sort="{sort}"><button type="button" data-act="sort" data-value="{escape(key)}" '
        f'title="{escape(name)}">'
        f"{escape(name)}{arrow}</button></th>"
    )


def _common(runs: Sequence[dict[str, Any]], kind: str, limit: int) -> list[str]:
    """The keys that say most: those most runs have, what tells the runs apart before what is always the same."""
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        for key, value in values(run, kind).items():
            if key not in _LAST and "`" not in key and '"' not in key:
                seen[key].append(str(value)[:_LONG])

    def worth(key: str) -> tuple[bool, int, int]:
        different = len(set(seen[key]))
        return different > 1, len(seen[key]), different

    # Sorting keeps the server's order, by name, among equals and in what is shown.
    best = set(sorted(seen, key=worth, reverse=True)[:limit])
    return [key for key in seen if key in best]


def ago(start: Any) -> str:
    """How long ago a moment in milliseconds was, with the moment itself to point at."""
    if not start:
        return "–"
    moment = int(start) / 1000
    exact = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    passed = max(0.0, time.time() - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f'<span title="{exact}">{passed / length:.0f} {unit} ago</span>'
    return f'<span title="{exact}">just now</span>'
