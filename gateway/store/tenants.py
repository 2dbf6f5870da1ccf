"""Teams and organisations in SQL. A change of theirs is one of their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from gateway.owners import Tenant, TenantKind
from gateway.store import terms
from gateway.store.audit import Deed
from gateway.store.tables import tenants

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from gateway.database import Database


def tenants_of(connection: Connection) -> dict[str, Tenant]:
    """Every team and organisation by its id, oldest first."""
    rows = connection.execute(select(tenants).order_by(tenants.c.created_at, tenants.c.id)).mappings().all()
    found = {row["id"]: _tenant(row, None) for row in rows if row["organisation_id"] is None}
    return {
        row["id"]: found.get(row["id"])
        or _tenant(row, found.get(row["organisation_id"]) or gone(row["organisation_id"], TenantKind.ORGANISATION))
        for row in rows
    }


def gone(tenant_id: str, kind: TenantKind) -> Tenant:
    """In place of one whose row somebody has deleted: nobody gets more for it."""
    return Tenant(tenant_id, tenant_id, kind, blocked_at=0.0)


class TenantStore:
    """The teams and organisations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, Tenant]:
        """Every team and organisation by its id, oldest first."""
        with self._database.read() as connection:
            return tenants_of(connection)

    def add(self, tenant: Tenant, by: str) -> None:
        """Store a new one. `by` is who does it, here and below (`Deed`)."""
        said = {name: value for name, value in _row(tenant).items() if value is not None}
        statement, deed = insert(tenants).values(_row(tenant)), Deed(by, f"{tenant.kind}.create", tenant.id, said)
        self._database.write(lambda connection: terms.changing(connection, statement, deed))

    def change(self, tenant_id: str, change: Callable[[Tenant], Tenant], by: str) -> Tenant | None:
        """Put what `change` makes of one in its place, whatever others change at the same time; None: no such."""

        def work(connection: Connection) -> Tenant | None:
            theirs = tenants.c.id == tenant_id
            if connection.execute(select(tenants.c.id).where(theirs).with_for_update()).first() is None:
                return None
            before = tenants_of(connection)[tenant_id]
            changed = change(before)
            deed = Deed(by, f"{changed.kind}.update", tenant_id, terms.difference(_row(before), _row(changed)))
            terms.changing(connection, update(tenants).where(theirs).values(_row(changed)), deed)
            return changed

        return self._database.write(work)


def _row(tenant: Tenant) -> dict[str, Any]:
    organisation = None if tenant.organisation is None else tenant.organisation.id
    return {**terms.row(tenant), "kind": tenant.kind.value, "organisation_id": organisation}


def _tenant(row: RowMapping, organisation: Tenant | None) -> Tenant:
    return Tenant(kind=TenantKind(row["kind"]), organisation=organisation, **terms.fields(row))
