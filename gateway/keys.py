"""Virtual keys: made, recognised, revoked. Secrets are shown once and stored as SHA-256 only."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterable
from decimal import Decimal

from pydantic import SecretStr

from gateway.errors import BadRequest, InvalidKey, NotFound
from gateway.money import nano
from gateway.routes import Budget, Limits
from gateway.store.keys import KeyStore
from gateway.types import Key, Scope
from gateway.windows import is_duration

log = logging.getLogger(__name__)

PREFIX = "sk-py-"
#: How often a process looks whether another changed a key, in seconds.
WATCH = 0.25

#: Nano-dollars: what Redis's numbers hold exactly.
_MOST_BUDGET = 9 * 10**15

ADMIN = Key("admin", "admin", frozenset(Scope))
ANONYMOUS = Key("anonymous", "anonymous", frozenset(Scope))


def hashed(secret: str) -> str:
    """How a secret is stored: SHA-256, hex. It is 256 random bits, so there is nothing a slower hash would protect."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def budget(usd: float | str | None, duration: str | None) -> Budget | None:
    """The budget of a key: `usd` in every window of `duration`. Raises `BadRequest` naming the field."""
    if usd is None:
        if duration is not None:
            raise BadRequest("budget_duration needs a max_budget.", param="max_budget")
        return None
    try:
        most = nano(Decimal(str(usd)))
    except (ArithmeticError, ValueError):
        most = 0
    if not 0 < most <= _MOST_BUDGET:
        raise BadRequest("max_budget is in USD: more than 0, at most 9000000.", param="max_budget")
    if duration is not None and not is_duration(duration):
        raise BadRequest(
            "budget_duration is a duration such as 15m, 1h, 1d, 1w, 30d or 1mo, of 366 days at most.",
            param="budget_duration",
        )
    return Budget(most, duration)


class Keys:
    """Every key there is, in memory, kept equal to the store by `watch`."""

    def __init__(self, store: KeyStore, admin_key: SecretStr | None = None) -> None:
        self._store = store
        self._fixed: dict[str, Key] = {}
        if admin_key is not None:
            self._fixed[hashed(admin_key.get_secret_value())] = ADMIN
        self._known: dict[str, Key] = {}
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
        return self._known.get(digest) or self._fixed.get(digest)

    def list(self) -> list[Key]:
        """Every stored key, oldest first."""
        self.refresh()
        return list(self._known.values())

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[Scope] = (Scope.INFERENCE, Scope.TRACKING),
        routes: Iterable[str] | None = None,
        limits: Limits | None = None,
        expires_in: float | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, which is nowhere else. `expires_in` is in seconds."""
        name = name.strip()
        if not name or len(name) > 200 or not name.isprintable():
            raise BadRequest("A key needs a name of 1 to 200 printable characters.", param="name")
        routes = None if routes is None else frozenset(routes)
        if routes is not None and not all(route and route.isprintable() for route in routes):
            raise BadRequest("Routes are named by printable characters.", param="routes")
        now = time.time()
        key = Key(
            id=f"key_{secrets.token_hex(8)}",
            name=name,
            scopes=frozenset(scopes),
            routes=routes,
            limits=limits or Limits(),
            created_at=now,
            expires_at=None if expires_in is None else now + expires_in,
        )
        secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
        self._store.add(key, hashed(secret))
        self.refresh()
        return key, secret

    def create_for_lab(self) -> str:
        """A secret for the lab's visitors in protected mode, known to this process's memory only."""
        secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
        self._fixed[hashed(secret)] = Key("lab", "lab", frozenset(Scope))
        return secret

    def revoke(self, key_id: str) -> None:
        """End a key now; every process knows within a second. Revoking twice is fine."""
        if key_id not in {key.id for key in self.list()}:
            raise NotFound(f"There is no key '{key_id}'. `promptyard keys list` shows them.", param="id")
        self._store.revoke(key_id, time.time())
        self.refresh()

    def refresh(self) -> None:
        """Read the store if anything changed. Blocks on SQL."""
        with self._refreshing:  # else a slow reader could put back what a quick one has just replaced
            version = self._store.version()
            if version != self._version:
                self._known, self._version = self._store.all(), version

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


_MISSING = (
    "You didn't provide a key. Send it as `Authorization: Bearer sk-py-…`, as `x-api-key`, or as the password of "
    "Basic authentication. `promptyard keys create --name NAME` makes one."
)
_UNKNOWN = "This key is not known here. `promptyard keys create --name NAME` makes one."
