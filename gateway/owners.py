"""Who may call: keys, and the teams and organisations they belong to."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.routes import Limits


class Scope(StrEnum):
    """What a key may be used for."""

    INFERENCE = "inference"
    TRACKING = "tracking"
    #: To look at what is tracked, and change nothing.
    TRACKING_READ = "tracking:read"
    VIEWER = "viewer"
    ADMIN = "admin"


class TenantKind(StrEnum):
    """What keys may belong to, from the inside out."""

    TEAM = "team"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team, or an organisation of teams: what it may call, and limits and budget that all its keys share.

    Routes and times are as a key's.
    """

    id: str
    name: str
    kind: TenantKind
    organisation: Tenant | None = None
    routes: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    created_at: float = 0.0
    blocked_at: float | None = None
    #: What each end user of its keys may use.
    user_limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key we issued, without its secret.

    `routes` is None where every route is allowed; `denied` says which of them are not. Both are patterns, `*` in them
    stands for anything. `metadata` and `tags` are the admin's own notes. Times are UTC epoch seconds.
    `id` is "anonymous" for callers without a key in protected mode, "admin" for the admin key.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    routes: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    blocked_at: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: frozenset[str] = frozenset()
    team: Tenant | None = None
    #: What each end user of it may use (`users.named`).
    user_limits: Limits = field(default_factory=Limits)
    #: Its team and that one's organisation, as far as there are, and their ids ("" for none).
    tenants: tuple[Tenant, ...] = field(init=False, repr=False, compare=False)
    team_id: str = field(init=False, repr=False, compare=False)
    organisation_id: str = field(init=False, repr=False, compare=False)
    #: Whose limits a call of this key claims: `key:<id>` and so on, and those limits. Who has none is left out.
    limited: tuple[tuple[str, Limits], ...] = field(init=False, repr=False, compare=False)
    #: Whether one of these, or an end user of theirs, has a budget.
    budgeted: bool = field(init=False, repr=False, compare=False)
    #: Those of `limited`'s kind whose end users are limited: `user:key:<id>/` and so on, and each user's limits.
    _users: tuple[tuple[str, Limits], ...] = field(init=False, repr=False, compare=False)
    _everywhere: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Know once what every call asks."""
        organisation = self.team and self.team.organisation
        tenants = tuple(one for one in (self.team, organisation) if one is not None)
        scopes: list[tuple[str, Key | Tenant]] = [(f"key:{self.id}", self)]
        scopes += [(f"{one.kind}:{one.id}", one) for one in tenants]
        limited = tuple((scope, one.limits) for scope, one in scopes if one.limits != _UNLIMITED)
        users = tuple((f"user:{scope}/", one.user_limits) for scope, one in scopes if one.user_limits != _UNLIMITED)
        object.__setattr__(self, "tenants", tenants)
        object.__setattr__(self, "team_id", self.team.id if self.team else "")
        object.__setattr__(self, "organisation_id", organisation.id if organisation else "")
        object.__setattr__(self, "limited", limited)
        object.__setattr__(self, "_users", users)
        object.__setattr__(self, "budgeted", any(limits.budget for _, limits in (*limited, *users)))
        own: tuple[Key | Tenant, ...] = (self, *tenants)
        everywhere = all(one.routes is None and not one.denied for one in own)
        object.__setattr__(self, "_everywhere", everywhere)

    def limits_of(self, user: str) -> tuple[tuple[str, Limits], ...]:
        """Whose limits a call for an end user claims, `limited` first. All who name no user ("") count as one."""
        if not self._users:
            return self.limited
        return (*self.limited, *((f"{scope}{user}", limits) for scope, limits in self._users))

    def may_call(self, route: str) -> bool:
        """Whether the routes allowed to this key and its tenants include `route`, and those denied do not."""
        return self._everywhere or self.may_call_one_of((route,))

    def may_call_one_of(self, names: Sequence[str]) -> bool:
        """Whether what has these names may be called: one of them is allowed everywhere, and none is denied."""
        if self._everywhere:
            return True
        own: tuple[Key | Tenant, ...] = (self, *self.tenants)
        for one in own:
            if one.routes is not None and not any(_named(one.routes, name) for name in names):
                return False
        return not any(self.denies(name) for name in names)

    def denies(self, route: str) -> bool:
        """Whether `route` is denied to this key or one of its tenants."""
        if self._everywhere:
            return False
        own: tuple[Key | Tenant, ...] = (self, *self.tenants)
        return any(_named(one.denied, route) for one in own if one.denied)


_UNLIMITED = Limits()


@functools.lru_cache(4096)
def _named(patterns: frozenset[str], route: str) -> bool:
    """Whether one of `patterns` is the name of `route`, or stands for it."""
    return route in patterns or any(_stands_for(one, route) for one in patterns if "*" in one)


def _stands_for(pattern: str, name: str) -> bool:
    first, *middle, last = pattern.split("*")
    end = len(name) - len(last)
    if end < len(first) or not name.startswith(first) or not name.endswith(last):
        return False
    at = len(first)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
