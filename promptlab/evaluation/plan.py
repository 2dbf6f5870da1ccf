"""What is to be evaluated: prompts × routes × parameters × cases × repeats, and what scores the answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from promptlab import templates
from promptlab.client_calls import Answer
from promptlab.evaluation import cases as casefiles
from promptlab.evaluation import registered
from promptlab.evaluation.cases import Case, text_of
from promptlab.evaluation.problems import Place, PlanInvalid
from promptlab.evaluation.registered import Kept, Registered
from promptlab.evaluation.scorers import registry
from promptlab.evaluation.scorers.rule import Rule

#: Fields of a request that the plan itself fills.
_OURS = ("model", "messages", "stream", "n")
_MOST_REPEATS, _MOST_AT_ONCE = 1000, 256


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class MessageModel(_Strict):
    """One message of a prompt."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who says it")
    content: str = Field(description="A template: text with {{variables}}")


class PromptModel(_Strict):
    """A prompt: a template, with a system text or without, or a list of messages."""

    template: str | None = Field(None, description="What the user says")
    system: str | None = Field(None, description="The system text")
    messages: Annotated[list[MessageModel] | None, Field(min_length=1)] = Field(None, description="All of it")
    registered: str | None = Field(None, description="A registered one: prompt:support@candidate or prompt:support/3")


def _prompt(value: object) -> object:
    if registered.is_registered(value):
        return {"registered": value}
    return {"template": value} if isinstance(value, str) else value


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


