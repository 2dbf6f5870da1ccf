"""`/admin/keys`: make, list and revoke virtual keys. Needs scope `admin`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.api import described
from gateway.api.access import Access
from gateway.keys import Keys, budget
from gateway.routes import Limits
from gateway.types import Key, Scope


class NewKey(BaseModel):
    """What a new key may do; what is left out is not limited."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    routes: list[str] | None = Field(None, description="Routes it may call; null for all")
    scopes: list[Scope] = Field([Scope.INFERENCE, Scope.TRACKING], min_length=1)
    rpm: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="Requests a minute")
    tpm: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="Tokens a minute")
    concurrency: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="Calls at once")
    max_budget: float | None = Field(None, strict=True, gt=0, le=9 * 10**6, description="USD it may spend")
    budget_duration: str | None = Field(
        None, max_length=8, description="In which it may: 15m, 1h, 1d, 1w, 30d, 1mo; null for ever", examples=["1mo"]
    )
    expires_in: float | None = Field(
        None, strict=True, gt=0, le=100 * 365 * 86400, description="Seconds it is valid for"
    )


def router(access: Access, keys: Keys) -> APIRouter:
    """The admin API of keys. SQL is waited for on the thread pool: handlers are plain functions."""

    def admin(request: Request) -> Key:
        return access.allow(dict(request.scope["headers"]), Scope.ADMIN)

    api = APIRouter(prefix="/admin/keys", tags=["keys"], dependencies=[Depends(admin)])

    @api.post("", status_code=201)
    def create(new: NewKey) -> dict[str, Any]:
        """Make a key. The answer is the only place its secret (`key`) is ever shown."""
        limits = Limits(new.rpm, new.tpm, new.concurrency, budget(new.max_budget, new.budget_duration))
        key, secret = keys.create(
            new.name, scopes=new.scopes, routes=new.routes, limits=limits, expires_in=new.expires_in
        )
        return {**described.key(key), "key": secret}

    @api.get("")
    def list_keys() -> dict[str, Any]:
        """Every key, oldest first, without secrets."""
        return {"data": [described.key(key) for key in keys.list()]}

    @api.delete("/{key_id}")
    def revoke(key_id: Annotated[str, Field(max_length=64)]) -> dict[str, Any]:
        """Revoke a key. It is refused everywhere within a second."""
        keys.revoke(key_id)
        return {"id": key_id, "revoked": True}

    everyone = APIRouter(tags=["keys"])

    @everyone.get("/admin/keys/self")
    def myself(request: Request) -> dict[str, Any]:
        """The key that asks, without its secret. Needs no scope."""
        return {**described.key(access.key(dict(request.scope["headers"])))}

    everyone.include_router(api)
    return everyone
