"""`routes.yaml`, understood whole or refused: every problem at once, with file, line, key, value and fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from gateway import config_secrets, config_yaml, strict
from gateway.config_model import (
    EMBEDDED_MODELS,
    DeploymentModel,
    EmbeddedProvider,
    FakeProvider,
    File,
    LiteLLMProvider,
    OpenAICompatibleProvider,
    OpenAIProvider,
    RouteModel,
)
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.routes import Config, Deployment, Limits, ProviderSpec, Route, RouteTask, Timeouts

_ProviderModel = EmbeddedProvider | OpenAIProvider | OpenAICompatibleProvider | LiteLLMProvider | FakeProvider


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """What the file at `path` describes, with `${NAME}` from `environment` and `${file:…}` beside the file.

    Reads the file and its secrets anew at each call. Raises `ConfigError` with every problem at once.
    """
    document = config_yaml.read(path)
    if document.data is None:
        if not document.problems:
            document.refuse((), "is empty. Write 'providers' and 'routes', as the manual shows.")
        raise ConfigError.of(document.problems)
    filled = config_secrets.fill(document, environment)
    file = _validated(document, filled)
    for place, message in _cross_check(filled.data):
        document.refuse(place, message)
    if document.problems or file is None:
        raise ConfigError.of(document.problems)
    return Config(
        providers=MappingProxyType({name: _provider(name, model) for name, model in file.providers.items()}),
        routes=MappingProxyType({name: _route(name, model) for name, model in file.routes.items()}),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of `routes.yaml`, with a description for every key: editors complete and check by it."""
    found: dict[str, Any] = _with_values(File.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "Promptyard's routes.yaml",
    }


def _with_values(schema: Any) -> Any:
    """The schema with its examples as values: our models hold them as a reader would write them, in YAML."""
    if isinstance(schema, list):
        return [_with_values(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: [config_yaml.value(text) for text in part] if key == "examples" else _with_values(part)
        for key, part in schema.items()
    }


def _validated(document: Document, filled: config_secrets.Filled) -> File | None:
    try:
        return File.model_validate(filled.data)
    except ValidationError as error:
        for path, message in strict.complaints(error, File, filled.data, filled.show):
            if not filled.hides(path):
                document.refuse(path, message)
        return None


def _provider(name: str, model: _ProviderModel) -> ProviderSpec:
    options: dict[str, Any] = {}
    if isinstance(model, LiteLLMProvider):
        options = dict(model.options)
    elif isinstance(model, FakeProvider):
        options = model.model_dump(include={"script", "cycle"}, exclude_unset=True)
    return ProviderSpec(
        name=name,
        type=model.type,
        base_url=getattr(model, "base_url", None),
        api_key=getattr(model, "api_key", None),
        headers=MappingProxyType(dict(getattr(model, "headers", {}))),
        options=MappingProxyType(options),
    )


def _route(name: str, model: RouteModel) -> Route:
    def deployment(one: DeploymentModel) -> Deployment:
        return Deployment(one.provider, one.model, float(one.weight))

    return Route(
        name=name,
        deployments=tuple(map(deployment, model.deployments)),
        task=RouteTask(model.task),
        fallbacks=tuple(model.fallbacks),
        limits=Limits(**model.limits.model_dump()),
        timeouts=Timeouts(**model.timeouts.model_dump()),
        max_output_tokens=model.max_output_tokens,
    )


_Complaint = tuple[strict.Path, str]


def _cross_check(data: Any) -> Iterator[_Complaint]:
    """What one key says that another contradicts.

    Works on data that may be wrong elsewhere, so that a type error on one line does
    not hide a misspelt provider on another.
    """
    data = _mapping(data)
    providers, routes = _mapping(data.get("providers")), _mapping(data.get("routes"))
    for name, route in routes.items():
        path = ("routes", name)
        yield from _check_deployments((*path, "deployments"), _list(_mapping(route).get("deployments")), providers)
        yield from _check_fallbacks(path, route, routes)
    yield from _check_circles(routes)


def _check_deployments(path: strict.Path, deployments: list[Any], providers: dict[str, Any]) -> Iterator[_Complaint]:
    seen: dict[tuple[str, str], int] = {}
    weights = [_mapping(one).get("weight", 1) for one in deployments]
    if weights and all(weight == 0 and not isinstance(weight, bool) for weight in weights):
        yield path, "every weight is 0, so nothing would answer. Give one a weight above 0."
    for index, one in enumerate(map(_mapping, deployments)):
        provider, model = one.get("provider"), one.get("model")
        if not isinstance(provider, str) or not providers:
            continue
        if provider not in providers:
            yield (*path, index, "provider"), _unknown(provider, "provider", providers)
        elif not isinstance(model, str):
            continue
        elif _mapping(providers[provider]).get("type") == "embedded" and model not in EMBEDDED_MODELS:
            yield (*path, index, "model"), _unknown(model, f"model of '{provider}'", EMBEDDED_MODELS)
        elif (provider, model) in seen:
            first = seen[provider, model]
            yield (*path, index), f"is the same as deployments[{first}]. Add its weight there and remove this one."
        else:
            seen[provider, model] = index


def _check_fallbacks(path: tuple[str, str], route: Any, routes: dict[str, Any]) -> Iterator[_Complaint]:
    name, task, fallbacks = path[1], _task(route), _list(_mapping(route).get("fallbacks"))
    for index, fallback in enumerate(fallbacks):
        place = (*path, "fallbacks", index)
        if not isinstance(fallback, str):
            continue
        if fallback not in routes:
            yield place, _unknown(fallback, "route", routes)
        elif fallback == name:
            yield place, f"'{name}' falls back to itself. Remove it."
        elif fallback in fallbacks[:index]:
            yield place, f"'{fallback}' is written twice. Remove one."
        elif task and (other := _task(routes[fallback])) and other != task:
            yield place, f"'{fallback}' is for {other}, and '{name}' for {task}. Name a route for {task}."


def _task(route: Any) -> str | None:
    """The route's task, or None where it says something that is not one."""
    task = _mapping(route).get("task", RouteTask.CHAT.value)
    return task if isinstance(task, str) and task in set(RouteTask) else None


def _check_circles(routes: dict[str, Any]) -> Iterator[_Complaint]:
    """Each circle of fallbacks once, at the entry that closes it."""
    done: set[str] = set()

    def follow(name: str, trail: tuple[str, ...]) -> Iterator[_Complaint]:
        trail = (*trail, name)
        for index, fallback in enumerate(_list(_mapping(routes[name]).get("fallbacks"))):
            if not isinstance(fallback, str) or fallback not in routes or fallback == name:
                continue
            if fallback in trail:
                circle = " → ".join((*trail[trail.index(fallback) :], fallback))
                yield ("routes", name, "fallbacks", index), f"falls back in a circle: {circle}. Remove it."
            elif fallback not in done:
                yield from follow(fallback, trail)
        done.add(name)

    for name in routes:
        if name not in done:
            yield from follow(name, ())


def _unknown(name: str, kind: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    fix = strict.nearest(name, known) or f" Known: {', '.join(known)}."
    return f"{strict.shown(name)} is not a {kind}.{fix}"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
