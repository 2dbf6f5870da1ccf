"""What a visitor filled in on the playground: checked, turned into calls, and kept in an address."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptlab import templates

MAX_ROUTES = 4
# The largest whole number a browser keeps exactly.
_EXACT = 2**53 - 1

EXAMPLE_TEMPLATE = (
    "I have an online store selling {{ stock_type }}. Write a one-sentence advertisement for use in social media."
)
EXAMPLE_VALUES = {"stock_type": "books"}


@dataclass(frozen=True, slots=True)
class Form:
    """One state of the playground. `values` may hold more than the template asks for.

    Numbers are kept as they were typed, so that `problem` can name one that cannot be sent.
    """

    routes: tuple[str, ...] = ()
    system: str = ""
    template: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    temperature: float | None = None
    max_tokens: float | None = None
    stop: tuple[str, ...] = ()
    seed: float | None = None

    @classmethod
    def entered(
        cls,
        routes: Iterable[str] | None,
        system: str | None,
        template: str | None,
        fields: Mapping[str, Any] | None,
        temperature: float | None,
        max_tokens: float | None,
        stop: str | None,
        seed: float | None,
    ) -> Form:
        """The form as its components hold it; `stop` has one sequence a line."""
        typed = (fields or {}).get("values") or {}
        return cls(
            routes=tuple(routes or ()),
            system=system or "",
            template=template or "",
            values={str(name): str(value) for name, value in typed.items()},
            temperature=_plain(temperature),
            max_tokens=_plain(max_tokens),
            stop=tuple(line for line in (stop or "").split("\n") if line),
            seed=_plain(seed),
        )

    @classmethod
    def linked(cls, query: Iterable[tuple[str, str]]) -> Form:
        """The form an address describes; what cannot be read is left out."""
        pairs = list(query)
        one = dict(pairs)
        return cls(
            routes=tuple(value for name, value in pairs if name == "route")[:MAX_ROUTES],
            system=one.get("system", ""),
            template=one.get("template", ""),
            values={name[2:]: value for name, value in pairs if name.startswith("v.")},
            temperature=_number(one.get("temperature")),
            max_tokens=_number(one.get("max_tokens")),
            stop=tuple(value for name, value in pairs if name == "stop"),
            seed=_number(one.get("seed")),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The template's variables."""
        return templates.variables(self.template)

    @property
    def used_values(self) -> dict[str, str]:
        """The value of each variable of the template; empty where none was given."""
        return {name: self.values.get(name, "") for name in self.names}

    @property
    def prompt(self) -> str:
        """The template with its values in it."""
        return templates.render(self.template, self.used_values)

    def problem(self) -> str | None:
        """Why this cannot be run yet; None when it can."""
        if not self.routes:
            return "Pick a route to ask."
        if len(self.routes) > MAX_ROUTES:
            return f"Pick at most {MAX_ROUTES} routes."
        if not self.template.strip():
            return "Write a prompt first."
        if blank := [name for name, value in self.used_values.items() if not value.strip()]:
            return "Give a value for " + ", ".join(blank) + "."
        return self._number_problem()

    def _number_problem(self) -> str | None:
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            return f"Temperature is {self.temperature}. It must be between 0 and 2."
        if self.max_tokens is not None and not (_whole(self.max_tokens) and 1 <= self.max_tokens <= _EXACT):
            most = f"between 1 and {_EXACT}" if self.max_tokens > _EXACT else "of 1 or more"
            return f"Max tokens is {self.max_tokens}. It must be a whole number {most}."
        if self.seed is not None and not (_whole(self.seed) and abs(self.seed) <= _EXACT):
            return f"Seed is {self.seed}. It must be a whole number between -{_EXACT} and {_EXACT}."
        return None

    def call(self, route: str) -> dict[str, Any]:
        """The chat request for one route. What was left blank is left to the model."""
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        messages.append({"role": "user", "content": self.prompt})
        return {"model": route, "messages": messages, **self.parameters()}

    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by their names on the wire."""
        found = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop) or None,
            "seed": self.seed,
        }
        return {name: value for name, value in found.items() if value is not None}


def _number(text: str | None) -> float | None:
    try:
        found = None if text is None else float(text)
    except ValueError:
        return None
    return _plain(found) if found is not None and math.isfinite(found) else None


def _whole(value: float) -> bool:
    return float(value).is_integer()


def _plain(value: float | None) -> float | None:
    # 7.0 is shown and sent as 7. What a browser cannot hold exactly stays a float: its digits would be made up.
    return int(value) if value is not None and abs(value) <= _EXACT and _whole(value) else value
