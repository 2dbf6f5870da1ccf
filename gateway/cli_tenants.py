"""`promptyard teams` and `promptyard organisations`: what keys share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli_data import cell, data_option, json_option, opened, table
from gateway.cli_said import ALLOWED, options, refusals, said

if TYPE_CHECKING:
    from gateway.owners import Tenant
    from gateway.tenants import Tenants

_COLUMNS = ("id", "name", "state", "routes", "rpm", "tpm", "concurrency", "max_budget")
_IN = click.option("--organisation", metavar="ID", help="The organisation it is in")


@click.group("teams")
def teams_command() -> None:
    """Make, change and block teams, whose keys share limits and a budget."""


@click.group("organisations")
def organisations_command() -> None:
    """Make, change and block organisations, whose teams share limits and a budget."""


def _add_commands(group: click.Group, kind: str, about: str, *terms: Callable[[Any], Any]) -> None:
    @group.command("create", help=about)
    @click.option("--name", required=True, help="What it is called")
    @options(*ALLOWED, *terms, data_option, json_option)
    def create(name: str, data: Path | None, as_json: bool, **given: Any) -> None:
        from gateway.api.said import limits, named, tenant_terms
        from gateway.owners import TenantKind

        wanted = said(given)
        with refusals():
            limits(wanted)  # before there is a data folder
            with _opened(data) as tenants:
                made = tenants.create(TenantKind(kind), name, **tenant_terms(named(wanted, tenants)))
        _show(made, as_json, "is made")

    @group.command("update", help="Change one: what is not named stays as it is, `none` takes a limit away.")
    @click.argument("tenant_id", metavar="ID")
    @click.option("--name", help="What it is called")
    @options(*ALLOWED, *terms, data_option, json_option)
    def update(tenant_id: str, data: Path | None, as_json: bool, **given: Any) -> None:
        _change(kind, tenant_id, said(given), data, as_json, "is changed")

    @group.command("block", help="Refuse all its keys until it is unblocked. Running servers do within a second.")
    @click.argument("tenant_id", metavar="ID")
    @options(data_option, json_option)
    def block(tenant_id: str, data: Path | None, as_json: bool) -> None:
        _change(kind, tenant_id, {"blocked": True}, data, as_json, "is blocked")

    @group.command("unblock", help="Let its keys in again.")
    @click.argument("tenant_id", metavar="ID")
    @options(data_option, json_option)
    def unblock(tenant_id: str, data: Path | None, as_json: bool) -> None:
        _change(kind, tenant_id, {"blocked": False}, data, as_json, "is let in again")

    @group.command("list", help="List all of them.")
    @options(data_option, json_option)
    def list_all(data: Path | None, as_json: bool) -> None:
        from gateway.api.described import tenant as described
        from gateway.owners import TenantKind

        with _opened(data) as tenants:
            rows = [described(one) for one in tenants.list(TenantKind(kind))]
        columns = ("organisation_id", *_COLUMNS) if terms else _COLUMNS
        if as_json:
            click.echo(json.dumps(rows))
        elif rows:
            table(columns, [[cell(column, row[column]) for column in columns] for row in rows])
        else:
            click.echo(f"There are no {kind}s yet. `promptyard {kind}s create --name NAME` makes one.")


_add_commands(teams_command, "team", "Make one. `promptyard keys update KEY_ID --team ID` puts a key into it.", _IN)
_add_commands(
    organisations_command,
    "organisation",
    "Make one. `promptyard teams update ID --organisation ID` puts a team in.",
)


def _change(kind: str, tenant_id: str, wanted: dict[str, Any], data: Path | None, as_json: bool, what: str) -> None:
    from gateway.api.said import named, tenant_terms
    from gateway.owners import TenantKind

    with _opened(data) as tenants, refusals():
        found = named(wanted, tenants)
        changed = tenants.change(TenantKind(kind), tenant_id, lambda one: tenant_terms(found, one))
    _show(changed, as_json, what)


@contextmanager
def _opened(data: Path | None) -> Iterator[Tenants]:
    from gateway.store.tenants import TenantStore
    from gateway.tenants import Tenants

    with opened(data) as database:
        yield Tenants(TenantStore(database), lambda: None)


def _show(tenant: Tenant, as_json: bool, what: str) -> None:
    from gateway.api.described import tenant as described

    click.echo(json.dumps(described(tenant)) if as_json else f"{tenant.id} ({tenant.name}) {what}.")
