"""Virtual keys: made, recognised, revoked. Secrets are shown once and stored as SHA-256 only."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TypedDict, Unpack

from pydantic import SecretStr

from gateway.errors import BadRequest, InvalidKey, NotFound
from gateway.money import nano
from gateway.owners import Key, Scope, Tenant
from gateway.routes import Budget, DeclaredKey, Limits
from gateway.store.keys import KeyStore
from gateway.windows import is_duration

log = logging.getLogger(__name__)

PREFIX = "sk-py-"
#: Who does what is not done with a key.
HERE = "command line"
#: How often a process looks whether another changed a key, in seconds.
WATCH = 0.25

#: What the ids of keys begin with that the configuration declares; those of others with `key_`.
_OF_FILE = "file-"
#: Nano-dollars: what Redis's numbers hold exactly.
_MOST_BUDGET = 9 * 10**15

ADMIN = Key("admin", "admin", frozenset(Scope))
ANONYMOUS = Key("anonymous", "anonymous", frozenset(Scope))


def hashed(secret: str) -> str:
    """How a secret is stored: SHA-256, hex. It is 256 random bits, so there is nothing a slower hash would protect."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def budget(usd: float | str | None, duration: str | None, field: str = "max_budget") -> Budget | None:
    """A budget: `usd` in every window of `duration`; None: none. Raises `BadRequest` naming the field."""
    if usd is None:
        return None
    try:
        most = nano(Decimal(str(usd)))
    except (ArithmeticError, ValueError):
        most = 0
    if not 0 < most <= _MOST_BUDGET:
        raise BadRequest(f"{field} is in USD: more than 0, at most 9000000.", param=field)
    if duration is not None and not is_duration(duration):
        raise BadRequest(
            "budget_duration is a duration such as 15m, 1h, 1d, 1w, 30d or 1mo, of 366 days at most.",
            param="budget_duration",
        )
    return Budget(most, duration)


class Terms(TypedDict, total=False):
    """What a key is given, or given anew; what is left out stays as it is. `expires_in` is in seconds, None: never."""

    name: str
    blocked: bool
    scopes: Iterable[Scope]
    routes: Iterable[str] | None
    denied: Iterable[str]
    limits: Limits
    user_limits: Limits
    expires_in: float | None
    metadata: Mapping[str, str]
    tags: Iterable[str]
    team: Tenant | None


