"""What one key of `routes.yaml` says that another contradicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway import strict
from gateway.config_model import EMBEDDED_MODELS
from gateway.config_yaml import listed, mapping
from gateway.routes import RouteTask

_Complaint = tuple[strict.Path, str]


def contradictions(data: Any) -> Iterator[_Complaint]:
    """What one key says that another contradicts.

    Works on data that may be wrong elsewhere, so that a type error on one line does
    not hide a misspelt provider on another.
    """
    data = mapping(data)
    providers, routes = mapping(data.get("providers")), mapping(data.get("routes"))
    for name, route in routes.items():
        path = ("routes", name)
        yield from _check_deployments((*path, "deployments"), listed(mapping(route).get("deployments")), providers)
        for key in ("fallbacks", "context_fallbacks"):
            yield from _check_fallbacks(path, route, routes, key)
        yield from _check_shadow(path, route, routes)
    yield from _check_circles(routes)
    yield from _check_keys(mapping(data.get("keys")))


def _check_keys(keys: dict[str, Any]) -> Iterator[_Complaint]:
    seen: dict[str, str] = {}
    for name, key in keys.items():
        digest = mapping(key).get("hash")
        if isinstance(digest, str) and seen.setdefault(digest, name) != name:
            yield ("keys", name, "hash"), f"is that of '{seen[digest]}'. Two keys cannot have one secret."


def _check_deployments(path: strict.Path, deployments: list[Any], providers: dict[str, Any]) -> Iterator[_Complaint]:
    seen: dict[tuple[str, str], int] = {}
    weights = [mapping(one).get("weight", 1) for one in deployments]
    if weights and all(weight == 0 and not isinstance(weight, bool) for weight in weights):
        yield path, "every weight is 0, so nothing would answer. Give one a weight above 0."
    for index, one in enumerate(map(mapping, deployments)):
        provider, model = one.get("provider"), one.get("model")
        if not isinstance(provider, str) or not providers:
            continue
        if provider not in providers:
            yield (*path, index, "provider"), _unknown(provider, "provider", providers)
        elif not isinstance(model, str):
            continue
        elif mapping(providers[provider]).get("type") == "embedded" and model not in EMBEDDED_MODELS:
            yield (*path, index, "model"), _unknown(model, f"model of '{provider}'", EMBEDDED_MODELS)
        elif (provider, model) in seen:
            first = seen[provider, model]
            yield (*path, index), f"is the same as deployments[{first}]. Add its weight there and remove this one."
        else:
            seen[provider, model] = index


def _check_fallbacks(path: tuple[str, str], route: Any, routes: dict[str, Any], key: str) -> Iterator[_Complaint]:
    name, task, fallbacks = path[1], _task(route), listed(mapping(route).get(key))
    for index, fallback in enumerate(fallbacks):
        place = (*path, key, index)
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


def _check_shadow(path: tuple[str, str], route: Any, routes: dict[str, Any]) -> Iterator[_Complaint]:
    shadow = mapping(mapping(route).get("shadow")).get("route")
    place = (*path, "shadow", "route")
    if not isinstance(shadow, str):
        return
    if shadow not in routes:
        yield place, _unknown(shadow, "route", routes)
    elif shadow == path[1]:
        yield place, f"'{shadow}' shadows itself. Name another route."
    elif (task := _task(route)) and (other := _task(routes[shadow])) and other != task:
        yield place, f"'{shadow}' is for {other}, and '{path[1]}' for {task}. Name a route for {task}."


def _task(route: Any) -> str | None:
    """The route's task, or None where it says something that is not one."""
    task = mapping(route).get("task", RouteTask.CHAT.value)
    return task if isinstance(task, str) and task in set(RouteTask) else None


def _check_circles(routes: dict[str, Any]) -> Iterator[_Complaint]:
    """Each circle of fallbacks once, at the entry that closes it."""
    done: set[str] = set()

    def follow(name: str, trail: tuple[str, ...]) -> Iterator[_Complaint]:
        trail = (*trail, name)
        for index, fallback in enumerate(listed(mapping(routes[name]).get("fallbacks"))):
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
