"""Registered prompts as HTML: their list, a prompt's versions, and one version beside another, word by word."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from typing import Any
from urllib.parse import urlencode

from promptlab.entities_registry import (
    CHAT,
    PROMPT_MODEL_CONFIG,
    PROMPT_RESPONSE_FORMAT,
    PROMPT_TEXT,
    PROMPT_TYPE,
)
from promptlab.prompt_template import PromptTemplate, TemplateFailed
from promptlab.workbench.runs_table import ago

_WORDS_COMPARED = 4000
_MESSAGE = 80


@dataclass(frozen=True, slots=True)
class Shown:
    """One version as the registry tells of it."""

    version: int
    created: Any
    message: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @classmethod
    def read(cls, found: Mapping[str, Any], aliases: Mapping[str, int]) -> Shown:
        """The version in a `ModelVersion` message."""
        number = int(found["version"])
        return cls(
            version=number,
            created=found.get("creation_timestamp"),
            message=str(found.get("description") or ""),
            tags={tag["key"]: tag.get("value", "") for tag in found.get("tags", ())},
            aliases=tuple(alias for alias, version in aliases.items() if version == number),
        )

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Its texts, each with the role that says it; a text alone has none."""
        text = self.tags.get(PROMPT_TEXT, "")
        if self.tags.get(PROMPT_TYPE) != CHAT:
            return [("", text)]
        try:
            return [(str(one["role"]), _plain(one.get("content"))) for one in json.loads(text)]
        except (ValueError, TypeError, KeyError):
            return [("", text)]

    @property
    def variables(self) -> tuple[str, ...]:
        """What it asks for; nothing where its template cannot be read."""
        text = self.tags.get(PROMPT_TEXT, "")
        try:
            return PromptTemplate(json.loads(text) if self.tags.get(PROMPT_TYPE) == CHAT else text).variables
        except (TemplateFailed, ValueError):
            return ()

    @property
    def config(self) -> dict[str, Any]:
        """Its model config."""
        try:
            found = json.loads(self.tags.get(PROMPT_MODEL_CONFIG, "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def playground(self) -> str | None:
        """The address that opens it in the playground, which has room for a system prompt and a prompt."""
        roles = [role for role, _ in self.messages]
        if roles not in ([""], ["user"], ["system", "user"]):
            return None
        fields = [("template", self.messages[-1][1])]
        if len(roles) == 2:
            fields.append(("system", self.messages[0][1]))
        if isinstance(route := self.config.get("model_name"), str):
            fields.append(("route", route))
        fields += [(name, str(self.config[name])) for name in ("temperature", "max_tokens") if name in self.config]
        return "./?" + urlencode(fields)


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)


def button(text: str, act: str, value: object, style: str = "btn small") -> str:
    """A button that says `act` with `value` when it is pressed."""
    said = f'data-act="{act}" data-value="{escape(str(value))}"'
    return f'<button type="button" class="{style}" {said}>{escape(text)}</button>'


def listed(prompts: Sequence[Mapping[str, Any]], chosen: str, wanted: str) -> str:
    """The list of prompts, with a field to find one by its name."""
    rows = ""
    for one in prompts:
        name = escape(one["name"])
        latest = max((int(version["version"]) for version in one.get("latest_versions", ())), default=0)
        aliases = ", ".join(f"{each['alias']} → {each['version']}" for each in one.get("aliases", ()))
        pressed = "true" if one["name"] == chosen else "false"
        rows += (
            f'<li><button type="button" data-act="prompt" data-value="{name}" aria-pressed="{pressed}"><b>{name}</b>'
            f"<small>{latest or '–'}</small><small>{escape(aliases)}</small></button></li>"
        )
    rows = rows or '<li><p class="note">No prompt has such a name.</p></li>'
    return (
        '<nav aria-label="Prompts"><form data-form="find"><input type="text" name="text" placeholder="Find by name" '
        f'aria-label="Find by name" value="{escape(wanted)}"><button type="submit" class="btn small">Find</button>'
        f"</form><ul>{rows}</ul></nav>"
    )


def versions_table(versions: Sequence[Shown], shown: int, against: int) -> str:
    """One row a version, the newest first, with its aliases and what compares it."""
    rows = ""
    for one in versions:
        aliases = "".join(
            f'<span class="alias"><span class="badge live">{escape(alias)}</span><button type="button" class="link" '
            f'data-act="unalias" data-value="{escape(alias)}" aria-label="Remove the alias {escape(alias)}">×</button>'
            "</span>"
            for alias in one.aliases
        )
        route = one.config.get("model_name")
        acts = button("Show", "version", one.version, "link")
        if one.version not in (shown, against):
            acts += " " + button("Compare", "against", one.version, "link")
        rows += (
            f'<tr{" aria-current=true" if one.version == shown else ""}><th scope="row" class="num">{one.version}</th>'
            f'<td>{aliases}</td><td title="{escape(one.message)}">{escape(one.message[:_MESSAGE])}</td>'
            f'<td class="mono">{escape(str(route or "–"))}</td><td>{ago(one.created)}</td><td>{acts}</td></tr>'
        )
    return (
        '<div class="scroll"><table><thead><tr><th class="num">Version</th><th>Aliases</th><th>Message</th>'
        f"<th>Route</th><th>Made</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def move_form(versions: Sequence[Shown], shown: int) -> str:
    """What moves an alias: its name, and the version that it shall stand for."""
    known = dict.fromkeys(("production", *(alias for one in versions for alias in one.aliases)))
    names = "".join(f'<option value="{escape(alias)}">' for alias in known)
    options = "".join(
        f'<option value="{one.version}"{" selected" if one.version == shown else ""}>version {one.version}</option>'
        for one in versions
    )
    return (
        '<form data-form="alias"><input type="text" name="alias" value="production" list="aliases" aria-label="Alias" '
        f'autocomplete="off" spellcheck="false"><datalist id="aliases">{names}</datalist><span>stands for</span>'
        f'<select name="version" aria-label="Version">{options}</select>'
        '<button type="submit" class="btn small primary">Move</button></form>'
    )


def version_part(one: Shown, other: Shown | None) -> str:
    """What one version says, with the words marked that another one does not."""
    note = "" if other is None else f"Marked against version {other.version}."
    before = [] if other is None else other.messages
    texts = ""
    for index, (role, text) in enumerate(one.messages):
        compared = escape(text)
        if other is not None:
            compared = diff(before[index][1] if index < len(before) else "", text)
        title = f"<h4>{escape(role)}</h4>" if role else ""
        texts += f'<div class="message">{title}<pre tabindex="0">{compared}</pre></div>'
    for role, text in before[len(one.messages) :]:
        texts += f'<div class="message"><h4>{escape(role)}</h4><pre tabindex="0">{diff(text, "")}</pre></div>'
    asks = ", ".join(f"<code>{escape(name)}</code>" for name in one.variables) or "no variables"
    facts = f'<p class="note">Asks for {asks}.</p>'
    for title, key in (("Model config", PROMPT_MODEL_CONFIG), ("Response format", PROMPT_RESPONSE_FORMAT)):
        mine, theirs = _json(one.tags.get(key)), _json(None if other is None else other.tags.get(key))
        if mine or theirs:
            shown = escape(mine) if other is None else diff(theirs, mine)
            facts += f'<div class="message"><h4>{title}</h4><pre tabindex="0">{shown}</pre></div>'
    return (
        f'<div class="part"><div class="part-head"><h3>Version {one.version}</h3><span class="note">{note}</span></div>'
        f"{texts}{facts}</div>"
    )


def diff(before: str, after: str) -> str:
    """`after` with the words marked that are new, and those struck out that are gone."""
    old, new = re.findall(r"\s+|[^\W_]+|.", before, re.DOTALL), re.findall(r"\s+|[^\W_]+|.", after, re.DOTALL)
    if len(old) > _WORDS_COMPARED or len(new) > _WORDS_COMPARED:
        return escape(after)
    parts = []
    for kind, start, end, begin, until in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = escape("".join(old[start:end])), escape("".join(new[begin:until]))
        if kind == "equal":
            parts.append(come)
            continue
        parts.append((f"<del>{gone}</del>" if gone else "") + (f"<mark>{come}</mark>" if come else ""))
    return "".join(parts)


def _json(text: str | None) -> str:
    if not text:
        return ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
