"""Keys in SQL. Every change raises one number that all processes watch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from gateway.owners import Key, Scope, Tenant, TenantKind
from gateway.store import terms
from gateway.store.audit import Deed
from gateway.store.tables import key_changes, keys
from gateway.store.tenants import gone, tenants_of

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
            theirs = tenants_of(connection)
            rows = connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id)).mappings().all()
        found = [(row, _key(row, theirs)) for row in rows]
        before = {
            row["hash_before"]: dataclasses.replace(
                key, expires_at=min(row["hash_before_until"], row["expires_at"] or row["hash_before_until"])
            )
            for row, key in found
            if row["hash_before"] is not None
        }
        return {row["hash"]: key for row, key in found} | before

    def add(self, key: Key, hashed: str, by: str) -> None:
        """Store `key` under the hash of its secret. `by` is who does it, here and below (`Deed`)."""
        statement, deed = insert(keys).values(hash=hashed, **_row(key)), Deed(by, "key.create", key.id, _set(_row(key)))
        self._database.write(lambda connection: terms.changing(connection, statement, deed))

    def change(self, key_id: str, change: Callable[[Key], Key], by: str) -> Key | None:
        """Put what `change` makes of a key in its place, whatever others change at the same time; None: no such key."""

        def work(connection: Connection) -> Key | None:
            row = connection.execute(select(keys).where(keys.c.id == key_id).with_for_update()).mappings().first()
            if row is None:
                return None
            before = _key(row, tenants_of(connection))
            changed = change(before)
            deed = Deed(by, "key.update", key_id, terms.difference(_row(before), _row(changed)))
            terms.changing(connection, update(keys).where(keys.c.id == key_id).values(_row(changed)), deed)
            return changed

        return self._database.write(work)

    def rotate(self, key_id: str, hashed: str, until: float | None, by: str) -> None:
        """Another secret in place of a key's, which goes on until then (None: ends). The one before it ends."""
        statement = update(keys).where(keys.c.id == key_id)
        before = None if until is None else keys.c.hash
        statement = statement.values(hash=hashed, hash_before=before, hash_before_until=until)
        deed = Deed(by, "key.rotate", key_id, {"before_until": until})
        self._database.write(lambda connection: terms.changing(connection, statement, deed))

    def revoke(self, key_id: str, at: float, by: str) -> None:
        """Mark a key as revoked; one that was revoked before stays revoked since then."""
        statement = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=at)
        deed = Deed(by, "key.revoke", key_id)
        self._database.write(lambda connection: terms.changing(connection, statement, deed))


def _set(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row is said."""
    return {name: value for name, value in row.items() if value is not None}


def _row(key: Key) -> dict[str, Any]:
    return {
        **terms.row(key),
        "scopes": json.dumps(sorted(key.scopes)),
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "tags": json.dumps(sorted(key.tags)) if key.tags else None,
        "metadata": json.dumps(dict(key.metadata)) if key.metadata else None,
        "team_id": None if key.team is None else key.team.id,
    }


def _key(row: RowMapping, tenants: Mapping[str, Tenant]) -> Key:
    team = row["team_id"]
    return Key(
        scopes=frozenset(Scope(scope) for scope in json.loads(row["scopes"])),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        tags=frozenset(json.loads(row["tags"] or "[]")),
        metadata=json.loads(row["metadata"] or "{}"),
        team=None if team is None else tenants.get(team) or gone(team, TenantKind.TEAM),
        **terms.fields(row),
    )
