"""What commands say of keys, teams and organisations: options, and what they come to in the admin API's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from gateway.cli_data import names
from gateway.errors import BadRequest

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: What a limit is that is taken away.
_NONE = "none"
#: Options of names, what the admin API calls them, and what it has where there are none.
_Listed = tuple[str, list[str] | None]
_LISTS: Mapping[str, _Listed] = {"routes": ("routes", None), "deny": ("denied_routes", []), "tags": ("tags", [])}
F = TypeVar("F", bound=Callable[..., Any])


class _Number(click.ParamType[int | str]):
    """A limit: a whole number from 1, or "none"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == _NONE:
            return value
        number: int = click.IntRange(1, 2**31 - 1).convert(value, param, ctx)
        return number


_NUMBER = _Number()
#: What may be called, and how much.
ALLOWED = (
    click.option("--routes", metavar="NAMES", help="Routes it may call, comma-separated; * for anything"),
    click.option("--deny", metavar="NAMES", help="Routes it may not call all the same"),
    click.option("--rpm", type=_NUMBER, help="Requests a minute"),
    click.option("--tpm", type=_NUMBER, help="Tokens a minute"),
    click.option("--concurrency", type=_NUMBER, help="Calls at once"),
    click.option("--window", type=click.Choice(["sliding", "fixed"]), help="Of minutes"),
    click.option("--rpd", type=_NUMBER, help="Requests a day, UTC"),
    click.option("--tpd", type=_NUMBER, help="Tokens a day, UTC"),
    click.option("--max-budget", metavar="USD", help="What it may spend"),
    click.option("--soft-budget", metavar="USD", help="What it may spend before somebody is told"),
    click.option("--budget-duration", metavar="TIME", help="In which it may: 1h, 1d, 30d, 1mo [default: for ever]"),
    click.option("--user-limits", metavar="NAME=N,…", help="Of each end user: rpm=5,max_budget=1,budget_duration=1d"),
)


def options(*those: Callable[[F], F]) -> Callable[[F], F]:
    """All of `those`, in that order."""

    def decorate(command: F) -> F:
        for option in reversed(those):
            command = option(command)
        return command

    return decorate


def said(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as the admin API has them in JSON: `none` is null."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        if name in _LISTS:
            as_said, nothing = _LISTS[name]
            found[as_said] = nothing if value == _NONE else names(value)
        elif name == "expires":
            found["expires_in"] = None if value == _NONE else seconds(value, "--expires")
        elif name in ("team", "organisation"):
            found[f"{name}_id"] = None if value == _NONE else value
        elif name == "metadata":
            found[name] = dict(_pair(one) for one in value)
        elif name == "scopes":
            found[name] = _scopes(names(value))
        elif name == "user_limits":
            found[name] = None if value == _NONE else dict(_user_limit(one) for one in names(value))
        else:
            found[name] = None if value == _NONE and name != "name" else value
    return found


@contextmanager
def refusals() -> Iterator[None]:
    """Say of which option a field that was refused is."""
    try:
        yield
    except BadRequest as error:
        param = {"denied_routes": "deny", "expires_in": "expires"}.get(error.param or "", error.param or "")
        param = param.partition(".")[0]
        hint = f"--{param.removesuffix('_id').replace('_', '-')}"
        raise click.BadParameter(error.message, param_hint=hint) from None


def seconds(text: str, option: str, least: int = 1) -> float:
    """A time such as 30d, 12h or 15m."""
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip().lower())
    if match is None or int(match[1]) < least:
        raise click.BadParameter(f"'{text}' is not a time such as 30d, 12h or 15m.", param_hint=option)
    return float(int(match[1]) * _UNITS[match[2]])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"'{text[:40]}' is not NAME=TEXT.", param_hint="--metadata")
    return name, value


def _user_limit(text: str) -> tuple[str, Any]:
    """One limit of end users, as the admin API has it."""
    name, _, value = text.partition("=")
    if name in ("max_budget", "budget_duration", "window"):
        return name, None if value == _NONE else value
    if name not in ("rpm", "tpm", "concurrency", "rpd", "tpd"):
        raise click.BadParameter(
            f"'{text[:40]}' is none of rpm=, tpm=, concurrency=, window=, rpd=, tpd=, max_budget=, budget_duration=.",
            param_hint="--user-limits",
        )
    try:
        number = _NUMBER.convert(value, None, None)
    except click.BadParameter as error:
        raise click.BadParameter(f"{name}: {error.message}", param_hint="--user-limits") from None
    return name, None if number == _NONE else number


def _scopes(given: Sequence[str]) -> list[str]:
    from gateway.owners import Scope

    known = [scope.value for scope in Scope]
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise click.BadParameter(f"'{', '.join(wrong)}' is none of {', '.join(known)}.", param_hint="--scopes")
    return list(given)
