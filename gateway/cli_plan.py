"""`promptyard plan NEW.yaml` and `promptyard explain`: what a file would change, and what would become of a call."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from gateway import changes, config
from gateway import settings as environment
from gateway.changes import Change
from gateway.cli_data import here
from gateway.errors import ConfigError, NotFound, Overloaded
from gateway.owners import Key
from gateway.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_PASSES = {True: "ok", False: "no", None: "?"}
#: Seconds a running server may take to explain.
_PATIENCE = 10.0


def _shared(command: F) -> F:
    data = click.option("--data", type=click.Path(path_type=Path), help="Data folder [default: ./data]")
    return data(click.option("--json", "as_json", is_flag=True, help="Print JSON")(command))


@click.command("plan")
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--config", "file", type=click.Path(path_type=Path), help="The file it replaces [default: routes.yaml]")
@_shared
def plan_command(new: Path, file: Path | None, data: Path | None, as_json: bool) -> None:
    """Say what would change, and for which keys, if NEW took the place of routes.yaml.

    Exits with 0 where nothing would, with 2 where something would, and with 1 where a file cannot be served.
    """
    settings = Settings.load(config=file, data=data)
    try:
        before, after = _both(settings.config, new)
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"problems": [dataclasses.asdict(problem) for problem in error.problems]}))
        raise SystemExit(1) from None
    changed = changes.between(before, after)
    keys = changes.keys_touched(_active(_keys(settings)), changes.routes_touched(changed, before, after))
    if as_json:
        click.echo(json.dumps({"changes": changes.document(changed), "keys": keys}))
    else:
        _print_plan(changed, keys)
    raise SystemExit(2 if changed else 0)


@click.command("explain")
@click.option("--model", required=True, help="The name a caller sends as `model`")
@click.option("--key", help="The key that calls, by its id or name [default: one that may do everything]")
@click.option("--task", help="As chat/completions or messages [default: the route's first]")
@click.option("--user", help="What a sticky route goes by: the user, or the value of its header")
@click.option("--server", help="The server to ask [default: the one on this machine, if it runs]")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Go by this file alone and ask no server")
@_shared
def explain_command(
    model: str,
    key: str | None,
    task: str | None,
    user: str | None,
    server: str | None,
    file: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Say what would become of a call: each rule, the deployment asked, and why.

    A running server answers with its limits and cooldowns as they stand. Without one, only the file is told.
    """
    settings = Settings.load(config=file, data=data)
    told = None
    if file is None:
        said = {"model": model, "key": key, "task": task, "user": user}
        asked = {name: value for name, value in said.items() if value is not None}
        told = _from_server(server, settings, asked)
    if told is None:
        told = _from_file(settings, model, key, task, user)
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print_explanation(told)


def _both(old: Path, new: Path) -> tuple[Any, Any]:
    from gateway.prices import PriceTable

    secrets = environment.environment()
    before, after = config.load(old, secrets), config.load(new, secrets)
    # Prices stay those beside the file that is replaced.
    table = PriceTable.load(old.parent, environment.price_map_file())
    return table.priced(before), table.priced(after)


def _keys(settings: Settings) -> list[Key]:
    """Every stored key. Where there is no database yet, none is made for the asking."""
    if settings.database_url is None and not (settings.data / "gateway.db").exists():
        return []
    from gateway.keys import Keys
    from gateway.server import open_gateway_database
    from gateway.store.keys import KeyStore

    database = open_gateway_database(settings)
    try:
        return Keys(KeyStore(database)).list()
    finally:
        database.close()


def _active(keys: Iterable[Key]) -> list[Key]:
    from gateway.api.described import state

    return [key for key in keys if state(key) == "active"]


def _print_plan(changed: Iterable[Change], keys: list[dict[str, Any]]) -> None:
    changed = list(changed)
    if not changed:
        click.echo("Nothing would change.")
        return
    for change in changed:
        click.echo(f"{_SIGNS[change.change]} {change.kind} '{change.name}'")
        for field in change.fields:
            click.echo(f"    {field.said()}")
    if not keys:
        click.echo("No stored key may call a route that would change.")
        return
    click.echo("Keys that may call what would change:")
    for key in keys:
        click.echo(f"  {key['id']} ({key['name']}): {', '.join(key['routes'])}")


def _from_server(server: str | None, settings: Settings, asked: dict[str, str]) -> dict[str, Any] | None:
    """What a running server says; None where none runs here. Raises where one refuses."""
    url = (server or here(settings)).rstrip("/")
    request = urllib.request.Request(f"{url}/admin/explain?{urlencode(asked)}")  # noqa: S310 - an address of the operator's
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--server: '{url}' must begin with http:// or https://.")
    if settings.admin_key is not None:
        request.add_header("authorization", f"Bearer {settings.admin_key.get_secret_value()}")
    # Not through a proxy of the environment: the admin key goes to the server alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except urllib.error.HTTPError as error:
        raise NotFound(f"{url} refuses to explain: {_message(error)}") from None
    except (OSError, ValueError) as error:
        if server is None and isinstance(error, OSError):
            return None
        raise Overloaded(f"{url} does not answer as a Promptyard server.") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"


def _from_file(settings: Settings, model: str, key: str | None, task: str | None, user: str | None) -> dict[str, Any]:
    from gateway import reload
    from gateway.explain import Question, explain, find_key
    from gateway.keys import ADMIN
    from gateway.plane import Plane
    from gateway.providers.make import make
    from gateway.providers.transport import Transport

    reading, transport = reload.read(settings.config), Transport()
    plane = Plane(reading.config, reading.version, lambda spec: make(spec, transport))
    asking = ADMIN if key is None else find_key(_keys(settings), key)
    return asyncio.run(explain(plane.current, None, asking, Question(model, task, user)))


def _print_explanation(told: dict[str, Any]) -> None:
    by = "as the running server stands" if told["live"] else "by the file alone: no server was asked"
    click.echo(f"A call of '{told['key']['name']}' to '{told['model']}' ({by}, version {told['version']})")
    width = max(len(rule["rule"]) for rule in told["rules"])
    for rule in told["rules"]:
        click.echo(f"  {_PASSES[rule['passes']]:2}  {rule['rule']:{width}}  {rule['says']}")
    for title, rows, name in (("Deployments", told["deployments"], "deployment"), ("Then", told["fallbacks"], "route")):
        if rows:
            click.echo(f"{title}:")
        for row in rows:
            place = "" if name == "route" else f"{row['asked'] or '-'}  "
            click.echo(f"  {place}{row[name]}: {row['says']}")
    refused = [rule["rule"] for rule in told["rules"] if rule["passes"] is False]
    click.echo(f"{told['answers']} would be asked first." if told["answers"] else f"Refused by: {', '.join(refused)}.")
