"""Pages by position, not by number: a token holds the sort values of the last row seen.

So the tenth page costs what the first one did, and rows added meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from promptlab.errors import InvalidParameter


@dataclass(frozen=True)
class SortKey:
    """One column to sort by. It must never be NULL: a comparison with NULL would lose rows."""

    column: sa.ColumnElement[Any]
    type: type[int] | type[float] | type[str]
    ascending: bool = True


def ordered(query: sa.Select[Any], keys: Sequence[SortKey]) -> sa.Select[Any]:
    """`query` sorted by `keys`, which are added to its columns under the names `sort_0`, `sort_1`, …"""
    named = [key.column.label(f"sort_{index}") for index, key in enumerate(keys)]
    order = [key.column.asc() if key.ascending else key.column.desc() for key in keys]
    return query.add_columns(*named).order_by(*order)


def after(keys: Sequence[SortKey], token: str) -> sa.ColumnElement[bool]:
    """What the rows behind the one `token` stands for have in common. Raises `InvalidParameter`."""
    values = _decode(token, keys)
    clauses: list[sa.ColumnElement[bool]] = []
    same: list[sa.ColumnElement[bool]] = []
    for key, value in zip(keys, values, strict=True):
        bound = sa.literal(value, key.column.type)
        beyond = key.column > bound if key.ascending else key.column < bound
        clauses.append(sa.and_(*same, beyond))
        same.append(key.column == bound)
    # Says nothing new, but lets the database start reading its index in the right place.
    first = sa.literal(values[0], keys[0].column.type)
    start = keys[0].column >= first if keys[0].ascending else keys[0].column <= first
    return sa.and_(start, sa.or_(*clauses))


def token_of(row: sa.Row[Any], keys: Sequence[SortKey]) -> str:
    """The token that asks for what follows `row`."""
    values = [getattr(row, f"sort_{index}") for index in range(len(keys))]
    return base64.urlsafe_b64encode(orjson.dumps({"after": values})).decode()


def _decode(token: str, keys: Sequence[SortKey]) -> list[Any]:
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise InvalidParameter("Invalid page token, could not base64-decode") from None
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidParameter(f"Invalid page token, decoded value={text!r}") from None
    values = parsed.get("after") if isinstance(parsed, dict) else None
    fits = (
        isinstance(values, list)
        and len(values) == len(keys)
        and all(_fits(value, key) for value, key in zip(values, keys, strict=True))
    )
    if not fits or values is None:
        raise InvalidParameter(f"Invalid page token, parsed value={parsed}")
    return list(values)


def _fits(value: object, key: SortKey) -> bool:
    if key.type is str:
        return isinstance(value, str) and "\0" not in value
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**63
    return key.type is float and isinstance(value, float)
