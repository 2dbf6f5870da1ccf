"""An artifact shown in a page: text, JSON, tables and pictures, never as live HTML."""

from __future__ import annotations

import base64
import json
from html import escape
from typing import Any

LIMIT = 1_000_000
_TEXT_SHOWN = 100_000
_ROWS_SHOWN = 200
# By their first bytes, not by their names: a browser would go by the bytes too.
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def preview(path: str, content: bytes, *, truncated: bool) -> str:
    """The artifact as HTML, escaped; `truncated` when `content` is only its beginning."""
    kind = next((kind for start, kind in _PICTURES.items() if content.startswith(start)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is not None:
        if truncated:
            return _said("No preview: this picture is larger than 1 MB.")
        return f'<img alt="{escape(path)}" src="data:{kind};base64,{base64.b64encode(content).decode()}">'
    try:
        text = content.decode("utf-8", "ignore" if truncated else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return _said("No preview: this is neither text nor a picture.")
    if path.endswith(".json") and not truncated and (shown := _json(text)) is not None:
        return shown
    return _text(text, truncated)


def table(columns: list[Any], rows: list[Any]) -> str:
    """A table of values, as `log_table` stores them."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td class="mono">{escape(_cell(value))}</td>' for value in row) + "</tr>"
        for row in rows[:_ROWS_SHOWN]
        if isinstance(row, list)
    )
    more = _said(f"The first {_ROWS_SHOWN} of {len(rows)} rows.") if len(rows) > _ROWS_SHOWN else ""
    cells = f'<table class="cells"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{cells}</div>{more}'


def size(count: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _json(text: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
        return table(found["columns"], found["data"])
    return _text(json.dumps(found, indent=2, ensure_ascii=False), truncated=False)


def _text(text: str, truncated: bool) -> str:
    cut = truncated or len(text) > _TEXT_SHOWN
    return f"<pre>{escape(text[:_TEXT_SHOWN])}</pre>" + (_said("Only the beginning is shown.") if cut else "")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
