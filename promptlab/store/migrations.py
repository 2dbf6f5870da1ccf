"""The history of the lab's tables. A new step is appended here and the change made in `schema.py` too."""

from __future__ import annotations

from collections.abc import Sequence

from promptlab.ports import Database, Migration
from promptlab.store import schema

STEPS: Sequence[Migration] = ()


def migrate(database: Database) -> None:
    """Bring the lab's tables to their newest version."""
    database.migrate("lab", schema.metadata, STEPS)
