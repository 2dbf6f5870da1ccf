"""The lab's tables: those that older versions left become those of the code, on both databases."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.ports import Database
from promptlab.store import (
    migrations,
    schema_datasets,
    schema_inputs,
    schema_logged_models,
    schema_registry,
    schema_traces,
    schema_webhooks,
)

#: The tables that each step added.
ADDED: dict[int, tuple[sa.Table, ...]] = {
    2: schema_registry.TABLES,
    3: schema_datasets.TABLES,
    4: schema_webhooks.TABLES,
    5: schema_traces.TABLES,
    6: (*schema_inputs.TABLES, *schema_logged_models.TABLES),
}


_SQL = {
    "sqlite": "SELECT name, sql FROM sqlite_master",
    "postgresql": """
        SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT conname || conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint""",
}


def described(database: Database) -> dict[str, str]:
    """Every table and index as the database itself describes it."""
    with database.read() as connection:
        return {row[0]: row[1] for row in connection.exec_driver_sql(_SQL[database.dialect])}


def test_the_first_versions_tables_become_those_of_the_code(database: Database) -> None:
    migrations.migrate(database)
    fresh = described(database)
    for _, tables in sorted(ADDED.items(), reverse=True):
        for table in reversed(tables):
            database.write(lambda connection, table=table: table.drop(connection))
    database.write(lambda connection: connection.exec_driver_sql("UPDATE schema_versions SET version = 1"))
    assert described(database).keys() < fresh.keys()
    migrations.migrate(database)
    assert described(database) == fresh
    assert set(ADDED) == {step.version for step in migrations.STEPS}
