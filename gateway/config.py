"""`routes.yaml`, understood whole or refused: every problem at once, with file, line, key, value and fix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from gateway import config_checks, config_providers, config_secrets, config_yaml, strict
from gateway.config_model import (
    EmbeddedProvider,
    FakeProvider,
    File,
    HttpProvider,
    LiteLLMProvider,
)
from gateway.config_routes import DeploymentModel, FaultModel, KeyModel, LimitsModel, RouteModel
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.money import nano
from gateway.providers.rows import find
from gateway.routes import (
    Alerts,
    Budget,
    CachePolicy,
    Config,
    Cooldown,
    DeclaredKey,
    Deployment,
    Fault,
    Limits,
    ProviderSpec,
    Queue,
    Retries,
    Route,
    RouteTask,
    Shadow,
    Strategy,
    Timeouts,
    TracePolicy,
)

_ProviderModel = EmbeddedProvider | HttpProvider | LiteLLMProvider | FakeProvider


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
    found = (*config_providers.check(filled.data, path.parent), *config_checks.contradictions(filled.data))
    for place, message in found:
        document.refuse(place, message)
    if document.problems or file is None:
        raise ConfigError.of(document.problems)
    return Config(
        providers=MappingProxyType(
            {name: _provider(name, model, path.parent) for name, model in file.providers.items()}
        ),
        routes=MappingProxyType({name: _route(name, model) for name, model in file.routes.items()}),
        keys=MappingProxyType({name: _key(name, model) for name, model in file.keys.items()}),
        alerts=None if file.alerts is None else Alerts(file.alerts.webhook, file.alerts.secret, tuple(file.alerts.at)),
        filled=frozenset(filled.written),
    )


def files(path: Path) -> tuple[Path, ...]:
    """The file at `path` and those it takes secrets and certificates from, whether they are there or not."""
    document = config_yaml.read(path)
    return (path, *config_secrets.files(document), *config_providers.bundles(document.data, path.parent))


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


def _provider(name: str, model: _ProviderModel, folder: Path) -> ProviderSpec:
    options: dict[str, Any] = {}
    if isinstance(model, HttpProvider):
        options = model.model_dump(include={"api_version"}, exclude_none=True)
    elif isinstance(model, LiteLLMProvider):
        options = dict(model.options)
    elif isinstance(model, FakeProvider):
        options = model.model_dump(include={"script", "cycle", "prefill", "dialects"}, exclude_unset=True)
    row, bundle = find(model.type), getattr(model, "ca_bundle", None)
    return ProviderSpec(
        name=name,
        type=model.type,
        base_url=getattr(model, "base_url", None) or (row.base_url if row else None),
        api_key=getattr(model, "api_key", None),
        headers=MappingProxyType(dict(getattr(model, "headers", {}))),
        options=MappingProxyType(options),
        api_keys=tuple(getattr(model, "api_keys", None) or ()),
        proxy=getattr(model, "proxy", None),
        ca_bundle=None if bundle is None else config_providers.place(folder, bundle),
        ca_digest=None if bundle is None else config_providers.digest(config_providers.place(folder, bundle)),
    )


def _route(name: str, model: RouteModel) -> Route:
    def deployment(one: DeploymentModel) -> Deployment:
        return Deployment(
            one.provider,
            one.model,
            float(one.weight),
            order=one.order,
            concurrency=one.concurrency,
            queue=Queue(**one.queue.model_dump()),
        )

    return Route(
        name=name,
        deployments=tuple(map(deployment, model.deployments)),
        task=RouteTask(model.task),
        strategy=Strategy(model.strategy),
        sticky=model.sticky,
        fallbacks=tuple(model.fallbacks),
        context_fallbacks=tuple(model.context_fallbacks),
        retries=Retries(**model.retries.model_dump()) if model.retries else None,
        cooldown=Cooldown(**model.cooldown.model_dump()) if model.cooldown else None,
        rescue=model.rescue,
        hedge=model.hedge.after if model.hedge else None,
        limits=_limits(model.limits),
        timeouts=Timeouts(**model.timeouts.model_dump()),
        fault=_fault(model.fault) if model.fault else None,
        max_output_tokens=model.max_output_tokens,
        drops_unsupported=model.unsupported == "drop",
        byok=model.byok,
        free_if_unpriced=model.unpriced == "free",
        trace=TracePolicy(**model.trace.model_dump()) if model.trace else None,
        shadow=Shadow(**model.shadow.model_dump()) if model.shadow else None,
        cache=CachePolicy(**model.cache.model_dump()) if model.cache else None,
    )


def _key(name: str, model: KeyModel) -> DeclaredKey:
    return DeclaredKey(
        name,
        model.hash,
        tuple(model.scopes),
        None if model.routes is None else frozenset(model.routes),
        frozenset(model.denied_routes),
        _limits(model.limits),
        _limits(model.user_limits),
        frozenset(model.tags),
    )


def _limits(model: LimitsModel) -> Limits:
    budget = None if model.max_budget is None else Budget(nano(model.max_budget), model.budget_duration)
    soft = None if model.soft_budget is None else Budget(nano(model.soft_budget), model.budget_duration)
    return Limits(model.rpm, model.tpm, model.concurrency, budget, model.rpd, model.tpd, soft, model.window == "fixed")


def _fault(model: FaultModel) -> Fault:
    error, stall, cut, slow = model.error, model.stall, model.cut, model.slow
    said: dict[str, Any] = {"seed": model.seed}
    if error:
        said |= {"error": error.rate, "status": error.status, "retry_after": error.retry_after}
    if stall:
        said |= {"stall": stall.rate, "stall_after": stall.after}
    if cut:
        said |= {"cut": cut.rate, "cut_after": cut.after}
    if slow:
        said |= {"slow": slow.rate, "pause": slow.seconds}
    return Fault(**said)
