"""Prompt templates: text with `{{ variables }}` in it. Pure functions, no IO."""

from __future__ import annotations

import re
from collections.abc import Mapping

# The same names MLflow's PromptLab accepts, so a template logged here opens there.
_VARIABLE = re.compile(r"\{\{\s*([\w-]+)\s*\}\}")


class VariablesMismatch(ValueError):
    """The values given are not the values the template asks for. Says which, by name."""

    def __init__(self, missing: tuple[str, ...], unknown: tuple[str, ...]) -> None:
        parts = []
        if missing:
            parts.append(f"no value for {_listed(missing)}")
        if unknown:
            parts.append(f"{_listed(unknown)} not in the template")
        super().__init__("The template's variables do not fit: " + "; ".join(parts) + ".")
        self.missing = missing
        self.unknown = unknown


def variables(template: str) -> tuple[str, ...]:
    """The names of `template`'s variables, each once, in the order they first appear."""
    return tuple(dict.fromkeys(_VARIABLE.findall(template)))


def render(template: str, values: Mapping[str, str]) -> str:
    """`template` with every variable replaced by its value.

    One pass: a value that itself holds `{{ name }}` stays as it is (MLflow's PromptLab replaces
    one variable after the other and fills such values again).

    Raises `VariablesMismatch` naming every missing and every unknown variable.
    """
    names = variables(template)
    missing = tuple(name for name in names if name not in values)
    unknown = tuple(name for name in values if name not in names)
    if missing or unknown:
        raise VariablesMismatch(missing, unknown)
    return _VARIABLE.sub(lambda found: values[found[1]], template)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
