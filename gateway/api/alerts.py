"""`/admin/alerts`: budgets of which much is spent, and whether somebody was told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gateway.api import described
from gateway.api.access import Access
from gateway.api.roles import guard, visitor
from gateway.store.alerts import AlertStore


def router(access: Access, alerts: AlertStore) -> APIRouter:
    """The admin API of alerts."""
    api = APIRouter(tags=["alerts"], dependencies=[Depends(guard(access))])

    @api.get("/admin/alerts")
    def newest(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Alerts, the newest first. A key of a team sees those of that team and its keys."""
        who = visitor(request)
        found = alerts.newest(limit, who.team_id)
        return {"data": [described.alert(one) for one in found]}

    return api
