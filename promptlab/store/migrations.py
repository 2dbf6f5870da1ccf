"""The history of the lab's tables. A new step is appended here and the change made in `schema.py` too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptlab.ports import Database, Migration
from promptlab.store import (
    schema,
    schema_datasets,
    schema_inputs,
    schema_logged_models,
    schema_registry,
    schema_traces,
    schema_webhooks,
)

if TYPE_CHECKING:
    from alembic.operations import Operations


def _registry(operations: Operations) -> None:
    """Registered models, their versions, tags and aliases."""
    schema.metadata.create_all(operations.get_bind(), tables=schema_registry.TABLES, checkfirst=False)


def _datasets(operations: Operations) -> None:
    """Evaluation datasets with their records, and scorers."""
    schema.metadata.create_all(operations.get_bind(), tables=schema_datasets.TABLES, checkfirst=False)


def _webhooks(operations: Operations) -> None:
    """Webhooks, and what is on its way to them."""
    schema.metadata.create_all(operations.get_bind(), tables=schema_webhooks.TABLES, checkfirst=False)


def _traces(operations: Operations) -> None:
    """Traces with their spans, and assessments."""
    schema.metadata.create_all(operations.get_bind(), tables=schema_traces.TABLES, checkfirst=False)


def _models(operations: Operations) -> None:
    """Logged models, and what runs read and made."""
    tables = (*schema_inputs.TABLES, *schema_logged_models.TABLES)
    schema.metadata.create_all(operations.get_bind(), tables=tables, checkfirst=False)


STEPS: Sequence[Migration] = (
    *(Migration(2, _registry), Migration(3, _datasets), Migration(4, _webhooks)),
    *(Migration(5, _traces), Migration(6, _models)),
)


def migrate(database: Database) -> None:
    """Bring the lab's tables to their newest version."""
    database.migrate("lab", schema.metadata, STEPS)
