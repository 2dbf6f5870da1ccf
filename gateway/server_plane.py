"""What answers calls in one process, built once: of a server alone, of one with workers, of each worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway import settings as environment
from gateway.api.access import Access
from gateway.api.inference import Inference
from gateway.api.mlflow_gateway import MlflowGateway
from gateway.budgets import Budgets, Now
from gateway.cache import Cache
from gateway.cache_store import MemoryStore, Store
from gateway.counters import Counters, MemoryCounters
from gateway.database import Database, open_database
from gateway.filling import Filling
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.plane import Plane
from gateway.prompts import Prompts
from gateway.providers.make import make
from gateway.providers.transport import Transport
from gateway.proxy import Proxy
from gateway.recording import Recorder
from gateway.reload import Reading, Reloader
from gateway.server_prompts import RegistryPrompts
from gateway.server_traces import ExperimentTraces
from gateway.settings import Settings
from gateway.store import migrations
from gateway.store.keys import KeyStore
from gateway.store.usage import UsageStore
from gateway.telemetry import Tracer
from gateway.types import UsageRecord
from gateway.usage import Meter

if TYPE_CHECKING:
    from gateway.providers.embedded import Lent


@dataclass(frozen=True)
class Own:
    """What one process has for itself: where its journal lies, who brings that into SQL, whose embedded models."""

    journal: Path
    filling: Callable[[Journal, UsageStore], Filling] | None = None
    heard: Callable[[UsageRecord], None] | None = None
    lent: Lent | None = None
    followed: Callable[[], Awaitable[None]] | None = None


class DataPlane:
    """Keys, limits, routes, ledger, and the two faces that calls come in by."""

    def __init__(self, settings: Settings, reading: Reading, version: str, own: Own) -> None:
        settings.data.mkdir(parents=True, exist_ok=True)
        self._tasks: list[asyncio.Task[None]] = []
        journal = Journal(own.journal)
        self.database = open_gateway_database(settings)
        self.transport = Transport()
        self.plane = Plane(reading.config, reading.version, lambda spec: make(spec, self.transport, own.lent))
        self.reloader = Reloader(settings.config, self.plane, own.followed)
        self.counters = _counters(settings, journal.id)
        self.keys = Keys(KeyStore(self.database), settings.admin_key, lambda: self.plane.current.config.keys)
        self.keys.refresh()
        self.access = Access(self.keys)
        store = UsageStore(self.database)
        filling = own.filling(journal, store) if own.filling is not None else None
        self.ledger = Ledger(journal, store, own.heard, filling)
        self.tracer = self._make_tracer(version)
        now = Now(self.keys.now, lambda name: self.plane.current.config.routes.get(name))
        limiter = Limiter(self.counters, Budgets(self.counters, self.ledger, now))
        self._cache = Cache(_store(settings))
        self._kept_traces = ExperimentTraces(lambda: open_database(url_of(settings, "tracking")))
        self.recorder = Recorder(self._kept_traces.keep)
        meter = Meter(self.ledger, limiter, tracer=self.tracer, recorder=self.recorder)
        self._proxy = Proxy(limiter, meter, self._cache)
        most, patience = settings.max_body, settings.body_timeout
        self._registry = RegistryPrompts(lambda: open_database(url_of(settings, "tracking")))
        self._prompts = Prompts(self._registry)
        self.inference = Inference(
            self.access, self._proxy, self.plane, self.tracer, self._prompts, max_body=most, body_timeout=patience
        )
        self.mlflow = MlflowGateway(self.inference, self.access, self.plane, max_body=most, body_timeout=patience)

    def _make_tracer(self, version: str) -> Tracer | None:
        tracing = environment.tracing()
        if tracing is None:
            return None
        return Tracer(tracing, version, lambda name: self.plane.current.config.providers.get(name))

    async def start(self) -> None:
        """Begin everything that runs beside the calls. What a kill cut short is settled first: then it is spent."""
        await asyncio.to_thread(self.ledger.recover)
        await self.counters.start()
        await self.plane.start()
        for work in (self.keys.watch(), self.ledger.run()):
            self._tasks.append(asyncio.create_task(work))

    async def close(self) -> None:
        """Stop everything, the newest first, each part given its own chance."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._prompts.close()
        await self._proxy.close()
        await self._cache.close()
        await self.plane.close()
        await self.transport.close()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)
        await asyncio.to_thread(self.recorder.close)
        await asyncio.to_thread(self._kept_traces.close)
        await self.ledger.close()
        await self.counters.close()
        await asyncio.to_thread(self.database.close)
        await asyncio.to_thread(self._registry.close)


def open_gateway_database(settings: Settings) -> Database:
    """The database of keys and usage, its tables made."""
    database = open_database(url_of(settings, "gateway"))
    migrations.migrate(database)
    return database


def url_of(settings: Settings, name: str) -> str:
    """Where a database is: on SQLite each name has a file of its own, so that writers do not wait for each other."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    settings.data.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{quote(str(settings.data.resolve() / f'{name}.db'))}"


def _counters(settings: Settings, member: str) -> Counters:
    if settings.redis_url is None:
        return MemoryCounters()
    from gateway.counters_leases import LeasedCounters  # costs 0.1 s, and most servers count in memory

    return LeasedCounters(settings.redis_url.get_secret_value(), member=member)


def _store(settings: Settings) -> Store:
    if settings.redis_url is None:
        return MemoryStore()
    from gateway.cache_redis import RedisStore  # as the counters in Redis

    return RedisStore(settings.redis_url.get_secret_value())
