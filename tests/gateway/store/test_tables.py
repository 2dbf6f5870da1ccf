"""The gateway's tables are in the database as they are in the code, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.database import Database, open_database
from gateway.errors import ConfigError
from gateway.store import migrations
from gateway.store.tables import metadata


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()


def shown(kind: str) -> str:
    """PostgreSQL's own name for FLOAT is another."""
    return "FLOAT" if kind.startswith("DOUBLE PRECISION") else kind


def described(database: Database) -> dict[str, object]:
    """Every table of ours as the database itself describes it."""
    kind = sqlite.dialect() if database.dialect == "sqlite" else postgresql.dialect()
    with database.read() as connection:
        inspector = sa.inspect(connection)
        return {
            table: (
                [
                    (column["name"], shown(column["type"].compile(kind)), column["nullable"])
                    for column in inspector.get_columns(table)
                ],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted(tuple(index["column_names"]) for index in inspector.get_indexes(table) if not index["unique"]),
                sorted(tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(table)),
            )
            for table in inspector.get_table_names()
            if table != "schema_versions"
        }


def wanted(database: Database) -> dict[str, object]:
    """The same of the code."""
    kind = sqlite.dialect() if database.dialect == "sqlite" else postgresql.dialect()
    return {
        table.name: (
            [(column.name, column.type.compile(kind), bool(column.nullable)) for column in table.columns],
            [column.name for column in table.primary_key],
            sorted(tuple(column.name for column in index.columns) for index in table.indexes),
            sorted((column.name,) for column in table.columns if column.unique),
        )
        for table in metadata.tables.values()
    }


#: What each step added: of a table these columns, or the whole of it.
ADDED: dict[int, dict[str, list[str]]] = {
    2: {"gateway_usage": ["final"]},
    3: {
        "gateway_usage": ["fallback", "attempt"],
        "gateway_keys": ["max_budget", "budget_duration"],
        "gateway_journals": ["open_segment", "open_offset"],
    },
    4: {"gateway_usage_days": []},
    5: {"gateway_keys": ["denied", "tags", "metadata", "blocked_at", "hash_before", "hash_before_until"]},
    6: {
        "gateway_keys": ["team_id"],
        "gateway_usage": ["team_id", "organisation_id"],
        "gateway_tenants": [],
    },
    7: {"gateway_keys": ["rpd", "tpd"]},
    8: {"gateway_audit": []},
    9: {
        "gateway_keys": ["user_limits"],
        "gateway_tenants": ["user_limits"],
        "gateway_usage": ["end_user"],
        "gateway_usage_users": [],
    },
    10: {"gateway_keys": ["soft_budget"], "gateway_tenants": ["soft_budget"], "gateway_alerts": []},
    11: {"gateway_keys": ["fixed"], "gateway_tenants": ["fixed"]},
    13: {"gateway_usage": ["prompt"]},
}


def older(database: Database, version: int) -> None:
    """Take back what was added since `version`."""
    # SQLite lets no column go that an index is of.
    undo = [f"UPDATE schema_versions SET version = {version}", "DROP INDEX gateway_usage_user"]
    undo += [f"DROP INDEX gateway_usage_days_{name}" for name in ("key", "team", "organisation")]
    for step, tables in sorted(ADDED.items(), reverse=True):
        for table, columns in tables.items() if step > version else ():
            undo += [f"ALTER TABLE {table} DROP COLUMN {one}" for one in columns] or [f"DROP TABLE {table}"]
    for one in undo:
        database.write(lambda connection, one=one: connection.exec_driver_sql(one))


def test_a_fresh_database_has_the_tables_of_the_code(database: Database) -> None:
    migrations.migrate(database)
    fresh = described(database)
    assert fresh == wanted(database)
    migrations.migrate(database)
    assert described(database) == fresh


def test_the_first_versions_tables_become_those_of_the_code(database: Database) -> None:
    migrations.migrate(database)
    older(database, 1)
    assert described(database) != wanted(database)
    migrations.migrate(database)
    assert described(database) == wanted(database)


def test_tables_of_somebody_else_are_left_alone(database: Database) -> None:
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE gateway_usage (mine INTEGER)"))
    with pytest.raises(ConfigError, match="gateway_usage"):
        migrations.migrate(database)
    assert list(described(database)) == ["gateway_usage"]


def test_tables_of_a_newer_promptyard_are_left_alone(database: Database) -> None:
    migrations.migrate(database)
    database.write(lambda connection: connection.exec_driver_sql("UPDATE schema_versions SET version = 99"))
    with pytest.raises(ConfigError, match="99"):
        migrations.migrate(database)
