"""What this package asks of whoever composes it. Nothing here knows how it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection, MetaData

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a schema's history. `version` counts from 2: version 1 is what `create_all` made first."""

    version: int
    apply: Callable[[Operations], None]


class Database(Protocol):
    """A SQL database, SQLite or PostgreSQL, as the stores use it. Safe to call from any thread."""

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""

    def read(self) -> AbstractContextManager[Connection]:
        """A connection to read with, in a transaction of its own that sees every answered write."""

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result once it is durable.

        On SQLite one thread runs all writers and commits them in groups; a `work` that
        raises is rolled back alone and its error reaches its caller only.
        """

    def migrate(self, component: str, metadata: MetaData, steps: Sequence[Migration]) -> None:
        """Bring `component`'s tables to their newest version: all made at once when new, else step by step."""

    def close(self) -> None:
        """Finish what was begun and close every connection."""
