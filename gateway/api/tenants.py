"""`/admin/teams` and `/admin/organisations`: what keys share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from gateway.api import described
from gateway.api.access import Access
from gateway.api.allowed import Allowed, Name, given
from gateway.api.roles import Visitor, guard, visitor
from gateway.api.said import named, tenant_terms
from gateway.owners import Tenant, TenantKind
from gateway.tenants import Tenants, TenantTerms, no_such

_Id = Annotated[str, Field(max_length=64)]
_Organisation = Annotated[str | None, Field(max_length=64, description="The organisation it is in")]


class NewOrganisation(Allowed):
    """An organisation to be made."""

    name: Name


class ChangedOrganisation(Allowed):
    """What of an organisation is to be another."""

    name: Name | None = None
    blocked: bool | None = Field(None, strict=True, description="Refuse all its keys until it is unblocked")


class NewTeam(NewOrganisation):
    """A team to be made."""

    organisation_id: _Organisation = None


class ChangedTeam(ChangedOrganisation):
    """What of a team is to be another."""

    organisation_id: _Organisation = None


def router(access: Access, tenants: Tenants) -> APIRouter:
    """The admin API of teams and organisations. SQL is waited for on the thread pool."""

    api = APIRouter(dependencies=[Depends(guard(access))])
    _add_teams(api, tenants)
    _add_organisations(api, tenants)
    return api


def _add_teams(api: APIRouter, tenants: Tenants) -> None:
    @api.post("/admin/teams", status_code=201, tags=["teams"])
    def create_team(request: Request, new: NewTeam) -> dict[str, Any]:
        """Make a team. Keys are put into it by their `team_id`."""
        return _created(request, tenants, TenantKind.TEAM, new)

    @api.get("/admin/teams", tags=["teams"])
    def list_teams(request: Request) -> dict[str, Any]:
        """Every team, oldest first; to a key of a team, its own."""
        who = visitor(request)
        found = [one for one in tenants.list(TenantKind.TEAM) if who.team_id in (None, one.id)]
        return {"data": [described.tenant(one) for one in found]}

    @api.get("/admin/teams/{team_id}", tags=["teams"])
    def show_team(request: Request, team_id: _Id) -> dict[str, Any]:
        """One team."""
        who = visitor(request)
        if who.team_id not in (None, team_id):
            raise no_such(TenantKind.TEAM, team_id)
        return {**described.tenant(tenants.get(TenantKind.TEAM, team_id))}

    @api.patch("/admin/teams/{team_id}", tags=["teams"])
    def change_team(request: Request, team_id: _Id, changed: ChangedTeam) -> dict[str, Any]:
        """Change a team: what is left out stays as it is. Every process obeys within a second."""
        return _changed(request, tenants, TenantKind.TEAM, team_id, changed)


def _add_organisations(api: APIRouter, tenants: Tenants) -> None:
    @api.post("/admin/organisations", status_code=201, tags=["organisations"])
    def create_organisation(request: Request, new: NewOrganisation) -> dict[str, Any]:
        """Make an organisation. Teams are put into it by their `organisation_id`."""
        return _created(request, tenants, TenantKind.ORGANISATION, new)

    @api.get("/admin/organisations", tags=["organisations"])
    def list_organisations(request: Request) -> dict[str, Any]:
        """Every organisation, oldest first; to a key of a team, its own."""
        who = visitor(request)
        found = tenants.list(TenantKind.ORGANISATION)
        return {"data": [described.tenant(one) for one in found if _sees(who, one.id)]}

    @api.get("/admin/organisations/{organisation_id}", tags=["organisations"])
    def show_organisation(request: Request, organisation_id: _Id) -> dict[str, Any]:
        """One organisation."""
        if not _sees(visitor(request), organisation_id):
            raise no_such(TenantKind.ORGANISATION, organisation_id)
        return {**described.tenant(tenants.get(TenantKind.ORGANISATION, organisation_id))}

    @api.patch("/admin/organisations/{organisation_id}", tags=["organisations"])
    def change_organisation(request: Request, organisation_id: _Id, changed: ChangedOrganisation) -> dict[str, Any]:
        """Change an organisation: what is left out stays as it is. Every process obeys within a second."""
        return _changed(request, tenants, TenantKind.ORGANISATION, organisation_id, changed)


def _sees(who: Visitor, organisation_id: str) -> bool:
    return who.team_id is None or who.key.organisation_id == organisation_id


def _created(request: Request, tenants: Tenants, kind: TenantKind, new: NewOrganisation) -> dict[str, Any]:
    terms = tenant_terms(named(given(new), tenants))
    terms.pop("name", None)
    return {**described.tenant(tenants.create(kind, new.name, by=visitor(request).key.id, **terms))}


def _changed(
    request: Request, tenants: Tenants, kind: TenantKind, tenant_id: str, changed: ChangedOrganisation
) -> dict[str, Any]:
    said = named(given(changed), tenants)

    def terms(tenant: Tenant) -> TenantTerms:
        return tenant_terms(said, tenant)

    return {**described.tenant(tenants.change(kind, tenant_id, terms, visitor(request).key.id))}
