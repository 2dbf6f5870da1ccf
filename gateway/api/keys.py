"""`/admin/keys`: make, list, change, rotate and revoke virtual keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.api import described
from gateway.api.access import Access
from gateway.api.allowed import Allowed, Name, given
from gateway.api.roles import Visitor, guard, visitor
from gateway.api.said import key_terms, named
from gateway.errors import Forbidden
from gateway.keys import Keys, no_such
from gateway.ledger import Ledger
from gateway.owners import Key, Scope
from gateway.tenants import Tenants
from gateway.types import UsageFilter
from gateway.windows import Window, window

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


def router(access: Access, keys: Keys, tenants: Tenants, ledger: Ledger) -> APIRouter:
    """The admin API of keys. SQL is waited for on the thread pool: handlers are plain functions."""
    api = APIRouter(tags=["keys"], dependencies=[Depends(guard(access))])
    _add_reading(api, keys, ledger)
    _add_changing(api, keys, tenants)
    return api


_Spend = Annotated[bool, Query(description="Whether to say what was spent in the budget's present window")]


def _add_reading(api: APIRouter, keys: Keys, ledger: Ledger) -> None:
    @api.get("/admin/keys/self")
    async def myself(request: Request, spend: _Spend = False) -> dict[str, Any]:
        """The key that asks, without its secret. Needs no scope."""
        key = visitor(request).key
        return {**described.key(key), **(await _spent(ledger, [key]) if spend else {}).get(key.id, {})}

    @api.get("/admin/keys")
    async def list_keys(
        request: Request,
        tag: Annotated[str | None, Query(max_length=200)] = None,
        team_id: Annotated[str | None, Query(max_length=64)] = None,
        spend: _Spend = False,
    ) -> dict[str, Any]:
        """Every key, or those with a tag, or of a team, without secrets, oldest first. A key of a team sees its own."""
        who = visitor(request)
        listed = await asyncio.to_thread(keys.list)
        found = [key for key in listed if (tag is None or tag in key.tags) and team_id in (None, key.team_id)]
        theirs = [key for key in found if who.sees_key(key.id, key.team_id)]
        spent = await _spent(ledger, theirs) if spend else {}
        return {"data": [{**described.key(key), **spent.get(key.id, {})} for key in theirs]}

    @api.get("/admin/keys/{key_id}")
    def show(request: Request, key_id: _KeyId) -> dict[str, Any]:
        """One key, without its secret."""
        return {**described.key(_theirs(keys, key_id, visitor(request)))}


def _add_changing(api: APIRouter, keys: Keys, tenants: Tenants) -> None:
    @api.post("/admin/keys", status_code=201)
    def create(request: Request, new: NewKey) -> dict[str, Any]:
        """Make a key. The answer is the only place its secret (`key`) is ever shown."""
        who = visitor(request)
        said = given(new)
        if who.team_id is not None:
            said.setdefault("team_id", who.team_id)
        key, secret = keys.create(new.name, by=who.key.id, **key_terms(named(_allowed(said, who), tenants)))
        return {**described.key(key), "key": secret}

    @api.patch("/admin/keys/{key_id}")
    def change(request: Request, key_id: _KeyId, changed: ChangedKey) -> dict[str, Any]:
        """Change a key: what is left out stays as it is. Every process obeys within a second."""
        who = visitor(request)
        _theirs(keys, key_id, who)
        said = named(_allowed(given(changed), who), tenants)
        changed_key = keys.change(key_id, lambda key: key_terms(said, key), who.key.id)
        return {**described.key(changed_key)}

    @api.post("/admin/keys/{key_id}/rotate")
    def rotate(request: Request, key_id: _KeyId, rotation: Rotation) -> dict[str, Any]:
        """Give a key another secret (`key`), shown this once. Its limits and what it spent stay."""
        who = visitor(request)
        _theirs(keys, key_id, who)
        key, secret = keys.rotate(key_id, rotation.grace, who.key.id)
        return {**described.key(key), "key": secret}

    @api.delete("/admin/keys/{key_id}")
    def revoke(request: Request, key_id: _KeyId) -> dict[str, Any]:
        """Revoke a key. It is refused everywhere within a second."""
        who = visitor(request)
        _theirs(keys, key_id, who)
        keys.revoke(key_id, who.key.id)
        return {"id": key_id, "revoked": True}


async def _spent(ledger: Ledger, keys: Iterable[Key]) -> dict[str, dict[str, Any]]:
    """Of each key with a budget, USD spent in its present window, and when that ends (UTC epoch seconds).

    The ledger is asked once for each kind of window, however many keys there are.
    """
    now, by_window = time.time(), dict[Window, list[Key]]()
    for key in keys:
        if budget := key.limits.budget or key.limits.soft:
            by_window.setdefault(window(budget.duration, now), []).append(key)
    told: dict[str, dict[str, Any]] = {}
    for of, those in by_window.items():
        mine = those[0].id if len(those) == 1 else None
        sums = await ledger.sums(["key_id"], UsageFilter(since=float(of.start) or None, key_id=mine))
        cost = {row.group["key_id"]: row.cost for row in sums}
        told |= {key.id: {"spent_usd": cost.get(key.id, 0) / 1e9, "budget_resets_at": of.end} for key in those}
    return told


def _theirs(keys: Keys, key_id: str, who: Visitor) -> Key:
    """The key of that id. Raises `NotFound`, also where it is another team's."""
    key = keys.get(key_id)
    if not who.sees_key(key.id, key.team_id):
        raise no_such(key_id)
    return key


def _allowed(said: dict[str, Any], who: Visitor) -> dict[str, Any]:
    """`said`, where `who` may say so of a key: a team's admin has to do with keys of that team."""
    if who.team_id is not None and said.get("team_id", who.team_id) != who.team_id:
        raise Forbidden("A team's admin has to do with keys of that team alone.", param="team_id")
    return said
