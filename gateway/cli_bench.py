"""`promptyard bench`: what this server does a second on this machine."""

from __future__ import annotations

import json
import signal
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.bench.report import Figures

_SECONDS = 4.0


@click.command("bench")
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 600),
    default=_SECONDS,
    show_default=True,
    help="Length of one load",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def bench_command(seconds: float, as_json: bool) -> None:
    """Measure this server on this machine, against a stand-in provider.

    Both run on free loopback ports in a temporary folder, and end with this command: nothing of yours is touched.
    """
    from gateway.bench import run  # nobody else needs it
    from gateway.bench.process import Unavailable
    from gateway.bench.report import DIRECT, OURS, as_table, machine, rows

    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="promptyard-bench-") as folder:
        try:
            figures = run.measured(Path(folder), seconds, lambda what: click.echo(what, err=True))
        except Unavailable as reason:
            raise ConfigError(f"This cannot be measured here: {reason}") from None
    if as_json:
        click.echo(json.dumps(_document(figures, machine()), indent=2))
        return
    servers = [OURS, DIRECT]
    click.echo(f"{machine()}. {run.SAID}\n")
    click.echo(as_table(["figure", *servers], rows(figures, servers)))
    click.echo("\nMLflow's gateway and LiteLLM's proxy beside it: `make bench` in the sources, which installs them.")


def _document(figures: Figures, machine: str) -> dict[str, object]:
    measured = [
        {
            "what": name,
            "server": server,
            "median": statistics.median(values),
            "invalid": figures.wrong.get((name, server)),
        }
        for (name, server), values in figures.samples.items()
    ]
    return {"machine": machine, "figures": measured}


def _leave(_number: int, _frame: object) -> NoReturn:
    # An exception, so that what was started is ended on the way out.
    raise KeyboardInterrupt
