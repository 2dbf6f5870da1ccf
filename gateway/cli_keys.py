"""`promptyard keys`: make, change, rotate and revoke virtual keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from gateway.cli_data import cell, data_option, json_option, names, opened, table
from gateway.errors import BadRequest

if TYPE_CHECKING:
    from gateway.keys import Keys
    from gateway.types import Key

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_COLUMNS = ("id", "name", "state", "scopes", "routes", "rpm", "tpm", "concurrency", "max_budget", "expires_at")
#: What a limit is that is taken away.
_NONE = "none"
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
_TERMS = (
    click.option("--routes", metavar="NAMES", help="Routes it may call, comma-separated; * for anything"),
    click.option("--deny", metavar="NAMES", help="Routes it may not call all the same"),
    click.option("--rpm", type=_NUMBER, help="Requests a minute"),
    click.option("--tpm", type=_NUMBER, help="Tokens a minute"),
    click.option("--concurrency", type=_NUMBER, help="Calls at once"),
    click.option("--max-budget", metavar="USD", help="What it may spend"),
    click.option(
        "--budget-duration", metavar="TIME", help="In which it may: 1h, 1d, 30d, 1mo [default: for ever]"
    ),
    click.option("--expires", metavar="TIME", help="Valid for: 30d, 12h, 15m"),
    click.option("--scopes", metavar="NAMES", help="Of: inference, tracking, admin [default: inference,tracking]"),
    click.option("--tags", metavar="NAMES", help="Words to find it by, comma-separated"),
    click.option("--metadata", metavar="NAME=TEXT", multiple=True, help="A note of your own; may be repeated"),
)  # fmt: skip


def _terms_options(command: F) -> F:
    for option in reversed(_TERMS):
        command = option(command)
    return command


@click.group("keys")
def keys_command() -> None:
    """Make, change, rotate and revoke virtual keys, with or without a running server."""


@keys_command.command("create")
@click.option("--name", required=True, help="Whose key it is")
@_terms_options
@data_option
@json_option
def create(name: str, data: Path | None, as_json: bool, **given: Any) -> None:
    """Make a key. Its secret is shown this once."""
    from gateway.api.key_terms import terms

    said = _said(given)
    with _refusals():
        of = terms(said)
        with _keys(data) as ring:
            key, secret = ring.create(name, **of)
    _show_secret(key, secret, as_json)


@keys_command.command("update")
@click.argument("key_id")
@click.option("--name", help="Whose key it is")
@_terms_options
@data_option
@json_option
def update(key_id: str, data: Path | None, as_json: bool, **given: Any) -> None:
    """Change a key: what is not named stays as it is, `none` takes a limit away. Servers follow within a second."""
    from gateway.api.key_terms import terms

    said = _said(given)
    with _keys(data) as ring, _refusals():
        key = ring.change(key_id, lambda key: terms(said, key.limits))
    _show(key, as_json, "is changed")


@keys_command.command("block")
@click.argument("key_id")
@data_option
@json_option
def block(key_id: str, data: Path | None, as_json: bool) -> None:
    """Refuse a key until it is unblocked. Running servers do within a second."""
    with _keys(data) as ring:
        key = ring.change(key_id, lambda _: {"blocked": True})
    _show(key, as_json, "is blocked")


@keys_command.command("unblock")
@click.argument("key_id")
@data_option
@json_option
def unblock(key_id: str, data: Path | None, as_json: bool) -> None:
    """Let a blocked key in again."""
    with _keys(data) as ring:
        key = ring.change(key_id, lambda _: {"blocked": False})
    _show(key, as_json, "is let in again")


@keys_command.command("rotate")
@click.argument("key_id")
@click.option("--grace", metavar="TIME", default="0s", help="How long the secret before goes on: 15m, 1d")
@data_option
@json_option
def rotate(key_id: str, grace: str, data: Path | None, as_json: bool) -> None:
    """Give a key another secret, which is shown this once. Its limits and what it spent stay."""
    seconds = _seconds(grace, "--grace")
    with _keys(data) as ring:
        key, secret = ring.rotate(key_id, seconds)
    _show_secret(key, secret, as_json)


@keys_command.command("list")
@click.option("--tag", help="Only those with this tag")
@data_option
@json_option
def list_keys(tag: str | None, data: Path | None, as_json: bool) -> None:
    """List every key, without secrets."""
    from gateway.api.described import key as described

    with _keys(data) as ring:
        rows = [described(key) for key in ring.list() if tag is None or tag in key.tags]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("There are no keys yet. `promptyard keys create --name NAME` makes one." if tag is None
                   else f"No key has the tag '{tag}'.")  # fmt: skip
        return
    table(_COLUMNS, [[cell(column, row[column]) for column in _COLUMNS] for row in rows])


@keys_command.command("revoke")
@click.argument("key_id")
@data_option
@json_option
def revoke(key_id: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key by its id. Running servers refuse it within a second."""
    with _keys(data) as ring:
        ring.revoke(key_id)
    click.echo(json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked.")


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as the admin API has them in JSON."""
    said = {name: value for name, value in given.items() if value not in (None, ())}
    said = {name: None if value == _NONE and name != "name" else value for name, value in said.items()}
    for name in ("routes", "deny", "tags", "scopes"):
        if isinstance(said.get(name), str):
            said[name] = names(said[name])
    for name, as_said in (("deny", "denied_routes"), ("expires", "expires_in")):
        if name in said:
            said[as_said] = said.pop(name)
    for name in ("denied_routes", "tags"):
        if said.get(name, ()) is None:
            said[name] = []
    if said.get("expires_in") is not None:
        said["expires_in"] = _seconds(said["expires_in"], "--expires")
    if "metadata" in said:
        said["metadata"] = dict(_pair(one) for one in said["metadata"])
    if "scopes" in said:
        said["scopes"] = _scopes(said["scopes"] or [])
    return said


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"'{text[:40]}' is not NAME=TEXT.", param_hint="--metadata")
    return name, value


@contextmanager
def _keys(data: Path | None) -> Iterator[Keys]:
    from gateway.keys import Keys
    from gateway.store.keys import KeyStore

    with opened(data) as database:
        yield Keys(KeyStore(database))


@contextmanager
def _refusals() -> Iterator[None]:
    """Say of which option a field that was refused is."""
    try:
        yield
    except BadRequest as error:
        _refuse(error)


def _refuse(error: BadRequest) -> NoReturn:
    param = {"denied_routes": "deny", "expires_in": "expires"}.get(error.param or "", error.param or "")
    raise click.BadParameter(error.message, param_hint=f"--{param.replace('_', '-')}") from None


def _show(key: Key, as_json: bool, what: str) -> None:
    from gateway.api.described import key as described

    click.echo(json.dumps(described(key)) if as_json else f"{key.id} ({key.name}) {what}.")


def _show_secret(key: Key, secret: str, as_json: bool) -> None:
    from gateway.api.described import key as described

    if as_json:
        click.echo(json.dumps({**described(key), "key": secret}))
        return
    click.echo(secret)
    click.echo(f"{key.id} ({key.name}). This is the only time the key is shown.", err=True)


def _scopes(given: list[str]) -> list[str]:
    from gateway.types import Scope

    known = [scope.value for scope in Scope]
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise click.BadParameter(f"'{', '.join(wrong)}' is none of {', '.join(known)}.", param_hint="--scopes")
    return given


def _seconds(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip().lower())
    if match is None or not (int(match[1]) or option == "--grace"):
        raise click.BadParameter(f"'{text}' is not a time such as 30d, 12h or 15m.", param_hint=option)
    return float(int(match[1]) * _UNITS[match[2]])
