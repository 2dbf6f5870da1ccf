"""A call's trace as plain data, for whoever keeps it: what was asked and answered, and each attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.money import Tokens

#: Characters of one text that are kept, and of all of what was asked, or answered.
MOST_TEXT, MOST_ALL = 64 * 1024, 2**20
_DEEPEST = 100
#: The least that is kept of a text where all of them are too much.
_LEAST = 200


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """The call (`task` says which) or, below it, an attempt. Ids are hexadecimal, times UTC nanoseconds.

    `cost` is in nano-dollars, of input and of output. `error` is one of our codes.
    """

    id: str
    parent: str | None
    name: str
    task: str | None
    start: int
    end: int
    error: str | None = None
    asked: Any = None
    answered: Any = None
    model: Any = None
    first_token: int | None = None
    usage: Tokens | None = None
    cost: tuple[int, int] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call's trace. The first span is the call's own. `prompt` is the version that it was made from: `name/version`.

    `user` and `prompt` are "" where there is none.
    """

    id: str
    experiment: str
    request_id: str
    user: str
    prompt: str
    spans: Sequence[RecordedSpan]


def legible(value: Any) -> Any:
    """`value` as any database keeps it, and people read it: no NUL, no half a surrogate, long texts cut short.

    A picture in a message is such a text. It is bounded as a whole too, whoever wrote it.
    """
    shown = _Legible(MOST_TEXT)
    said = shown.of(value, 0)
    if shown.size <= MOST_ALL:
        return said
    tight = _Legible(_LEAST)
    said = tight.of(value, 0)
    return said if tight.size <= MOST_ALL else {"promptyard_left_out": "It is too long to be kept."}


class _Legible:
    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 0

    def of(self, value: Any, depth: int) -> Any:
        self.size += 4
        if self.size > 4 * MOST_ALL:
            return None  # it is not kept anyway
        if isinstance(value, str):
            return self._text(value)
        if depth > _DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            return {self._text(str(name)): self.of(part, depth + 1) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part, depth + 1) for part in value]
        if isinstance(value, bool | float | None) or (isinstance(value, int) and -(2**63) <= value < 2**63):
            return value
        return self._text(str(value)[: self._most])

    def _text(self, text: str) -> str:
        if len(text) > self._most:
            text = f"{text[: self._most]}… ({len(text)} characters)"
        self.size += len(text)
        return text.replace("\0", "\ufffd").encode(errors="replace").decode()
