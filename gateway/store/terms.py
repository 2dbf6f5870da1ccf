"""What rows of keys, teams and organisations share: routes, limits, and the one number that every change raises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from gateway.routes import Budget, Limits
from gateway.store.tables import key_changes

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from gateway.owners import Key, Tenant


def changing(connection: Connection, statement: Any) -> None:
    """Run `statement`, and have every process look at the keys again."""
    connection.execute(statement)
    raising = update(key_changes).values(version=key_changes.c.version + 1)
    if connection.execute(raising).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(key_changes).values(id=1, version=1))
    except IntegrityError:  # another process made the row at the same moment
        connection.execute(raising)


def row(of: Key | Tenant) -> dict[str, Any]:
    """The columns they share."""
    budget = of.limits.budget
    return {
        "id": of.id,
        "name": of.name,
        "routes": None if of.routes is None else json.dumps(sorted(of.routes)),
        "denied": json.dumps(sorted(of.denied)) if of.denied else None,
        "rpm": of.limits.rpm,
        "tpm": of.limits.tpm,
        "concurrency": of.limits.concurrency,
        "rpd": of.limits.rpd,
        "tpd": of.limits.tpd,
        "max_budget": None if budget is None else budget.most,
        "budget_duration": None if budget is None else budget.duration,
        "created_at": of.created_at,
        "blocked_at": of.blocked_at,
    }


def fields(found: RowMapping) -> dict[str, Any]:
    """What `row` was made of."""
    budget = None if found["max_budget"] is None else Budget(found["max_budget"], found["budget_duration"])
    return {
        "id": found["id"],
        "name": found["name"],
        "routes": None if found["routes"] is None else frozenset(json.loads(found["routes"])),
        "denied": frozenset(json.loads(found["denied"] or "[]")),
        "limits": Limits(found["rpm"], found["tpm"], found["concurrency"], budget, found["rpd"], found["tpd"]),
        "created_at": found["created_at"],
        "blocked_at": found["blocked_at"],
    }
