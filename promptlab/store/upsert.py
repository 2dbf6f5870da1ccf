"""Insert-or-leave and insert-or-replace, which SQLAlchemy spells once for each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[Mapping[str, Any]]


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_new(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that does nothing where a unique value is taken already."""
    return _insert(connection, table).on_conflict_do_nothing()


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
    """Insert those of `rows` whose primary key is not there yet."""
    if rows:
        connection.execute(insert_new(connection, table), rows)


def insert_or_replace(connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
    """Insert `rows`; where the primary key is there already, its other columns take the new values."""
    insert_or_replace_by(connection, table, [column.name for column in table.primary_key], rows)


def insert_or_replace_by(connection: sa.Connection, table: sa.Table, keys: Sequence[str], rows: Rows) -> None:
    """Insert `rows`; where these columns, unique together, are there already, the others take the new values."""
    if rows:
        insert = _insert(connection, table)
        new = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)
