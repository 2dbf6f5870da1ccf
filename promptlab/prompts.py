"""Registered prompts, ready to be asked: found by name and alias or version, and rendered as MLflow's client does."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from promptlab.entities_registry import (
    CHAT,
    IS_PROMPT,
    LATEST,
    PROMPT_MODEL_CONFIG,
    PROMPT_RESPONSE_FORMAT,
    PROMPT_TEXT,
    PROMPT_TYPE,
    ModelVersion,
)
from promptlab.errors import InvalidParameter, LabError, NotFound
from promptlab.prompt_template import Message, PromptTemplate, TemplateFailed
from promptlab.registry import Registry

# Versions that are read: each is parsed once, not once a call.
_READ = 512


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of a prompt. `config` is its model config, `response_format` what answers should look like."""

    name: str
    version: int
    template: PromptTemplate
    config: Mapping[str, Any]
    response_format: Mapping[str, Any] | None

    def messages(self, values: Mapping[str, Any]) -> list[Message]:
        """The prompt as messages with `values` in it; a text is one message of the user.

        Raises `VariablesMismatch` and `TemplateFailed`.
        """
        rendered = self.template.render(values)
        return [{"role": "user", "content": rendered}] if isinstance(rendered, str) else rendered


class Prompts:
    """Finds prompts in a registry. Safe to use from many threads; what it finds was so while it looked."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, name: str, *, alias: str | None = None, version: int | None = None) -> Prompt:
        """The version that `alias` stands for (`latest`: the highest), or that of a number.

        Raises `NotFound`, which says what there is instead, and `InvalidParameter` for a version that is no prompt.
        """
        try:
            if version is not None:
                return _read(self._registry.version(name, str(version)))
            return _read(self._registry.version_by_alias(name, alias or LATEST))
        except LabError as error:
            raise self._not_found(name, alias, version) or error from None

    def _not_found(self, name: str, alias: str | None, version: int | None) -> NotFound | None:
        """What is missing, in words about prompts; None where all is there."""
        try:
            model = self._registry.model(name)
        except LabError:
            return NotFound(f"There is no prompt '{name}'.")
        if version is None and alias not in (None, LATEST) and alias not in {one.alias for one in model.aliases}:
            there = ", ".join(f"'{one.alias}'" for one in model.aliases) or "none"
            return NotFound(f"The prompt '{name}' has no alias '{alias}'; it has: {there}.")
        highest = max((one.version for one in model.latest), default=0)
        if not highest:
            return NotFound(f"The prompt '{name}' has no versions.")
        try:
            self._registry.version(name, str(version or highest))
        except LabError:
            return NotFound(f"The prompt '{name}' has no version {version}; its latest is {highest}.")
        return None

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Every prompt's name with its aliases, by name."""
        return self._registry.prompt_aliases()


@functools.lru_cache(_READ)
def _read(version: ModelVersion) -> Prompt:
    tags = {tag.key: tag.value for tag in version.tags}
    named = f"'{version.name}' version {version.version}"
    if tags.get(IS_PROMPT, "false").lower() != "true" or PROMPT_TEXT not in tags:
        raise InvalidParameter(f"{named} is no prompt: it has no text.")
    text = tags[PROMPT_TEXT]
    try:
        template = PromptTemplate(_json(text) if tags.get(PROMPT_TYPE) == CHAT else text)
        config = _json(tags.get(PROMPT_MODEL_CONFIG, "{}"))
        wanted = _json(tags.get(PROMPT_RESPONSE_FORMAT, "null"))
    except TemplateFailed as error:
        raise InvalidParameter(f"The prompt {named} cannot be used. {error}") from None
    except ValueError:
        raise InvalidParameter(
            f"The prompt {named} cannot be used: one of its tags is not the JSON it should be."
        ) from None
    if not isinstance(config, dict) or not isinstance(wanted, dict | None):
        raise InvalidParameter(f"The prompt {named} cannot be used: its model config or response format is no object.")
    return Prompt(version.name, version.version, template, MappingProxyType(config), wanted)


def _json(text: str) -> Any:
    """What the text says, if it can be written again where it will have to be: within a call. Raises `ValueError`."""
    found = orjson.loads(text)
    try:
        orjson.dumps([[[[found]]]])
    except TypeError as error:
        raise ValueError(str(error)) from None
    return found
