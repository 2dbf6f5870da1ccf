"""Chosen runs side by side, as HTML: metrics as charts, params with their differences marked, artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from html import escape
from typing import Any

from promptlab.workbench.charts import LINES, Series, chart, tint
from promptlab.workbench.comparison_data import read_and_made
from promptlab.workbench.downloads import address
from promptlab.workbench.figures import figure, writer
from promptlab.workbench.previews import size
from promptlab.workbench.runs_table import is_ours, name_of, number, values

MAX_RUNS = 6
_CHARTS = 24
_WORDS_COMPARED = 2000


@dataclass(frozen=True, slots=True)
class Chosen:
    """One run to compare, with what was fetched for it."""

    run: dict[str, Any]
    histories: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    files: Sequence[dict[str, Any]] = ()

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.run["info"]["run_id"])


def comparison(chosen: Sequence[Chosen], path: str, previews: Mapping[str, str]) -> str:
    """Everything about the chosen runs. `previews`: HTML of the file `path` for each run id that has it."""
    legend = "".join(
        f'<li {tint(index)}><i></i><span title="{escape(one.run_id)}">{escape(name_of(one.run))}</span>'
        f'<button type="button" class="link" data-act="drop" data-value="{escape(one.run_id)}" '
        f'aria-label="Remove {escape(name_of(one.run))}">×</button></li>'
        for index, one in enumerate(chosen)
    )
    title = "1 run" if len(chosen) == 1 else f"{len(chosen)} runs side by side"
    return (
        f'<section class="yard compare"><header><h2>{title}</h2><ul class="legend">{legend}</ul>'
        '<button type="button" class="btn small" data-act="clear">Clear</button></header>'
        f"{_metrics(chosen)}{_params(chosen)}{_data(chosen)}"
        f"{_artifacts(chosen, path, previews)}</section>"
    )


def _metrics(chosen: Sequence[Chosen]) -> str:
    names = list(dict.fromkeys(key for one in chosen for key in values(one.run, "metrics")))
    if not names:
        return _section("Metrics", '<p class="note">None of these runs has a metric.</p>')
    # Histories first and apart: drawn among single values they would leave holes.
    names.sort(key=lambda name: not any(len(one.histories.get(name, ())) > 1 for one in chosen))
    drawn = [_chart(name, chosen) for name in names[:_CHARTS]]
    lines = [one for one in drawn if one.startswith(LINES)]
    groups = (lines, drawn[len(lines) :])
    charts = "".join(f'<div class="charts">{"".join(group)}</div>' for group in groups if group)
    more = f'<p class="note">and {len(names) - _CHARTS} more metrics</p>' if len(names) > _CHARTS else ""
    note = "Change is against the first run." if len(chosen) > 1 else ""
    return _section("Metrics", charts + more, note)


def _chart(name: str, chosen: Sequence[Chosen]) -> str:
    series = [_series(one, index, name) for index, one in enumerate(chosen)]
    # What others mean by the playground's names is not known, so it is not given a unit.
    if not all(is_ours(one.run) for one in chosen):
        return chart(name, series, figure)
    return chart(name, series, writer(name, [one.last for one in series if one.last is not None]))


def _series(one: Chosen, index: int, name: str) -> Series:
    history = one.histories.get(name)
    if history:
        points = tuple((float(point.get("step", 0)), number(point["value"])) for point in history)
    else:
        latest = values(one.run, "metrics").get(name)
        points = () if latest is None else ((0.0, number(latest)),)
    return Series(name_of(one.run), index, points)


def _params(chosen: Sequence[Chosen]) -> str:
    given = [values(one.run, "params") for one in chosen]
    names = sorted({key for params in given for key in params})
    # What differs is what one came for.
    names.sort(key=lambda name: len({params.get(name) for params in given}) == 1)
    if not names:
        return _section("Params", '<p class="note">None of these runs has a param.</p>')
    rows = ""
    different = 0
    for name in names:
        found = [params.get(name) for params in given]
        differs = len(set(found)) > 1
        different += differs
        rows += (
            f'<tr class="{"differs" if differs else ""}"><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{_value(value, found[0], index)}</td>" for index, value in enumerate(found))
            + "</tr>"
        )
    note = "" if len(chosen) < 2 else "All the same." if not different else f"{different} of {len(names)} differ."
    return _section("Params", _table(chosen, rows), note)


def _table(chosen: Sequence[Chosen], rows: str) -> str:
    head = "".join(
        f'<th {tint(index)} title="{escape(name_of(one.run))}"><i></i>{escape(name_of(one.run))}</th>'
        for index, one in enumerate(chosen)
    )
    wide = f'style="min-width:{160 + 160 * len(chosen)}px"'
    table = f'<table class="params" {wide}><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _value(value: str | None, first: str | None, index: int) -> str:
    if value is None:
        return '<span class="muted">not set</span>'
    if index and first is not None and value != first and (" " in value or " " in first):
        return f'<div class="long">{marked(first, value)}</div>'
    return f'<div class="long">{escape(value)}</div>'


def marked(first: str, value: str) -> str:
    """`value` with the words it does not share with `first` marked."""
    before, after = re.findall(r"\s+|\S+", first), re.findall(r"\s+|\S+", value)
    if len(before) > _WORDS_COMPARED or len(after) > _WORDS_COMPARED:
        return escape(value)
    parts = []
    for kind, _, _, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        words = escape("".join(after[start:end]))
        parts.append(words if kind == "equal" else f"<mark>{words}</mark>" if words else "")
    return "".join(parts)


def _data(chosen: Sequence[Chosen]) -> str:
    rows = read_and_made([one.run for one in chosen])
    return _section("Data and models", _table(chosen, rows)) if rows else ""


def _artifacts(chosen: Sequence[Chosen], path: str, previews: Mapping[str, str]) -> str:
    sizes: dict[str, Any] = {}
    owners: dict[str, list[int]] = {}
    for index, one in enumerate(chosen):
        for file in one.files:
            owners.setdefault(file["path"], []).append(index)
            sizes.setdefault(file["path"], file.get("file_size"))
    if not owners:
        return _section("Artifacts", '<p class="note">These runs have no artifacts.</p>')
    listed = "".join(
        f'<li><button type="button" data-act="file" data-value="{escape(name)}" '
        f'aria-pressed="{str(name == path).lower()}"><span>{escape(name)}</span>'
        f"{_dots(owners[name], len(chosen))}<small>{size(int(sizes[name] or 0))}</small></button></li>"
        for name in sorted(owners)
    )
    shown = "".join(
        f'<article {tint(index)}><header><h3 title="{escape(name_of(one.run))}">{escape(name_of(one.run))}</h3>'
        f'<a href="{escape(address(one.run_id, path))}">Download</a></header>{previews[one.run_id]}</article>'
        for index, one in enumerate(chosen)
        if one.run_id in previews
    )
    if not shown:
        shown = '<p class="note">Pick a file to see it for every run that has it.</p>'
    return _section("Artifacts", f'<div class="files"><ul>{listed}</ul><div class="shown">{shown}</div></div>')


def _dots(owners: Sequence[int], count: int) -> str:
    if count == 1:
        return ""
    return '<span class="dots">' + "".join(f"<i {tint(index)}></i>" for index in owners) + "</span>"


def _section(title: str, inside: str, note: str = "") -> str:
    said = f'<span class="note">{escape(note)}</span>' if note else ""
    return f'<div class="part"><div class="part-head"><h3>{title}</h3>{said}</div>{inside}</div>'
