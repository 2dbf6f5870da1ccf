"""A LiteLLM proxy's `config.yaml` as a plan: https://docs.litellm.ai/docs/proxy/config_settings."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

from gateway import strict
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.importers import known
from gateway.importers.litellm_unmapped import message, says_nothing
from gateway.importers.plan import Plan, RoutePlan, Source, no_key_needed

#: `mode` in `model_info` as a route's task.
TASKS = {
    "chat": "chat",
    "completion": "chat",
    "responses": "chat",
    "embedding": "embeddings",
    "embeddings": "embeddings",
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
_TOTAL = "'total' ends an answer here, streamed ones too; there, often only a silence. Raise it for long streams."
_NUMBERS = ("rpm", "tpm", "max_parallel_requests", "weight", "timeout", "stream_timeout", "max_tokens")
_READ = frozenset(("model", "custom_llm_provider", "api_key", "api_base", "base_url", "headers", "extra_headers",
                   "organization", "litellm_credential_name", *_NUMBERS))  # fmt: skip
_HANDLED = {
    "router_settings": {"fallbacks", "default_fallbacks", "model_group_alias", "timeout", "stream_timeout"},
    "litellm_settings": {"fallbacks", "default_fallbacks", "request_timeout"},
    "general_settings": set(),
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


@dataclass(slots=True)
class _Entry:
    """One item of `model_list`, placed: its deployment, and the numbers it states."""

    path: strict.Path
    provider: str
    model: str
    numbers: dict[str, float] = field(default_factory=dict)


class _Importer:
    """One pass over a file."""

    def __init__(self, plan: Plan, data: dict[str, Any]) -> None:
        self.plan = plan
        self._data = data
        self._tasks: dict[str, str] = {}
        self._groups: dict[str, list[_Entry]] = {}
        self._credentials = {
            str(one.get("credential_name")): _mapping(one.get("credential_values"))
            for one in _items(data.get("credential_list"))
        }

    def run(self) -> None:
        """Fill the plan."""
        for entry in _items(self._data["model_list"]):
            params = _mapping(entry.get("litellm_params"))
            kind = known.kind(_provider(params)[0])
            if kind.asks and params.get("api_key") is None:
                self.plan.reserve(kind.variable)
        for index, entry in enumerate(self._data["model_list"]):
            self._entry(("model_list", index), entry)
        for name, entries in self._groups.items():
            self.plan.routes[name] = self._route(name, entries)
        self._settings()
        self._fallbacks()
        self._aliases()
        self.plan.finish()

    def _entry(self, path: strict.Path, entry: Any) -> None:
        entry = _mapping(entry)
        name, params = entry.get("model_name"), _mapping(entry.get("litellm_params"))
        model = params.get("model")
        if not isinstance(name, str) or not isinstance(model, str) or not name or not model:
            self.plan.lose(path, "is no model: it needs 'model_name' and 'litellm_params.model'. It is left out.")
        elif "*" in name or "*" in model:
            self.plan.lose(path, f"{strict.shown(name)} stands for any model. Write a route for each name in use.")
        elif (task := self._task(path, entry, model, name)) is not None:
            self._tasks[name] = task
            self._groups.setdefault(name, []).append(self._placed(path, name, entry, params))

    def _task(self, path: strict.Path, entry: dict[str, Any], model: str, name: str) -> str | None:
        mode = str(_mapping(entry.get("model_info")).get("mode") or known.task_of(model))
        task, first = TASKS.get(mode), self._tasks.get(name)
        if task is None:
            self.plan.lose(
                path, f"{strict.shown(name)} is for {strict.shown(mode)}, which is not served here. It is left out."
            )
        elif first is not None and first != task:
            self.plan.lose(path, f"{strict.shown(name)} is for {first} already. A route has one task: left out.", name)
            return None
        return task

    def _placed(self, path: strict.Path, name: str, entry: dict[str, Any], params: dict[str, Any]) -> _Entry:
        at = (*path, "litellm_params")
        credential = params.get("litellm_credential_name")
        if credential is not None and str(credential) not in self._credentials:
            self.plan.lose(
                (*at, "litellm_credential_name"), "this credential is not in the file. Add its api_key.", name
            )
        params = {**self._credentials.get(str(credential), {}), **params}
        source = self._source(at, name, params)
        found = _Entry(path, *self.plan.place(source, name))
        for key in _NUMBERS:
            # Older files have rpm and tpm beside litellm_params.
            where, value = ((*at, key), params[key]) if key in params else ((*path, key), entry.get(key))
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                found.numbers[key] = value
            elif value is not None:
                self.plan.lose(where, "must be a number here: no reference is read under 'routes'. Write it out.", name)
        self._lose_rest(at, "litellm_params", params, _READ | OPEN_OPTIONS | SECRET_OPTIONS, name)
        self._lose_rest((*path, "model_info"), "model_info", _mapping(entry.get("model_info")), {"mode"}, name)
        rest = {key: value for key, value in entry.items() if key not in ("model_name", "litellm_params", "model_info")}
        self._lose_rest(path, "litellm_params", rest, set(_NUMBERS), name)
        return found

    def _source(self, at: strict.Path, name: str, params: dict[str, Any]) -> Source:
        plan, source = self.plan, Source(at, *_provider(params))
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

    def _route(self, name: str, entries: list[_Entry]) -> RoutePlan:
        plan = RoutePlan(entries[0].path, self._tasks[name])
        for entry, weight in zip(entries, _weights(entries), strict=True):
            plan.add(entry.provider, entry.model, weight)
        for key, ours in (("rpm", "rpm"), ("tpm", "tpm"), ("max_parallel_requests", "concurrency")):
            if (total := self._sum(name, entries, key)) is not None:
                plan.limits[ours] = total
        plan.timeouts = self._timeouts(name, entries)
        most = [entry.numbers.get("max_tokens") for entry in entries]
        if any(most):
            said = "a default there, the most an answer may have here: a request for more is refused."
            self.plan.lose(_path(entries, "max_tokens"), said, name)
            plan.max_output_tokens = int(max(filter(None, most))) if all(most) else None
        return plan

    def _sum(self, name: str, entries: list[_Entry], key: str) -> int | None:
        """A limit of the whole route: what its deployments may take together, where each of them says."""
        stated = [entry.numbers[key] for entry in entries if key in entry.numbers]
        if not stated:
            return None
        if len(stated) < len(entries):
            self.plan.lose(
                _path(entries, key), "limits one deployment. Limits are a route's here: give it its own.", name
            )
            return None
        if len(stated) > 1:
            self.plan.lose(_path(entries, key), "a limit of each deployment. The route has their sum here.", name)
        return int(sum(stated))

    def _timeouts(self, name: str, entries: list[_Entry]) -> dict[str, float]:
        """`total` and a stream's silences. There, a timeout is how long the upstream may be silent."""
        router, settings = _mapping(self._data.get("router_settings")), _mapping(self._data.get("litellm_settings"))
        general = settings.get("request_timeout")
        whole = self._longest(name, entries, "timeout", general or router.get("timeout"))
        stream = self._longest(name, entries, "stream_timeout", router.get("stream_timeout") or general) or whole
        found: dict[str, float] = {}
        # A stream's silences end after a minute where nothing is written: short of that, `total` says it all.
        if stream is not None and stream != 60 and (stream != whole or stream > 60):
            found |= {"first_token": stream, "idle": stream}
        if whole is not None and whole != 600:
            found["total"] = whole
            if any("timeout" in entry.numbers for entry in entries):
                self.plan.lose(_path(entries, "timeout"), _TOTAL, name)
        return found

    def _longest(self, name: str, entries: list[_Entry], key: str, default: Any) -> float | None:
        fallback = default if isinstance(default, int | float) and not isinstance(default, bool) else None
        stated = {entry.numbers.get(key) or fallback for entry in entries}
        if len(stated) > 1:
            self.plan.lose(_path(entries, key), "differs between deployments. A route has one: the longest.", name)
        return max((one for one in stated if one is not None), default=None)

    def _settings(self) -> None:
        for section, handled in _HANDLED.items():
            said = _mapping(self._data.get(section))
            for key, value in said.items():
                if key not in handled and not says_nothing(section, key, value):
                    self.plan.lose((section, key), message(section, key))
                elif key in ("timeout", "request_timeout") and isinstance(value, int | float):
                    self.plan.lose((section, key), _TOTAL)
                elif key in handled and "timeout" in key and value is not None and not isinstance(value, int | float):
                    self.plan.lose((section, key), "must be a number here. Write it under 'timeouts' of each route.")
        for key, value in self._data.items():
            if key not in {"model_list", "credential_list", *_HANDLED} and not says_nothing("", key, value):
                self.plan.lose((key,), message("", key))

    def _fallbacks(self) -> None:
        for section in ("router_settings", "litellm_settings"):
            said = _mapping(self._data.get(section))
            general: list[tuple[Any, strict.Path]] = []
            for index, pairs in enumerate(_list(said.get("fallbacks"))):
                for name, others in _mapping(pairs).items():
                    path: strict.Path = (section, "fallbacks", index, name)
                    listed = [(other, (*path, number)) for number, other in enumerate(_list(others))]
                    if name == "*":
                        general += listed
                    elif name in self.plan.routes:
                        self._fall_back(name, listed)
                    else:
                        self.plan.lose(path, f"{strict.shown(name)} is no route here. Its fallbacks are left out.")
            others = _list(said.get("default_fallbacks"))
            general += [(other, (section, "default_fallbacks", number)) for number, other in enumerate(others)]
            self._for_all(general)

    def _for_all(self, general: list[tuple[Any, strict.Path]]) -> None:
        """Default fallbacks, for the routes that have none; not for those they lead to."""
        last = {other for other, _ in general if isinstance(other, str)}
        for name, plan in self.plan.routes.items():
            same = [
                pair for pair in general if (there := self.plan.routes.get(str(pair[0]))) and there.task == plan.task
            ]
            if name not in last and not self.plan.falls_back(name):
                self._fall_back(name, same)
        for other, path in general:
            if other not in self.plan.routes:
                self.plan.lose(path, f"{strict.shown(other)} is no route here. It is left out.")

    def _fall_back(self, name: str, others: list[tuple[Any, strict.Path]]) -> None:
        for other, path in others:
            if isinstance(other, str):
                self.plan.fall_back(name, other, path)
            else:
                self.plan.lose(path, "changes the request on its way. A fallback is a route's name here.", name)

    def _aliases(self) -> None:
        section = _mapping(self._data.get("router_settings")).get("model_group_alias")
        for alias, meant in _mapping(section).items():
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


def _weights(entries: list[_Entry]) -> list[float | None]:
    """Shares as litellm's simple-shuffle takes them: of `weight`, else of `rpm`, else of `tpm`; None where alike."""
    for key in ("weight", "rpm", "tpm"):
        stated = [entry.numbers.get(key, 0) for entry in entries]
        if max(stated) > 0:
            if len(set(stated)) == 1:
                break
            if key == "weight" or not all(float(one).is_integer() for one in stated):
                return list(stated)
            divisor = math.gcd(*map(int, stated))
            return [int(one) // divisor for one in stated]
    return [None] * len(entries)


def _path(entries: list[_Entry], key: str) -> strict.Path:
    """Where the first of `entries` that states `key` does so."""
    stated = next((entry for entry in entries if key in entry.numbers), entries[0])
    return (*stated.path, "litellm_params", key)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: Any) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]
