"""The words of MLflow's search grammar: names, numbers, quoted texts and marks."""

from __future__ import annotations

import re
from dataclasses import dataclass

PART = r"(?:\w+|`[^`]*`|\"[^\"]*\")"
_PATTERN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<string>'(?:''|[^'])*')"
    r"|(?P<number>-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    rf"|(?P<name>{PART}(?:\.{PART})*)"
    r"|(?P<compare>[<>=!~]+)"
    r"|(?P<punct>[(),;])"
    r"|(?P<other>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word, and what kind of word it is."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """The token as a keyword."""
        return self.text.upper() if self.kind == "name" else self.text


END = Token("end", "")


class Tokens:
    """The words of a text, one after the other; behind the last stands `END`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = [
            Token(match.lastgroup or "other", match.group())
            for match in _PATTERN.finditer(text)
            if match.lastgroup != "space"
        ]
        self._at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The next word, or the one so far behind it; it stays where it is."""
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else END

    def take(self) -> Token:
        """The next word, which is past now."""
        token = self.peek()
        self._at += 1
        return token
