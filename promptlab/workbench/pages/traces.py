"""The page Traces: an experiment's traces found by filter, and one of them as the tree of its spans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from promptlab.client import CallFailed, Visitor
from promptlab.entities_traces import TRACE_NAME
from promptlab.workbench import components, snippets
from promptlab.workbench.lab import Lab
from promptlab.workbench.trace_spans import span_part, spans_of, tree
from promptlab.workbench.traces_table import assessments_part, state, took, traces_table

_PAGE, _LIMIT = 50, 500
_EXAMPLE = "attributes.status = 'ERROR' AND span.name LIKE '%search%'"
_JS = """
const act = (act, value) => lab.act(() => trigger('act', { act, value }));
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button?.dataset.act === 'playground') location.assign('./');
  else if (button) act(button.dataset.act, button.dataset.value ?? '');
});
element.addEventListener('change', (event) => {
  if (event.target.name === 'experiment') act('experiment', event.target.value);
});
element.addEventListener('submit', (event) => {
  event.preventDefault();
  act(event.target.dataset.form, JSON.stringify(Object.fromEntries(new FormData(event.target))));
});
// What is drawn anew stays where its reader had it.
let at = [0, 0], held = '';
element.addEventListener('scroll', (event) => {
  if (event.target.classList.contains('traces')) at = [event.target.scrollTop, event.target.scrollLeft];
}, true);
element.addEventListener('focusin', ({ target: { dataset: { act, value } } }) => {
  held = act ? `[data-act="${act}"][data-value="${CSS.escape(value ?? '')}"]` : '';
});
watch('value', () => {
  const table = element.querySelector('.traces');
  if (table) [table.scrollTop, table.scrollLeft] = at;
  const kept = held ? element.querySelector(held) : null;
  if (kept && (document.activeElement ?? document.body) === document.body) kept.focus({ preventScroll: true });
});
"""
_REMEMBER_JS = """(view, calls) => {
  lab.opened();
  const { experiment, filter, order, trace, span, limit } = view;
  lab.remember([['experiment', experiment], ['filter', filter], ['order', order], ['trace', trace], ['span', span],
                ['limit', limit === 50 ? '' : limit]]);
  if (calls?.length) lab.sheet(calls);
  lab.acted();
}"""
_WAITING = '<div class="yard empty" aria-busy="true"><p>Reading the traces …</p></div>'
_NO_MATCH = ("No trace matches", "Nothing in this experiment fits the filter.", "Clear the filter", "all")
_NO_TRACES = (
    "No traces here yet",
    (
        "Trace your own code with the MLflow client or any exporter of OpenTelemetry, or have a route of routes.yaml "
        "keep its calls."
    ),
    "Show me how",
    "how",
)


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows; kept in its address."""

    experiment: str = ""
    filter: str = ""
    order: str = ""
    trace: str = ""
    span: str = ""
    limit: int = _PAGE

    @classmethod
    def linked(cls, query: Iterable[tuple[str, str]]) -> View:
        """The view an address describes."""
        one = dict(query)
        limit = one.get("limit", "")
        known = {name: one.get(name, "") for name in ("experiment", "filter", "order", "trace", "span")}
        wanted = int(limit) if limit.isdecimal() and len(limit) < 10 else 0
        return cls(**known, limit=min(wanted, _LIMIT) or _PAGE)

    def plain(self) -> dict[str, Any]:
        """The view as the browser keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def after(self, act: str, value: str) -> View:
        """The view after a click on something of the page."""
        match act:
            case "experiment":
                return View(value)
            case "find":
                return replace(self, filter=str(json.loads(value)["filter"]).strip(), limit=_PAGE)
            case "all":
                return replace(self, filter="")
            case "sort":
                following = {f"{value} DESC": f"{value} ASC", f"{value} ASC": ""}
                return replace(self, order=following.get(self.order, f"{value} DESC"))
            case "more":
                return replace(self, limit=min(self.limit + _PAGE, _LIMIT))
            case "trace":
                return replace(self, trace=value, span="")
            case "close":
                return replace(self, trace="", span="")
            case "span":
                return replace(self, span=value)
        return self


class Traces:
    """The page's one place and what happens in it."""

    def __init__(self, lab: Lab, blocks: gr.Blocks) -> None:
        self._lab = lab
        self._place = components.html(_WAITING, elem_id="traces", js=_JS)
        self._view = gr.JSON(View().plain(), visible=False)
        self._calls = gr.JSON(visible=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        shown = [self._view, self._place, self._calls]
        for event in (
            blocks.load(self._opened, None, shown, **quiet),
            self._place.act(self._acted, self._view, shown, trigger_mode="multiple", **quiet),
        ):
            event.then(None, [self._view, self._calls], None, js=_REMEMBER_JS)

    async def _opened(self, request: gr.Request) -> tuple[Any, ...]:
        return await self._shown(request, View.linked(self._lab.query(request)))

    async def _acted(self, request: gr.Request, view: dict[str, Any], event: gr.EventData) -> tuple[Any, ...]:
        data = event._data or {}
        was, act, value = View(**view), str(data.get("act", "")), str(data.get("value", ""))
        address = self._lab.address(request)
        if act == "copy":
            return gr.skip(), gr.skip(), snippets.traces(was.experiment, was.filter, was.trace, address)
        if act == "how":
            return gr.skip(), gr.skip(), snippets.first_trace(was.experiment, address)
        try:
            told = await _done(self._lab.visitor(request), was.trace, act, value)
        except CallFailed as error:
            return await self._shown(request, was, components.problem("Not done.", str(error)))
        return await self._shown(request, was.after(act, value), told)

    async def _shown(self, request: gr.Request, view: View, told: str = "") -> tuple[Any, ...]:
        """The view, the page, and no calls to copy."""
        try:
            view, drawn = await _page(self._lab.visitor(request), view, told)
        except CallFailed as error:
            drawn = components.problem("The traces could not be read.", str(error))
        return view.plain(), drawn, None


async def _done(visitor: Visitor, trace: str, act: str, value: str) -> str:
    """Say what a form says of the trace, or take it back; what came of it. Raises `CallFailed`."""
    if act == "unsay":
        await visitor.traced("DELETE", f"{trace}/assessments/{value}")
        return '<p class="told" role="status">It is removed.</p>'
    if act != "feedback":
        return ""
    said = json.loads(value)
    source = {"source_type": "HUMAN", "source_id": await visitor.key_name()}
    feedback = {"value": _meant(str(said["value"]).strip())}
    assessment: dict[str, Any] = {
        "assessment_name": str(said["name"]).strip(),
        "trace_id": trace,
        "source": source,
        "feedback": feedback,
    }
    if said.get("why"):
        assessment["rationale"] = said["why"]
    made = await visitor.traced("POST", f"{trace}/assessments", json={"assessment": assessment})
    identity = escape(str(made["assessment"]["assessment_id"]))
    undo = f'<button type="button" class="link" data-act="unsay" data-value="{identity}">Undo</button>'
    return f'<p class="told" role="status">Said. {undo}</p>'


def _meant(text: str) -> bool | float | str:
    """What somebody means who writes `yes`, `4` or a word."""
    if text.lower() in ("yes", "no", "true", "false"):
        return text.lower() in ("yes", "true")
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else number if abs(number) < 1e300 else text


async def _page(visitor: Visitor, view: View, told: str) -> tuple[View, str]:
    experiments = await visitor.experiments()
    known = [str(one["experiment_id"]) for one in experiments]
    gone = ""
    if view.experiment not in known:
        if view.experiment:
            gone = components.problem("Not here any more:", f"experiment {view.experiment}. Another one is shown.")
        view = replace(view, experiment=known[0] if known else "")
    table, chosen = await asyncio.gather(_found(visitor, view), _chosen(visitor, view, told))
    if view.trace and chosen is None:
        gone += components.problem("Not here any more:", f"the trace {view.trace}.")
        view = replace(view, trace="", span="")
    return view, f'<div class="yard traced">{_findbar(view, experiments)}{gone}{table}{chosen or ""}</div>'


def _findbar(view: View, experiments: Sequence[Mapping[str, Any]]) -> str:
    options = "".join(
        f'<option value="{escape(str(one["experiment_id"]))}"'
        f"{' selected' if str(one['experiment_id']) == view.experiment else ''}>{escape(str(one['name']))}</option>"
        for one in experiments
    )
    return (
        '<form class="findbar card" data-form="find"><label>Experiment'
        f'<select name="experiment">{options}</select></label>'
        '<label>Filter<input type="text" name="filter" class="mono" '
        f'value="{escape(view.filter)}" placeholder="{escape(_EXAMPLE)}" autocomplete="off" spellcheck="false"></label>'
        '<button type="submit" class="btn">Search</button>'
        '<button type="button" class="btn" data-act="copy">Copy as…</button></form>'
    )


async def _found(visitor: Visitor, view: View) -> str:
    """The table of the traces that the filter finds, or why there is none."""
    if not view.experiment:
        return components.empty(*_NO_TRACES)
    body: dict[str, Any] = {
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": view.experiment}}],
        "max_results": view.limit,
        "filter": view.filter,
        "order_by": [view.order] if view.order else [],
    }
    try:
        found = await visitor.traced("POST", "search", json=body)
    except CallFailed as error:
        if error.status == 400 and (view.filter or view.order):
            return components.problem("The filter was not understood.", f"{error}. Write it like `{_EXAMPLE}`")
        return components.problem("Not read.", str(error))
    infos = found.get("traces", [])
    if not infos:
        return components.empty(*_NO_MATCH) if view.filter else components.empty(*_NO_TRACES)
    foot = "1 trace." if len(infos) == 1 else f"{len(infos)} traces."
    if found.get("next_page_token") and len(infos) == view.limit:
        foot = f"The first {view.limit} traces."
        if view.limit < _LIMIT:
            foot += ' <button type="button" class="link" data-act="more">Show more</button>'
    foot += " Search again for newer ones."
    return f'<div>{traces_table(infos, view.trace, view.order)}<p class="note foot"><span>{foot}</span></p></div>'


async def _chosen(visitor: Visitor, view: View, told: str) -> str | None:
    """The chosen trace with its spans; None where there is none such, or none is chosen."""
    if not view.trace:
        return None
    try:
        found = await visitor.traced("GET", "get", params={"trace_id": view.trace, "allow_partial": "true"})
    except CallFailed as error:
        if error.status in (400, 404):
            return None
        raise
    trace: Mapping[str, Any] = found["trace"]
    info, spans = trace["trace_info"], spans_of(trace)
    name = str((info.get("tags") or {}).get(TRACE_NAME) or "Trace")
    head = (
        f'<header><h2>{escape(name)}</h2>{state(info)}<span class="note">{took(info)}</span>'
        f"<code>{escape(info['trace_id'])}</code>"
        '<button type="button" class="btn small" data-act="close">Close</button></header>'
    )
    if not spans:
        body = '<p class="note part">Its spans have not come yet.</p>'
    else:
        shown = next((one for _, one in spans if one.id == view.span), spans[0][1])
        begin = min(one.start for _, one in spans)
        body = f'<div class="pair">{tree(spans, shown.id)}{span_part(shown, begin)}</div>'
    return f'<section class="chosen">{head}{told}{body}{_labels(info)}{assessments_part(info)}</section>'


def _labels(info: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(str(value)[:2000])}</td></tr>'
        for kind in ("tags", "trace_metadata")
        for key, value in sorted((info.get(kind) or {}).items())
    )
    if not rows:
        return ""
    return (
        '<div class="part"><details><summary>Tags and metadata</summary><div class="scroll">'
        f'<table class="facts"><tbody>{rows}</tbody></table></div></details></div>'
    )
