"""The page Keys & spend: who spent what, who is near the end of a budget, and keys made, limited, rotated, revoked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from promptlab.client import CallFailed, Visitor
from promptlab.workbench import components, snippets
from promptlab.workbench.lab import Lab
from promptlab.workbench.spend import Period, bars, figures, keys_table

_JS = (Path(__file__).parents[1] / "keys.js").read_text(encoding="utf-8")
_REMEMBER_JS = """(view, calls) => {
  lab.opened();
  lab.remember([['days', view.days === 30 ? '' : view.days], ['by', view.by === 'key' ? '' : view.by]]);
  if (calls?.length) lab.sheet(calls);
  lab.acted();
}"""
_DAYS = (7, 30, 90)
#: What usage is told apart by.
_BY = ("key", "route", "deployment", "user", "team")
_NUMBERS = ("rpm", "tpm", "concurrency")
_WAITING = '<div class="yard empty" aria-busy="true"><p>Reading the keys …</p></div>'


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows; kept in its address."""

    days: int = 30
    by: str = "key"

    @classmethod
    def linked(cls, query: Iterable[tuple[str, str]]) -> View:
        """The view an address describes."""
        one = dict(query)
        days, by = one.get("days", ""), one.get("by", "")
        return cls(int(days) if days in map(str, _DAYS) else 30, by if by in _BY else "key")

    def plain(self) -> dict[str, Any]:
        """The view as the browser keeps it."""
        return {"days": self.days, "by": self.by}


class Keys:
    """The page's one place and what happens in it."""

    def __init__(self, lab: Lab, blocks: gr.Blocks) -> None:
        self._lab = lab
        self._place = components.html(_WAITING, elem_id="keys", js=_JS)
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
        now, act = View(**view), str(data.get("act", ""))
        value = json.loads(data.get("value") or "{}")
        if act == "days" and value in map(str, _DAYS):
            return await self._shown(request, replace(now, days=int(value)))
        if act == "by" and value in _BY:
            return await self._shown(request, replace(now, by=value))
        if act == "copy":
            return gr.skip(), gr.skip(), _calls(value, self._lab.address(request))
        try:
            visitor = self._lab.visitor(request)
            said = await _done(visitor, act, value, self._lab.address(request))
        except CallFailed as error:
            return await self._shown(request, now, _failed(str(error)))
        return await self._shown(request, now, said)

    async def _shown(self, request: gr.Request, view: View, said: str = "") -> tuple[Any, ...]:
        """The view, the page, and no calls to copy."""
        try:
            drawn = await _page(self._lab.visitor(request), view)
        except CallFailed as error:
            drawn = components.problem("The keys could not be read.", str(error))
        return view.plain(), said + drawn, None


async def _page(visitor: Visitor, view: View) -> str:
    period = Period(view.days, view.by)
    since = period.first.isoformat()
    itself = await visitor.admin("GET", "keys/self", params={"spend": True})
    manages, sees = "admin" in itself["scopes"], {"admin", "viewer"} & set(itself["scopes"])

    async def usage(group_by: str) -> list[dict[str, Any]]:
        found = await visitor.admin("GET", "usage", params={"group_by": group_by, "since": since})
        return list(found["data"])

    async def keys() -> list[dict[str, Any]]:
        if not sees:
            return [itself]
        return list((await visitor.admin("GET", "keys", params={"spend": True}))["data"])

    by_day, by_key, listed = await asyncio.gather(usage(f"day,{view.by}"), usage("key_id"), keys())
    table = keys_table(listed, by_key, manages=manages) if listed else components.empty(*_NO_KEYS)
    table = table.replace('data-act="create"', 'data-open="create"')
    spent = bars(by_day, period) if by_day else f'<p class="note">Nothing was called in the last {view.days} days.</p>'
    return (
        f'<div class="yard money"><section class="card">{_head(view)}{figures(by_day)}{spent}</section>'
        f"<section><header><h2>Keys</h2>{_NEW if manages and listed else ''}</header>{table}</section></div>"
    )


