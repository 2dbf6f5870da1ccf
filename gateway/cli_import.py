"""`promptyard import mlflow|litellm FILE`: another gateway's configuration as a `routes.yaml`."""

from __future__ import annotations

from pathlib import Path

import click

from gateway import config_yaml
from gateway.errors import ConfigError
from gateway.importers import litellm, mlflow, writing

_READERS = {"mlflow": mlflow.read, "litellm": litellm.read}


@click.command("import")
@click.argument("kind", type=click.Choice(list(_READERS)))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file [default: print it]")
@click.option("--force", is_flag=True, help="Replace the output file where it exists")
def import_command(kind: str, file: Path, output: Path | None, force: bool) -> None:
    """Turn FILE, the configuration of another gateway, into a routes.yaml.

    What cannot be said here is listed on stderr and stands as a comment where it belongs. Secrets are never copied.
    """
    document = config_yaml.read(file)
    if document.data is None and not document.problems:
        document.refuse((), "is empty.")
    if document.problems:
        raise ConfigError.of(document.problems)
    plan = _READERS[kind](document)
    text = writing.text(plan, f"Written by `promptyard import {kind} {file.name}`.")
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text, force)
    told = plan.told()
    if told:
        click.echo(f"Not all of {file} could be said here:", err=True)
        for line in told:
            click.echo(f"  {line}", err=True)
    if variables := plan.variables():
        click.echo(f"Set before you serve: {', '.join(variables)}.", err=True)


def _write(path: Path, text: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"'{path}' exists. --force replaces it.") from None
