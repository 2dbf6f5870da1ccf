"""An MLflow AI Gateway's configuration as a plan: https://mlflow.org/docs/latest/llms/deployments/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gateway import strict
from gateway.config_yaml import Document, listed, mapping
from gateway.errors import ConfigError
from gateway.importers import known
from gateway.importers.plan import Plan, RoutePlan, Source

#: MLflow's endpoint types as a route's task.
TASKS = {"llm/v1/chat": "chat", "llm/v1/completions": "chat", "llm/v1/embeddings": "embeddings"}
#: Providers whose own wire nobody here speaks, or that are gone.
_GONE = {
    "mosaicml": "its inference service has ended. Choose another model.",
    "palm": "its service has ended. Choose a Gemini model.",
    "mlflow-model-serving": "speaks MLflow's scoring protocol, which is no model API. Serve the model with vLLM.",
    "sap-ai-core": "has a protocol of its own that nothing here speaks.",
    "typesafe": "has a protocol of its own that nothing here speaks.",
}
#: A field of a provider's `config`: what it is to us. The rest of an entry with `*` is the provider's name.
_ADDRESSES = frozenset(("openai_api_base", "anthropic_api_base", "api_base", "hf_server_url", "host"))
_CREDENTIAL = re.compile(r"(\w+_)?api_key|token|aws_bearer_token")
_OPTIONS = {
    "aws_region": "aws_region_name",
    "aws_role_arn": "aws_role_name",
    "vertex_project": "vertex_project",
    "vertex_location": "vertex_location",
}
_SECRETS = frozenset(("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "vertex_credentials"))
_HEADERS = {"openai_organization": "OpenAI-Organization", "portkey_provider": "x-portkey-provider"}
_SAID_ELSEWHERE = frozenset(("openai_api_type", "openai_deployment_name", "openai_api_version", "aws_config",
                             "litellm_provider", "litellm_auth_config"))  # fmt: skip
# What these hold is what happens without them.
_DEFAULTS = {
    "anthropic_version": "2023-06-01",
    "anthropic_api_base": "https://api.anthropic.com/v1",
    "openai_api_type": "openai",
}
_MESSAGES = {
    "session_length_seconds": "how long an assumed role lasts. litellm's own length is used.",
    "anthropic_version": "a version of Anthropic's API. litellm sends its own.",
    "vertex_anthropic_betas": "which of the caller's anthropic-beta values pass. They pass as they come.",
    "client_id": "signing in as a service. Set DATABRICKS_CLIENT_ID where you start `promptyard serve`.",
    "client_secret": "signing in as a service. Set DATABRICKS_CLIENT_SECRET where you start `promptyard serve`.",
    "portkey_config": "a configuration kept at Portkey. Add its header under the provider's 'headers' yourself.",
    "provider_api_key": "a second credential. Add its header under the provider's 'headers' yourself.",
}
_IGNORED = "not known here; MLflow ignores what it does not know."


def read(document: Document) -> Plan:
    """What `document` describes, as far as our file can say it; the rest is in the plan's `lost`.

    Raises `ConfigError` where it is no such file, or nothing in it can be served.
    """
    data = document.data
    said = [one for key in ("endpoints", "routes") for one in listed(data.get(key))] if isinstance(data, dict) else []
    if not isinstance(data, dict) or not said:
        hint = " It looks like LiteLLM's: promptyard import litellm." if _looks_like_litellm(data) else ""
        document.refuse((), f"is no configuration of MLflow's gateway: it has no list 'endpoints'.{hint}")
    if document.problems:
        raise ConfigError.of(document.problems)
    importer = _Importer(Plan(document, "$"), data)
    importer.run()
    return importer.plan


def _looks_like_litellm(data: Any) -> bool:
    return isinstance(data, dict) and "model_list" in data


class _Importer:
    """One pass over a file."""

    def __init__(self, plan: Plan, data: dict[str, Any]) -> None:
        self.plan = plan
        self._data = data

    def run(self) -> None:
        """Fill the plan."""
        for key in ("endpoints", "routes"):
            for index, one in enumerate(listed(self._data.get(key))):
                if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                    self.plan.lose((key, index), "needs a 'name'. It is left out.")
                elif one["name"] in self.plan.routes:
                    self.plan.lose((key, index), f"{strict.shown(one['name'])} is there already. It is left out.")
                elif "destinations" in one:
                    self._split((key, index), one)
                else:
                    # Before MLflow 2.9 an endpoint was called a route, and its type route_type.
                    self._single((key, index), one)
        for key in self._data:
            if key not in ("endpoints", "routes"):
                self.plan.lose((key,), _IGNORED)
        self.plan.finish()

    def _task(self, path: strict.Path, one: dict[str, Any]) -> str | None:
        said = _type(one)
        if (task := TASKS.get(str(said))) is None:
            self.plan.lose(path, f"{strict.shown(one['name'])} is for {strict.shown(said)}, which is not known.")
        return task

    def _single(self, path: strict.Path, one: dict[str, Any]) -> None:
        name, model = one["name"], mapping(one.get("model"))
        provider = str(model.get("provider", "")).lower()
        if provider in _GONE:
            self.plan.lose(
                (*path, "model", "provider"), f"{provider}: {_GONE[provider]} {strict.shown(name)} is left out."
            )
        elif not provider or not isinstance(model.get("name"), str):
            self.plan.lose((*path, "model"), f"needs a 'provider' and a 'name'. {strict.shown(name)} is left out.")
        elif (task := self._task(path, one)) is not None:
            route = RoutePlan(path, task)
            source = self._source((*path, "model", "config"), name, provider, model)
            source.asked = "completions" if _type(one) == "llm/v1/completions" else task
            route.add(*self.plan.place(source, name), None)
            self._limit((*path, "limit"), name, one.get("limit"), route)
            self.plan.routes[name] = route
            for key in one:
                if key not in ("name", "endpoint_type", "route_type", "model", "limit"):
                    self.plan.lose((*path, key), _IGNORED, name)

    def _split(self, path: strict.Path, one: dict[str, Any]) -> None:
        """A traffic split: the deployments of other routes, by percentage."""
        name = one["name"]
        if (task := self._task(path, one)) is None:
            return
        route = RoutePlan(path, task)
        for index, part in enumerate(map(mapping, listed(one["destinations"]))):
            place = (*path, "destinations", index)
            there, share = self.plan.routes.get(str(part.get("name"))), part.get("traffic_percentage")
            if there is None or not isinstance(share, int | float):
                self.plan.lose(place, f"{strict.shown(part.get('name'))} is no route here, or has no share.", name)
                continue
            for deployment in there.deployments:
                route.add(deployment["provider"], deployment["model"], share)
            if there.limits:
                said = f"the limit of {strict.shown(part['name'])} counts calls to it alone. Write one here too."
                self.plan.lose(place, said, name)
        self.plan.routes[name] = route

    def _limit(self, path: strict.Path, name: str, limit: Any, route: RoutePlan) -> None:
        if not isinstance(limit, dict):
            return
        calls, period = limit.get("calls"), str(limit.get("renewal_period", "")).strip().lower()
        if re.fullmatch(r"(1 ?)?minutes?|60 ?seconds?", period) and isinstance(calls, int):
            route.limits["rpm"] = calls
            said = "is counted for each client's address there, and for all callers of the route here."
            self.plan.lose(path, f"{said} Keys have limits of their own: `promptyard keys create --rpm …`.", name)
        else:
            said = f"{strict.shown(calls)} calls in {strict.shown(period)}. A route's limit is a minute's here."
            self.plan.lose(path, f"{said} Write the nearest: `limits: {{rpm: …}}`.", name)

    def _source(self, path: strict.Path, name: str, provider: str, model: dict[str, Any]) -> Source:
        config = mapping(model.get("config"))
        source = Source(path, known.canonical(provider), model["name"])
        if provider == "litellm":
            source.provider = str(config.get("litellm_provider") or "")
            self._fields(source, (*path, "litellm_auth_config"), mapping(config.get("litellm_auth_config")), name)
        kind = str(config.get("openai_api_type", "openai")).lower()
        if kind in ("azure", "azuread") or provider == "azure":
            source.provider = "azure"
            source.model = str(config.get("openai_deployment_name") or source.model)
            if "openai_api_version" in config:
                source.options["api_version"] = self.plan.said(str(config["openai_api_version"]))
        self._fields(source, path, config, name)
        self._fields(source, (*path, "aws_config"), mapping(config.get("aws_config")), name)
        if kind == "azuread" and source.api_key is not None:
            source.options["azure_ad_token"], source.api_key = source.api_key, None
        if source.provider == "bedrock" and "aws_role_name" in source.options:
            source.options["aws_session_name"] = "promptyard"
        return source

    def _fields(self, source: Source, path: strict.Path, config: dict[str, Any], name: str) -> None:
        for key, value in config.items():
            place = (*path, key)
            if value is None or key in _SAID_ELSEWHERE or _DEFAULTS.get(key) == value:
                continue
            if key in _ADDRESSES:
                source.base_url = self._address(source.provider, self.plan.said(str(value)))
            elif _CREDENTIAL.fullmatch(key) and key != "provider_api_key":
                source.api_key = self._secret(value, known.kind(source.provider).variable, place, name)
            elif key in _SECRETS:
                source.options[key] = self._secret(value, key.upper(), place, name)
            elif key in _OPTIONS:
                source.options[_OPTIONS[key]] = self.plan.said(value)
            elif key in _HEADERS:
                source.headers[_HEADERS[key]] = self.plan.said(str(value))
            else:
                self.plan.lose(place, _MESSAGES.get(key, _IGNORED), name)

    def _address(self, provider: str, text: str) -> str:
        """An address as our provider takes it: litellm adds Anthropic's /v1 itself, and wants Databricks' path."""
        text = text.rstrip("/")
        if provider == "anthropic":
            return text.removesuffix("/v1")
        if provider == "databricks" and "/serving-endpoints" not in text:
            return f"{text}/serving-endpoints"
        return text

    def _secret(self, value: object, variable: str, path: strict.Path, name: str) -> str:
        """A reference to a credential: MLflow takes a variable, a file's name, or the credential itself."""
        text = str(value)
        # A file's name is one only where the file is: anything else may be the secret.
        for folder in (Path(), Path(self.plan.document.source).parent):
            if not text.startswith("$") and (file := _file(folder, text)) is not None:
                return f"${{file:{file}}}"
        return self.plan.secret(value, variable, path, name)


def _type(one: dict[str, Any]) -> Any:
    """An endpoint's type, under whichever name the file's version has for it."""
    return next((one[key] for key in ("endpoint_type", "route_type", "task_type") if key in one), None)


def _file(folder: Path, name: str) -> Path | None:
    try:
        found = (folder / name).resolve()
        return found if found.is_file() and "}" not in str(found) else None
    except (OSError, ValueError):
        return None
