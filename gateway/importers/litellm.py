"""A LiteLLM proxy's `config.yaml` as a plan: https://docs.litellm.ai/docs/proxy/config_settings."""

from __future__ import annotations

import copy
from typing import Any

from gateway import strict
from gateway.config_yaml import Document, listed, mapping
from gateway.errors import ConfigError
from gateway.importers import known
from gateway.importers.litellm_routes import SETTINGS, Entry, Routes, number
from gateway.importers.litellm_unmapped import message, says_nothing
from gateway.importers.plan import Plan, Source, no_key_needed

#: `mode` in `model_info` as a route's task.
TASKS = {
    "chat": "chat",
    "completion": "chat",
    "responses": "chat",
    "embedding": "embeddings",
    "embeddings": "embeddings",
    "moderation": "moderations",
    "image_generation": "images",
    "audio_speech": "speech",
    "audio_transcription": "transcriptions",
    "rerank": "rerank",
}
#: What litellm itself is told, as it stands: nothing of it is a secret.
OPEN_OPTIONS = frozenset((
    "api_version", "aws_region_name", "aws_session_name", "aws_profile_name", "aws_role_name", "aws_sts_endpoint",
    "aws_external_id", "aws_bedrock_runtime_endpoint", "vertex_project", "vertex_location", "vertex_ai_project",
    "vertex_ai_location", "region_name", "tenant_id", "client_id", "azure_scope", "watsonx_region_name", "project_id",
))  # fmt: skip
#: What litellm itself is told and is, or may be, a secret: only ever a reference.
SECRET_OPTIONS = frozenset((
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_web_identity_token", "azure_ad_token",
    "client_secret", "azure_username", "azure_password", "vertex_credentials", "vertex_ai_credentials",
))  # fmt: skip
_NUMBERS = ("rpm", "tpm", "max_parallel_requests", "weight", "order", "timeout", "stream_timeout", "max_tokens",
            "num_retries", "max_retries")  # fmt: skip
_READ = frozenset(("model", "custom_llm_provider", "api_key", "api_base", "base_url", "headers", "extra_headers",
                   "organization", "litellm_credential_name", "drop_params", *_NUMBERS))  # fmt: skip
_HANDLED = {
    "router_settings": {"fallbacks", "context_window_fallbacks", "default_fallbacks", "model_group_alias", *SETTINGS},
    "litellm_settings": {"fallbacks", "context_window_fallbacks", "default_fallbacks", *SETTINGS},
    "general_settings": set[str](),
}


def read(document: Document) -> Plan:
    """What `document` describes, as far as our file can say it; the rest is in the plan's `lost`.

    Raises `ConfigError` where it is no such file, or nothing in it can be served.
    """
    data = document.data
    entries = data.get("model_list") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(entries, list) or not entries:
        hint = " It looks like MLflow's: promptyard import mlflow." if _looks_like_mlflow(data) else ""
        document.refuse((), f"is no configuration of a LiteLLM proxy: it has no list 'model_list'.{hint}")
    if document.problems:
        raise ConfigError.of(document.problems)
    importer = _Importer(Plan(document, "os.environ/"), data)
    importer.run()
    return importer.plan


def _looks_like_mlflow(data: Any) -> bool:
    return isinstance(data, dict) and ("endpoints" in data or "routes" in data)


