"""The history of the gateway's tables. A new step is appended here and the change made in `tables.py` too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Text, text, true

from gateway.database import Database
from gateway.store import tables, usage_days
from gateway.store.tables import metadata

if TYPE_CHECKING:
    from alembic.operations import Operations


@dataclass(frozen=True)
class _Step:
    version: int
    apply: Callable[[Operations], None]


def _attempts(operations: Operations) -> None:
    """Usage of attempts that did not become their call's answer."""
    operations.add_column("gateway_usage", Column("final", Boolean, nullable=False, server_default=true()))


def _budgets(operations: Operations) -> None:
    """Budgets of keys; which route's budget an attempt was spent of; attempts that were begun and not settled."""
    operations.add_column("gateway_keys", Column("max_budget", BigInteger))
    operations.add_column("gateway_keys", Column("budget_duration", String(8)))
    operations.add_column("gateway_usage", Column("fallback", String(200)))
    operations.add_column("gateway_usage", Column("attempt", Integer, nullable=False, server_default=text("0")))
    operations.add_column("gateway_journals", Column("open_segment", BigInteger))
    operations.add_column("gateway_journals", Column("open_offset", BigInteger))


def _days(operations: Operations) -> None:
    """Usage by days. The step that gave the table its present form sums the lines there are."""
    tables.usage_days.create(operations.get_bind())


def _rotation(operations: Operations) -> None:
    """Keys that change: denied routes, notes, blocking, and the secret before."""
    for name in ("denied", "tags", "metadata"):
        operations.add_column("gateway_keys", Column(name, Text))
    operations.add_column("gateway_keys", Column("blocked_at", Float))
    operations.add_column("gateway_keys", Column("hash_before", String(64)))
    operations.add_column("gateway_keys", Column("hash_before_until", Float))


def _tenancy(operations: Operations) -> None:
    """Teams and organisations, and their usage by days."""
    operations.create_table(
        "gateway_tenants",
        Column("id", String(32), primary_key=True),
        Column("kind", String(16), nullable=False),
        Column("name", String(200), nullable=False),
        Column("organisation_id", String(32)),
        *(Column(name, Text) for name in ("routes", "denied")),
        *(Column(name, Integer) for name in ("rpm", "tpm", "concurrency")),
        Column("max_budget", BigInteger),
        Column("budget_duration", String(8)),
        Column("created_at", Float, nullable=False),
        Column("blocked_at", Float),
    )
    operations.add_column("gateway_keys", Column("team_id", String(32)))
    for name in ("team_id", "organisation_id"):
        operations.add_column("gateway_usage", Column(name, String(32), nullable=False, server_default=""))


def _daily(operations: Operations) -> None:
    """Limits a day, and how many calls were refused. Days are summed anew: no step before needs them."""
    connection = operations.get_bind()
    for table in ("gateway_keys", "gateway_tenants"):
        for name in ("rpd", "tpd"):
            operations.add_column(table, Column(name, Integer))
    tables.usage_days.drop(connection)
    tables.usage_days.create(connection)
    usage_days.rebuild(connection)


def _audit(operations: Operations) -> None:
    """Who did what."""
    tables.audit.create(operations.get_bind())


def _users(operations: Operations) -> None:
    """End users: their limits, and their usage. No line before names one."""
    for table in ("gateway_keys", "gateway_tenants"):
        operations.add_column(table, Column("user_limits", Text))
    operations.add_column("gateway_usage", Column("end_user", String(200), nullable=False, server_default=""))
    tables.usage_by_user.create(operations.get_bind())
    tables.usage_users.create(operations.get_bind())


def _alerts(operations: Operations) -> None:
    """Soft budgets, and who was told of them."""
    for table in ("gateway_keys", "gateway_tenants"):
        operations.add_column(table, Column("soft_budget", BigInteger))
    tables.alerts.create(operations.get_bind())


def _fixed(operations: Operations) -> None:
    """Minutes that are the clock's."""
    for table in ("gateway_keys", "gateway_tenants"):
        operations.add_column(table, Column("fixed", Boolean))


def _owners(operations: Operations) -> None:
    """What one key or tenant used is found without reading everybody's."""
    for index in tables.usage_owners:
        # Where the step that sums days has just made their table, it has them.
        index.create(operations.get_bind(), checkfirst=True)


def _prompts(operations: Operations) -> None:
    """Which version of a prompt answered."""
    operations.add_column("gateway_usage", Column("prompt", String(300), nullable=False, server_default=""))


STEPS: Sequence[_Step] = (
    _Step(2, _attempts),
    _Step(3, _budgets),
    _Step(4, _days),
    _Step(5, _rotation),
    _Step(6, _tenancy),
    _Step(7, _daily),
    _Step(8, _audit),
    _Step(9, _users),
    _Step(10, _alerts),
    _Step(11, _fixed),
    _Step(12, _owners),
    _Step(13, _prompts),
)


def migrate(database: Database) -> None:
    """Bring the gateway's tables to their newest version."""
    database.migrate("gateway", metadata, STEPS)
