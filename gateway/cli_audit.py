"""`promptyard audit`: who did what, and whether nobody has changed what it says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from gateway.cli_data import data_option, json_option, opened, table

_COLUMNS = ("id", "time", "by", "action", "subject", "detail")


@click.group("audit")
def audit_command() -> None:
    """Who did what to keys, teams and the configuration."""


@audit_command.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many, the newest first"
)
@data_option
@json_option
def list_lines(limit: int, data: Path | None, as_json: bool) -> None:
    """Print lines, the newest first."""
    from gateway.api.described import audit_line
    from gateway.store.audit import AuditStore

    with opened(data) as database:
        rows = [audit_line(one) for one in AuditStore(database).newest(limit)]
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        table(_COLUMNS, [[_cell(column, row[column]) for column in _COLUMNS] for row in rows])
    else:
        click.echo("Nothing was done yet.")


@audit_command.command("verify")
@click.option("--seal", metavar="HEX", help="A last seal that was kept elsewhere: it must still be there")
@data_option
@json_option
def verify(seal: str | None, data: Path | None, as_json: bool) -> None:
    """Seal every line anew. Exit code 1 where one is not what was written, or the given seal is gone."""
    from gateway import audit
    from gateway.store.audit import AuditStore

    with opened(data) as database:
        store = AuditStore(database)
        verdict = audit.verify(store)
        held = seal is None or audit.holds(store, seal)
    if as_json:
        click.echo(json.dumps({**verdict._asdict(), "seal_held": held}))
    elif verdict.broken is not None:
        click.echo(f"Line {verdict.broken} is not what was written, or one before it was taken out.")
    elif not held:
        click.echo("The seal is not there: lines were cut off since it was kept.")
    else:
        click.echo(f"{verdict.lines} lines: all as they were written. The last seal is {verdict.last}.")
    if verdict.broken is not None or not held:
        click.get_current_context().exit(1)


def _cell(column: str, value: Any) -> str:
    if column == "time":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value))
    return json.dumps(value) if column == "detail" else str(value)
