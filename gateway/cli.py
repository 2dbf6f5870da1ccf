"""The command line: `promptyard serve | check | plan | explain | import | keys | usage | ledger | schema | bench`."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway import config as configuration
from gateway import settings as environment
from gateway.cli_bench import bench_command
from gateway.cli_data import data_option, json_option, make_folder, opened
from gateway.cli_import import import_command
from gateway.cli_ledger import ledger_command
from gateway.cli_plan import explain_command, plan_command
from gateway.errors import BadRequest, ConfigError, GatewayError
from gateway.routes import Budget, Config, Limits
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.keys import Keys

# The process is a little older than this line; on Linux the kernel knows by how much.
_IMPORTED = time.time()
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """Commands whose refusals are one message on stderr and exit code 1, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GatewayError as error:
            click.echo(error.message, err=True)
            context.exit(1)
        except OSError as error:
            if error.filename is None:  # not about a file: click's own (a closed pipe), or a fault of ours
                raise
            click.echo(f"{error.filename}: {error.strerror}.", err=True)
            context.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(installed("promptyard"), prog_name="promptyard", message="%(prog)s %(version)s")
def main() -> None:
    """An LLM gateway and a prompt workbench in one process."""


@main.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="The file of providers and routes [default: routes.yaml]"
)
@click.option("--host", help="Address to listen on [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on [default: 4000]")
@data_option
@click.option("--no-lab", is_flag=True, help="Leave the lab out")
def serve(config: Path | None, host: str | None, port: int | None, data: Path | None, no_lab: bool) -> None:
    """Serve gateway, tracking and lab until Ctrl-C."""
    # A stop while we still start is a good end too. uvicorn takes over, and hands the signal back in the end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    settings = Settings.load(config=config, host=host, port=port, data=data, lab=False if no_lab else None)
    from gateway import reload

    reading = reload.read(settings.config)
    make_folder(settings.data)
    from gateway import server_process

    server_process.run(settings, reading, installed("promptyard"), _began())


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@data_option
@json_option
def check(file: Path | None, data: Path | None, as_json: bool) -> None:
    """Say whether a routes.yaml can be served, and all that is wrong with it."""
    try:
        settings, understood = _understood(file, data)
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"problems": [dataclasses.asdict(problem) for problem in error.problems]}))
        raise SystemExit(1) from None
    routes = {name: [one.id for one in route.deployments] for name, route in understood.routes.items()}
    if as_json:
        click.echo(
            json.dumps({"file": str(settings.config), "providers": list(understood.providers), "routes": routes})
        )
        return
    click.echo(f"{settings.config} is good: {len(understood.providers)} providers, {len(routes)} routes.")
    for name, deployments in routes.items():
        click.echo(f"  {name}: {', '.join(deployments)}")


def _understood(file: Path | None, data: Path | None) -> tuple[Settings, Config]:
    settings = Settings.load(config=file, data=data)
    understood = configuration.load(settings.config, environment.environment())
    from gateway.prices import PriceTable

    PriceTable.load(settings.config.parent, environment.price_map_file())
    return settings, understood


for command in (bench_command, import_command, plan_command, explain_command, ledger_command):
    main.add_command(command)


@main.command()
def schema() -> None:
    """Print the JSON Schema of routes.yaml, for editors."""
    click.echo(json.dumps(configuration.schema(), indent=2))


@main.group()
def keys() -> None:
    """Make, list and revoke virtual keys, with or without a running server."""


@keys.command("create")
@click.option("--name", required=True, help="Whose key it is")
@click.option("--routes", help="Routes it may call, comma-separated [default: all]")
@click.option("--rpm", type=click.IntRange(1, 2**31 - 1), help="Requests a minute")
@click.option("--tpm", type=click.IntRange(1, 2**31 - 1), help="Tokens a minute")
@click.option("--concurrency", type=click.IntRange(1, 2**31 - 1), help="Calls at once")
@click.option("--max-budget", metavar="USD", help="What it may spend")
@click.option("--budget-duration", metavar="TIME", help="In which it may: 1h, 1d, 30d, 1mo [default: for ever]")
@click.option("--expires", help="Valid for: 30d, 12h, 15m")
@click.option("--scopes", default="inference,tracking", show_default=True, help="Of: inference, tracking, admin")
@data_option
@json_option
def create_key(
    name: str,
    routes: str | None,
    rpm: int | None,
    tpm: int | None,
    concurrency: int | None,
    max_budget: str | None,
    budget_duration: str | None,
    expires: str | None,
    scopes: str,
    data: Path | None,
    as_json: bool,
) -> None:
    """Make a key. Its secret is shown this once."""
    from gateway.api.described import key as described

    allowed = None if routes is None else _names(routes)
    opened = _scopes(scopes)
    valid = None if expires is None else _seconds(expires)
    budget = _budget(max_budget, budget_duration)
    with _keys(data) as ring:
        limits = Limits(rpm, tpm, concurrency, budget)
        key, secret = ring.create(name, scopes=opened, routes=allowed, limits=limits, expires_in=valid)
    if as_json:
        click.echo(json.dumps({**described(key), "key": secret}))
        return
    click.echo(secret)
    click.echo(f"{key.id} ({key.name}). This is the only time the key is shown.", err=True)


