"""The HTML around Gradio: the head of every page, the bar at its top, and the sign-in form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from promptlab.workbench.theme import SCRIPT, STYLE

ROOT = "/lab"

_MARK = (
    '<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" '
    'aria-hidden="true"><path d="M3 17V4M3 9h7a4 4 0 0 0 4-4V3M3 14h9a5 5 0 0 1 5 3"/></svg>'
)
_SUN = (
    '<svg class="sun" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" '
    'stroke-linecap="round" aria-hidden="true"><circle cx="8" cy="8" r="3"/><path d="M8 1v1.5M8 13.5V15M1 8h1.5'
    'M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1"/></svg>'
)
_MOON = (
    '<svg class="moon" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" '
    'stroke-linejoin="round" aria-hidden="true"><path d="M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z"/></svg>'
)
_HEAD = (
    f"<style>{STYLE}</style><script>{SCRIPT}</script>"
    '<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns=%27http://www.w3.org/2000/svg%27 viewBox=%270 0 20 20%27'
    " fill=%27none%27 stroke=%27%232f5bd8%27 stroke-width=%272%27 stroke-linecap=%27round%27%3E%3Cpath"
    ' d=%27M3 17V4M3 9h7a4 4 0 0 0 4-4V3M3 14h9a5 5 0 0 1 5 3%27/%3E%3C/svg%3E">'
)
# Gradio's template names remote images and its own manifest; nothing of ours is elsewhere.
_REMOTE = re.compile(r'<meta[^>]*(?:property="og:|name="twitter:)[^>]*/?>|<link rel="manifest"[^>]*>', re.DOTALL)
_BODY = re.compile(r"<body[^>]*>")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame around one page shows."""

    title: str
    path: str
    pages: tuple[tuple[str, str], ...]
    who: str
    version: str
    can_leave: bool
    columns: int = 1


class TemplateChanged(RuntimeError):
    """Gradio's page no longer has the places our frame goes into."""


def framed(page: str, frame: Frame) -> str:
    """Gradio's page `page` with our style, script, top bar and a skeleton that stands until it has drawn."""
    page = _REMOTE.sub("", page)
    skeleton = '<div class="skeleton{}" aria-hidden="true">{}</div>'.format(
        " one" if frame.columns == 1 else "", "<i></i>" * frame.columns
    )
    page, bodies = _BODY.subn(lambda found: found[0] + _bar(frame) + skeleton, page, count=1)
    if "</head>" not in page or not bodies:
        raise TemplateChanged("Gradio's page has no head or no body to put the lab's frame into")
    return page.replace("</head>", f"<title>{escape(_title(frame.title))}</title>{_HEAD}</head>", 1)


def sign_in(following: str, problem: str = "") -> str:
    """The sign-in page, which leads to the address `following`; `problem` is shown beside the field."""
    said = f'<p class="problem" id="problem" role="alert">{worded(problem)}</p>' if problem else ""
    action = f"{ROOT}/sign-in?" + urlencode({"next": following.removeprefix(f"{ROOT}/")})
    described = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_title('Sign in')}</title>{_HEAD}</head><body>"
        f'<header class="top"><span class="brand">{_MARK}<span>Promptyard</span></span>'
        f'<div class="right">{_mode()}</div></header>'
        f'<main class="door yard"><form method="post" action="{escape(action)}">'
        "<div><h1>Sign in to the lab</h1>"
        '<p class="muted">Everything you do here is done with your key: its routes, its limits, its budget.</p></div>'
        '<label>Key<input type="password" name="key" class="mono" placeholder="sk-py-…" required autofocus '
        f'spellcheck="false" autocomplete="current-password"{described}></label>{said}'
        '<button class="btn primary" type="submit">Sign in</button>'
        '<p class="note">No key yet? Ask who runs this server, or make one there with '
        '<span class="mono">promptyard keys create --name you</span></p></form></main>'
        # A link followed from elsewhere comes without the cookie (SameSite=Strict); from here it has it.
        f"<script>lab.cameBack({_script(action)}, {_script(following)})"
        "</script></body></html>"
    )


def worded(text: str) -> str:
    """A message as HTML: escaped, and what it quotes in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _bar(frame: Frame) -> str:
    links = "".join(
        f'<a href="{ROOT}/{escape(path)}"{" aria-current=page" if path == frame.path else ""}>{escape(name)}</a>'
        for path, name in frame.pages
    )
    leave = (
        f'<form method="post" action="{ROOT}/sign-out"><button type="submit">Sign out</button></form>'
        if frame.can_leave
        else ""
    )
    return (
        f'<header class="top"><a class="brand" href="{ROOT}/" title="Promptyard {escape(frame.version)}">'
        f"{_MARK}<span>Promptyard</span></a>"
        f'<nav aria-label="Pages">{links}</nav><div class="right">'
        f'<span class="status" role="status" data-from="{ROOT}/status"><i class="dot"></i><b>…</b></span>'
        f'<span class="who"><span class="name">{escape(frame.who)}</span>{leave}</span>{_mode()}</div></header>'
    )


def _mode() -> str:
    return (
        '<button class="mode" type="button" title="Light or dark" aria-label="Switch between light and dark">'
        f"{_SUN}{_MOON}</button>"
    )


def _script(text: str) -> str:
    """A string literal for a script inside a page."""
    return json.dumps(text).replace("<", "\\u003c")


def _title(name: str) -> str:
    return f"{name} · Promptyard"
