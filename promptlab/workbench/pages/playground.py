"""The playground: one prompt asked of up to four routes, side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import gradio as gr

from promptlab.client import CallFailed
from promptlab.workbench import components, record, snippets
from promptlab.workbench.asking import Answer
from promptlab.workbench.form import EXAMPLE_TEMPLATE, EXAMPLE_VALUES, MAX_ROUTES, Form
from promptlab.workbench.lab import Lab
from promptlab.workbench.theme import OPENED_JS

_EMPTY = components.empty(
    "No answers yet",
    "Write a prompt, pick up to four routes and press Run. {{variables}} in the prompt become fields. "
    "The answers arrive here side by side.",
    "Run an example",
    "example",
)

# Fields made of the template's variables, drawn in the browser so that a keystroke never waits.
_FIELDS_JS = """
const box = element.querySelector('.fields');
let drawn = '';
const draw = () => {
  const { names = [], values = {} } = props.value ?? {};
  if (JSON.stringify(names) !== drawn) {
    drawn = JSON.stringify(names);
    box.replaceChildren(...names.map((name) => {
      const [label, title, area] = ['label', 'span', 'textarea'].map((tag) => document.createElement(tag));
      title.textContent = name;
      area.rows = 1; area.name = name; area.value = values[name] ?? '';
      area.addEventListener('input', () => {
        props.value = { names, values: { ...(props.value?.values ?? {}), [name]: area.value } };
        trigger('input');
      });
      label.append(title, area);
      return label;
    }));
  }
  for (const area of box.querySelectorAll('textarea'))
    if (document.activeElement !== area) area.value = values[area.name] ?? '';
};
watch('value', draw);
draw();
"""

# Follows each answer's end while it streams, unless its reader has scrolled up.
_ANSWERS_JS = """
element.addEventListener('click', (event) => { if (event.target.dataset.act === 'example') trigger('example'); });
element.addEventListener('scroll', (event) => {
  const box = event.target;
  box.away = box.scrollHeight - box.scrollTop - box.clientHeight > 24;
}, true);
watch('value', () => {
  for (const answer of element.querySelectorAll('.answer')) {
    const body = answer.querySelector('.body');
    if (answer.dataset.state === 'waiting') body.away = false;
    if (answer.dataset.state === 'streaming' && !body.away) body.scrollTop = body.scrollHeight;
  }
});
"""

_REMEMBER_JS = """(routes, system, template, fields, temperature, max_tokens, stop, seed, ...rest) => {
  lab.remember([
    ...(routes ?? []).map((name) => ['route', name]), ['system', system], ['template', template],
    ...(fields?.names ?? []).map((name) => ['v.' + name, fields.values[name]]),
    ['temperature', temperature], ['max_tokens', max_tokens],
    ...(stop ?? '').split('\\n').map((line) => ['stop', line]), ['seed', seed]]);
  return [routes, system, template, fields, temperature, max_tokens, stop, seed, ...rest];
}"""


class Playground:
    """The page's components and what happens to them."""

    def __init__(self, lab: Lab, blocks: gr.Blocks) -> None:
        self._lab = lab
        with gr.Row(elem_classes="bench", equal_height=False):
            with gr.Column(elem_classes="card composer", scale=0, min_width=0):
                self._compose()
            with gr.Column(elem_classes="results", scale=1, min_width=0):
                self._results()
        self._asked = gr.State(None)
        self._calls = gr.JSON(visible=False)
        self._wire(blocks)

    def _compose(self) -> None:
        self._routes = gr.Dropdown(
            [], value=[], multiselect=True, max_choices=MAX_ROUTES, label="Routes, up to four", elem_id="routes"
        )
        # Kept apart from what a run says: filling the form from an address counts as editing it, which clears that.
        self._missing = components.html(elem_id="missing")
        self._said = components.html(elem_id="said")
        self._template = gr.Textbox(
            label="Prompt",
            lines=6,
            max_lines=18,
            placeholder="Write a prompt. {{variables}} become fields below.",
            elem_classes="prompt",
            elem_id="template",
        )
        self._fields = gr.HTML(
            {"names": [], "values": {}},
            html_template='<div class="yard fields"></div>',
            js_on_load=_FIELDS_JS,
            apply_default_css=False,
            elem_id="fields",
        )
        self._system = gr.Textbox(
            label="System text",
            lines=1,
            max_lines=8,
            placeholder="Optional: how the model should behave",
            elem_classes="prompt",
            elem_id="system",
        )
        with gr.Row(elem_classes="parameters"):
            blank = "the model’s own"
            # No bounds and no rounding here: Gradio's own refusal names no field, and `Form.problem` does.
            self._temperature = gr.Number(None, label="Temperature", step=0.1, min_width=0, placeholder=blank)
            self._max_tokens = gr.Number(None, label="Max tokens", min_width=0, placeholder=blank)
            self._seed = gr.Number(None, label="Seed", min_width=0, placeholder="any")
            self._stop = gr.Textbox(
                label="Stop at, one a line", lines=1, max_lines=4, min_width=0, placeholder="nothing"
            )
        with gr.Row(elem_classes="actions"):
            self._run = gr.Button("Run", variant="primary", elem_id="run", min_width=0)
            self._halt = gr.Button("Stop", interactive=False, elem_id="stop", min_width=0)
            self._copy = gr.Button("Copy as…", elem_id="copy", min_width=0)

    def _results(self) -> None:
        with gr.Row(elem_classes="logbar card", equal_height=False):
            self._experiment = gr.Textbox(
                label="Experiment",
                placeholder=record.DEFAULT_EXPERIMENT,
                elem_id="experiment",
                min_width=0,
                max_lines=1,
            )
            self._name = gr.Textbox(
                label="Run name", placeholder="chosen for you", elem_id="run-name", min_width=0, max_lines=1
            )
            self._log = gr.Button("Log run", interactive=False, elem_id="log", min_width=0)
            self._note = components.html(_note(_NOTHING), elem_id="note")
        self._answers = components.html(_EMPTY, elem_id="answers", js=_ANSWERS_JS)

    def _wire(self, blocks: gr.Blocks) -> None:
        form: list[Any] = [
            self._routes, self._system, self._template, self._fields,
            self._temperature, self._max_tokens, self._stop, self._seed,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        edited = [self._fields, self._log, self._note]
        # Gradio's text fields raise `input` at key presses only: not when pasting or erasing.
        edits = [part.input if part is self._fields else part.change for part in form]
        # Cleared in the browser, at once: an answer of the server's would come after what Run has said meanwhile. And
        # in an event of its own: "always_last" does a whole event again, and would clear it again once it comes back.
        gr.on(edits, None, None, self._said, js="() => ''", trigger_mode="multiple", **quiet).then(
            self._edited,
            [*form, self._asked],
            edited,
            js=_REMEMBER_JS,
            trigger_mode="always_last",
            **quiet,
        )
        ran = [self._answers, self._asked, self._said, self._run, self._halt, self._log, self._note]
        self._run.click(self._ask, form, ran, trigger_mode="once", **quiet)
        self._halt.click(self._stop_asking, None, None, **quiet)
        self._answers.example(self._example, self._routes, [self._routes, self._template, self._fields], **quiet).then(
            self._edited, [*form, self._asked], edited, js=_REMEMBER_JS, **quiet
        ).then(self._ask, form, ran, **quiet)
        self._copy.click(self._snippets, form, [self._calls, self._said], **quiet).then(
            None, self._calls, None, js="(calls) => { if (calls?.length) lab.sheet(calls); }"
        )
        self._log.click(
            self._log_runs,
            [self._asked, self._experiment, self._name],
            [self._log, self._note],
            trigger_mode="once",
            **quiet,
        )
        self._routes.input(lambda: "", None, self._missing, **quiet)
        blocks.load(self._opened, None, [*form, self._missing], **quiet).then(None, None, None, js=OPENED_JS)
        blocks.unload(self._stop_asking)

    async def _opened(self, request: gr.Request) -> tuple[Any, ...]:
        """Fill the form from the address and offer the routes this visitor may call."""
        form = Form.linked(self._lab.query(request))
        try:
            names = [route.name for route in await self._lab.visitor(request).routes() if route.task == "chat"]
            said = "" if names else components.problem("No routes.", "This key may call no chat route.")
        except CallFailed as error:
            names, said = [], components.problem("The routes could not be read.", str(error))
        missing = [route for route in form.routes if route not in names]
        if missing and not said:
            said = components.problem("Not a route of yours (any more):", ", ".join(missing))
        chosen = [route for route in form.routes if route in names] or ([] if form.routes else names[:1])
        return (
            gr.Dropdown(choices=names, value=chosen),
            form.system,
            form.template,
            {"names": form.names, "values": dict(form.values)},
            form.temperature,
            form.max_tokens,
            "\n".join(form.stop),
            form.seed,
            said,
        )

    def _edited(self, *entered: Any) -> tuple[Any, ...]:
        """Keep the fields, the reasons and the log button true to what is typed."""
        *parts, asked = entered
        form = Form.entered(*parts)
        fields = parts[3] or {}
        if list(form.names) != list(fields.get("names", [])):
            fields = {"names": form.names, "values": dict(form.values)}
        else:
            # The browser's own copy is newer than what it sent.
            fields = gr.skip()
        return fields, *_loggable(form, asked)

    def _example(self, routes: list[str]) -> tuple[Any, ...]:
        if not routes:
            routes = gr.skip()
        return routes, EXAMPLE_TEMPLATE, {"names": list(EXAMPLE_VALUES), "values": EXAMPLE_VALUES}

    async def _ask(self, request: gr.Request, *parts: Any) -> AsyncIterator[tuple[Any, ...]]:
        """Stream the answers of every route into their columns."""
        form = Form.entered(*parts)
        if reason := form.problem():
            skip = gr.skip()
            yield skip, skip, components.problem("Not run.", reason), skip, skip, skip, skip
            return
        busy, idle = gr.Button(interactive=False), gr.Button(interactive=True)
        around = (gr.skip(), "", busy, idle, busy, _note("The answers are still arriving."))
        async with self._lab.asking(request, form) as asking:
            async for _ in asking.ticks():
                yield components.answers(asking.answers), *around
                around = (gr.skip(),) * len(around)
        asked = (form, asking.answers)
        yield components.answers(asking.answers), asked, "", idle, busy, *_loggable(form, asked)

    def _stop_asking(self, request: gr.Request) -> None:
        self._lab.stop(request)

    def _snippets(self, request: gr.Request, *parts: Any) -> tuple[Any, str]:
        form = Form.entered(*parts)
        if reason := form.problem():
            return [], components.problem("Nothing to copy.", reason)
        return snippets.calls(form, self._lab.address(request)), ""

    async def _log_runs(
        self, asked: tuple[Form, list[Answer]] | None, experiment: str, name: str, request: gr.Request
    ) -> tuple[Any, str]:
        """Store the answers as runs and lead to them."""
        if asked is None:
            return gr.Button(interactive=False), _note(_NOTHING)
        form, found = asked
        try:
            experiment_id, runs = await record.log(self._lab.visitor(request), form, found, experiment, name)
        except CallFailed as error:
            return gr.skip(), components.problem("Not logged.", str(error))
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        query = urlencode([("experiment", experiment_id), *(("run", run) for run in runs)], quote_via=quote)
        link = f'<a id="logged" href="runs?{query}">{"Open it" if len(runs) == 1 else "Compare them"} in Runs</a>'
        return gr.Button(interactive=False), f'<p class="yard note done" role="status">Logged {count}. {link}</p>'


_NOTHING = "Run a prompt first: its answers can then be logged."


def _note(text: str) -> str:
    return f'<p class="yard note">{text}</p>'


def _loggable(form: Form, asked: tuple[Form, list[Answer]] | None) -> tuple[Any, str]:
    """The log button and the reason beside it."""
    if asked is None:
        return gr.Button(interactive=False), _note(_NOTHING)
    was, found = asked
    whole = sum(answer.state == "done" for answer in found)
    if not whole:
        return gr.Button(interactive=False), _note("No answer is whole, so there is nothing to log.")
    if _essence(form) != _essence(was):
        return gr.Button(interactive=False), _note("The prompt has changed since these answers. Run it again to log.")
    what = "1 answer becomes a run." if whole == 1 else f"{whole} answers become {whole} runs."
    return gr.Button(interactive=True), _note(what)


def _essence(form: Form) -> tuple[Any, ...]:
    return form.routes, form.system, form.template, form.used_values, form.parameters()
