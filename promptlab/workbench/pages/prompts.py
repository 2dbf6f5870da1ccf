"""The page Prompts: registered prompts, their versions word by word, and the aliases by which they are called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from promptlab.client import CallFailed, Visitor
from promptlab.entities_registry import IS_PROMPT
from promptlab.workbench import components, snippets
from promptlab.workbench.lab import Lab
from promptlab.workbench.prompt_versions import Shown, button, listed, move_form, version_part, versions_table

_LISTED, _VERSIONS = 500, 200
_JS = """
const act = (act, value) => lab.act(() => trigger('act', { act, value }));
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button?.dataset.act === 'playground') location.assign(button.dataset.value || './');
  else if (button) act(button.dataset.act, button.dataset.value ?? '');
});
element.addEventListener('submit', (event) => {
  event.preventDefault();
  act(event.target.dataset.form, JSON.stringify(Object.fromEntries(new FormData(event.target))));
});
"""
_REMEMBER_JS = """(view, calls) => {
  lab.opened();
  const { prompt, version, against, find } = view;
  lab.remember([['prompt', prompt], ['version', version || ''], ['against', against || ''], ['find', find]]);
  if (calls?.length) lab.sheet(calls);
  lab.acted();
}"""
_WAITING = '<div class="yard empty" aria-busy="true"><p>Reading the prompts …</p></div>'
_NO_PROMPTS = (
    "No prompts yet",
    "Write one on the playground, register it with MLflow's client, and call it as a model.",
    "Open the playground",
    "playground",
)


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows; kept in its address. A version of 0 is the latest, and compares with nothing."""

    prompt: str = ""
    version: int = 0
    against: int = 0
    find: str = ""

    @classmethod
    def linked(cls, query: Iterable[tuple[str, str]]) -> View:
        """The view an address describes."""
        one = dict(query)
        return cls(one.get("prompt", ""), _number(one.get("version")), _number(one.get("against")), one.get("find", ""))

    def plain(self) -> dict[str, Any]:
        """The view as the browser keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def after(self, act: str, value: str) -> View:
        """The view after a click on something of the page."""
        match act:
            case "prompt":
                return View(value, find=self.find)
            case "version":
                return replace(self, version=_number(value), against=0)
            case "against":
                return replace(self, against=_number(value))
            case "find":
                return replace(self, find=str(json.loads(value)["text"]).strip())
        return self


class Prompts:
    """The page's one place and what happens in it."""

    def __init__(self, lab: Lab, blocks: gr.Blocks) -> None:
        self._lab = lab
        self._place = components.html(_WAITING, elem_id="prompts", js=_JS)
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
        if act == "copy":
            found = json.loads(value)
            address = self._lab.address(request)
            return gr.skip(), gr.skip(), snippets.prompt(found["model"], found["uri"], found["variables"], address)
        try:
            told = await _done(self._lab.visitor(request), was.prompt, act, value)
        except CallFailed as error:
            return await self._shown(request, was, components.problem("Not done.", str(error)))
        return await self._shown(request, was.after(act, value), told)

    async def _shown(self, request: gr.Request, view: View, told: str = "") -> tuple[Any, ...]:
        """The view, the page, and no calls to copy."""
        try:
            view, drawn = await _page(self._lab.visitor(request), view, told)
        except CallFailed as error:
            drawn = components.problem("The prompts could not be read.", str(error))
        return view.plain(), drawn, None


async def _done(visitor: Visitor, name: str, act: str, value: str) -> str:
    """Do what a form asks, and say what came of it with the way back. Raises `CallFailed`."""
    if act not in ("alias", "unalias"):
        return ""
    asked = json.loads(value) if act == "alias" else {"alias": value}
    alias = str(asked["alias"]).strip()
    found = await visitor.registry("GET", "registered-models/get", params={"name": name})
    before = next((one["version"] for one in found["registered_model"].get("aliases", ()) if one["alias"] == alias), "")
    if act == "alias":
        body = {"name": name, "alias": alias, "version": str(asked["version"])}
        await visitor.registry("POST", "registered-models/alias", json=body)
        if before == body["version"]:
            return ""
        was = f", no more for version {before}" if before else ""
        text = f"<b>{escape(alias)}</b> stands for version {escape(body['version'])}{was}."
    else:
        await visitor.registry("DELETE", "registered-models/alias", json={"name": name, "alias": alias})
        text = f"The alias <b>{escape(alias)}</b> is removed."
    back = json.dumps({"alias": alias, "version": before}) if before else alias
    undo = button("Undo", "alias" if before else "unalias", back, "link")
    return f'<p class="told" role="status">{text} {undo}</p>'