class PlanModel(_Strict):
    """A file for `promptyard eval`."""

    name: str = Field("evaluation", min_length=1, max_length=200, description="What its runs are called")
    experiment: str = Field("Evaluation", min_length=1, max_length=500, description="Where its runs are logged")
    cases: str | list[dict[str, Any]] = Field(description="A .csv, .jsonl, .json or .parquet file, or the cases")
    prompts: dict[str, Annotated[PromptModel, BeforeValidator(_prompt)]] = Field(
        min_length=1, description="Templates by name"
    )
    routes: Annotated[list[str], BeforeValidator(_several)] = Field([], description="Routes to ask")
    outputs: Annotated[list[str], BeforeValidator(_several)] = Field(
        [], description="Values of the cases that are answers already, instead of routes"
    )
    parameters: Annotated[list[dict[str, Any]], BeforeValidator(_several), Field(min_length=1)] = Field(
        [{}], description="Parameters of the calls, as temperature; several are tried each"
    )
    scorers: Annotated[list[Any], BeforeValidator(_several)] = Field([], description="What scores the answers")
    repeats: int = Field(1, ge=1, le=_MOST_REPEATS, description="How often each case is asked")
    concurrency: int = Field(8, ge=1, le=_MOST_AT_ONCE, description="Calls at once")
    max_cost: float | None = Field(None, ge=0, strict=False, description="USD it may cost")
    baseline: str | None = Field(None, description="The variant that others are compared with")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A named prompt: roles and templates, or a registered one."""

    name: str
    messages: tuple[tuple[str, str], ...]
    registered: Registered | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """The names it cannot do without, each once."""
        if self.registered is not None:
            return self.registered.template.required
        return tuple(dict.fromkeys(name for _, text in self.messages for name in templates.variables(text)))

    def rendered(self, case: Case) -> list[dict[str, str]]:
        """The messages for one case; values it does not ask for are left out."""
        if self.registered is not None:
            made = self.registered.template.render(self.values(case))
            messages = [{"role": "user", "content": made}] if isinstance(made, str) else made
            return [{"role": one["role"], "content": text_of(one.get("content"))} for one in messages]
        texts = case.texts
        return [
            {"role": role, "content": templates.render(text, {name: texts[name] for name in templates.variables(text)})}
            for role, text in self.messages
        ]

    def values(self, case: Case) -> dict[str, str]:
        """What a registered prompt is filled with."""
        wanted = self.registered.template.variables if self.registered else ()
        return {name: text for name, text in case.texts.items() if name in wanted}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to answer: a prompt, asked of a route with parameters; or, `recorded`, a value of the cases."""

    name: str
    prompt: Prompt
    route: str
    parameters: Mapping[str, Any]
    recorded: str | None = None

    def body(self, case: Case) -> dict[str, Any]:
        """The request for one case: of a registered prompt without a route of the plan's, a call of that prompt."""
        kept = self.prompt.registered
        if kept is not None and self.route == kept.model:
            return {"model": kept.model, "variables": self.prompt.values(case), **self.parameters}
        return {"model": self.route, "messages": self.prompt.rendered(case), **self.parameters}

    def told(self, case: Case) -> dict[str, Any]:
        """The request with all that the model is told: what a forecast counts, and judges are shown."""
        return {"model": self.route, "messages": self.prompt.rendered(case), **self.parameters}

    def given(self, case: Case) -> Answer:
        """The answer that the case brings along."""
        return Answer(text_of(case.values.get(self.recorded or "")))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an evaluation needs to know. `read` makes it."""

    name: str
    experiment: str
    cases: tuple[Case, ...]
    source: str
    variants: tuple[Variant, ...]
    rules: tuple[Rule, ...]
    repeats: int
    concurrency: int
    max_cost: float | None
    baseline: Variant

    @property
    def judged(self) -> tuple[Rule, ...]:
        """The rules that call a route themselves."""
        return tuple(rule for rule in self.rules if rule.scorer.routes)


def read(document: Any, folder: Path, kept: Kept = Kept()) -> Plan:  # noqa: B008 - it is immutable
    """The plan that `document` describes; files are relative to `folder`, `kept` is what the server keeps of it.

    Raises `PlanInvalid`.
    """
    said = document.get("scorers") if isinstance(document, Mapping) else None
    given = said if isinstance(said, list) else [] if said is None else [said]
    try:
        model = PlanModel.model_validate(document)
    except ValidationError as error:
        raise PlanInvalid([_complaint(detail) for detail in error.errors(include_url=False)]) from None
    cases = casefiles.read(model.cases if kept.cases is None else kept.cases, folder)
    prompts = [_made(name, one, kept) for name, one in model.prompts.items()]
    _check(prompts, cases, model)
    variants = tuple(_variants(prompts, model))
    rules = registry.rules(given, folder)
    for rule in rules:
        for missing in [name for name in rule.variables if any(name not in case.values for case in cases)]:
            raise PlanInvalid.at(("scorers",), f"'{rule.name}' asks for '{missing}', which not every case has.")
    return Plan(
        name=model.name,
        experiment=model.experiment,
        cases=tuple(cases),
        source=model.cases if isinstance(model.cases, str) else "given",
        variants=variants,
        rules=rules,
        repeats=model.repeats,
        concurrency=model.concurrency,
        max_cost=model.max_cost,
        baseline=_baseline(model.baseline, variants),
    )


def _made(name: str, model: PromptModel, kept: Kept) -> Prompt:
    place = ("prompts", name)
    if model.registered is not None:
        if model.template is not None or model.messages is not None or model.system is not None:
            raise PlanInvalid.at(place, "registered stands alone: the version brings its own text.")
        if model.registered not in kept.prompts:
            raise PlanInvalid.at(place, f"'{model.registered[:100]}' names no registered prompt.")
        return Prompt(name, (), kept.prompts[model.registered])
    if (model.template is None) == (model.messages is None):
        raise PlanInvalid.at(place, "say either template (with system, or without) or messages.")
    if model.messages is not None:
        if model.system is not None:
            raise PlanInvalid.at((*place, "system"), "stands beside messages. Make it the first of them.")
        return Prompt(name, tuple((message.role, message.content) for message in model.messages))
    system = () if model.system is None else (("system", model.system),)
    return Prompt(name, (*system, ("user", model.template or "")))


def _check(prompts: Sequence[Prompt], cases: Sequence[Case], model: PlanModel) -> None:
    problems: list[tuple[Place, str]] = []
    for prompt in prompts:
        for name in prompt.variables:
            without = [case.id for case in cases if name not in case.values]
            if without:
                has = ", ".join(sorted(set(cases[0].values) - {"id"}))
                message = f"asks for '{name}', which case {without[0]} does not have. It has: {has}."
                problems.append((("prompts", prompt.name), message))
    for number, parameters in enumerate(model.parameters):
        wrong = [name for name in parameters if name in _OURS]
        problems += [(("parameters", number, name), "is filled by the evaluation. Leave it out.") for name in wrong]
    own = all(prompt.registered is not None and prompt.registered.route for prompt in prompts)
    problems += _check_routes(cases, model, own_routes=own)
    if problems:
        raise PlanInvalid(problems)


def _check_routes(cases: Sequence[Case], model: PlanModel, *, own_routes: bool) -> list[tuple[Place, str]]:
    problems: list[tuple[Place, str]] = []
    if bool(model.routes) == bool(model.outputs) and not (own_routes and not model.routes):
        problems.append((("routes",), "say either routes to ask, or outputs: values of the cases that are answers."))
    for number, route in enumerate(model.routes):
        if not route:
            problems.append((("routes", number), "is empty. Name a route."))
    for number, name in enumerate(model.outputs):
        if any(name not in case.values for case in cases):
            problems.append((("outputs", number), f"'{name[:80]}' is no value of every case."))
    return problems


def _variants(prompts: Sequence[Prompt], model: PlanModel) -> list[Variant]:
    """Every combination, named by what tells them apart."""
    routes = list(dict.fromkeys(model.routes))
    varying = [name for name in _names(model.parameters) if len({text_of(p.get(name)) for p in model.parameters}) > 1]
    found = []
    for prompt, name in itertools.product(prompts, dict.fromkeys(model.outputs)):
        parts = [prompt.name] * (len(prompts) > 1) + [name]
        found.append(Variant(" / ".join(parts), prompt, "", {}, name))
    called = [(p, p.registered.model) for p in prompts if p.registered and not routes and not model.outputs]
    asked = called or list(itertools.product(prompts, routes))
    for (prompt, route), parameters in itertools.product(asked, model.parameters):
        parts = [prompt.name, route] if len(routes) > 1 else [prompt.name]
        parts += [f"{name}={_short(parameters[name])}" for name in varying if name in parameters]
        found.append(Variant(" / ".join(parts), prompt, route, parameters))
    if len({variant.name for variant in found}) < len(found):
        raise PlanInvalid.at(("parameters",), "says the same twice. Leave one out.")
    return found


def _names(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in parameters for name in one))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _baseline(name: str | None, variants: Sequence[Variant]) -> Variant:
    """The variant of that name, or whose prompt has it; the first where none is named."""
    if name is None:
        return variants[0]
    ways: list[Callable[[Variant], str]] = [lambda one: one.name, lambda one: one.prompt.name]
    for way in ways:
        if found := [variant for variant in variants if way(variant) == name]:
            return found[0]
    known = ", ".join(f"'{variant.name}'" for variant in variants)
    raise PlanInvalid.at(("baseline",), f"'{name[:80]}' is no variant. There are: {known}.")


def _complaint(detail: Any) -> tuple[tuple[str | int, ...], str]:
    place = tuple(part for part in detail["loc"] if part not in ("str", "list[dict[str,any]]"))
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = ", ".join(PlanModel.model_fields) if len(place) == 1 else ", ".join(PromptModel.model_fields)
        return place, f"is not understood. Known: {known}."
    if kind == "missing":
        return place, "is missing."
    return place, f"{detail['msg'][:1].lower()}{detail['msg'][1:]}."
