"""The runs page: an experiment's runs in a table, and the chosen ones side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from promptlab.client import CallFailed, Visitor
from promptlab.workbench import components, previews, snippets
from promptlab.workbench.comparison import MAX_RUNS, Chosen, comparison
from promptlab.workbench.lab import Lab
from promptlab.workbench.runs_table import runs_table

_PAGE = 100
_LIMIT = 1000
_EXAMPLE = "metrics.latency < 2 AND params.model_route = 'chat'"
_TABLE = "eval_results_table.json"
_FOLDERS, _FILES = 20, 200

_TABLE_JS = """
const act = (act, value) => lab.act(() => trigger('act', { act, value }));
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button?.dataset.act === 'playground') location.assign('./');
  else if (button) act(button.dataset.act, button.dataset.value ?? '');
});
element.addEventListener('change', (event) => {
  if (event.target.dataset.run) act(event.target.checked ? 'choose' : 'drop', event.target.dataset.run);
});
// What is drawn anew stays where its reader had it: scrolled as it was, the keyboard on the same control.
let at = [0, 0], held = '';
element.addEventListener('scroll', (event) => {
  if (event.target.classList.contains('runs')) at = [event.target.scrollTop, event.target.scrollLeft];
}, true);
element.addEventListener('focusin', (event) => {
  const { run, act, value } = event.target.dataset;
  held = run ? `[data-run="${CSS.escape(run)}"]` : '';
  if (act) held = `[data-act="${act}"][data-value="${CSS.escape(value ?? '')}"]`;
});
element.addEventListener('focusout', (event) => { if (event.relatedTarget) held = ''; });
watch('value', () => {
  for (const box of element.querySelectorAll('[data-run]')) box.checked = box.hasAttribute('checked');
  const table = element.querySelector('.runs');
  if (table) [table.scrollTop, table.scrollLeft] = at;
  const kept = held ? element.querySelector(held) : null;
  if (kept && (document.activeElement ?? document.body) === document.body) kept.focus({ preventScroll: true });
  // The table gives way to the comparison, which is drawn after it.
  const row = kept?.closest('.runs tr');
  if (row) new ResizeObserver(() => row.scrollIntoView({ block: 'nearest' })).observe(table);
});
"""

_REMEMBER_JS = """(view) => lab.opened() || lab.remember([
  ['experiment', view.experiment], ['filter', view.filter], ['order', view.order],
  ...view.runs.map((run) => ['run', run]), ['file', view.file], ['limit', view.limit === 100 ? '' : view.limit]])"""

_ACTED_JS = f"(view) => {{ ({_REMEMBER_JS})(view); lab.acted(); }}"


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows; kept in its address."""

    experiment: str = ""
    filter: str = ""
    order: str = ""
    runs: tuple[str, ...] = ()
    file: str = ""
    limit: int = _PAGE

    @classmethod
    def linked(cls, query: Iterable[tuple[str, str]]) -> View:
        """The view an address describes."""
        pairs = list(query)
        one = dict(pairs)
        limit = one.get("limit", "")
        return cls(
            experiment=one.get("experiment", ""),
            filter=one.get("filter", ""),
            order=one.get("order", ""),
            runs=tuple(value for name, value in pairs if name == "run"),
            file=one.get("file", ""),
            limit=min(int(limit), _LIMIT) if limit.isdecimal() and int(limit) > 0 else _PAGE,
        )

    @classmethod
    def kept(cls, found: dict[str, Any]) -> View:
        """The view the browser sends back."""
        return cls(**{**found, "runs": tuple(found.get("runs", ()))})

    def plain(self) -> dict[str, Any]:
        """The view as the browser keeps it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"runs": list(self.runs)}

    def after(self, act: str, value: str) -> View:
        """The view after a click on something of the page."""
        match act:
            case "choose" if value not in self.runs:
                return replace(self, runs=(*self.runs, value)[-MAX_RUNS:])
            case "drop":
                return replace(self, runs=tuple(run for run in self.runs if run != value))
            case "clear":
                return replace(self, runs=(), file="")
            case "two":
                return replace(self, runs=tuple(value.split(",")))
            case "file":
                return replace(self, file=value)
            case "sort":
                following = {f"{value} DESC": f"{value} ASC", f"{value} ASC": ""}
                return replace(self, order=following.get(self.order, f"{value} DESC"))
            case "more":
                return replace(self, limit=min(self.limit + _PAGE, _LIMIT))
            case "all":
                return replace(self, filter="")
        return self


class Runs:
    """The page's components and what happens to them."""

    def __init__(self, lab: Lab, blocks: gr.Blocks) -> None:
        self._lab = lab
        with gr.Row(elem_classes="findbar card", equal_height=False):
            self._experiment = gr.Dropdown(
                [], label="Experiment", elem_id="experiments", elem_classes="pick", min_width=0
            )
            self._filter = gr.Textbox(
                label="Filter",
                placeholder=_EXAMPLE,
                elem_classes="prompt",
                elem_id="filter",
                max_lines=1,
                min_width=0,
            )
            self._search = gr.Button("Search", elem_id="search", min_width=0)
            self._copy = gr.Button("Copy as…", elem_id="copy", min_width=0)
        self._said = components.html(elem_id="said")
        self._table = components.html(_WAITING, elem_id="table", js=_TABLE_JS)
        self._compared = components.html(elem_id="compared", js=_TABLE_JS)
        self._view = gr.JSON(View().plain(), visible=False)
        self._calls = gr.JSON(visible=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        shown = [self._view, self._said, self._table, self._compared]

        def remembered(event: Any, js: str = _REMEMBER_JS) -> None:
            event.then(None, self._view, None, js=js)

        remembered(blocks.load(self._opened, None, [self._experiment, self._filter, *shown], **quiet))
        remembered(self._experiment.input(self._moved, [self._view, self._experiment], [self._filter, *shown], **quiet))
        for event in (self._filter.submit, self._search.click):
            remembered(event(self._filtered, [self._view, self._filter], shown, **quiet))
        self._copy.click(self._snippets, [self._view, self._filter], self._calls, **quiet).then(
            None, self._calls, None, js="(calls) => { if (calls?.length) lab.sheet(calls); }"
        )
        for place in (self._table, self._compared):
            done = place.act(self._clicked, self._view, [self._filter, *shown], trigger_mode="multiple", **quiet)
            remembered(done, _ACTED_JS)

    async def _opened(self, request: gr.Request) -> tuple[Any, ...]:
        view = View.linked(self._lab.query(request))
        try:
            found = await self._lab.visitor(request).experiments()
        except CallFailed as error:
            said = components.problem("The experiments could not be read.", str(error))
            return gr.skip(), view.filter, view.plain(), said, "", ""
        choices = [(str(one["name"]), str(one["experiment_id"])) for one in found]
        known = [experiment_id for _, experiment_id in choices]
        missing = "" if view.experiment in known else view.experiment
        if view.experiment not in known:
            view = replace(view, experiment=known[0] if known else "")
        kept, said, *shown = await self._show(request, view)
        if missing and not said:
            said = components.problem("Not here any more:", f"experiment {missing}. Another one is shown.")
        return gr.Dropdown(choices=choices, value=view.experiment or None), view.filter, kept, said, *shown

    async def _moved(self, request: gr.Request, view: dict[str, Any], experiment: str) -> tuple[Any, ...]:
        return "", *await self._show(request, View(experiment=experiment))

    async def _filtered(self, request: gr.Request, view: dict[str, Any], filter_text: str) -> tuple[Any, ...]:
        return await self._show(request, replace(View.kept(view), filter=filter_text.strip(), limit=_PAGE))

    async def _clicked(self, request: gr.Request, view: dict[str, Any], event: gr.EventData) -> tuple[Any, ...]:
        data = event._data or {}
        was = View.kept(view)
        now = was.after(str(data.get("act", "")), str(data.get("value", "")))
        return now.filter if now.filter != was.filter else gr.skip(), *await self._show(request, now)

    def _snippets(self, request: gr.Request, view: dict[str, Any], filter_text: str) -> list[dict[str, str]]:
        now = View.kept(view)
        return snippets.search(now.experiment, filter_text.strip(), now.order, self._lab.address(request))

    async def _show(self, request: gr.Request, view: View) -> tuple[Any, ...]:
        """The view, what went wrong, the table and the comparison."""
        said, table, compared = "", "", ""
        try:
            visitor = self._lab.visitor(request)
            if view.experiment:
                table = await self._found(visitor, view)
            else:
                table = components.empty(*_NO_RUNS)
            compared, gone = await self._side_by_side(visitor, view)
            if gone:
                view = replace(view, runs=tuple(run for run in view.runs if run not in gone))
                said = components.problem("Not here any more:", ", ".join(gone))
        except CallFailed as error:
            text = str(error)
            if error.status == 400 and view.filter:
                said = components.problem("The filter was not understood.", f"{text}. Write it like `{_EXAMPLE}`")
            else:
                said = components.problem("Not read.", text)
            table = ""
        return view.plain(), said, table, compared

    async def _found(self, visitor: Visitor, view: View) -> str:
        # One more than is shown tells whether there are more.
        runs = await visitor.search_runs(view.experiment, view.filter, view.order, view.limit + 1)
        if not runs:
            return components.empty(*(_NO_MATCH if view.filter else _NO_RUNS))
        shown = runs[: view.limit]
        foot = f"{len(shown)} runs." if len(shown) > 1 else "1 run."
        if len(runs) > view.limit:
            foot = f"The first {view.limit} runs."
            if view.limit < _LIMIT:
                foot += ' <button type="button" class="link" data-act="more">Show more</button>'
        foot += " Search again for newer runs."
        hint = ""
        if not view.runs and len(shown) > 1:
            two = ",".join(run["info"]["run_id"] for run in shown[:2])
            hint = (
                "<span>Tick runs to see them side by side, or "
                f'<button type="button" class="link" data-act="two" data-value="{two}">'
                "compare the first two</button></span>"
            )
        foot = f'<p class="note foot"><span>{foot}</span>{hint}</p>'
        return f'<div class="yard">{runs_table(shown, view.runs, view.order)}{foot}</div>'

    async def _side_by_side(self, visitor: Visitor, view: View) -> tuple[str, list[str]]:
        """The comparison of the chosen runs, and the ids of those that are gone."""
        wanted = view.runs[:MAX_RUNS]
        found = await asyncio.gather(*(_fetch(visitor, run_id) for run_id in wanted))
        chosen = [one for one in found if one is not None]
        gone = [run_id for run_id, one in zip(wanted, found, strict=True) if one is None]
        if not chosen:
            return "", gone
        paths = {file["path"] for one in chosen for file in one.files}
        path = view.file if view.file in paths else _TABLE if _TABLE in paths else ""
        having = [one.run_id for one in chosen if any(file["path"] == path for file in one.files)]
        shown = await asyncio.gather(*(_preview(visitor, run_id, path) for run_id in having))
        return comparison(chosen, path, dict(zip(having, shown, strict=True))), gone


async def _fetch(visitor: Visitor, run_id: str) -> Chosen | None:
    """A run with all that is shown of it; None when it is gone."""
    try:
        run = await visitor.run(run_id)
    except CallFailed as error:
        if error.status in (400, 404):
            return None
        raise
    # A latest point at step 0 is taken for the only one: most runs then need no history at all.
    stepped = [m["key"] for m in run.get("data", {}).get("metrics", ()) if int(m.get("step", 0)) > 0]
    histories = await asyncio.gather(*(visitor.history(run_id, key) for key in stepped))
    return Chosen(run, dict(zip(stepped, histories, strict=True)), await _files(visitor, run_id))


async def _files(visitor: Visitor, run_id: str) -> list[dict[str, Any]]:
    """The files of a run in all its folders, up to a number a page can show."""
    files: list[dict[str, Any]] = []
    folders = [""]
    for _ in range(_FOLDERS):
        if not folders or len(files) >= _FILES:
            break
        for entry in await visitor.artifacts(run_id, folders.pop(0)):
            (folders.append(entry["path"]) if entry.get("is_dir") else files.append(entry))
    return files[:_FILES]


async def _preview(visitor: Visitor, run_id: str, path: str) -> str:
    try:
        found = await visitor.artifact(run_id, path, previews.LIMIT)
    except CallFailed as error:
        return components.problem("Not read.", str(error))
    return previews.preview(path, found.content, truncated=found.truncated)


_WAITING = '<div class="yard empty" aria-busy="true"><p>Reading the runs …</p></div>'
_NO_MATCH = ("No run matches", "Nothing in this experiment fits the filter.", "Clear the filter", "all")
_NO_RUNS = (
    "No runs here yet",
    "Run a prompt on the playground and log its answers, or log from your own code with the MLflow client.",
    "Open the playground",
    "playground",
)
