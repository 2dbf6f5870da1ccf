"""What a plan names and the server keeps: versions of registered prompts, and evaluation datasets of MLflow's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptlab.client import CallFailed
from promptlab.client_calls import Caller
from promptlab.entities_registry import CHAT, IS_PROMPT, PROMPT_MODEL_CONFIG, PROMPT_TEXT, PROMPT_TYPE
from promptlab.evaluation.problems import PlanInvalid
from promptlab.prompt_template import PromptTemplate, TemplateFailed

_NAMED = re.compile(r"prompts?:/?([^/@:\s{}][^/@:{}]*)(?:@([\w-]+)|/([0-9]{1,18}))?")
_DATASET = "dataset:"
#: The alias that a name alone means, as in a call.
_USUAL = "production"


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of a registered prompt. `route` is the one that its model config names, if it does."""

    name: str
    version: int
    template: PromptTemplate
    route: str | None

    @property
    def model(self) -> str:
        """What a call names it by."""
        return f"prompt:{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found of all that a plan names: prompts by what it calls them, and its cases."""

    prompts: Mapping[str, Registered] = field(default_factory=dict)
    cases: list[dict[str, Any]] | None = None


def is_registered(value: object) -> bool:
    """Whether this, where a prompt's template would stand, names a registered one."""
    return isinstance(value, str) and _NAMED.fullmatch(value) is not None


def needs(document: Any) -> bool:
    """Whether a plan names anything that the server keeps."""
    return bool(_prompts(document)) or _dataset(document) is not None


async def found(document: Any, caller: Caller) -> Kept:
    """What a plan names, as it is now: an alias becomes its version. Raises `PlanInvalid` and `CallFailed`."""
    prompts = {}
    for label, named in _prompts(document).items():
        try:
            prompts[named] = await _prompt(named, caller)
        except (CallFailed, TemplateFailed, ValueError) as error:
            if isinstance(error, CallFailed) and error.status not in (400, 404):
                raise
            raise PlanInvalid.at(("prompts", label), f"'{named[:100]}' cannot be used: {error}") from None
    dataset = _dataset(document)
    return Kept(prompts, None if dataset is None else await _cases(dataset, caller))


def _prompts(document: Any) -> dict[str, str]:
    prompts = document.get("prompts") if isinstance(document, Mapping) else None
    named = prompts.items() if isinstance(prompts, Mapping) else ()
    said = {str(label): one.get("registered") if isinstance(one, Mapping) else one for label, one in named}
    return {label: value for label, value in said.items() if isinstance(value, str) and is_registered(value)}


def _dataset(document: Any) -> str | None:
    cases = document.get("cases") if isinstance(document, Mapping) else None
    return cases.removeprefix(_DATASET) if isinstance(cases, str) and cases.startswith(_DATASET) else None


async def _prompt(named: str, caller: Caller) -> Registered:
    name, alias, number = _NAMED.fullmatch(named).groups()  # type: ignore[union-attr]  # `_prompts` has seen it
    found = await caller.model_version(name, alias or _USUAL, number)
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    if tags.get(IS_PROMPT, "false").lower() != "true" or PROMPT_TEXT not in tags:
        raise TemplateFailed("It is a model and no prompt: it has no text.")
    text = tags[PROMPT_TEXT]
    template = PromptTemplate(json.loads(text) if tags.get(PROMPT_TYPE) == CHAT else text)
    config = json.loads(tags.get(PROMPT_MODEL_CONFIG, "{}"))
    route = config.get("model_name") if isinstance(config, dict) else None
    return Registered(name, int(found["version"]), template, route if isinstance(route, str) and route else None)


async def _cases(named: str, caller: Caller) -> list[dict[str, Any]]:
    """The records of a dataset, by its name or id, as cases: inputs and expectations by their names.

    `expected` is what MLflow calls `expected_response` or `expected_facts`; `output` the answer a record brings.
    """
    if not named or "'" in named:
        raise PlanInvalid.at(("cases",), "name a dataset: dataset:NAME or dataset:ID.")
    try:
        records = await caller.dataset_records(named)
    except CallFailed as error:
        if error.status not in (400, 404):
            raise
        raise PlanInvalid.at(("cases",), f"the dataset '{named[:100]}' cannot be read: {error}") from None
    cases = []
    for one in records:
        inputs, expectations = one.get("inputs") or {}, one.get("expectations") or {}
        values = {**expectations, **inputs}
        for name in ("expected_response", "expected_facts"):
            if name in expectations:
                values.setdefault("expected", expectations[name])
        if one.get("outputs") is not None:
            values.setdefault("output", one["outputs"])
        cases.append({**values, "id": one["dataset_record_id"]})
    return cases
