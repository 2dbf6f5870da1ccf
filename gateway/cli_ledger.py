"""`promptyard ledger`: check the books, and take them elsewhere."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TextIO

import click

from gateway.cli_data import data_option, json_option, opened
from gateway.errors import BadRequest, ConfigError


@click.group("ledger")
def ledger_command() -> None:
    """Check and export usage records, with or without a running server."""


@ledger_command.command("check")
@data_option
@json_option
def check(data: Path | None, as_json: bool) -> None:
    """Add up every line anew. Exit code 1 where a sum is another, or an attempt was recorded twice."""
    from gateway.store.usage import UsageStore

    with opened(data) as database:
        store = UsageStore(database)
        lines, wrong = store.count(), store.check()
    if as_json:
        click.echo(json.dumps({"lines": lines, "differences": wrong}))
    else:
        for one in wrong:
            click.echo(one)
        click.echo(f"{lines} lines: {len(wrong)} differences." if wrong else f"{lines} lines: all adds up.", err=True)
    if wrong:
        click.get_current_context().exit(1)


@ledger_command.command("export")
@click.option("--since", help="ISO date or time (UTC), inclusive")
@click.option("--until", help="ISO date or time (UTC), exclusive")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file [default: print]")
@click.option("--csv/--parquet", "as_csv", default=True, help="As what  [default: csv]")
@data_option
def export(since: str | None, until: str | None, output: Path | None, as_csv: bool, data: Path | None) -> None:
    """Every line, oldest first: times are UTC epoch seconds, costs whole nano-dollars."""
    from gateway.api import described

    try:
        between = described.moment(since, "since"), described.moment(until, "until")
    except BadRequest as error:
        raise click.BadParameter(error.message, param_hint=f"--{error.param}") from None
    if not as_csv:
        if output is None:
            raise click.BadParameter("Parquet is written to a file: name it with --output.", param_hint="--parquet")
        _export_parquet(output, data, *between)
    elif output is None:
        _export_csv(sys.stdout, data, *between)
    else:
        with output.open("w", encoding="utf-8", newline="") as file:
            _export_csv(file, data, *between)


def _export_csv(file: TextIO, data: Path | None, since: float | None, until: float | None) -> None:
    from gateway.store.usage import COLUMNS, UsageStore

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    with opened(data) as database:
        for page in UsageStore(database).pages(since, until):
            writer.writerows(page)


def _export_parquet(output: Path, data: Path | None, since: float | None, until: float | None) -> None:
    """A group of rows for each page, so that no more than one is in memory."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("Parquet needs the package pyarrow: pip install pyarrow.") from None
    from gateway.store.usage import COLUMNS, TYPES, UsageStore

    kinds = {int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_(), str: arrow.string()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in zip(COLUMNS, TYPES, strict=True)])
    with opened(data) as database, parquet.ParquetWriter(output, schema) as writer:
        for page in UsageStore(database).pages(since, until):
            by_column = zip(zip(*page, strict=True), schema, strict=True)
            columns = [arrow.array(values, field.type) for values, field in by_column]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
