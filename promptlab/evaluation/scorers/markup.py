"""Scorers of markup: whether an answer is XML or HTML, or holds some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, ClassVar
from xml.etree import ElementTree

from promptlab.evaluation.cases import text_of
from promptlab.evaluation.scorers.scorer import Mark, Scorer, Seen, yes

#: Elements that are looked for in a text, and characters of it: a text of beginnings alone has no end of them.
_TRIED, _SHOWN = 200, 200_000
_OPENING = re.compile(r"<([A-Za-z_][\w.-]{0,200})(?:\s[^<>]{0,2000})?/?>")
_TAGS = """
a abbr address article aside audio b blockquote body br button canvas caption cite code col data dd del details dfn
dialog div dl dt em embed fieldset figure footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd
label legend li link main map mark menu meta nav object ol option p picture pre progress q s samp script section select
small source span strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track u
ul var video wbr
"""
_KNOWN = frozenset(_TAGS.split())
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)


@dataclass(frozen=True)
class IsXml(Scorer):
    """Whether the answer is one XML element; the value, if there is one, names elements it must have."""

    type = "is-xml"
    value: ClassVar[Any] = ""

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        root = _parsed(seen.answer.text.strip())
        return Mark(0.0, "It is not XML.") if root is None else _has(root, seen)


@dataclass(frozen=True)
class ContainsXml(IsXml):
    """Whether there is an XML element in the answer, with what the value names."""

    type = "contains-xml"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        last = Mark(0.0, "There is no XML in it.")
        for root in _within(seen.answer.text[:_SHOWN]):
            last = _has(root, seen)
            if last.value:
                return last
        return last


@dataclass(frozen=True)
class IsHtml(Scorer):
    """Whether the answer is HTML and nothing beside it."""

    type = "is-html"
    value = None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        read = _Reader(seen.answer.text[:_SHOWN])
        return yes(read.known and not read.outside, "It is not HTML, or not only.")


@dataclass(frozen=True)
class ContainsHtml(Scorer):
    """Whether there is an HTML element in the answer."""

    type = "contains-html"
    value = None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return yes(_Reader(seen.answer.text[:_SHOWN]).known, "There is no HTML in it.")


class _Reader(HTMLParser):
    """What a text has of HTML: elements that are known, and text outside of any."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.known = self.outside = False
        self._depth = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a known element, and that we are in one."""
        self.known = self.known or tag in _KNOWN
        self._depth += tag not in _VOID

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a known element that is closed at once."""
        self.known = self.known or tag in _KNOWN

    def handle_endtag(self, tag: str) -> None:
        """We are out of one."""
        self._depth = max(0, self._depth - (tag not in _VOID))

    def handle_data(self, data: str) -> None:
        """Note text outside."""
        self.outside = self.outside or (self._depth == 0 and bool(data.strip()))


def _parsed(text: str) -> ElementTree.Element | None:
    # Whoever declares entities can make much of little.
    if not text.startswith("<") or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - without entities of its own it is what it is
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def _within(text: str) -> Iterator[ElementTree.Element]:
    """Elements in a text, from each beginning to the last end of that name, outermost first."""
    for tried, found in enumerate(_OPENING.finditer(text)):
        if tried >= _TRIED:
            return
        if found[0].endswith("/>"):
            end = found.end()
        else:
            closing = f"</{found[1]}>"
            end = text.find(closing, found.end()) + len(closing)
        root = _parsed(text[found.start() : end]) if end > found.start() else None
        if root is not None:
            yield root


def _has(root: ElementTree.Element, seen: Seen) -> Mark:
    wanted = [text_of(one) for one in seen.value] if isinstance(seen.value, list) else seen.text.split(",")
    missing = [name for name in (one.strip() for one in wanted) if name and not _named(root, name)]
    return yes(not missing, f"It has no {', '.join(missing)}.")


def _named(root: ElementTree.Element, name: str) -> bool:
    """Whether there is an element of that name, or at that path from the root, `analysis.genre`."""
    first, *rest = name.split(".")
    at = [root] if root.tag == first else list(root.iter(first))
    for part in rest:
        at = [child for one in at for child in one if child.tag == part]
    return bool(at)


MARKUP: tuple[type[Scorer], ...] = (IsXml, ContainsXml, IsHtml, ContainsHtml)
