"""`/admin/usage`: what was called, by whom, and what it cost. A caller sees its own, a viewer all or its team's."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gateway import users
from gateway.api import described
from gateway.api.access import Access
from gateway.api.roles import Role, guard, visitor
from gateway.errors import NotFound
from gateway.ledger import Ledger
from gateway.store.usage import GROUPS
from gateway.types import UsageFilter


def router(access: Access, ledger: Ledger) -> APIRouter:
    """The admin API of usage."""
    api = APIRouter(prefix="/admin/usage", tags=["usage"], dependencies=[Depends(guard(access))])

    @api.get("")
    async def sums(
        request: Request,
        group_by: Annotated[str, Query(description=f"Comma-separated: {', '.join(GROUPS)}")] = "key,route,day",
        since: Annotated[str | None, Query(description="ISO 8601 date or time (UTC), inclusive")] = None,
        until: Annotated[str | None, Query(description="ISO 8601 date or time (UTC), exclusive")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="Most groups to answer with")] = 10_000,
        offset: Annotated[int, Query(ge=0, le=10**9, description="From which of them on")] = 0,
        user: Annotated[str | None, Query(description="Of this end user; empty: of calls that name none")] = None,
    ) -> dict[str, Any]:
        """Calls, tokens and USD by group, in the groups' order, with the total; `next` is the next page's `offset`."""
        who = visitor(request)
        only = UsageFilter(
            since=described.moment(since, "since"),
            until=described.moment(until, "until"),
            key_id=who.key.id if who.role is Role.CALLER else None,
            team_id=None if who.role is Role.CALLER else who.team_id,
            end_user=None if user is None else users.shown(user),
        )
        by = described.groups(group_by)
        rows = await ledger.sums(by, only, limit + 1, offset)
        total = await ledger.sums([], only)
        more = offset + limit if len(rows) > limit else None
        shown = [described.usage_sum(row) for row in rows[:limit]]
        return {"data": shown, "total": described.usage_sum(total[0]), "next": more}

    @api.get("/{request_id}")
    async def one(request: Request, request_id: str) -> dict[str, Any]:
        """The usage record of one call, by the `x-request-id` of its answer."""
        who = visitor(request)
        # PostgreSQL's text cannot hold what is not printable, and no id of ours does.
        record = await ledger.find(request_id) if request_id.isprintable() else None
        if record is None or not who.sees_key(record.key_id, record.team_id):
            raise NotFound(f"There is no usage record '{request_id[:80]}'.", param="request_id")
        return described.usage_record(record)

    return api
