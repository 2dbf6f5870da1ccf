"""What rows of keys, teams and organisations share: routes, limits, and the one number that every change raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.routes import Budget, Limits
from gateway.store.audit import Deed, append, one_at_a_time

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from gateway.owners import Key, Tenant


_NOTHING = Limits()


def changing(connection: Connection, statement: Any, deed: Deed) -> None:
    """Run `statement`, note whose `deed` that was, and have every process look at the keys again."""
    connection.execute(statement)
    one_at_a_time(connection)
    append(connection, deed)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row has become another, as it is now."""
    return {name: value for name, value in after.items() if before.get(name) != value}


def row(of: Key | Tenant) -> dict[str, Any]:
    """The columns they share."""
    return {
        "id": of.id,
        "name": of.name,
        "routes": None if of.routes is None else json.dumps(sorted(of.routes)),
        "denied": json.dumps(sorted(of.denied)) if of.denied else None,
        **_limits(of.limits),
        "created_at": of.created_at,
        "blocked_at": of.blocked_at,
        "user_limits": None if of.user_limits == _NOTHING else json.dumps(_limits(of.user_limits), sort_keys=True),
    }


def fields(found: RowMapping) -> dict[str, Any]:
    """What `row` was made of."""
    return {
        "id": found["id"],
        "name": found["name"],
        "routes": None if found["routes"] is None else frozenset(json.loads(found["routes"])),
        "denied": frozenset(json.loads(found["denied"] or "[]")),
        "limits": _read(found),
        "created_at": found["created_at"],
        "blocked_at": found["blocked_at"],
        "user_limits": _NOTHING if found["user_limits"] is None else _read(json.loads(found["user_limits"])),
    }


def _limits(of: Limits) -> dict[str, int | str | bool | None]:
    budget = of.budget
    return {
        "rpm": of.rpm,
        "tpm": of.tpm,
        "concurrency": of.concurrency,
        "rpd": of.rpd,
        "tpd": of.tpd,
        "max_budget": None if budget is None else budget.most,
        "budget_duration": budget.duration if budget else of.soft.duration if of.soft else None,
        "soft_budget": None if of.soft is None else of.soft.most,
        "fixed": of.fixed or None,
    }


def _read(found: RowMapping | Mapping[str, Any]) -> Limits:
    duration, most, soft = found["budget_duration"], found["max_budget"], found.get("soft_budget")
    return Limits(
        rpm=found["rpm"],
        tpm=found["tpm"],
        concurrency=found["concurrency"],
        budget=None if most is None else Budget(most, duration),
        rpd=found["rpd"],
        tpd=found["tpd"],
        soft=None if soft is None else Budget(soft, duration),
        fixed=bool(found.get("fixed")),
    )
