"""What commands share that look into a data folder: its options, and the database in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
