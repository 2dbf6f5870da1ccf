"""What is said of a key in JSON or on the command line, as its terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.keys import Terms, budget
from gateway.routes import Limits
from gateway.types import Scope

_LIMITS = ("rpm", "tpm", "concurrency")


def terms(said: Mapping[str, Any], now: Limits | None = None) -> Terms:
    """The terms that `said` gives a key that has the limits `now`. Names are the admin API's.

    Raises `BadRequest` naming the field.
    """
    new: Terms = {}
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
    new["limits"] = limits(said, now or Limits())
    return new


def limits(said: Mapping[str, Any], now: Limits) -> Limits:
    """`now`, with what is said of it; a limit of None is none."""
    rpm, tpm, concurrency = (said.get(name, getattr(now, name)) for name in _LIMITS)
    of = now.budget
    if "max_budget" in said or "budget_duration" in said:
        most = said.get("max_budget", of and of.most / 1e9)
        gone = "max_budget" in said and most is None
        of = budget(most, None if gone else said.get("budget_duration", of and of.duration))
    return Limits(rpm, tpm, concurrency, of)
