"""Numbers in a request that limits and money depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import BadRequest


def positive(body: Mapping[str, Any], name: str) -> int | None:
    """The number above zero in the field `name`; None where it is absent or null. Raises `BadRequest` for all else."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"'{name}' must be a whole number above zero.", param=name)
    return value
