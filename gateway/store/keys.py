"""Keys in SQL. Every change raises one number that all processes watch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.routes import Budget, Limits
from gateway.store.tables import key_changes, keys
from gateway.types import Key, Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from gateway.database import Database


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def version(self) -> int:
        """A number that grows with every change of any key, by any process."""
        with self._database.read() as connection:
            return connection.scalar(select(key_changes.c.version)) or 0

    def all(self) -> dict[str, Key]:
        """Every key by the hash of its secret, revoked and expired ones too, oldest first.

        After them, by the hashes of their secrets before, those that were rotated, expiring when that secret does.
        """
        with self._database.read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id)).mappings().all()
        before = {
            row["hash_before"]: dataclasses.replace(
                _key(row), expires_at=min(row["hash_before_until"], row["expires_at"] or row["hash_before_until"])
            )
            for row in rows
            if row["hash_before"] is not None
        }
        return {row["hash"]: _key(row) for row in rows} | before

    def add(self, key: Key, hashed: str) -> None:
        """Store `key` under the hash of its secret."""
        self._database.write(lambda connection: _changing(connection, insert(keys).values(hash=hashed, **_row(key))))

    def change(self, key_id: str, change: Callable[[Key], Key]) -> Key | None:
        """Put what `change` makes of a key in its place, whatever others change at the same time; None: no such key."""

        def work(connection: Connection) -> Key | None:
            row = connection.execute(select(keys).where(keys.c.id == key_id).with_for_update()).mappings().first()
            if row is None:
                return None
            changed = change(_key(row))
            _changing(connection, update(keys).where(keys.c.id == key_id).values(_row(changed)))
            return changed

        return self._database.write(work)

    def rotate(self, key_id: str, hashed: str, until: float | None) -> None:
        """Another secret in place of a key's, which goes on until then (None: ends). The one before it ends."""
        statement = update(keys).where(keys.c.id == key_id)
        before = None if until is None else keys.c.hash
        statement = statement.values(hash=hashed, hash_before=before, hash_before_until=until)
        self._database.write(lambda connection: _changing(connection, statement))

    def revoke(self, key_id: str, at: float) -> None:
        """Mark a key as revoked; one that was revoked before stays revoked since then."""
        statement = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=at)
        self._database.write(lambda connection: _changing(connection, statement))


def _changing(connection: Connection, statement: Any) -> None:
    connection.execute(statement)
    raising = update(key_changes).values(version=key_changes.c.version + 1)
    if connection.execute(raising).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(key_changes).values(id=1, version=1))
    except IntegrityError:  # another process made the row at the same moment
        connection.execute(raising)


def _row(key: Key) -> dict[str, Any]:
    budget = key.limits.budget
    return {
        "id": key.id,
        "name": key.name,
        "scopes": json.dumps(sorted(key.scopes)),
        "routes": None if key.routes is None else json.dumps(sorted(key.routes)),
        "denied": json.dumps(sorted(key.denied)) if key.denied else None,
        "rpm": key.limits.rpm,
        "tpm": key.limits.tpm,
        "concurrency": key.limits.concurrency,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "blocked_at": key.blocked_at,
        "max_budget": None if budget is None else budget.most,
        "budget_duration": None if budget is None else budget.duration,
        "tags": json.dumps(sorted(key.tags)) if key.tags else None,
        "metadata": json.dumps(dict(key.metadata)) if key.metadata else None,
    }


def _key(row: RowMapping) -> Key:
    budget = None if row["max_budget"] is None else Budget(row["max_budget"], row["budget_duration"])
    return Key(
        id=row["id"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in json.loads(row["scopes"])),
        routes=None if row["routes"] is None else frozenset(json.loads(row["routes"])),
        denied=frozenset(json.loads(row["denied"] or "[]")),
        limits=Limits(row["rpm"], row["tpm"], row["concurrency"], budget),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        blocked_at=row["blocked_at"],
        tags=frozenset(json.loads(row["tags"] or "[]")),
        metadata=json.loads(row["metadata"] or "{}"),
    )
