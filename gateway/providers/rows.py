"""The providers that are data: `providers.yaml` says of each where it is and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway import config_yaml
from gateway.routes import Task

_FILE = Path(__file__).with_name("providers.yaml")
#: The header of each way to hand over a credential, and what stands before the credential in it.
AUTH = {"bearer": ("authorization", "Bearer "), "x-api-key": ("x-api-key", ""), "api-key": ("api-key", "")}


@dataclass(frozen=True, slots=True)
class Row:
    """How to reach one provider. The head of `providers.yaml` says what each field means there.

    `paths` has every task it speaks, with the path that is joined to its `base_url`: it may climb with `..`,
    and hold `{model}` or `{api_version}`.
    """

    name: str
    about: str
    base_url: str | None = None
    example_url: str = "http://gpu-1:8000/v1"
    paths: Mapping[Task, str] = field(default_factory=dict)
    auth: str = "bearer"
    keyless: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    seller: str | None = None
    max_tokens: str | None = None
    stream_options: bool = True
    prefill: Mapping[str, Any] | None = None
    litellm: str | None = None

    @property
    def api_version(self) -> bool:
        """Whether its address has a version in it, which the configuration has to state."""
        return any("{api_version}" in path for path in self.paths.values())


def find(name: str) -> Row | None:
    """The row called `name`, or None for a type that is a class of its own (`embedded`, `fake`, `litellm`)."""
    return rows().get(name)


@cache
def rows() -> Mapping[str, Row]:
    """Every row by name, in the file's order. The file is read once, when first needed."""
    written: dict[str, dict[str, Any]] = config_yaml.value(_FILE.read_text("utf-8"))
    return MappingProxyType({name: _row(name, dict(fields)) for name, fields in written.items()})


def _row(name: str, fields: dict[str, Any]) -> Row:
    template = fields.pop("path", "{task}")
    paths: dict[Task, str] = {}
    for spoken in fields.pop("speaks", ()):
        # `rerank`, or `{rerank: path}` where its path is not OpenAI's.
        word, path = next(iter(spoken.items())) if isinstance(spoken, dict) else (spoken, None)
        task = Task[word.upper()]
        paths[task] = path or template.replace("{task}", task.value)
    return Row(name, paths=MappingProxyType(paths), **fields)