async def _page(visitor: Visitor, view: View, told: str) -> tuple[View, str]:
    prompts, chosen = await asyncio.gather(_prompts(visitor, view.find), _chosen(visitor, view.prompt))
    if not prompts and not view.find and chosen is None:
        return view, components.empty(*_NO_PROMPTS)
    if not view.prompt and prompts:
        view = replace(view, prompt=str(prompts[0]["name"]))
        chosen = await _chosen(visitor, view.prompt)
    if chosen is None:
        gone = components.problem("Not here any more:", f"the prompt `{view.prompt}`.") if view.prompt else ""
        left = listed(prompts, "", view.find)
        return replace(view, prompt=""), f'<div class="yard prompts">{left}<div>{gone}</div></div>'
    model, versions = chosen
    left = listed(prompts, view.prompt, view.find)
    return view, f'<div class="yard prompts">{left}{_card(view, model, versions, told)}</div>'


async def _prompts(visitor: Visitor, wanted: str) -> list[dict[str, Any]]:
    text = f"tags.`{IS_PROMPT}` = 'true'"
    if wanted:
        text += f" AND name ILIKE '%{_quoted(wanted)}%'"
    found = await visitor.registry("GET", "registered-models/search", params={"filter": text, "max_results": _LISTED})
    return list(found.get("registered_models", ()))


async def _chosen(visitor: Visitor, name: str) -> tuple[dict[str, Any], list[Shown]] | None:
    """The prompt and its versions, the newest first; None where there is no such prompt."""
    if not name:
        return None
    only = f"name = '{_quoted(name)}' AND tags.`{IS_PROMPT}` = 'true'"
    params = {"filter": only, "order_by": "version_number DESC", "max_results": _VERSIONS}
    try:
        model, found = await asyncio.gather(
            visitor.registry("GET", "registered-models/get", params={"name": name}),
            visitor.registry("GET", "model-versions/search", params=params),
        )
    except CallFailed as error:
        if error.status in (400, 404):
            return None
        raise
    one: dict[str, Any] = model["registered_model"]
    aliases = {each["alias"]: int(each["version"]) for each in one.get("aliases", ())}
    return one, [Shown.read(each, aliases) for each in found.get("model_versions", ())]


def _card(view: View, model: Mapping[str, Any], versions: list[Shown], told: str) -> str:
    name = str(model["name"])
    by_number = {one.version: one for one in versions}
    shown = by_number.get(view.version) or (versions[0] if versions else None)
    if shown is None:
        nothing = '<p class="note part">It has no versions.</p>'
        return f'<section class="chosen"><header><h2>{escape(name)}</h2></header>{told}{nothing}</section>'
    other = by_number.get(view.against)
    called = f"prompt:{name}/{shown.version}"
    if shown.aliases:
        alias = "production" if "production" in shown.aliases else shown.aliases[0]
        called = f"prompt:{name}" if alias == "production" else f"prompt:{name}@{alias}"
    call = json.dumps({"model": called, "uri": f"prompts:/{name}/{shown.version}", "variables": shown.variables})
    play = shown.playground
    buttons = button("Copy as…", "copy", call) + (button("Open in playground", "playground", play) if play else "")
    return (
        f'<section class="chosen"><header><h2>{escape(name)}</h2>{move_form(versions, shown.version)}{buttons}'
        f"</header>{told}{versions_table(versions, shown.version, view.against)}{version_part(shown, other)}</section>"
    )


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _number(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 10 else 0
