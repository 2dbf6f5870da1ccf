"""`/admin/keys`: make, list, change, rotate and revoke virtual keys. Needs scope `admin`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.api import described
from gateway.api.access import Access
from gateway.api.allowed import Allowed, Name, given
from gateway.api.said import key_terms
from gateway.keys import Keys
from gateway.owners import Key, Scope
from gateway.tenants import Tenants

_KeyId = Annotated[str, Field(max_length=64)]
_YEARS = 100 * 365 * 86400


class _Terms(Allowed):
    """What a key may do."""

    team_id: str | None = Field(None, max_length=64, description="The team it belongs to")
    scopes: list[Scope] = Field([Scope.INFERENCE, Scope.TRACKING], min_length=1)
    expires_in: float | None = Field(None, strict=True, gt=0, le=_YEARS, description="Seconds it is valid for")
    tags: list[str] = Field([], max_length=50, description="Words to find it by")
    metadata: dict[str, str] = Field({}, description="Notes of your own")


class NewKey(_Terms):
    """A key to be made."""

    name: Name


class ChangedKey(_Terms):
    """What of a key is to be another."""

    name: Name | None = None
    blocked: bool | None = Field(None, strict=True, description="Refuse it until it is unblocked")


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid")

    grace: float = Field(0.0, strict=True, ge=0, le=_YEARS, description="Seconds the secret before goes on for")


def router(access: Access, keys: Keys, tenants: Tenants) -> APIRouter:
    """The admin API of keys. SQL is waited for on the thread pool: handlers are plain functions."""

    def admin(request: Request) -> Key:
        return access.allow(dict(request.scope["headers"]), Scope.ADMIN)

    everyone = APIRouter(tags=["keys"])

    @everyone.get("/admin/keys/self")
    def myself(request: Request) -> dict[str, Any]:
        """The key that asks, without its secret. Needs no scope."""
        return {**described.key(access.key(dict(request.scope["headers"])))}

    api = APIRouter(prefix="/admin/keys", tags=["keys"], dependencies=[Depends(admin)])

    @api.post("", status_code=201)
    def create(new: NewKey) -> dict[str, Any]:
        """Make a key. The answer is the only place its secret (`key`) is ever shown."""
        key, secret = keys.create(new.name, **key_terms(given(new), tenants))
        return {**described.key(key), "key": secret}

    @api.get("")
    def list_keys(
        tag: Annotated[str | None, Query(max_length=200)] = None,
        team_id: Annotated[str | None, Query(max_length=64)] = None,
    ) -> dict[str, Any]:
        """Every key, or those with a tag, or of a team, oldest first, without secrets."""
        found = [key for key in keys.list() if tag is None or tag in key.tags]
        return {"data": [described.key(key) for key in found if team_id is None or key.team_id == team_id]}

    @api.get("/{key_id}")
    def show(key_id: _KeyId) -> dict[str, Any]:
        """One key, without its secret."""
        return {**described.key(keys.get(key_id))}

    @api.patch("/{key_id}")
    def change(key_id: _KeyId, changed: ChangedKey) -> dict[str, Any]:
        """Change a key: what is left out stays as it is. Every process obeys within a second."""
        said = given(changed)
        return {**described.key(keys.change(key_id, lambda key: key_terms(said, tenants, key.limits)))}

    @api.post("/{key_id}/rotate")
    def rotate(key_id: _KeyId, rotation: Rotation) -> dict[str, Any]:
        """Give a key another secret (`key`), shown this once. Its limits and what it spent stay."""
        key, secret = keys.rotate(key_id, rotation.grace)
        return {**described.key(key), "key": secret}

    @api.delete("/{key_id}")
    def revoke(key_id: _KeyId) -> dict[str, Any]:
        """Revoke a key. It is refused everywhere within a second."""
        keys.revoke(key_id)
        return {"id": key_id, "revoked": True}

    everyone.include_router(api)
    return everyone
