"""The command line: `promptyard serve | check | plan | explain | import | keys | teams | usage | ledger | …`."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, TypeVar

import click

from gateway import config as configuration
from gateway import settings as environment
from gateway.cli_audit import audit_command
from gateway.cli_bench import bench_command
from gateway.cli_data import cell, data_option, json_option, make_folder, opened, table
from gateway.cli_eval import eval_command
from gateway.cli_import import import_command
from gateway.cli_keys import keys_command
from gateway.cli_ledger import ledger_command
from gateway.cli_plan import explain_command, plan_command
from gateway.cli_tenants import organisations_command, teams_command
from gateway.errors import BadRequest, ConfigError, GatewayError
from gateway.routes import Config
from gateway.settings import Settings

# The process is a little older than this line; on Linux the kernel knows by how much.
_IMPORTED = time.time()
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
@click.option("--workers", type=int, help="Processes that answer calls; more than one needs a Redis [default: 1]")
def serve(no_lab: bool, **flags: object) -> None:
    """Serve gateway, tracking and lab until Ctrl-C."""
    # A stop while we still start is a good end too. uvicorn takes over, and hands the signal back in the end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    settings = Settings.load(None, lab=False if no_lab else None, **flags)
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


_PARTS = (audit_command, bench_command, eval_command, import_command, plan_command, explain_command, ledger_command)
for command in (*_PARTS, keys_command, teams_command, organisations_command):
    main.add_command(command)


@main.command()
def schema() -> None:
    """Print the JSON Schema of routes.yaml, for editors."""
    click.echo(json.dumps(configuration.schema(), indent=2))


@main.command()
@click.option(
    "--by",
    default="key,route,day",
    show_default=True,
    help="Group by: organisation, team, key, key_id, user, route, deployment, day",
)
@click.option("--since", help="ISO date or time (UTC), inclusive")
@click.option("--until", help="ISO date or time (UTC), exclusive")
@click.option("--user", help="Only of this end user")
@data_option
@json_option
def usage(by: str, since: str | None, until: str | None, user: str | None, data: Path | None, as_json: bool) -> None:
    """Sum calls, tokens and cost."""
    from gateway.api import described
    from gateway.store.usage import UsageStore
    from gateway.types import UsageFilter

    try:
        groups = described.groups(by)
        only = UsageFilter(described.moment(since, "since"), described.moment(until, "until"), end_user=user)
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
    table(columns, [[cell(column, row[column]) for column in columns] for row in rows])


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


if __name__ == "__main__":
    main()
