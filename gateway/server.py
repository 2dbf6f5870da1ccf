"""The composition root: builds every object once, serves every face on one port, takes all of it down again."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway import settings as environment
from gateway.alerts import Watch
from gateway.api.access import Access
from gateway.api.faces import App, Faces
from gateway.api.inference import Inference
from gateway.api.mlflow_gateway import MlflowGateway
from gateway.budgets import Budgets, Now
from gateway.cache import Cache
from gateway.cache_store import MemoryStore, Store
from gateway.counters import Counters, MemoryCounters
from gateway.database import Database, open_database
from gateway.errors import GatewayError
from gateway.explain import Explainer
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.metrics import Metrics
from gateway.plane import Plane
from gateway.providers.make import make
from gateway.providers.transport import Transport
from gateway.proxy import Proxy
from gateway.reload import Reading, Reloader
from gateway.settings import Settings
from gateway.store import migrations
from gateway.store.alerts import AlertStore
from gateway.store.audit import AuditStore
from gateway.store.keys import KeyStore
from gateway.store.tenants import TenantStore
from gateway.store.usage import UsageStore
from gateway.telemetry import Tracer
from gateway.tenants import Tenants
from gateway.types import UsageRecord
from gateway.usage import Meter

if TYPE_CHECKING:
    from gateway.api.metrics import Gauge

log = logging.getLogger(__name__)


class Application:
    """Everything behind one port. `start` makes the data plane answer; the rest loads behind it."""

    def __init__(self, settings: Settings, reading: Reading, version: str) -> None:
        self._settings = settings
        self._version = version
        self._tasks: list[asyncio.Task[None]] = []
        settings.data.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(settings.data / "journal")
        self.database = open_gateway_database(settings)
        self._tracking_database: Database | None = None
        self._transport = Transport()
        self.plane = Plane(reading.config, reading.version, lambda spec: make(spec, self._transport))
        self.reloader = Reloader(settings.config, self.plane)
        self._counters = _counters(settings)
        self._keys = Keys(KeyStore(self.database), settings.admin_key, lambda: self.plane.current.config.keys)
        self._keys.refresh()
        self._access = Access(self._keys)
        self._metrics = Metrics()
        self._ledger = Ledger(self._journal, UsageStore(self.database), self._heard)
        self._alerts = AlertStore(self.database)
        self._watch = Watch(self._ledger, self._alerts, self._keys, lambda: self.plane.current.config, self._transport)
        self._tracer = self._make_tracer()
        self.faces = self._make_faces()
        self._lab: Any = None
        self.base_url = ""

    def _heard(self, record: UsageRecord) -> None:
        self._metrics.add(record)
        self._watch.heard(record)

    def _make_faces(self) -> Faces:
        settings, plane, access = self._settings, self.plane, self._access
        now = Now(self._keys.now, lambda name: plane.current.config.routes.get(name))
        limiter = Limiter(self._counters, Budgets(self._counters, self._ledger, now))
        self._cache = Cache(_store(settings))
        meter = Meter(self._ledger, limiter, tracer=self._tracer)
        self._proxy = proxy = Proxy(limiter, meter, self._cache)
        most, patience = settings.max_body, settings.body_timeout
        inference = Inference(access, proxy, plane, self._tracer, max_body=most, body_timeout=patience)
        mlflow = MlflowGateway(inference, access, plane, max_body=most, body_timeout=patience)
        return Faces(access, plane, inference, mlflow, self._states, to_mlflow=_to_mlflow, lab=settings.lab)

    def _make_tracer(self) -> Tracer | None:
        tracing = environment.tracing()
        if tracing is None:
            return None
        return Tracer(tracing, self._version, lambda name: self.plane.current.config.providers.get(name))

    async def start(self, base_url: str) -> None:
        """Begin everything that runs beside the calls. `base_url` is where this server is reached from here."""
        self.base_url = base_url
        await asyncio.to_thread(self._ledger.recover)  # before any call: what it settles is spent
        await self._counters.start()
        await self.plane.start()
        beside = (self._keys.watch(), self._ledger.run(), self.reloader.watch(), self._watch.run())
        for work in (*beside, self._load_faces()):
            self._tasks.append(asyncio.create_task(work))

    @property
    def busy(self) -> bool:
        """Whether a request is under way that ends by itself: the lab's pages hold theirs open."""
        return bool(self.plane.running or self.faces.running)

    async def close_lab(self) -> None:
        """Send the lab's visitors away: their pages hold streams open that never end by themselves."""
        lab, self._lab = self._lab, None
        if lab is not None:
            await lab.close()

    async def close(self) -> None:
        """Stop everything, the newest first, each part given its own chance."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.close_lab()
        await self._proxy.close()
        await self._cache.close()
        await self.plane.close()
        await self._transport.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        await self._ledger.close()
        await self._counters.close()
        for database in (self.database, self._tracking_database):
            if database is not None:
                await asyncio.to_thread(database.close)

    async def _load_faces(self) -> None:
        """Load what takes long to import, in a thread, while the data plane already answers."""
        log.info("Loading behind the API: control, tracking%s", ", lab" if self._settings.lab else "")
        await self.faces.load("control", self._build_control)
        await self.faces.load("tracking", self._build_tracking)
        if self._settings.lab:
            await self.faces.load("lab", self._build_lab)
        # What is loaded now stays for good: the collector need not walk all of Gradio's objects
        # in the middle of somebody's stream.
        gc.freeze()
        # And what calls leave behind goes by itself: to look for more after 700 of its objects takes 2 % of a call.
        gc.set_threshold(10_000, 20, 20)

    async def _build_control(self) -> App:
        def build() -> App:
            from gateway.api import control

            explainer = Explainer(self.plane, self._keys, self._counters)
            owners = control.Owners(self._keys, Tenants(TenantStore(self.database), self._keys.refresh))
            books = control.Books(self._ledger, AuditStore(self.database), self._alerts, self._metrics, self._gauges())
            return control.create(self._version, self._access, owners, books, self.reloader, explainer)

        return await asyncio.to_thread(build)

    def _gauges(self) -> list[Gauge]:
        from gateway.api.metrics import Gauge

        loops = "Whether limits are counted where they should be: 0 while Redis is away and each process counts alone"
        return [
            Gauge("promptyard_running_calls", "Calls under way", lambda: self.plane.running),
            Gauge("promptyard_counters_shared", loops, lambda: "gone" not in self._counters.status()),
            Gauge("promptyard_processes", "Processes that share the counters", lambda: self._counters.members),
            Gauge("promptyard_ready", "1 once every part is ready", lambda: self._states()["status"] == "ready"),
        ]

    async def _build_tracking(self) -> App:
        def build() -> App:
            from promptlab.api import app

            self._tracking_database = open_tracking_database(self._settings)
            return app.create(self._tracking_database, self._settings.data / "artifacts")

        return await asyncio.to_thread(build)

    async def _build_lab(self) -> App:
        key = self._keys.create_for_lab() if self._keys.protected else None

        def build() -> Any:
            from promptlab.workbench.app import Workbench

            return Workbench(self.base_url, key, self._version, self._settings.data)

        self._lab = await asyncio.to_thread(build)
        await self._lab.start()
        app: App = self._lab
        return app

    def _states(self) -> dict[str, Any]:
        providers = {name: provider.status() for name, provider in self.plane.current.providers.items()}
        parts = self.faces.states()
        needed = [*providers.values(), parts["control"], parts["tracking"]]
        loading = any(state == "loading" for state in needed)
        failed = any(state.startswith("failed") for state in needed)
        status = "failed" if failed else "loading" if loading else "stopping" if self.plane.stopping else "ready"
        counters = self._counters.status()
        traces = {} if self._tracer is None else {"traces": self._tracer.status()}
        own = {"status": status, "version": self._version, "providers": providers, "counters": counters}
        return {**own, **traces, **parts}


def open_gateway_database(settings: Settings) -> Database:
    """The database of keys and usage, its tables made."""
    database = open_database(_url(settings, "gateway"))
    migrations.migrate(database)
    return database


def open_tracking_database(settings: Settings) -> Database:
    """The database of experiments. On SQLite a file of its own: writers of one do not wait for the other's."""
    return open_database(_url(settings, "tracking"))


def _url(settings: Settings, name: str) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    settings.data.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{quote(str(settings.data.resolve() / f'{name}.db'))}"


def _to_mlflow(error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
    """A refusal of ours as MLflow's clients read it."""
    from promptlab import errors as lab_errors

    kind = {401: lab_errors.Unauthenticated, 403: lab_errors.PermissionDenied}.get(error.status)
    status, body = lab_errors.to_mlflow((kind or lab_errors.Unavailable)(error.message))
    wait = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return status, {"content-type": "application/json", **wait}, body


def _counters(settings: Settings) -> Counters:
    if settings.redis_url is None:
        return MemoryCounters()
    from gateway.counters_redis import RedisCounters  # costs 0.1 s, and most servers count in memory

    return RedisCounters(settings.redis_url.get_secret_value())


def _store(settings: Settings) -> Store:
    if settings.redis_url is None:
        return MemoryStore()
    from gateway.cache_redis import RedisStore  # as the counters in Redis

    return RedisStore(settings.redis_url.get_secret_value())
