"""Teams and organisations: made, changed and blocked. What they limit is shared by all their keys."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TypedDict, Unpack

from gateway.errors import BadRequest, NotFound
from gateway.keys import HERE, check_names, name_of
from gateway.owners import Tenant, TenantKind
from gateway.routes import Limits
from gateway.store.tenants import TenantStore

_IDS = {TenantKind.TEAM: "team", TenantKind.ORGANISATION: "org"}


class TenantTerms(TypedDict, total=False):
    """What a team or an organisation is given, or given anew; what is left out stays as it is."""

    name: str
    blocked: bool
    routes: Iterable[str] | None
    denied: Iterable[str]
    limits: Limits
    user_limits: Limits
    organisation: Tenant | None


class Tenants:
    """The teams and organisations of one store. `changed` is called after every change of theirs."""

    def __init__(self, store: TenantStore, changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed

    def list(self, kind: TenantKind) -> list[Tenant]:
        """All of one kind, oldest first."""
        return [one for one in self._store.all().values() if one.kind is kind]

    def get(self, kind: TenantKind, tenant_id: str) -> Tenant:
        """The one of that id. Raises `NotFound`."""
        found = self._store.all().get(tenant_id)
        if found is None or found.kind is not kind:
            raise no_such(kind, tenant_id)
        return found

    def named(self, kind: TenantKind, tenant_id: str | None) -> Tenant | None:
        """The one that somebody is to belong to. Raises `BadRequest` naming the field where it is not there."""
        try:
            return None if tenant_id is None else self.get(kind, tenant_id)
        except NotFound as error:
            raise BadRequest(error.message, param=f"{kind}_id") from None

    def create(self, kind: TenantKind, name: str, /, *, by: str = HERE, **terms: Unpack[TenantTerms]) -> Tenant:
        """A new team or organisation. `by` is who makes it, for the audit. Raises `BadRequest` naming the field."""
        plain = Tenant(f"{_IDS[kind]}_{secrets.token_hex(8)}", name, kind, created_at=time.time())
        tenant = _with(plain, {**terms, "name": name})
        self._store.add(tenant, by)
        self._changed()
        return tenant

    def change(
        self, kind: TenantKind, tenant_id: str, terms: Callable[[Tenant], TenantTerms], by: str = HERE
    ) -> Tenant:
        """One under the terms that are found for it as it is, in one step. Every process knows within a second.

        Raises `NotFound`, or `BadRequest` naming the field.
        """
        self.get(kind, tenant_id)
        changed = self._store.change(tenant_id, lambda tenant: _with(tenant, terms(tenant)), by)
        if changed is None:
            raise no_such(kind, tenant_id)
        self._changed()
        return changed


def _with(tenant: Tenant, terms: TenantTerms) -> Tenant:
    routes, denied = terms.get("routes", tenant.routes), frozenset(terms.get("denied", tenant.denied))
    routes = None if routes is None else frozenset(routes)
    check_names(routes or (), "routes")
    check_names(denied, "denied_routes")
    organisation = terms.get("organisation", tenant.organisation)
    if organisation is not None and tenant.kind is TenantKind.ORGANISATION:
        raise BadRequest("An organisation is in no other.", param="organisation_id")
    blocked = terms.get("blocked")
    since = tenant.blocked_at if blocked is None else (tenant.blocked_at or time.time()) if blocked else None
    return dataclasses.replace(
        tenant,
        name=name_of(terms.get("name", tenant.name), f"Every {tenant.kind}"),
        organisation=organisation,
        routes=routes,
        denied=denied,
        limits=terms.get("limits", tenant.limits),
        user_limits=terms.get("user_limits", tenant.user_limits),
        blocked_at=since,
    )


def no_such(kind: TenantKind, tenant_id: str) -> NotFound:
    """The error of an id that is none."""
    return NotFound(f"There is no {kind} '{tenant_id[:64]}'. `promptyard {kind}s list` shows them.", param="id")
