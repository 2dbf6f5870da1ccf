"""What commands share that look into a data folder: its options, the database in it, and how tables are printed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import ConfigError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.database import Database

data_option = click.option("--data", type=click.Path(path_type=Path), help="Data folder [default: ./data]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON")


@contextmanager
def opened(data: Path | None) -> Iterator[Database]:
    """The gateway's database in a data folder, or where the settings say."""
    from gateway.server import open_gateway_database

    settings = Settings.load(data=data)
    if settings.database_url is None:
        make_folder(settings.data)
    database = open_gateway_database(settings)
    try:
        yield database
    finally:
        database.close()


def make_folder(data: Path) -> None:
    """Make the data folder, or say why it cannot be used."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        why = None if os.access(data, os.R_OK | os.W_OK | os.X_OK) else "not writable"
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise ConfigError(f"--data: '{data}' cannot be the data folder ({why}). Name another with --data.")


def here(settings: Settings) -> str:
    """The address of the server that these settings start on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - it is asked, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def names(text: str) -> list[str]:
    """Names from a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def cell(column: str, value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "all" if column == "routes" else "-"
    if column == "expires_at":
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))
    if column == "cost_usd":
        return f"{value:.6f}"
    return ",".join(value) if isinstance(value, list) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print `rows` under `columns`."""
    lines = [list(columns), *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
