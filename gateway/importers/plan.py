"""What an importer understood: providers and routes as our file holds them, and what was lost on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from gateway import strict
from gateway.config_model import File
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.importers import known

_OPENAI_URL = "https://api.openai.com/v1"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
# Headers that hold no secret whatever stands in them; any other value is not copied.
_OPEN_HEADERS = frozenset((
    "openai-organization", "openai-project", "anthropic-version", "anthropic-beta", "user-agent", "http-referer",
    "x-title", "accept", "x-portkey-provider",
))  # fmt: skip
_NO_KEY = frozenset(("none", "null", "empty", "dummy", "fake", "fake-key", "not-needed", "no-key", "no-key-required",
                     "na", "n/a", "anything", "sk-no-key-required"))  # fmt: skip


_SAID = ("strategy", "fallbacks", "context_fallbacks", "retries", "cooldown", "limits", "timeouts", "unsupported",
         "max_output_tokens")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lost:
    """One thing our file cannot say. `message`: what it means, and what to do instead; never a secret."""

    line: int | None
    key: str
    message: str
    route: str | None = None


@dataclass(slots=True)
class RoutePlan:
    """One route, in the words of our file. `path` is where the foreign file has it."""

    path: strict.Path
    task: str = "chat"
    deployments: list[dict[str, Any]] = field(default_factory=list)
    strategy: str | None = None
    fallbacks: list[str] = field(default_factory=list)
    context_fallbacks: list[str] = field(default_factory=list)
    retries: dict[str, float] = field(default_factory=dict)
    cooldown: dict[str, float] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    timeouts: dict[str, float] = field(default_factory=dict)
    unsupported: str | None = None
    max_output_tokens: int | None = None

    def data(self) -> dict[str, Any]:
        """The route as it stands under `routes`, without what is not said."""
        data: dict[str, Any] = {} if self.task == "chat" else {"task": self.task}
        data["deployments"] = self.deployments
        for name in _SAID:
            if value := getattr(self, name):
                data[name] = value
        return data

    def add(self, provider: str, model: str, weight: float | None, more: Mapping[str, int] | None = None) -> None:
        """Add a deployment, or its weight to the same one: our file takes each once."""
        for one in self.deployments:
            if (one["provider"], one["model"]) == (provider, model):
                one["weight"] = one.get("weight", 1) + (1 if weight is None else weight)
                return
        said = {} if weight is None else {"weight": weight}
        self.deployments.append({"provider": provider, "model": model, **said, **(more or {})})


@dataclass(slots=True)
class Source:
    """An upstream as a foreign file describes it. `path` is where it stands; values are ours already (`Plan.said`).

    `api_key` is None where the source names none, and empty where it says that none is needed. `asked` is its route's
    task, or `completions`.
    """

    path: strict.Path
    provider: str
    model: str
    asked: str = "chat"
    api_key: str | None = None
    base_url: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> known.Kind:
        """How it is written: by the provider's own row, unless litellm was told more than a credential."""
        found = known.kind(self.provider)
        if found.type == "openai" and self.base_url and not self.base_url.startswith(_OPENAI_URL):
            return replace(found, type="openai_compatible")
        return found if self.base_url is not None or self.options else known.own(found, self.asked)


