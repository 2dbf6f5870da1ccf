"""`/admin/audit`: who did what to keys, teams and the configuration."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from gateway.api import described
from gateway.api.access import Access
from gateway.api.roles import guard
from gateway.store.audit import AuditStore


def router(access: Access, audit: AuditStore) -> APIRouter:
    """The audit, page by page."""
    api = APIRouter(tags=["audit"], dependencies=[Depends(guard(access))])

    @api.get("/admin/audit")
    def lines(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, description="Go on before the line of this id")] = None,
    ) -> dict[str, Any]:
        """Lines, the newest first; `next` is what `before` must be for those behind them."""
        found = audit.newest(limit, before)
        more = found[-1].id if len(found) == limit else None
        return {"data": [described.audit_line(one) for one in found], "next": more}

    return api
