"""What answers now: one configuration with its providers and routes, swapped whole while calls go on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping

from gateway.cache import Digests
from gateway.errors import Overloaded
from gateway.health import Health
from gateway.routes import Config, ProviderSpec
from gateway.routing import Router
from gateway.types import Provider

log = logging.getLogger(__name__)


class Snapshot:
    """One configuration, whole. Nothing in it changes but how many calls are under way on it.

    `version` is that of the files it was read from; `loaded` is UTC epoch seconds. `left` is called with it
    when the last call on it ends.
    """

    __slots__ = ("_left", "config", "digests", "loaded", "providers", "router", "running", "version")

    def __init__(
        self,
        config: Config,
        version: str,
        providers: Mapping[str, Provider],
        router: Router,
        left: Callable[[Snapshot], None],
    ) -> None:
        self.config = config
        self.version = version
        self.loaded = time.time()
        self.providers = providers
        self.router = router
        self.digests = Digests(config)
        self.running = 0
        self._left = left

    def enter(self) -> None:
        """A call begins on it, and stays with it to its end: say `leave` then."""
        self.running += 1

    def leave(self) -> None:
        """A call on it has ended."""
        self.running -= 1
        if not self.running:
            self._left(self)

    def deployments(self) -> set[str]:
        """The ids of all its deployments."""
        return {one.id for route in self.config.routes.values() for one in route.deployments}


class Plane:
    """The `current` snapshot, and those before it that calls are still under way on. One event loop uses it.

    A provider whose entry in the file stays the same goes on from one snapshot to the next, with its child process
    and all it has learned; one that is in no snapshot any more is closed.
    """

    def __init__(self, config: Config, version: str, make: Callable[[ProviderSpec], Provider]) -> None:
        self._make = make
        self._health = Health()
        self._older: set[Snapshot] = set()
        self._stopping = False
        self._closing: set[asyncio.Task[None]] = set()
        providers = {name: make(spec) for name, spec in config.providers.items()}
        self._open = list(providers.values())
        self.current = self._snapshot(config, version, providers, None)

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return sum(snapshot.running for snapshot in self._live())

    @property
    def stopping(self) -> bool:
        """Whether no more calls are taken."""
        return self._stopping

    def stop(self) -> None:
        """Take no more calls. Those under way go on."""
        self._stopping = True

    def refuse_if_stopping(self) -> None:
        """Raise `Overloaded` where no more calls are taken: whoever asks again soon will be asking another server."""
        if self._stopping:
            error = Overloaded("The server is stopping. Try again.", code="stopping", retry_after=1)
            error.headers["connection"] = "close"
            raise error

    def enter(self) -> Snapshot:
        """The snapshot for a call that begins now, entered (`Snapshot.enter`). Raises `Overloaded`."""
        if self._stopping:
            self.refuse_if_stopping()
        snapshot = self.current
        snapshot.enter()
        return snapshot

    async def start(self) -> None:
        """Begin whatever the providers run beside the calls."""
        for provider in self.current.providers.values():
            await provider.start()

    async def swap(self, config: Config, version: str) -> None:
        """Have calls that begin from now on answered by `config`. It is one swap at a time."""
        providers: dict[str, Provider] = {}
        made: dict[str, Provider] = {}
        for name, spec in config.providers.items():
            known = next((one for one in self._live() if one.config.providers.get(name) == spec), None)
            providers[name] = known.providers[name] if known else made.setdefault(name, self._make(spec))
        self._open += made.values()
        for provider in made.values():
            await provider.start()
        before, self.current = self.current, self._snapshot(config, version, providers, self.current.router)
        if before.running:
            self._older.add(before)
        # A credential that was refused says nothing of the one that took its place.
        self._health.forget({one for one in self.current.deployments() if one.partition("/")[0] in made})
        self._tidy()

    async def close(self) -> None:
        """Close every provider, each given its own chance."""
        closers = [provider.close() for provider in self._open]
        for failed in await asyncio.gather(*closers, *self._closing, return_exceptions=True):
            if isinstance(failed, BaseException):
                log.error("A part did not stop cleanly: %s", type(failed).__name__)

    def _snapshot(
        self, config: Config, version: str, providers: Mapping[str, Provider], before: Router | None
    ) -> Snapshot:
        for route in config.routes.values():
            if route.fault:
                log.warning("Route '%s' injects faults on purpose. Remove its 'fault' before users call it", route.name)
        router = Router(config, providers, self._health, before)
        return Snapshot(config, version, providers, router, self._ended)

    def _ended(self, snapshot: Snapshot) -> None:
        if snapshot is not self.current:
            self._older.discard(snapshot)
            self._tidy()

    def _live(self) -> Iterator[Snapshot]:
        yield self.current
        yield from self._older

    def _tidy(self) -> None:
        """Let go of what belongs to no live snapshot."""
        used = {id(provider) for snapshot in self._live() for provider in snapshot.providers.values()}
        gone = [provider for provider in self._open if id(provider) not in used]
        self._open = [provider for provider in self._open if id(provider) in used]
        for provider in gone:
            task = asyncio.create_task(_closed(provider))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._health.keep(set[str]().union(*(snapshot.deployments() for snapshot in self._live())))


async def _closed(provider: Provider) -> None:
    try:
        await provider.close()
        log.info("Provider '%s', as it was configured, is closed: no call needs it any more", provider.name)
    except Exception:
        log.exception("Provider '%s' did not close cleanly", provider.name)