class _Importer:
    """One pass over a file."""

    def __init__(self, plan: Plan, data: dict[str, Any]) -> None:
        self.plan = plan
        self._data = data
        self._routes = Routes(plan, data)
        self._tasks: dict[str, str] = {}
        self._groups: dict[str, list[Entry]] = {}
        self._credentials = {
            str(one.get("credential_name")): mapping(one.get("credential_values"))
            for one in _items(data.get("credential_list"))
        }

    def run(self) -> None:
        """Fill the plan."""
        for entry in _items(self._data["model_list"]):
            params = mapping(entry.get("litellm_params"))
            kind = known.kind(_provider(params)[0])
            if kind.asks and params.get("api_key") is None:
                self.plan.reserve(kind.variable)
        for index, entry in enumerate(self._data["model_list"]):
            self._entry(("model_list", index), entry)
        for name, entries in self._groups.items():
            self.plan.routes[name] = self._routes.route(name, self._tasks[name], entries)
        self._settings()
        self._fallbacks()
        self._aliases()
        self.plan.finish()

    def _entry(self, path: strict.Path, entry: Any) -> None:
        entry = mapping(entry)
        name, params = entry.get("model_name"), mapping(entry.get("litellm_params"))
        model = params.get("model")
        if not isinstance(name, str) or not isinstance(model, str) or not name or not model:
            self.plan.lose(path, "is no model: it needs 'model_name' and 'litellm_params.model'. It is left out.")
        elif "*" in name or "*" in model:
            self.plan.lose(path, f"{strict.shown(name)} stands for any model. Write a route for each name in use.")
        else:
            mode = str(mapping(entry.get("model_info")).get("mode") or known.task_of(model))
            task = self._task(path, mode, name)
            placed = None if task is None else self._placed(path, name, entry, params, mode)
            if task is not None and placed is not None:
                self._tasks[name] = task
                self._groups.setdefault(name, []).append(placed)

    def _task(self, path: strict.Path, mode: str, name: str) -> str | None:
        task, first = TASKS.get(mode), self._tasks.get(name)
        if task is None:
            self.plan.lose(
                path, f"{strict.shown(name)} is for {strict.shown(mode)}, which is not served here. It is left out."
            )
        elif first is not None and first != task:
            self.plan.lose(path, f"{strict.shown(name)} is for {first} already. A route has one task: left out.", name)
            return None
        return task

    def _placed(
        self, path: strict.Path, name: str, entry: dict[str, Any], params: dict[str, Any], mode: str
    ) -> Entry | None:
        at = (*path, "litellm_params")
        credential = params.get("litellm_credential_name")
        if credential is not None and str(credential) not in self._credentials:
            self.plan.lose(
                (*at, "litellm_credential_name"), "this credential is not in the file. Add its api_key.", name
            )
        params = {**self._credentials.get(str(credential), {}), **params}
        source = self._source(at, name, params, "completions" if mode == "completion" else TASKS[mode])
        if not source.kind.serves(source.asked):
            why = f"{strict.shown(name)} is for {strict.shown(mode)}, which is not asked for through litellm here."
            self.plan.lose(path, f"{why} Write its provider yourself. It is left out.")
            return None
        found = Entry(path, *self.plan.place(source, name), drops=params.get("drop_params") is True)
        for key in _NUMBERS:
            # Older files have rpm and tpm beside litellm_params.
            where, value = ((*at, key), params[key]) if key in params else ((*path, key), entry.get(key))
            if (said := number(value)) is not None:
                found.numbers[key] = said
            elif value is not None:
                self.plan.lose(where, "must be a number here: no reference is read under 'routes'. Write it out.", name)
        self._lose_rest(at, "litellm_params", params, _READ | OPEN_OPTIONS | SECRET_OPTIONS, name)
        self._lose_rest((*path, "model_info"), "model_info", mapping(entry.get("model_info")), {"mode"}, name)
        rest = {key: value for key, value in entry.items() if key not in ("model_name", "litellm_params", "model_info")}
        self._lose_rest(path, "litellm_params", rest, set(_NUMBERS), name)
        return found

    def _source(self, at: strict.Path, name: str, params: dict[str, Any], asked: str) -> Source:
        plan, source = self.plan, Source(at, *_provider(params), asked)
        kind = known.kind(source.provider)
        if (base := params.get("api_base") or params.get("base_url")) is not None:
            source.base_url = plan.said(str(base))
        if (secret := params.get("api_key")) is not None:
            free = bool(base) and no_key_needed(secret)
            source.api_key = "" if free else plan.secret(secret, kind.variable, (*at, "api_key"), name)
        for key in ("headers", "extra_headers"):
            source.headers |= plan.headers(params.get(key), (*at, key), name)
        if isinstance(params.get("organization"), str):
            source.headers["OpenAI-Organization"] = plan.said(params["organization"])
        for key, value in params.items():
            if key in OPEN_OPTIONS:
                source.options[key] = plan.said(value)
            elif key in SECRET_OPTIONS and value is not None:
                source.options[key] = plan.secret(value, key.upper(), (*at, key), name)
        return source

    def _lose_rest(
        self, path: strict.Path, section: str, said: dict[str, Any], known_keys: set[str] | frozenset[str], name: str
    ) -> None:
        for key, value in said.items():
            if key not in known_keys and not says_nothing(section, key, value):
                self.plan.lose((*path, key), message(section, key), name)

    def _settings(self) -> None:
        for section, handled in _HANDLED.items():
            said = mapping(self._data.get(section))
            for key, value in said.items():
                if key not in handled and not says_nothing(section, key, value):
                    self.plan.lose((section, key), message(section, key))
                elif key in SETTINGS:
                    self._routes.check(section, key, value)
        for key, value in self._data.items():
            if key not in {"model_list", "credential_list", *_HANDLED} and not says_nothing("", key, value):
                self.plan.lose((key,), message("", key))

    def _fallbacks(self) -> None:
        for section in ("router_settings", "litellm_settings"):
            said = mapping(self._data.get(section))
            general: list[tuple[Any, strict.Path]] = []
            for key in ("fallbacks", "context_window_fallbacks"):
                for index, pairs in enumerate(listed(said.get(key))):
                    for name, others in mapping(pairs).items():
                        path: strict.Path = (section, key, index, name)
                        places = [(other, (*path, place)) for place, other in enumerate(listed(others))]
                        if name == "*" and key == "fallbacks":
                            general += places
                        else:
                            self._fall_back(name, places, path, context=key != "fallbacks")
            others = listed(said.get("default_fallbacks"))
            general += [(other, (section, "default_fallbacks", place)) for place, other in enumerate(others)]
            self._for_all(general)

    def _for_all(self, general: list[tuple[Any, strict.Path]]) -> None:
        """Default fallbacks, for the routes that have none; not for those they lead to."""
        last = {other for other, _ in general if isinstance(other, str)}
        for name, plan in self.plan.routes.items():
            same = [
                pair for pair in general if (there := self.plan.routes.get(str(pair[0]))) and there.task == plan.task
            ]
            if name not in last and not self.plan.falls_back(name):
                self._fall_back(name, same, plan.path)
        for other, path in general:
            if other not in self.plan.routes:
                self.plan.lose(path, f"{strict.shown(other)} is no route here. It is left out.")

    def _fall_back(
        self, name: str, others: list[tuple[Any, strict.Path]], path: strict.Path, *, context: bool = False
    ) -> None:
        if name not in self.plan.routes:
            self.plan.lose(path, f"{strict.shown(name)} is no route here. Its fallbacks are left out.")
            return
        for other, place in others:
            if isinstance(other, str):
                self.plan.fall_back(name, other, place, context=context)
            else:
                self.plan.lose(place, "changes the request on its way. A fallback is a route's name here.", name)

    def _aliases(self) -> None:
        section = mapping(self._data.get("router_settings")).get("model_group_alias")
        for alias, meant in mapping(section).items():
            path = ("router_settings", "model_group_alias", alias)
            name = meant.get("model") if isinstance(meant, dict) else meant
            there = self.plan.routes.get(str(name))
            if there is None:
                self.plan.lose(path, f"{strict.shown(name)} is no route here. The alias is left out.")
            elif alias in self.plan.routes:
                self.plan.lose(path, "is a model's name too, which wins. The alias is left out.")
            else:
                self.plan.routes[alias] = copy.deepcopy(there)
                self.plan.falls_back_too(alias, str(name))
                if there.limits:
                    self.plan.lose(
                        path, "an alias is a route here: its limits are counted apart from the other's.", alias
                    )


def _provider(params: dict[str, Any]) -> tuple[str, str]:
    """Provider and model as litellm tells them apart: by `custom_llm_provider`, the model's first part, its name."""
    model, stated = str(params.get("model")), params.get("custom_llm_provider")
    head, slash, tail = model.partition("/")
    if stated is not None:
        return str(stated), tail if slash and head == stated else model
    return (head, tail) if slash else (known.family(model), model)


def _items(value: Any) -> list[dict[str, Any]]:
    return [one for one in listed(value) if isinstance(one, dict)]