class Keys:
    """Every key there is, in memory, kept equal to the store by `watch`."""

    def __init__(
        self,
        store: KeyStore,
        admin_key: SecretStr | None = None,
        declared: Callable[[], Mapping[str, DeclaredKey]] = dict,
    ) -> None:
        """`declared` gives the keys of the configuration that is in force: another one, another mapping."""
        self._store = store
        self._declared = declared
        self._declared_last: Mapping[str, DeclaredKey] | None = None
        self._declared_known: dict[str, Key] = {}
        self._fixed: dict[str, Key] = {}
        if admin_key is not None:
            self._fixed[hashed(admin_key.get_secret_value())] = ADMIN
        self._known: dict[str, Key] = {}
        self._ids: dict[str, Key] = {}
        self._version = -1
        self._refreshing = threading.Lock()
        self._look: asyncio.Task[None] | None = None
        self.protected = admin_key is None

    def recognise(self, secret: str | None) -> Key:
        """The key whose secret this is.

        In protected mode (no admin key) callers without one of our keys are "anonymous" and may
        do everything: clients always send something. Raises `InvalidKey` for a key of ours that is
        unknown, revoked or expired, and without protected mode for anything unknown.
        """
        key = self._find(hashed(secret)) if secret else None
        if key is None:
            if self.protected and not (secret or "").startswith(PREFIX):
                return ANONYMOUS
            raise InvalidKey(_UNKNOWN if secret else _MISSING)
        if key.revoked_at is not None:
            raise InvalidKey("This key was revoked.")
        if key.blocked_at is not None:
            raise InvalidKey("This key is blocked. Whoever runs this gateway can let it in again.")
        for tenant in key.tenants:
            if tenant.blocked_at is not None:
                raise InvalidKey(f"The {tenant.kind} '{tenant.name}' is blocked, and its keys with it.")
        if key.expires_at is not None and key.expires_at <= time.time():
            raise InvalidKey("This key has expired.")
        return key

    async def look_again(self, secret: str | None) -> bool:
        """Whether a key of ours that is not known here was made by another process since our last look.

        However many ask, one look at a time is under way.
        """
        if secret is None or not secret.startswith(PREFIX) or self._find(hashed(secret)) is not None:
            return False
        for _ in range(2):  # the look we join may have begun before the key was made
            if self._look is None:
                self._look = asyncio.create_task(self._refresh_soon())
            await asyncio.wait([self._look], timeout=1)
            if self._find(hashed(secret)) is not None:
                return True
        return False

    async def _refresh_soon(self) -> None:
        try:
            await asyncio.sleep(0.01)
            await asyncio.to_thread(self.refresh)
        except Exception:
            log.debug("Keys could not be read for an unknown one", exc_info=True)
        finally:
            self._look = None

    def _find(self, digest: str) -> Key | None:
        return self._known.get(digest) or self._fixed.get(digest) or self._of_file().get(digest)

    def _of_file(self) -> dict[str, Key]:
        """The keys that the configuration declares, by the hashes of their secrets."""
        declared = self._declared()
        if declared is not self._declared_last:
            self._declared_known = {one.hash: _declared_key(one) for one in declared.values()}
            self._declared_last = declared
        return self._declared_known

    def list(self) -> list[Key]:
        """Every key, those of the configuration first, then those that were made, oldest first."""
        self.refresh()
        found: dict[str, Key] = {}
        for key in (*self._of_file().values(), *self._known.values()):
            found.setdefault(key.id, key)  # a key that was rotated is known by two secrets, the one before last
        return list(found.values())

    def now(self, key_id: str) -> Key | None:
        """A key that was made, as it is now; None: there is none of that id."""
        return self._ids.get(key_id)

    def by_id(self) -> dict[str, Key]:
        """Every key that is known here, as it is now."""
        return {key.id: key for key in (*self._of_file().values(), *self._known.values())}

    def get(self, key_id: str) -> Key:
        """The key of that id. Raises `NotFound`."""
        found = next((key for key in self.list() if key.id == key_id), None)
        if found is None:
            raise no_such(key_id)
        return found

    def create(self, name: str, /, *, by: str = HERE, **terms: Unpack[Terms]) -> tuple[Key, str]:
        """A new key and its secret, which is nowhere else. `by` is who makes it, for the audit, here and below.

        Raises `BadRequest` naming the field.
        """
        key = _with(_new(name), terms)
        secret = new_secret()
        self._store.add(key, hashed(secret), by)
        self.refresh()
        return key, secret

    def change(self, key_id: str, terms: Callable[[Key], Terms], by: str = HERE) -> Key:
        """A key under the terms that are found for it as it is, in one step. Every process knows within a second.

        Raises `NotFound`, or `BadRequest` naming the field.
        """
        _check_changeable(key_id)
        changed = self._store.change(key_id, lambda key: _with(key, terms(key)), by)
        if changed is None:
            raise no_such(key_id)
        self.refresh()
        return changed

    def rotate(self, key_id: str, grace: float = 0.0, by: str = HERE) -> tuple[Key, str]:
        """A key with another secret. The one before goes on for `grace` seconds, and one before that ends now."""
        _check_changeable(key_id)
        key = self.get(key_id)
        if key.revoked_at is not None:
            raise BadRequest(f"The key '{key_id}' was revoked: make another one.", param="id")
        secret = new_secret()
        self._store.rotate(key_id, hashed(secret), time.time() + grace if grace > 0 else None, by)
        self.refresh()
        return key, secret

    def create_for_lab(self) -> str:
        """A secret for the lab's visitors in protected mode, known to this process's memory only."""
        secret = new_secret()
        self.know_lab(secret)
        return secret

    def know_lab(self, secret: str) -> None:
        """Recognise the lab's secret, which another process of this server made."""
        self._fixed[hashed(secret)] = Key("lab", "lab", frozenset(Scope))

    def revoke(self, key_id: str, by: str = HERE) -> None:
        """End a key now; every process knows within a second. Revoking twice is fine."""
        _check_changeable(key_id)
        self.get(key_id)
        self._store.revoke(key_id, time.time(), by)
        self.refresh()

    def refresh(self) -> None:
        """Read the store if anything changed. Blocks on SQL."""
        with self._refreshing:  # else a slow reader could put back what a quick one has just replaced
            version = self._store.version()
            if version != self._version:
                known = self._store.all()
                self._ids = {key.id: key for key in known.values()}
                self._known, self._version = known, version

    async def watch(self) -> None:
        """Keep up with other processes for ever. While the database is away, what was known stays valid."""
        reachable = True
        while True:
            await asyncio.sleep(WATCH)
            try:
                await asyncio.to_thread(self.refresh)
                reachable = True
            except Exception as error:
                if reachable:
                    log.warning("Keys cannot be read (%s); those known stay in force.", type(error).__name__)
                reachable = False


