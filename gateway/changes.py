"""A configuration as it may be shown, and what another one changes: pure functions, secrets never written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from gateway.money import Listing
from gateway.owners import Key
from gateway.routes import Config, DeclaredKey, Deployment, ProviderSpec, Route

MASK = "***"
#: Characters of a value that a line of text shows; JSON has all of it.
_LONGEST = 200
_Place = tuple[str | int, ...]
_MILLION = Decimal(10**6)


class Field(NamedTuple):
    """One value before and after. A secret is shown as `MASK`, also where it is another one now."""

    name: str
    before: Any
    after: Any

    def said(self) -> str:
        """In one line, as a person reads it."""
        return f"{self.name}: {_said(self.before)} → {_said(self.after)}"


class Change(NamedTuple):
    """What becomes of one provider or route, or of the alerts: `added`, `removed`, or `changed` in `fields`."""

    kind: str
    name: str
    change: str
    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        """In one line, as the log says it."""
        fields = ", ".join(field.said() for field in self.fields)
        return f"{self.kind} '{self.name}' {self.change}" + (f" ({fields})" if fields else "")


def described(config: Config) -> dict[str, Any]:
    """All of `config` with its defaults, as JSON; every secret is `MASK`."""
    return {
        "providers": {name: _masked(_provider(spec, config)) for name, spec in config.providers.items()},
        "routes": {name: _masked(_route(route)) for name, route in config.routes.items()},
        "keys": {name: _masked(_key(one)) for name, one in config.keys.items()},
        "alerts": None if config.alerts is None else _masked(_plain(config.alerts)),
    }


def between(before: Config, after: Config) -> tuple[Change, ...]:
    """What `after` changes, providers first, in the order of the files."""
    providers = _changes(
        "provider",
        {name: _provider(spec, before) for name, spec in before.providers.items()},
        {name: _provider(spec, after) for name, spec in after.providers.items()},
    )
    routes = _changes(
        "route",
        {name: _route(route) for name, route in before.routes.items()},
        {name: _route(route) for name, route in after.routes.items()},
    )
    budgets = [{} if one.alerts is None else {"budgets": _plain(one.alerts)} for one in (before, after)]
    keys = [{name: _key(key) for name, key in one.keys.items()} for one in (before, after)]
    return (*providers, *routes, *_changes("key", *keys), *_changes("alerts of", *budgets))


def document(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Changes as JSON."""
    return [{**change._asdict(), "fields": [field._asdict() for field in change.fields]} for change in changes]


def routes_touched(changes: Iterable[Change], before: Config, after: Config) -> list[str]:
    """The routes whose calls will go another way: those that change, and those of a provider that does."""
    changes = list(changes)
    providers = {change.name for change in changes if change.kind == "provider"}
    touched = {change.name: None for change in changes if change.kind == "route"}
    for route in (*before.routes.values(), *after.routes.values()):
        if any(one.provider in providers for one in route.deployments):
            touched[route.name] = None
    return list(touched)


def keys_touched(keys: Iterable[Key], routes: Iterable[str]) -> list[dict[str, Any]]:
    """The keys that may call any of `routes`, as JSON, each with those it may call."""
    routes = list(routes)
    found = [{"id": key.id, "name": key.name, "routes": [one for one in routes if key.may_call(one)]} for key in keys]
    return [one for one in found if one["routes"]]


def _changes(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    found = []
    for name in dict.fromkeys((*before, *after)):
        if name not in before:
            found.append(Change(kind, name, "added"))
        elif name not in after:
            found.append(Change(kind, name, "removed"))
        elif fields := _fields(before[name], after[name]):
            found.append(Change(kind, name, "changed", fields))
    return found


def _fields(before: dict[str, Any], after: dict[str, Any]) -> tuple[Field, ...]:
    one, other = dict(_flat(before)), dict(_flat(after))
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    # What comes or goes as a whole is told once, not value by value.
    both = set(before.get("deployments", ())) & set(after.get("deployments", ()))
    kept = [name for name in names if not name.startswith("deployments[") or name[12:].partition("]")[0] in both]
    return tuple(Field(name, _masked(one.get(name)), _masked(other.get(name))) for name in kept)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if name == "deployments" and not prefix:
            yield name, list(value)
            for one, deployment in value.items():
                yield from _flat(deployment, f"deployments[{one}].")
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _provider(spec: ProviderSpec, config: Config) -> dict[str, Any]:
    """What is written of a provider. What may be a secret is still a `SecretStr`, so that two can be compared."""
    said: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.name != "name" and value not in (None, (), {}):
            place = ("providers", spec.name, field.name)
            # A fake's script is no argument of anybody's; what litellm is given beside a key may be one as well.
            hidden = field.name == "options" and spec.type != "fake"
            said[field.name] = _plain(value, place, config.filled, hidden=hidden)
    return said


def _route(route: Route) -> dict[str, Any]:
    shown = {field.name: _plain(getattr(route, field.name)) for field in dataclasses.fields(route)}
    del shown["name"]
    # By their ids, in their order.
    shown["deployments"] = {one.id: _deployment(one) for one in route.deployments}
    return shown


def _key(key: DeclaredKey) -> dict[str, Any]:
    said = {field.name: _plain(getattr(key, field.name)) for field in dataclasses.fields(key)}
    sets = {name: None if said[name] is None else sorted(said[name]) for name in ("routes", "denied", "tags")}
    return {**said, **sets, "hash": SecretStr(key.hash)}


def _deployment(one: Deployment) -> dict[str, Any]:
    shown = {field.name: _plain(getattr(one, field.name)) for field in dataclasses.fields(one)}
    return {**shown, "listing": _listing(one.listing)}


def _listing(listing: Listing) -> dict[str, Any]:
    """Prices in USD per million tokens, as `prices.yaml` writes them."""
    rates = listing.price.rates if listing.price else None
    prices = {} if rates is None else {"input": rates.input, "output": rates.output, "cached_input": rates.cached}
    said: dict[str, Any] = {name: float(rate * _MILLION) for name, rate in prices.items() if rate is not None}
    if listing.price and (unit := listing.price.unit) and unit.rate is not None:
        said[unit.kind] = float(unit.rate)
    return {**said, "max_input_tokens": listing.max_input_tokens, "max_output_tokens": listing.max_output_tokens}


def _plain(value: Any, place: _Place = (), filled: frozenset[_Place] = frozenset(), *, hidden: bool = False) -> Any:
    """`value` as JSON knows it, but for what may be a secret: `hidden` texts, and those taken from elsewhere."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one, (*place, name), filled, hidden=hidden) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, (*place, index), filled, hidden=hidden) for index, one in enumerate(value)]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str | Path):
        return SecretStr(str(value)) if hidden or _is_filled(place, filled) else str(value)
    return value


def _is_filled(place: _Place, filled: frozenset[_Place]) -> bool:
    # The keys of `options` may stand beside it in the file.
    return place in filled or (place[2:3] == ("options",) and (*place[:2], *place[3:]) in filled)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return MASK if isinstance(value, SecretStr) else value


def _said(value: Any) -> str:
    if value is None:
        return "none"
    said = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
