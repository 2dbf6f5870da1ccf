"""What a scorer is, what it sees, and what it says."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self

from promptlab.client_calls import Answer
from promptlab.evaluation.cases import Case, text_of


class Kind(enum.Enum):
    """What a scorer's numbers are."""

    YES_NO = "yes or no"
    SHARE = "from 0 to 1, more is better"
    AMOUNT = "an amount, less is better"


class Misused(ValueError):
    """What a plan says of a scorer, and it does not understand."""


class Unscorable(Exception):
    """This answer cannot be scored, and why."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a scorer found: a number, and why. `repeated` is how often a judge that was asked again said the same."""

    value: float
    why: str = ""
    repeated: float | None = None


#: Asks a route on behalf of a judge: a request's body, and which of several equal ones this is.
Ask = Callable[[Mapping[str, Any], int], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as a scorer sees it: the case, what was asked, and the value the plan gives the scorer.

    `other` is the baseline's answer, for scorers that compare.
    """

    case: Case
    answer: Answer
    messages: tuple[Mapping[str, str], ...] = ()
    value: Any = None
    other: Answer | None = None

    @property
    def text(self) -> str:
        """The value as text."""
        return text_of(self.value)

    def texts(self) -> list[str]:
        """The value as several texts, where it is a list."""
        return [text_of(one) for one in self.value] if isinstance(self.value, list) else [self.text]


@dataclass(frozen=True)
class Scorer:
    """Judges one answer. A subclass is a scorer of the plan: its fields are its options, with their defaults."""

    #: What plans call it.
    type: ClassVar[str] = ""
    kind: ClassVar[Kind] = Kind.YES_NO
    #: What a plan's `value` is where it says none; None: it needs none.
    value: ClassVar[Any] = "{{expected}}"
    #: From which share on, or up to which amount, an answer passes. None: there is no pass or fail.
    threshold: ClassVar[float | None] = 1.0
    #: What the routes it asks are for.
    task: ClassVar[str] = "chat"

    @classmethod
    def made(cls, options: Mapping[str, Any]) -> Self:
        """One with these options. Raises `ValueError` for one that is not known or of another type."""
        known = {field.name: field for field in fields(cls)}
        for name, value in options.items():
            if name not in known:
                said = ", ".join(known) or "none"
                raise Misused(f"{name} is no option of '{cls.type}', which has: {said}.")
            if not _fits(str(known[name].type), value):
                raise Misused(f"{name} must be {_SAID.get(str(known[name].type), str(known[name].type))}.")
        missing = [name for name, field in known.items() if name not in options and not _has_default(field)]
        if missing:
            raise Misused(f"{missing[0]} is missing: '{cls.type}' needs it.")
        return cls(**options)

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes it calls itself."""
        return ()

    @property
    def compares(self) -> bool:
        """Whether it looks at the baseline's answer beside this one."""
        return False

    @property
    def labelled(self) -> str | None:
        """The name of the cases' value that says what people think of the answer."""
        return None

    def fills(self) -> tuple[str, ...]:
        """Variables of its value that it fills itself."""
        return ()

    def sample(self, seen: Seen, tokens: int) -> list[dict[str, Any]]:
        """What it will ask its routes about an answer of so many tokens: what a forecast goes by."""
        return []

    def check(self, value: Any) -> None:
        """Raise `ValueError` where the plan's `value` can never be used."""

    def mark(self, seen: Seen) -> Mark:
        """What it finds. Raises `Unscorable`."""
        raise Unscorable(f"'{self.type}' cannot score by itself.")

    async def judged(self, seen: Seen, ask: Ask) -> Mark:
        """What it finds, where it has to ask a route to know."""
        return self.mark(seen)


_SAID = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple[str, ...]": "a list of texts",
}


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _fits(said: str, value: Any) -> bool:
    kinds: dict[str, Callable[[Any], bool]] = {
        "str": lambda one: isinstance(one, str),
        "bool": lambda one: isinstance(one, bool),
        "int": lambda one: isinstance(one, int) and not isinstance(one, bool),
        "float": lambda one: isinstance(one, int | float) and not isinstance(one, bool),
        "tuple[str, ...]": lambda one: isinstance(one, list | tuple) and all(isinstance(each, str) for each in one),
    }
    plain = said.removesuffix(" | None")
    return (value is None and plain != said) or kinds.get(plain, lambda _: True)(value)


def yes(found: object, why: str = "") -> Mark:
    """A mark of yes or no; `why` is kept where it is no."""
    return Mark(1.0) if found else Mark(0.0, why)
