"""A plan as the text of a `routes.yaml`, laid out as a person would write it."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from gateway.importers.plan import Lost, Plan

_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# Words that are no text where they stand alone.
_NOT_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def text(plan: Plan, written_by: str) -> str:
    """The whole file. What was lost stands as a comment above the route it belongs to, or at the top."""
    lines = [f"# {_one_line(written_by)} `promptyard check` says whether it can be served."]
    whole = [one for one in plan.lost if one.route is None]
    if whole:
        lines += ["#", "# Left out:", *_comments(whole, "")]
    lines += ["", "providers:"]
    for name, data in plan.providers.items():
        lines += _entry(name, data, "  ")
    lines += ["", "routes:"]
    for number, (name, route) in enumerate(plan.routes.items()):
        lines += [""] if number else []
        lines += _comments([one for one in plan.lost if one.route == name], "  ")
        lines += _route(name, route.data())
    return "\n".join(lines) + "\n"


def _comments(lost: list[Lost], indent: str) -> list[str]:
    lines = []
    for one in sorted(dict.fromkeys(lost), key=lambda found: found.line or 0):
        where = f"line {one.line}, " if one.line is not None else ""
        said = _one_line(f"{where}{_last(one.key)}: {one.message}")
        wrapped = textwrap.wrap(said, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        lines += [f"{indent}# {'  ' if number else '- '}{line}" for number, line in enumerate(wrapped)]
    return lines


def _one_line(said: str) -> str:
    """A comment's text that cannot end it: names in it come from a file."""
    return "".join(char if char.isprintable() else " " for char in said)


def _last(key: str) -> str:
    """The end of a dotted path, which a line's number makes clear."""
    return key.rpartition("].")[2] or key


def _route(name: str, data: dict[str, Any]) -> list[str]:
    lines = [f"  {scalar(name)}:"]
    for key, value in data.items():
        one_line = f"    {key}: {flow(value)}"
        if key == "deployments" and (len(value) > 1 or len(one_line) > _WIDTH):
            lines += ["    deployments:", *(f"      - {flow(one)}" for one in value)]
        else:
            lines.append(one_line)
    return lines


def _entry(name: str, data: dict[str, Any], indent: str) -> list[str]:
    line = f"{indent}{scalar(name)}: {flow(data)}"
    if len(line) <= _WIDTH:
        return [line]
    lines = [f"{indent}{scalar(name)}:"]
    for key, value in data.items():
        if isinstance(value, dict):
            lines += _entry(key, value, indent + "  ")
        else:
            lines.append(f"{indent}  {scalar(key)}: {flow(value)}")
    return lines


def flow(value: Any) -> str:
    """`value` in one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """One value, quoted where it would not be read as the text it is."""
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # JSON leaves as they are some characters that YAML takes for line ends, or refuses.
    return "".join(char if char.isprintable() else _escaped(char) for char in quoted)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
