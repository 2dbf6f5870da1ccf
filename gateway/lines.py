"""What the lines of a usage journal say: attempts that began, and records of those that ended."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from gateway.journal import Position
from gateway.types import UsageRecord

log = logging.getLogger(__name__)

_FIELDS = dataclasses.fields(UsageRecord)
_REQUIRED = {field.name for field in _FIELDS if field.default is dataclasses.MISSING}
_ORDER = tuple(field.name for field in _FIELDS)
_DEFAULTS = {field.name: field.default for field in _FIELDS if field.name not in _REQUIRED}


class Begun(NamedTuple):
    """An attempt as the journal has it before its upstream is asked; `cost` is the most it may come to."""

    request_id: str
    attempt: int
    time: float
    key_id: str
    key_name: str
    route: str
    deployment: str
    task: str
    stream: bool
    input_tokens: int
    cost: int
    fallback: str | None
    team_id: str = ""
    organisation_id: str = ""
    end_user: str = ""
    prompt: str = ""


#: What a line of the journal begins with that is a `Begun`.
BEGUN = "begun"
_BEGUN = b'["begun",'


class Open:
    """The attempts that a journal, read in order, has begun and not settled."""

    def __init__(self) -> None:
        self.since: dict[tuple[str, int], tuple[Position, Begun]] = {}

    @property
    def oldest(self) -> Position | None:
        """A position before the oldest of them."""
        return next(iter(self.since.values()))[0] if self.since else None

    def follow(self, one: bytes, at: Position) -> dict[str, Any] | None:
        """The record in a line; None for what is none: an attempt that begins, or a line that is damaged."""
        record = None
        if one.startswith(_BEGUN):
            if begun := _begun(one):
                self.since[begun.request_id, begun.attempt] = at, begun
                return None
        else:
            record = _record(one)
        if record is None:
            log.error("A line of the usage journal is damaged and passed over: %r", one[:200])
        elif self.since:
            self.since.pop((record["request_id"], record["attempt"]), None)
        return record

    def settled(self) -> Iterator[UsageRecord]:
        """A record for each, at the most it may have cost. The last attempt of a call is its answer."""
        final = dict(self.since.keys())  # by call: later ones replace earlier
        for _, begun in self.since.values():
            yield UsageRecord(
                **begun._asdict(),
                status=500,
                error="interrupted",
                estimated=True,
                final=final[begun.request_id] == begun.attempt,
            )


def _begun(one: bytes) -> Begun | None:
    try:
        _, *fields = orjson.loads(one)
        return Begun(*fields)
    except (orjson.JSONDecodeError, TypeError):
        return None


def _record(one: bytes) -> dict[str, Any] | None:
    """A line of the journal as a record of today, None if it is damaged.

    What an older version did not write has its default: an upgrade must not lose what waited.
    """
    try:
        found = orjson.loads(one)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    # As we write them, in this order; the keys are then the same objects, and nothing has to be looked up.
    if tuple(found) == _ORDER:
        return found
    if not found.keys() >= _REQUIRED:
        return None
    return _DEFAULTS | {name: value for name, value in found.items() if name in _DEFAULTS or name in _REQUIRED}
