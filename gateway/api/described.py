"""Keys and usage as JSON and the command line show them, and what both understand of a question about them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import BadRequest
from gateway.owners import Key, Tenant, TenantKind
from gateway.routes import Limits
from gateway.store.audit import AuditLine
from gateway.store.usage import GROUPS
from gateway.types import Alert, UsageRecord, UsageSum

_UNLIMITED = Limits()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def key(key: Key) -> Mapping[str, Any]:
    """A key as JSON shows it. Times are UTC epoch seconds, money USD."""
    return {
        "id": key.id,
        "name": key.name,
        "team_id": key.team_id or None,
        "organisation_id": key.organisation_id or None,
        "scopes": sorted(key.scopes),
        **_allowed(key),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "blocked_at": key.blocked_at,
        "tags": sorted(key.tags),
        "metadata": dict(key.metadata),
        "state": state(key),
    }


def tenant(tenant: Tenant) -> Mapping[str, Any]:
    """A team or an organisation as JSON shows it. Times are UTC epoch seconds, money USD."""
    told = {
        "id": tenant.id,
        "name": tenant.name,
        **_allowed(tenant),
        "created_at": tenant.created_at,
        "blocked_at": tenant.blocked_at,
        "state": "active" if tenant.blocked_at is None else "blocked",
    }
    if tenant.kind is TenantKind.TEAM:
        told["organisation_id"] = None if tenant.organisation is None else tenant.organisation.id
    return told


def _allowed(of: Key | Tenant) -> Mapping[str, Any]:
    return {
        "routes": None if of.routes is None else sorted(of.routes),
        "denied_routes": sorted(of.denied),
        **_limits(of.limits),
        "soft_budget": None if of.limits.soft is None else of.limits.soft.most / 1e9,
        "user_limits": None if of.user_limits == _UNLIMITED else _limits(of.user_limits),
    }


def _limits(limits: Limits) -> Mapping[str, Any]:
    budget = limits.budget
    return {
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrency": limits.concurrency,
        "window": "fixed" if limits.fixed else "sliding",
        "rpd": limits.rpd,
        "tpd": limits.tpd,
        "max_budget": None if budget is None else budget.most / 1e9,
        "budget_duration": budget.duration if budget else limits.soft.duration if limits.soft else None,
    }


def state(key: Key) -> str:
    """`active`, `blocked`, `revoked` or `expired`."""
    if key.revoked_at is not None:
        return "revoked"
    if key.blocked_at is not None:
        return "blocked"
    return "expired" if key.expires_at is not None and key.expires_at <= time.time() else "active"


def audit_line(line: AuditLine) -> dict[str, Any]:
    """A line of the audit as JSON shows it: times in UTC epoch seconds, what was done as JSON."""
    return {**line._asdict(), "time": line.time / 1e6, "detail": json.loads(line.detail)}


def alert(alert: Alert) -> dict[str, Any]:
    """An alert as JSON shows it: money in USD, times in UTC epoch seconds."""
    kind, _, owner_id = alert.scope.partition(":")
    shown = dataclasses.asdict(alert)
    for name in ("scope", "tries", "team_id", "name"):
        del shown[name]
    shown["spent_usd"], shown["budget_usd"] = shown.pop("spent") / 1e9, shown.pop("budget") / 1e9
    return {"owner": kind, "owner_id": owner_id, "owner_name": alert.name, "team_id": alert.team_id or None, **shown}


def groups(text: str) -> list[str]:
    """Names of `GROUPS` from a comma-separated list."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            raise BadRequest(f"'{name}' is none of {', '.join(GROUPS)}.", param="group_by")
    return list(dict.fromkeys(names))


def moment(text: str | None, name: str) -> float | None:
    """UTC epoch seconds of an ISO 8601 date or time."""
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"'{text[:40]}' is not an ISO 8601 date such as 2026-01-31.", param=name) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def usage_sum(row: UsageSum) -> dict[str, Any]:
    """A sum as JSON shows it: days as dates, money in USD."""
    group = {name: _day(value) if name == "day" else value for name, value in row.group.items()}
    sums = {"calls": row.calls, "failed": row.failed, "refused": row.refused, "input_tokens": row.input_tokens}
    return {**group, **sums, "output_tokens": row.output_tokens, "cost_usd": row.cost / 1e9}


def usage_record(record: UsageRecord) -> dict[str, Any]:
    """A record as JSON shows it: money in USD, times in seconds."""
    shown = dataclasses.asdict(record)
    shown["cost_usd"] = shown.pop("cost") / 1e9
    return shown


def _day(days: str | int) -> str:
    return (_EPOCH + timedelta(days=int(days))).date().isoformat()
