"""What is said of keys, teams and organisations in JSON or on the command line, as their terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import BadRequest
from gateway.keys import Terms, budget
from gateway.owners import Key, Scope, Tenant, TenantKind
from gateway.routes import Limits
from gateway.tenants import Tenants, TenantTerms

_LIMITS = ("rpm", "tpm", "concurrency", "rpd", "tpd")
_NOTHING = Limits()


def named(said: Mapping[str, Any], tenants: Tenants) -> dict[str, Any]:
    """`said` with the team or organisation that it names: looked up before anything is changed, since a transaction
    that waits for a second connection could wait for itself. Raises `BadRequest` naming the field.
    """
    found = dict(said)
    for kind in TenantKind:
        if f"{kind}_id" in said:
            found[kind] = tenants.named(kind, said[f"{kind}_id"])
    return found


def key_terms(said: Mapping[str, Any], now: Key | None = None) -> Terms:
    """The terms that `said` (`named`) gives a key that is as `now` (None: a new one). Names are the admin API's.

    Raises `BadRequest` naming the field.
    """
    new: Terms = {}
    _limit(new, said, now)
    if said.get("name") is not None:
        new["name"] = said["name"]
    if said.get("blocked") is not None:
        new["blocked"] = said["blocked"]
    if "scopes" in said:
        new["scopes"] = [Scope(one) for one in said["scopes"]]
    if "routes" in said:
        new["routes"] = said["routes"]
    if "denied_routes" in said:
        new["denied"] = said["denied_routes"]
    if "expires_in" in said:
        new["expires_in"] = said["expires_in"]
    if "tags" in said:
        new["tags"] = said["tags"]
    if "metadata" in said:
        new["metadata"] = said["metadata"]
    if "team" in said:
        new["team"] = said["team"]
    return new


def tenant_terms(said: Mapping[str, Any], now: Tenant | None = None) -> TenantTerms:
    """The terms that `said` gives a team or an organisation that is as `now` (as `key_terms`)."""
    new: TenantTerms = {}
    _limit(new, said, now)
    if said.get("name") is not None:
        new["name"] = said["name"]
    if said.get("blocked") is not None:
        new["blocked"] = said["blocked"]
    if "routes" in said:
        new["routes"] = said["routes"]
    if "denied_routes" in said:
        new["denied"] = said["denied_routes"]
    if "organisation" in said:
        new["organisation"] = said["organisation"]
    return new


def _limit(new: Terms | TenantTerms, said: Mapping[str, Any], now: Key | Tenant | None) -> None:
    new["limits"] = limits(said, _NOTHING if now is None else now.limits)
    if "user_limits" not in said:
        return
    of_users = said["user_limits"]
    before = _NOTHING if now is None or of_users is None else now.user_limits
    try:
        new["user_limits"] = limits(of_users or {}, before)
    except BadRequest as error:
        raise BadRequest(f"user_limits: {error.message}", param=f"user_limits.{error.param}") from None


def limits(said: Mapping[str, Any], now: Limits = _NOTHING) -> Limits:
    """`now`, with what is said of it; a limit of None is none. Raises `BadRequest` naming the field."""
    new: dict[str, int | None] = {name: said.get(name, getattr(now, name)) for name in _LIMITS}
    of, soft = now.budget, now.soft
    if said.keys() & {"max_budget", "soft_budget", "budget_duration"}:
        before = of or soft
        most = said.get("max_budget", of and of.most / 1e9)
        less = said.get("soft_budget", soft and soft.most / 1e9)
        duration = said.get("budget_duration", before and before.duration)
        if most is None and less is None and said.get("budget_duration") is not None:
            raise BadRequest("budget_duration needs a max_budget.", param="max_budget")
        of, soft = budget(most, duration), budget(less, duration, "soft_budget")
        if of and soft and soft.most > of.most:
            raise BadRequest(
                "A soft_budget is not more than the max_budget: no call gets that far.", param="soft_budget"
            )
    fixed = said.get("window") == "fixed" if said.get("window") else now.fixed
    return Limits(**new, budget=of, soft=soft, fixed=fixed)
