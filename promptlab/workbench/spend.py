"""What was spent, drawn: figures, bars by day, and the table of keys with what is left of their budgets."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Any, NamedTuple

from promptlab.workbench.charts import tint
from promptlab.workbench.figures import dollars, duration, whole

Row = dict[str, Any]
#: Groups with a colour of their own; the rest is one.
_COLOURS = 5
_TONES = {"active": "", "blocked": "warn", "revoked": "bad", "expired": "bad"}
_LIMITS = (("rpm", "rpm"), ("tpm", "tpm"), ("concurrency", "at once"), ("rpd", "a day"), ("tpd", "tokens a day"))
#: Shares of a budget from which it is nearly spent, and spent.
_NEAR, _SPENT = 0.8, 1.0


class Period(NamedTuple):
    """So many days, up to and with today (UTC), and what usage is told apart by."""

    days: int
    by: str

    @property
    def first(self) -> date:
        """Its first day."""
        return datetime.now(UTC).date() - timedelta(days=self.days - 1)


def figures(rows: Sequence[Row]) -> str:
    """The sums of a period."""
    sums = {name: sum(row[name] for row in rows) for name in ("cost_usd", "calls", "failed")}
    read, written = sum(row["input_tokens"] for row in rows), sum(row["output_tokens"] for row in rows)
    told = (
        ("Spent", dollars(sums["cost_usd"])),
        ("Calls", whole(sums["calls"])),
        ("Failed", whole(sums["failed"])),
        ("Tokens in", whole(read)),
        ("Tokens out", whole(written)),
    )
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told) + "</dl>"


def bars(rows: Sequence[Row], period: Period) -> str:
    """A bar for each day, its parts those that spent most. Where nothing had a price, calls stand for money."""
    costs = any(row["cost_usd"] for row in rows)
    measure = "cost_usd" if costs else "calls"
    days = [period.first + timedelta(days=number) for number in range(period.days)]
    spent: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        spent[str(row[period.by] or "–")][row["day"]] += row[measure]
    most = sorted(spent, key=lambda name: -sum(spent[name].values()))
    shown, rest = most[:_COLOURS], most[_COLOURS:]
    if rest:
        shown.append(f"{len(rest)} more")
        for name in rest:
            for day, value in spent[name].items():
                spent[shown[-1]][day] += value
    top = max((sum(spent[name][day.isoformat()] for name in shown) for day in days), default=0.0) or 1.0
    parts = "".join(_bar(spent, shown, day, number, top, costs=costs) for number, day in enumerate(days))
    legend = "".join(
        f'<li {tint(number)}><i></i><span title="{escape(name)}">{escape(name)}</span> '
        f"<b>{_written(sum(spent[name].values()), costs=costs)}</b></li>"
        for number, name in enumerate(shown)
    )
    return (
        f'<figure class="chart spend"><figcaption>{"USD" if costs else "Calls"} a day, UTC, by {escape(period.by)}'
        f'</figcaption><div class="plot"><span class="y"><b>{_written(top, costs=costs)}</b><b>0</b></span>'
        f'<svg viewBox="0 0 {period.days} 100" preserveAspectRatio="none" role="img" aria-label="By day">{parts}</svg>'
        f'<span class="x"><b>{days[0]:%-d %b}</b><b>{days[-1]:%-d %b}</b></span></div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _bar(spent: Any, shown: Sequence[str], day: date, number: int, top: float, *, costs: bool) -> str:
    drawn, below = "", 0.0
    for index, name in enumerate(shown):
        value = spent[name][day.isoformat()]
        if not value:
            continue
        height = 100 * value / top
        said = f"{day:%-d %b}: {name}, {_written(value, costs=costs)}"
        drawn += (
            f'<rect x="{number + 0.1}" y="{100 - below - height:.2f}" width="0.8" height="{height:.2f}" '
            f'style="fill:var(--c{index + 1})"><title>{escape(said)}</title></rect>'
        )
        below += height
    return drawn


def _written(value: float, *, costs: bool) -> str:
    return dollars(value) if costs else whole(value)


def keys_table(keys: Sequence[Row], used: Sequence[Row], *, manages: bool) -> str:
    """One row a key, those nearest to the end of their budgets first. `used` is their usage in the period."""
    by_key = {row["key_id"]: row for row in used}
    ordered = sorted(keys, key=lambda key: (-share(key), -by_key.get(key["id"], {}).get("cost_usd", 0), key["name"]))
    rows = "".join(_row(key, by_key.get(key["id"], {}), manages=manages) for key in ordered)
    heads = '<th>Key</th><th>State</th><th>Limits</th><th class="budget">Budget</th>'
    heads += '<th class="num">Spent</th><th class="num">Calls</th>' + ("<th></th>" if manages else "")
    return f'<div class="scroll keys"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def share(key: Row) -> float:
    """How much of a key's budget is spent in its present window: 1 is all of it. Those without a budget, or who call
    no more, come last."""
    budget = key["max_budget"] or key["soft_budget"]
    if not budget or key["state"] != "active":
        return -1.0
    return float(key.get("spent_usd", 0.0) / budget)


def _row(key: Row, used: Row, *, manages: bool) -> str:
    team = f'<small title="Team">{escape(key["team_id"])}</small>' if key["team_id"] else ""
    name, key_id = escape(key["name"]), escape(key["id"])
    acts = f"<td>{_acts(key)}</td>" if manages else ""
    return (
        f'<tr data-key="{escape(json.dumps(_kept(key)))}"><th scope="row"><span title="{name}">{name}</span>'
        f'<small class="mono">{key_id}</small>{team}</th>'
        f'<td><span class="badge {_TONES.get(key["state"], "")}">{escape(key["state"])}</span>{_expires(key)}</td>'
        f"<td>{_limits(key)}</td><td>{_budget(key)}</td>"
        f'<td class="num">{dollars(used.get("cost_usd", 0))}</td><td class="num">{whole(used.get("calls", 0))}</td>'
        f"{acts}</tr>"
    )


def _kept(key: Row) -> Row:
    """What a form that changes a key begins with."""
    names = ("id", "name", "routes", "rpm", "tpm", "concurrency", "max_budget", "soft_budget", "budget_duration")
    return {name: key[name] for name in names}


def _acts(key: Row) -> str:
    if key["state"] == "revoked" or not key["id"].startswith("key_"):
        return ""
    block = "unblock" if key["state"] == "blocked" else "block"
    acts = (("limits", "Limits"), ("rotate", "Rotate"), (block, block.capitalize()), ("revoke", "Revoke"))
    buttons = "".join(f'<button type="button" class="link" data-open="{act}">{word}</button>' for act, word in acts)
    return f'<span class="acts">{buttons}</span>'


def _expires(key: Row) -> str:
    if not key["expires_at"] or key["state"] != "active":
        return ""
    return f"<small>for {duration(max(60.0, key['expires_at'] - time.time()))} more</small>"


def _limits(key: Row) -> str:
    told = [f"{whole(key[name])} {word}" for name, word in _LIMITS if key[name]]
    routes = "" if key["routes"] is None else f"<small>{escape(', '.join(key['routes'])) or 'no routes'}</small>"
    return (" · ".join(told) or '<span class="muted">none</span>') + routes


def _budget(key: Row) -> str:
    """What is spent of a budget, in the words and as a bar. Of a soft one more than all may be."""
    budget = key["max_budget"] or key["soft_budget"]
    if not budget:
        return '<span class="muted">none</span>'
    spent = float(key.get("spent_usd", 0.0))
    part = round(spent / budget, 9)
    tone = "bad" if part >= _SPENT else "warn" if part >= _NEAR else ""
    resets = key.get("budget_resets_at")
    again = f", anew in {duration(max(60.0, resets - time.time()))}" if resets else ""
    kind = " (soft)" if not key["max_budget"] else ""
    period = f" in {escape(key['budget_duration'])}" if key["budget_duration"] else ""
    return (
        f'<span class="share {tone}" role="img" aria-label="{part:.0%} spent">'
        f'<i style="width:{min(100.0, 100 * part):.1f}%"></i></span>'
        f"<span>{dollars(spent)} of {dollars(budget)}{period}{kind}</span>"
        f"<small>{part:.0%} spent{again}</small>"
    )
