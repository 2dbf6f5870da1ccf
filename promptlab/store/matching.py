"""Regular expressions in SQL: PostgreSQL's own, and on SQLite, which has none, those of a Rust library."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic_core import SchemaError, SchemaValidator, core_schema

from promptlab.errors import InvalidParameter

# What SQLite calls to match a regular expression.
_MATCHES = "promptlab_matches"
_INVALID_REGULAR_EXPRESSION = "2201B"


def matches(connection: sa.Connection, column: Any, pattern: str) -> sa.ColumnElement[bool]:
    """Whether the pattern is found anywhere in the column. Raises `InvalidParameter` for what is none."""
    _matcher(pattern)
    if connection.dialect.name == "postgresql":
        return sa.type_coerce(column.op("~")(pattern), sa.Boolean)
    # The driver's own call: SQLite has no regular expressions, and Python's may take for ever.
    driver: Any = connection.connection.driver_connection
    driver.create_function(_MATCHES, 2, _matches, deterministic=True)
    return sa.func.__getattr__(_MATCHES)(pattern, column, type_=sa.Boolean)


def refused(error: sa.exc.DBAPIError) -> bool:
    """Whether the database could not read a regular expression: PostgreSQL knows them a little otherwise."""
    return getattr(error.orig, "sqlstate", None) == _INVALID_REGULAR_EXPRESSION


def _matches(pattern: str, value: object) -> bool:
    return value is not None and _matcher(pattern).isinstance_python(str(value))


@lru_cache(maxsize=64)
def _matcher(pattern: str) -> SchemaValidator:
    """What finds the pattern anywhere in a text, in time that grows with the text and no faster."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        why = str(error).strip().splitlines()[-1][:200]
        raise InvalidParameter(f"Invalid regular expression '{pattern[:100]}': {why}") from None
