"""Fields of what somebody else wrote, read as what they have to be. All raise `BadRequest` naming the field."""

from __future__ import annotations

from typing import Any

from gateway.dialects.dialect import Document
from gateway.errors import BadRequest


def wrong(path: str, kind: str) -> BadRequest:
    """The refusal of a value that is no `kind` (a string, a list …)."""
    return BadRequest(f"'{path}' must be {kind}.", param=path)


def need_text(value: Any, path: str) -> str:
    """`value`, a string."""
    if not isinstance(value, str):
        raise wrong(path, "a string")
    return value


def need_list(value: Any, path: str) -> list[Any]:
    """`value`, a list."""
    if not isinstance(value, list):
        raise wrong(path, "a list")
    return value


def need_object(value: Any, path: str) -> Document:
    """`value`, an object."""
    if not isinstance(value, dict):
        raise wrong(path, "an object")
    return value


def need_number(value: Any, path: str) -> int | float:
    """`value`, a number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(path, "a number")
    return value


def need_flag(value: Any, path: str) -> bool:
    """`value`, true or false; null is false."""
    if value is not None and not isinstance(value, bool):
        raise wrong(path, "true or false")
    return bool(value)