def _budget(usd: str | None, duration: str | None) -> Budget | None:
    from gateway.keys import budget

    try:
        return budget(usd, duration)
    except BadRequest as error:
        hint = f"--{(error.param or '').replace('_', '-')}"
        raise click.BadParameter(error.message, param_hint=hint) from None


@keys.command("list")
@data_option
@json_option
def list_keys(data: Path | None, as_json: bool) -> None:
    """List every key, without secrets."""
    from gateway.api.described import key as described

    with _keys(data) as ring:
        rows = [described(key) for key in ring.list()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("There are no keys yet. `promptyard keys create --name NAME` makes one.")
        return
    columns = ("id", "name", "state", "scopes", "routes", "rpm", "tpm", "concurrency", "max_budget", "expires_at")
    _table(columns, [[_cell(column, row[column]) for column in columns] for row in rows])


@keys.command("revoke")
@click.argument("key_id")
@data_option
@json_option
def revoke_key(key_id: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key by its id. Running servers refuse it within a second."""
    with _keys(data) as ring:
        ring.revoke(key_id)
    click.echo(json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked.")


@main.command()
@click.option("--by", default="key,route,day", show_default=True, help="Group by: key, key_id, route, deployment, day")
@click.option("--since", help="ISO date or time (UTC), inclusive")
@click.option("--until", help="ISO date or time (UTC), exclusive")
@data_option
@json_option
def usage(by: str, since: str | None, until: str | None, data: Path | None, as_json: bool) -> None:
    """Sum calls, tokens and cost."""
    from gateway.api import described
    from gateway.store.usage import UsageStore
    from gateway.types import UsageFilter

    try:
        groups = described.groups(by)
        only = UsageFilter(described.moment(since, "since"), described.moment(until, "until"))
    except BadRequest as error:
        hint = "--by" if error.param == "group_by" else f"--{error.param}"
        raise click.BadParameter(error.message, param_hint=hint) from None
    with opened(data) as database:
        rows = [described.usage_sum(row) for row in UsageStore(database).sums(groups, only)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows or not rows[0]["calls"]:
        click.echo("No calls in that time." if since or until else "No calls yet.")
        return
    columns = [*groups, "calls", "failed", "input_tokens", "output_tokens", "cost_usd"]
    _table(columns, [[_cell(column, row[column]) for column in columns] for row in rows])


@contextmanager
def _keys(data: Path | None) -> Iterator[Keys]:
    from gateway.keys import Keys
    from gateway.store.keys import KeyStore

    with opened(data) as database:
        yield Keys(KeyStore(database))


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _began() -> float:
    """When this process was started, UTC epoch seconds."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return _IMPORTED
    return time.time() - (uptime - ticks / 100)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _scopes(text: str) -> list[Any]:
    from gateway.types import Scope

    known = [scope.value for scope in Scope]
    wrong = [name for name in _names(text) if name not in known]
    if wrong or not _names(text):
        raise click.BadParameter(f"'{', '.join(wrong)}' is none of {', '.join(known)}.", param_hint="--scopes")
    return [Scope(name) for name in _names(text)]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip().lower())
    if match is None or not int(match[1]):
        raise click.BadParameter(f"'{text}' is not a time such as 30d, 12h or 15m.", param_hint="--expires")
    return float(int(match[1]) * _UNITS[match[2]])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "all" if column == "routes" else "-"
    if column == "expires_at":
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))
    if column == "cost_usd":
        return f"{value:.6f}"
    return ",".join(value) if isinstance(value, list) else str(value)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
