"""The history of the gateway's tables. A new step is appended here and the change made in `tables.py` too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Boolean, Column, true

from gateway.database import Database
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


STEPS: Sequence[_Step] = (_Step(2, _attempts),)


def migrate(database: Database) -> None:
    """Bring the gateway's tables to their newest version."""
    database.migrate("gateway", metadata, STEPS)
