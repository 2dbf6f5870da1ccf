"""`promptyard keys`: make, change, rotate and revoke virtual keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli_data import cell, data_option, json_option, opened, table
from gateway.cli_said import ALLOWED, options, refusals, said, seconds

if TYPE_CHECKING:
    from gateway.keys import Keys
    from gateway.owners import Key
    from gateway.tenants import Tenants

_LIMITS = ("rpm", "tpm", "concurrency", "max_budget")
_COLUMNS = ("id", "name", "state", "scopes", "routes", *_LIMITS, "expires_at", "team_id")
_TERMS = (
    *ALLOWED,
    click.option("--expires", metavar="TIME", help="Valid for: 30d, 12h, 15m"),
    click.option(
        "--scopes",
        metavar="NAMES",
        help="Of inference, tracking, tracking:read, viewer, admin [default: inference,tracking]",
    ),
    click.option("--team", metavar="ID", help="The team it belongs to"),
    click.option("--tags", metavar="NAMES", help="Words to find it by, comma-separated"),
    click.option("--metadata", metavar="NAME=TEXT", multiple=True, help="A note of your own; may be repeated"),
)


@click.group("keys")
def keys_command() -> None:
    """Make, change, rotate and revoke virtual keys, with or without a running server."""


@keys_command.command("create")
@click.option("--name", required=True, help="Whose key it is")
@options(*_TERMS, data_option, json_option)
def create(name: str, data: Path | None, as_json: bool, **given: Any) -> None:
    """Make a key. Its secret is shown this once."""
    from gateway.api.said import key_terms, limits, named

    wanted = said(given)
    with refusals():
        limits(wanted)  # before there is a data folder
        with _opened(data) as (keys, tenants):
            key, secret = keys.create(name, **key_terms(named(wanted, tenants)))
    _show_secret(key, secret, as_json)


@keys_command.command("declare")
@click.argument("name")
@json_option
def declare(name: str, as_json: bool) -> None:
    """Make a secret for a key that routes.yaml declares, and the lines that do. It is shown this once."""
    from gateway.keys import hashed, new_secret

    secret = new_secret()
    if as_json:
        click.echo(json.dumps({"name": name, "key": secret, "hash": hashed(secret)}))
        return
    click.echo(secret)
    click.echo("This is the only time the key is shown. In routes.yaml:\n", err=True)
    click.echo(f"keys:\n  {name}: {{hash: {hashed(secret)}, limits: {{rpm: 60}}}}", err=True)


@keys_command.command("update")
@click.argument("key_id")
@click.option("--name", help="Whose key it is")
@options(*_TERMS, data_option, json_option)
def update(key_id: str, data: Path | None, as_json: bool, **given: Any) -> None:
    """Change a key: what is not named stays as it is, `none` takes a limit away. Servers follow within a second."""
    from gateway.api.said import key_terms, named

    wanted = said(given)
    with _opened(data) as (keys, tenants), refusals():
        found = named(wanted, tenants)
        key = keys.change(key_id, lambda key: key_terms(found, key))
    _show(key, as_json, "is changed")


@keys_command.command("block")
@click.argument("key_id")
@options(data_option, json_option)
def block(key_id: str, data: Path | None, as_json: bool) -> None:
    """Refuse a key until it is unblocked. Running servers do within a second."""
    with _opened(data) as (keys, _):
        key = keys.change(key_id, lambda _: {"blocked": True})
    _show(key, as_json, "is blocked")


@keys_command.command("unblock")
@click.argument("key_id")
@options(data_option, json_option)
def unblock(key_id: str, data: Path | None, as_json: bool) -> None:
    """Let a blocked key in again."""
    with _opened(data) as (keys, _):
        key = keys.change(key_id, lambda _: {"blocked": False})
    _show(key, as_json, "is let in again")


@keys_command.command("rotate")
@click.argument("key_id")
@click.option("--grace", metavar="TIME", default="0s", help="How long the secret before goes on: 15m, 1d")
@options(data_option, json_option)
def rotate(key_id: str, grace: str, data: Path | None, as_json: bool) -> None:
    """Give a key another secret, which is shown this once. Its limits and what it spent stay."""
    wait = seconds(grace, "--grace", 0)
    with _opened(data) as (keys, _):
        key, secret = keys.rotate(key_id, wait)
    _show_secret(key, secret, as_json)


@keys_command.command("list")
@click.option("--tag", help="Only those with this tag")
@click.option("--team", metavar="ID", help="Only those of this team")
@options(data_option, json_option)
def list_keys(tag: str | None, team: str | None, data: Path | None, as_json: bool) -> None:
    """List every key, without secrets."""
    from gateway.api.described import key as described

    with _opened(data) as (keys, _):
        found = [key for key in keys.list() if team is None or key.team_id == team]
    rows = [described(key) for key in found if tag is None or tag in key.tags]
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        table(_COLUMNS, [[cell(column, row[column]) for column in _COLUMNS] for row in rows])
    elif tag is None and team is None:
        click.echo("There are no keys yet. `promptyard keys create --name NAME` makes one.")
    else:
        click.echo("There is no such key.")


@keys_command.command("revoke")
@click.argument("key_id")
@options(data_option, json_option)
def revoke(key_id: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key by its id. Running servers refuse it within a second."""
    with _opened(data) as (keys, _):
        keys.revoke(key_id)
    click.echo(json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked.")


@contextmanager
def _opened(data: Path | None) -> Iterator[tuple[Keys, Tenants]]:
    from gateway.keys import Keys
    from gateway.store.keys import KeyStore
    from gateway.store.tenants import TenantStore
    from gateway.tenants import Tenants

    with opened(data) as database:
        keys = Keys(KeyStore(database))
        yield keys, Tenants(TenantStore(database), keys.refresh)


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
