"""Who may do what in the admin API: one table, and what of it a team's own keys see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from fastapi import Request

from gateway.api.access import Access
from gateway.errors import Forbidden
from gateway.owners import Key, Scope


class Role(StrEnum):
    """What a key is in the admin API."""

    ADMIN = "admin"
    TEAM_ADMIN = "team admin"
    VIEWER = "viewer"
    TEAM_VIEWER = "viewer of a team"
    CALLER = "caller"


_ADMIN = frozenset({Role.ADMIN})
_MANAGES_KEYS = frozenset({Role.ADMIN, Role.TEAM_ADMIN})
_SEES = frozenset({Role.ADMIN, Role.TEAM_ADMIN, Role.VIEWER, Role.TEAM_VIEWER})
_SEES_ALL = frozenset({Role.ADMIN, Role.VIEWER})
_ANYBODY = frozenset(Role)
#: Who may ask what. A team admin, and a viewer of a team, have to do with that team alone; a caller with itself.
TABLE: Mapping[tuple[str, str], frozenset[Role]] = {
    ("POST", "/admin/keys"): _MANAGES_KEYS,
    ("GET", "/admin/keys"): _SEES,
    ("GET", "/admin/keys/self"): _ANYBODY,
    ("GET", "/admin/keys/{key_id}"): _SEES,
    ("PATCH", "/admin/keys/{key_id}"): _MANAGES_KEYS,
    ("POST", "/admin/keys/{key_id}/rotate"): _MANAGES_KEYS,
    ("DELETE", "/admin/keys/{key_id}"): _MANAGES_KEYS,
    ("POST", "/admin/teams"): _ADMIN,
    ("GET", "/admin/teams"): _SEES,
    ("GET", "/admin/teams/{team_id}"): _SEES,
    ("PATCH", "/admin/teams/{team_id}"): _ADMIN,
    ("POST", "/admin/organisations"): _ADMIN,
    ("GET", "/admin/organisations"): _SEES,
    ("GET", "/admin/organisations/{organisation_id}"): _SEES,
    ("PATCH", "/admin/organisations/{organisation_id}"): _ADMIN,
    ("GET", "/admin/usage"): _ANYBODY,
    ("GET", "/admin/usage/{request_id}"): _ANYBODY,
    ("GET", "/admin/alerts"): _SEES,
    ("GET", "/metrics"): _SEES_ALL,
    ("GET", "/admin/audit"): _ADMIN,
    ("GET", "/admin/config"): _ADMIN,
    ("POST", "/admin/reload"): _ADMIN,
    ("GET", "/admin/explain"): _ADMIN,
}


class Visitor(NamedTuple):
    """Who asks the admin API for something."""

    key: Key
    role: Role

    @property
    def team_id(self) -> str | None:
        """The one team that this visitor has to do with; None: with all there are, or (a caller) with none."""
        return self.key.team_id or None

    def sees_key(self, key_id: str, team_id: str) -> bool:
        """Whether a key, or what it used, is this visitor's to see."""
        if self.role is Role.CALLER:
            return key_id == self.key.id
        return self.team_id in (None, team_id)


def role_of(key: Key) -> Role:
    """What `key` is in the admin API: its scopes say, and whether it belongs to a team."""
    if Scope.ADMIN in key.scopes:
        return Role.TEAM_ADMIN if key.team else Role.ADMIN
    if Scope.VIEWER in key.scopes:
        return Role.TEAM_VIEWER if key.team else Role.VIEWER
    return Role.CALLER


def guard(access: Access) -> Callable[[Request], None]:
    """What lets in who may (`TABLE`), before anything else is looked at; then `visitor` says who it is."""

    def check(request: Request) -> None:
        key = access.key(dict(request.scope["headers"]))
        role = role_of(key)
        may = TABLE[request.method, request.scope["route"].path]
        if role not in may:
            scopes = "'admin' or 'viewer'" if Role.VIEWER in may else "'admin'"
            if role is Role.TEAM_ADMIN or (role is Role.TEAM_VIEWER and Role.VIEWER in may):
                raise Forbidden(f"This needs a key with the scope {scopes} that belongs to no team.")
            held = ", ".join(sorted(key.scopes)) or "none"
            raise Forbidden(f"This key has no scope {scopes}; it has: {held}.")
        request.state.visitor = Visitor(key, role)

    return check


def visitor(request: Request) -> Visitor:
    """Who was let in."""
    who: Visitor = request.state.visitor
    return who
