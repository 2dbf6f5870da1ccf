"""What a visitor filled in on the playground: checked, turned into calls, and kept in an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptlab import templates

MAX_ROUTES = 4

EXAMPLE_TEMPLATE = (
    "I have an online store selling {{ stock_type }}. Write a one-sentence advertisement for use in social media."
)
EXAMPLE_VALUES = {"stock_type": "books"}


@dataclass(frozen=True, slots=True)
class Form:
    """One state of the playground. `values` may hold more than the template asks for."""

    routes: tuple[str, ...] = ()
    system: str = ""
    template: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

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
            temperature=temperature,
            max_tokens=None if max_tokens is None else int(max_tokens),
            stop=tuple(line for line in (stop or "").split("\n") if line),
            seed=None if seed is None else int(seed),
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
            max_tokens=_whole(one.get("max_tokens")),
            stop=tuple(value for name, value in pairs if name == "stop"),
            seed=_whole(one.get("seed")),
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
        if self.max_tokens is not None and self.max_tokens < 1:
            return "Max tokens must be 1 or more."
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            return "Temperature must be between 0 and 2."
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
        return None if text is None else float(text)
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    found = _number(text)
    return None if found is None or found != found or abs(found) > 2**53 else int(found)