def new_secret() -> str:
    """A secret for a key: 256 random bits."""
    return f"{PREFIX}{secrets.token_urlsafe(32)}"


def _declared_key(one: DeclaredKey) -> Key:
    return Key(
        f"{_OF_FILE}{one.name}",
        one.name,
        frozenset(Scope(scope) for scope in one.scopes),
        one.routes,
        one.denied,
        one.limits,
        tags=one.tags,
        user_limits=one.user_limits,
    )


def _check_changeable(key_id: str) -> None:
    if key_id.startswith(_OF_FILE):
        raise BadRequest(f"The key '{key_id}' is declared in routes.yaml: change it there.", param="id")


def _new(name: str) -> Key:
    scopes = frozenset({Scope.INFERENCE, Scope.TRACKING})
    return Key(f"key_{secrets.token_hex(8)}", name_of(name), scopes, created_at=time.time())


def name_of(name: str, whose: str = "A key") -> str:
    """`name` without spaces around it. Raises `BadRequest` where no list can show it."""
    name = name.strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise BadRequest(f"{whose} needs a name of 1 to 200 printable characters.", param="name")
    return name


def _with(key: Key, terms: Terms) -> Key:
    """`key` under other terms. Raises `BadRequest` naming the field."""
    new: dict[str, object] = dict(terms)
    if "name" in terms:
        new["name"] = name_of(terms["name"])
    if "blocked" in terms:
        new["blocked_at"] = (key.blocked_at or time.time()) if terms["blocked"] else None
        del new["blocked"]
    if "expires_in" in terms:
        valid = terms["expires_in"]
        new["expires_at"] = None if valid is None else time.time() + valid
        del new["expires_in"]
    for field in ("scopes", "routes", "denied", "tags"):
        given: Iterable[str] | None = terms.get(field)  # type: ignore[assignment]  # its values are of several types
        if given is not None:
            new[field] = frozenset(given)
    return sound(dataclasses.replace(key, **new))  # type: ignore[arg-type]  # as above


def sound(key: Key) -> Key:
    """`key`, if it can be one. Raises `BadRequest` naming the field."""
    check_names(key.routes or (), "routes")
    check_names(key.denied, "denied_routes")
    check_names(key.tags, "tags")
    metadata = key.metadata
    if len(metadata) > 50 or any(not 0 < len(name) <= 64 or len(text) > 512 for name, text in metadata.items()):
        raise BadRequest(
            "metadata holds at most 50 notes, with names of 1 to 64 and texts of at most 512 characters.",
            param="metadata",
        )
    return key


def check_names(names: Iterable[str], param: str) -> None:
    """Refuse what no list can show. Raises `BadRequest` naming the field."""
    if not all(one and len(one) <= 200 and one.isprintable() for one in names):
        raise BadRequest(f"Each of {param} has 1 to 200 printable characters.", param=param)


def no_such(key_id: str) -> NotFound:
    """The error of an id that is no key's."""
    return NotFound(f"There is no key '{key_id[:64]}'. `promptyard keys list` shows them.", param="id")


_MISSING = (
    "You didn't provide a key. Send it as `Authorization: Bearer sk-py-…`, as `x-api-key`, or as the password of "
    "Basic authentication. `promptyard keys create --name NAME` makes one."
)
_UNKNOWN = "This key is not known here. `promptyard keys create --name NAME` makes one."