def _head(view: View) -> str:
    days = "".join(
        f'<button type="button" data-act="days" data-value="{number}" '
        f'aria-pressed="{"true" if number == view.days else "false"}">{number} days</button>'
        for number in _DAYS
    )
    chosen = {view.by: " selected"}
    options = "".join(f'<option value="{name}"{chosen.get(name, "")}>by {name}</option>' for name in _BY)
    pick = f'<select data-pick="by" aria-label="Told apart by">{options}</select>'
    return f'<header><h2>Spend</h2><div class="segments">{days}</div>{pick}</header>'


async def _done(visitor: Visitor, act: str, value: dict[str, Any], address: str) -> str:
    """Do what a form asks, and say what came of it. Raises `CallFailed`."""
    key_id = str(value.get("id", ""))
    if act == "create":
        made = await visitor.admin("POST", "keys", json={"name": value["name"].strip(), **terms(value)})
        return _secret(made, address, "is made")
    if act == "limits":
        await visitor.admin("PATCH", f"keys/{key_id}", json=terms(value))
        return ""
    if act == "rotate":
        made = await visitor.admin("POST", f"keys/{key_id}/rotate", json={"grace": float(value["grace"])})
        return _secret(made, address, "has a new secret")
    if act in ("block", "unblock"):
        await visitor.admin("PATCH", f"keys/{key_id}", json={"blocked": act == "block"})
    if act == "revoke":
        key = await visitor.admin("GET", f"keys/{key_id}")
        if value.get("typed") != key["name"]:
            raise CallFailed(f"Type '{key['name']}' to revoke it.")
        await visitor.admin("DELETE", f"keys/{key_id}")
    return ""


def terms(value: dict[str, Any]) -> dict[str, Any]:
    """A form's fields as the admin API has them: empty is no limit. Raises `CallFailed` naming what is no number."""
    told: dict[str, Any] = {}
    for name in (*_NUMBERS, "max_budget"):
        text = str(value.get(name, "")).replace(",", "").strip()
        try:
            told[name] = None if not text else float(text) if name == "max_budget" else int(text)
        except ValueError:
            raise CallFailed(f"{name} is a number, not '{text[:40]}'.") from None
    told["budget_duration"] = value.get("budget_duration") or None
    if told["max_budget"] is None:
        del told["budget_duration"]
    routes = [one.strip() for one in str(value.get("routes", "")).split(",") if one.strip()]
    told["routes"] = routes or None
    if value.get("expires_in"):
        told["expires_in"] = float(value["expires_in"])
    return told


def _calls(value: dict[str, Any], address: str) -> list[dict[str, str]]:
    """What a form would do, as a call and as a command."""
    kind, key_id = value.get("kind"), str(value.get("id") or "")
    try:
        said = terms(value)
    except CallFailed:
        said = {}
    match kind:
        case "create":
            return snippets.admin("POST", "keys", {"name": value.get("name", ""), **_stated(said)}, address)
        case "limits":
            return snippets.admin("PATCH", f"keys/{key_id}", said, address)
        case "rotate":
            return snippets.admin("POST", f"keys/{key_id}/rotate", {"grace": float(value.get("grace") or 0)}, address)
    return snippets.admin("DELETE", f"keys/{key_id}", {}, address)


def _stated(said: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in said.items() if one is not None}


def _secret(made: dict[str, Any], address: str, what: str) -> str:
    """A new secret, which is shown this once."""
    secret, name = escape(made["key"]), escape(made["name"])
    use = escape(snippets.first_call(made["key"], address))
    return (
        f'<div class="yard card secret" role="status"><p><b>{name}</b> {what}. Copy it now: it is shown this once.</p>'
        f'<p><code class="mono">{secret}</code>'
        f'<button type="button" class="btn small" data-copy="{secret}">Copy</button>'
        f'<button type="button" class="btn small" data-copy="{use}">Copy a first call</button></p></div>'
    )


def _failed(text: str) -> str:
    return f'<div data-failed="{escape(text)}">{components.problem("Not done.", text)}</div>'


_NEW = '<button type="button" class="btn primary" data-open="create">New key</button>'
_NO_KEYS = (
    "No keys yet",
    "A key lets one application or person in, with limits and a budget of its own. What it spends is told here.",
    "Make the first key",
    "create",
)