class Plan:
    """Collects what an importer finds. `document` is the foreign file, `marks` the reference it writes (`$`)."""

    def __init__(self, document: Document, mark: str) -> None:
        self.document = document
        self.providers: dict[str, dict[str, Any]] = {}
        self.routes: dict[str, RoutePlan] = {}
        self.lost: list[Lost] = []
        self._mark = mark
        # A secret that was written out gets a variable's name that nothing else in the file means.
        self._taken = {name for text in _texts(document.data) if (name := self._name(text))}
        self._named: dict[str, str] = {}
        self._asked: list[tuple[str, str, strict.Path, bool]] = []

    def lose(self, path: strict.Path, message: str, route: str | None = None) -> None:
        """Note that what stands at `path` is left out."""
        self.lost.append(Lost(self.document.line(path), strict.dotted(path), message, route))

    def _name(self, value: object) -> str | None:
        """The environment variable `value` refers to, or None where it is a value itself."""
        name = str(value).removeprefix(self._mark) if str(value).startswith(self._mark) else ""
        name = name.removeprefix("{").removesuffix("}")
        return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else None

    def said(self, value: Any) -> Any:
        """An open value as our file holds it: a reference in our spelling, a dollar sign doubled."""
        if isinstance(value, dict):
            return {str(key): self.said(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.said(part) for part in value]
        if not isinstance(value, str):
            return value
        name = self._name(value)
        return f"${{{name}}}" if name else value.replace("$", "$$")

    def secret(self, value: object, variable: str, path: strict.Path, route: str | None) -> str:
        """A reference to the secret `value`. One that was written out is not copied: it becomes a variable to set."""
        name = self._name(value)
        if name is not None:
            return f"${{{name}}}"
        name = self._named.get(str(value))
        if name is None:
            name, number = variable, 2
            while name in self._taken:
                name, number = f"{variable}_{number}", number + 1
            self._taken.add(name)
            self._named[str(value)] = name
        how = f"Set {name} to it, or keep it in a file and write ${{file:path}}."
        self.lose(path, f"a secret was written out here and is not copied. {how}", route)
        return f"${{{name}}}"

    def headers(self, value: object, path: strict.Path, route: str | None) -> dict[str, str]:
        """Headers with every value that may be a secret as a reference."""
        if not isinstance(value, dict):
            return {}
        found = {}
        for name, text in value.items():
            words = re.sub(r"[^A-Za-z0-9]+", "_", str(name)).upper().strip("_")
            is_open = str(name).lower() in _OPEN_HEADERS
            found[str(name)] = self.said(str(text)) if is_open else self.secret(text, words, (*path, name), route)
        return found

    def place(self, source: Source, route: str) -> tuple[str, str]:
        """The provider's name in our file, made where there is none like it yet, and the model's name there."""
        kind = source.kind
        base_url = self._address(source, kind, route)
        own = base_url is not None and base_url != _OPENAI_URL
        type_ = "openai_compatible" if kind.type == "openai" and own else kind.type
        data: dict[str, Any] = {"type": type_}
        if base_url is not None and not (kind.type == "openai" and not own):
            data["base_url"] = base_url
        if source.api_key is not None:
            data |= {"api_key": source.api_key} if source.api_key else {}
        elif kind.asks and type_ != "openai_compatible":
            data["api_key"] = f"${{{kind.variable}}}"
        elif kind.asks:
            said = f"names no credential, and {kind.variable} is not sent to strangers. Write its own 'api_key'."
            self.lose(source.path, said, route)
        if type_ == "litellm":
            options = {**source.options, **({"extra_headers": source.headers} if source.headers else {})}
            data |= {"options": options} if options else {}
        else:
            data |= {"headers": source.headers} if source.headers else {}
            for name in source.options:
                self.lose((*source.path, name), "means nothing to this kind of provider.", route)
        return self._provider(source, data), kind.prefix + source.model

    def _address(self, source: Source, kind: known.Kind, route: str) -> str | None:
        text = source.base_url
        if text is None:
            return kind.base_url
        text = text.rstrip("/")
        clean = re.sub(r"[?#].*$", "", re.sub(r"^(https?://)[^/@]*@", r"\1", text))
        if clean != text:
            message = "its address holds a user, password or query, which is left out. Write them under 'headers'."
            self.lose(source.path, message, route)
        if kind.tail and clean.startswith("${"):
            said = (
                f"its address is a variable: '{kind.tail}' is written after it. Remove that where the variable has it."
            )
            self.lose(source.path, said, route)
        for end in ("/chat/completions", "/completions", "/embeddings"):
            clean = clean.removesuffix(end)
        return clean if clean.endswith(kind.tail) else clean + kind.tail

    def _provider(self, source: Source, data: dict[str, Any]) -> str:
        for name, there in self.providers.items():
            if there == data:
                return name
        name = next(name for name in known.names(source.provider, data) if name not in self.providers)
        self.providers[name] = data
        return name

    def fall_back(self, route: str, other: str, path: strict.Path, *, context: bool = False) -> None:
        """Let `other` stand in for `route` (`context`: for what is too long), if `finish` finds that it can."""
        self._asked.append((route, other, path, context))

    def falls_back(self, route: str) -> bool:
        """Whether `route` was given a fallback."""
        return any(name == route and not context for name, _, _, context in self._asked)

    def falls_back_too(self, alias: str, route: str) -> None:
        """Give `alias` the fallbacks of `route`."""
        for name, other, path, context in list(self._asked):
            if name == route:
                self.fall_back(alias, other, path, context=context)

    def reserve(self, variable: str) -> None:
        """Keep `variable` for what the file leaves to the environment: no written-out secret is named so."""
        self._taken.add(variable)

    def finish(self) -> None:
        """Take out what our file refuses, each part with its reason, until all of it can be served.

        Raises `ConfigError` with everything lost where no route is left.
        """
        for plan in self.routes.values():
            if not any(one.get("weight", 1) for one in plan.deployments):
                # All at rest is refused; there it means that all are alike.
                plan.deployments = [{**one, "weight": 1} for one in plan.deployments]
        while complaint := self._refused():
            path, message = complaint
            if len(path) < 2:
                nothing = f"{self.document.source}: nothing in it can be served here."
                raise ConfigError("\n".join([nothing, *self.told()]))
            self._mend(path, message)
        used = {one["provider"] for plan in self.routes.values() for one in plan.deployments}
        self.providers = {name: data for name, data in self.providers.items() if name in used}
        for route, other, path, context in self._asked:
            if route in self.routes and (why := self._refuses(route, other, context)):
                self.lose(path, why, route)

    def _mend(self, path: strict.Path, message: str) -> None:
        """Leave out what our file refuses at `path`: the one value if the rest is good without it, else the route."""
        name, said = str(path[1]), " ".join((strict.dotted(path[2:]), message)).strip()
        users = [name] if path[0] == "routes" else self._users(name)
        if self._without(path):
            for route in users:
                self.lose(self.routes[route].path, f"left out: {said}", route)
            return
        for route in users:
            gone = self.routes.pop(route)
            self.lost = [one for one in self.lost if one.route != route]
            self.lose(gone.path, f"{strict.shown(route)} cannot be written and is left out: {said}")
        if path[0] == "providers":
            del self.providers[name]

    def _without(self, path: strict.Path) -> bool:
        """Whether the value at `path` could be taken out: a number of a route, a header of a provider."""
        match path:
            case "routes", str(name), "limits" | "timeouts" | "retries" | "cooldown" as part, str(key):
                return getattr(self.routes[name], part).pop(key, None) is not None
            case "routes", str(name), "max_output_tokens":
                self.routes[name].max_output_tokens = None
            case "routes", str(name), "deployments", int(index), "weight" | "order" | "concurrency" as key:
                del self.routes[name].deployments[index][key]
            case "providers", str(name), "headers", str(key), *_:
                del self.providers[name]["headers"][key]
            case _:
                return False
        return True

    def _users(self, provider: str) -> list[str]:
        plans = self.routes.items()
        return [name for name, plan in plans if any(one["provider"] == provider for one in plan.deployments)]

    def _refused(self) -> tuple[strict.Path, str] | None:
        """The first complaint of our file's model, with a stand-in for each reference."""
        providers = {name: _filled(data) for name, data in self.providers.items()}
        data = {"providers": providers, "routes": {name: plan.data() for name, plan in self.routes.items()}}
        try:
            File.model_validate(data)
        except ValidationError as error:
            # Under 'providers' it may be a secret: only its kind is shown.
            shown = {"routes": strict.shown, "providers": strict.kind_of}
            return strict.complaints(error, File, data, lambda path, value: shown[str(path[0])](value))[0]
        return None

    def _refuses(self, route: str, other: str, context: bool) -> str | None:
        """Take `other` as a fallback of `route`, or say why our file would not: strangers, circles, other tasks."""
        plan, there = self.routes[route], self.routes.get(other)
        if there is None:
            return f"{strict.shown(other)} is no route here. It is left out."
        if there.task != plan.task:
            return f"{strict.shown(other)} is for {there.task}, this route for {plan.task}. It is left out."
        listed = plan.context_fallbacks if context else plan.fallbacks
        if other == route or (not context and self._leads(other, route)):
            return (
                f"{strict.shown(other)} falls back to this route. A circle is refused here, so this half is left out."
            )
        if other not in listed:
            listed.append(other)
        return None

    def _leads(self, start: str, end: str) -> bool:
        return start == end or any(self._leads(one, end) for one in self.routes[start].fallbacks)

    def told(self) -> list[str]:
        """What was lost, one line each in the order of the file; the same said of many places is said once."""
        grouped: dict[tuple[str, str], list[Lost]] = {}
        for one in sorted(self.lost, key=lambda lost: lost.line or 0):
            grouped.setdefault((re.sub(r"\[\d+\]", "[]", one.key), one.message), []).append(one)
        lines = []
        for (_, message), found in grouped.items():
            source = self.document.source
            where = source if found[0].line is None else f"{source}:{found[0].line}"
            more = list(dict.fromkeys(str(one.line) for one in found[1:] if one.line != found[0].line))
            also = f" (lines {', '.join(more)} too)" if len(more) > 1 else f" (line {more[0]} too)" if more else ""
            lines.append(f"{where}: {found[0].key}: {message}{also}")
        return lines

    def variables(self) -> list[str]:
        """The environment variables the written file refers to, each once."""
        texts = [text for data in self.providers.values() for text in _texts(data)]
        names = [name for text in texts for name in _REFERENCE.findall(text.replace("$$", ""))]
        return list(dict.fromkeys(name for name in names if not name.startswith("file:")))


def no_key_needed(value: object) -> bool:
    """Whether a credential only fills a field that had to be filled."""
    return str(value).strip().lower() in _NO_KEY


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for part in data.values():
            yield from _texts(part)
    elif isinstance(data, list):
        for part in data:
            yield from _texts(part)
    elif isinstance(data, str):
        yield data


def _filled(data: Any) -> Any:
    """`data` with something that could be true in place of each reference."""
    if isinstance(data, dict):
        return {
            key: "https://host/v1" if key == "base_url" and str(part).startswith("${") else _filled(part)
            for key, part in data.items()
        }
    return _REFERENCE.sub("secret", data) if isinstance(data, str) else data
