"""The table of an experiment's runs, as HTML."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from promptlab.workbench.charts import figure
from promptlab.workbench.components import seconds

_METRICS, _PARAMS = 8, 5
# Long texts have no place in a table; they are compared below it.
_LONG = 60
_LAST = ("prompt_template", "system_prompt", "route_type")
_TONES = {"FAILED": "bad", "KILLED": "warn"}


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


def runs_table(runs: Sequence[dict[str, Any]], chosen: Sequence[str], order: str) -> str:
    """One row a run, with a box to choose it; headers sort."""
    metrics, params = _common(runs, "metrics", _METRICS), _common(runs, "params", _PARAMS)
    heads = [
        _head("Run", "attributes.run_name", order),
        _head("Started", "attributes.start_time", order),
        *(_head(name, f"params.`{name}`", order) for name in params),
        *(_head(name, f"metrics.`{name}`", order, "num") for name in metrics),
        '<th class="num">Took</th><th>State</th>',
    ]
    rows = "".join(_row(run, metrics, params, run["info"]["run_id"] in chosen) for run in runs)
    return (
        '<div class="scroll runs"><table><thead><tr><th class="box"></th>'
        f"{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(run: dict[str, Any], metrics: Sequence[str], params: Sequence[str], is_chosen: bool) -> str:
    info = run["info"]
    run_id, name = escape(info["run_id"]), escape(name_of(run))
    measured, given = values(run, "metrics"), values(run, "params")
    cells = "".join(_text_cell(given.get(key)) for key in params)
    cells += "".join(
        f'<td class="num">{figure(number(measured[key])) if key in measured else "–"}</td>' for key in metrics
    )
    start, end = info.get("start_time"), info.get("end_time")
    took = seconds((int(end) - int(start)) / 1000) if start and end else "–"
    status = str(info.get("status", ""))
    return (
        f'<tr><td class="box"><input type="checkbox" data-run="{run_id}" aria-label="Compare {name}"'
        f'{" checked" if is_chosen else ""}></td><th scope="row" title="{run_id}">{name}</th>'
        f'<td>{_ago(start)}</td>{cells}<td class="num">{took}</td>'
        f'<td><span class="badge {_TONES.get(status, "")}">{escape(status.lower())}</span></td></tr>'
    )


def _text_cell(value: Any) -> str:
    if value is None:
        return '<td class="muted">–</td>'
    return f'<td title="{escape(str(value)[:500])}">{escape(str(value)[:_LONG])}</td>'


def _head(name: str, key: str, order: str, style: str = "") -> str:
    by, _, direction = order.rpartition(" ")
    arrow, sort = "", "none"
    if by == key:
        arrow, sort = (" ↓", "descending") if direction == "DESC" else (" ↑", "ascending")
    return (
        f'<th class="{style}" aria-sort="{sort}"><button type="button" data-act="sort" data-value="{escape(key)}">'
        f"{escape(name)}{arrow}</button></th>"
    )


def _common(runs: Sequence[dict[str, Any]], kind: str, limit: int) -> list[str]:
    """The keys most of the runs have, in the order of the first run that has them."""
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update(key for key in values(run, kind) if key not in _LAST and "`" not in key and '"' not in key)
    return [key for key, _ in seen.most_common(limit)]


def _ago(start: Any) -> str:
    if not start:
        return "–"
    moment = int(start) / 1000
    exact = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    passed = max(0.0, time.time() - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f'<span title="{exact}">{passed / length:.0f} {unit} ago</span>'
    return f'<span title="{exact}">just now</span>'
