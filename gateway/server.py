"""The composition root: builds every object once, serves every face on one port, takes all of it down again."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from gateway import settings as environment
from gateway.api import health, http, mlflow_gateway
from gateway.api.access import Access
from gateway.api.inference import Inference
from gateway.api.mlflow_gateway import MlflowGateway
from gateway.cache import Cache, Digests
from gateway.cache_store import MemoryStore, Store
from gateway.counters import Counters, MemoryCounters
from gateway.database import Database, open_database
from gateway.errors import Forbidden, GatewayError, InvalidKey, NotFound, Overloaded, to_openai
from gateway.health import Health
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.prices import PriceTable
from gateway.providers.make import make
from gateway.providers.transport import Transport
from gateway.proxy import Proxy
from gateway.routes import Config
from gateway.routing import Router
from gateway.settings import Settings
from gateway.store import migrations
from gateway.store.keys import KeyStore
from gateway.store.usage import UsageStore
from gateway.telemetry import Tracer
from gateway.types import Scope
from gateway.usage import Meter

log = logging.getLogger(__name__)

App = Callable[[http.Scope, http.Receive, http.Send], Awaitable[None]]
#: Paths of MLflow's protocol, `/v1/traces` among them.
_TRACKING = ("/api/", "/ajax-api/", "/v1/traces", "/version", "/get-artifact", "/model-versions/get-artifact")
_CONTROL = ("/admin/", "/docs", "/openapi.json")
#: How long a request waits for a part that is still loading, in seconds.
_PATIENCE = 60.0


class Application:
    """Everything behind one port. `start` makes the data plane answer; the rest loads behind it."""

    def __init__(self, settings: Settings, config: Config, version: str) -> None:
        self._settings = settings
        self._config = config
        self._version = version
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: dict[str, _Part] = {name: _Part() for name in ("control", "tracking", "lab")}
        settings.data.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(settings.data / "journal")
        self.database = open_gateway_database(settings)
        self._tracking_database: Database | None = None
        self._transport = Transport()
        self._providers = {spec.name: make(spec, self._transport) for spec in config.providers.values()}
        self._counters = _counters(settings)
        self._keys = Keys(KeyStore(self.database), settings.admin_key)
        self._keys.refresh()
        self._access = Access(self._keys)
        self._ledger = Ledger(self._journal, UsageStore(self.database))
        self._tracer = self._make_tracer()
        self._inference = self._data_plane()
        self._lab: Any = None
        self.base_url = ""

    def _data_plane(self) -> Inference:
        settings = self._settings
        for route in self._config.routes.values():
            if route.fault:
                log.warning("Route '%s' injects faults on purpose. Remove its 'fault' before users call it", route.name)
        prices = PriceTable.load(settings.config.parent, environment.price_map_file())
        router = Router(prices.priced(self._config), self._providers, Health())
        limiter = Limiter(self._counters)
        meter = Meter(self._ledger, limiter, tracer=self._tracer)
        self._cache = Cache(_store(settings))
        self._proxy = proxy = Proxy(router, limiter, meter, self._cache, Digests(self._config))
        most, patience = settings.max_body, settings.body_timeout
        inference = Inference(self._access, proxy, router, self._tracer, max_body=most, body_timeout=patience)
        self._mlflow_gateway = MlflowGateway(inference, self._access, router, max_body=most, body_timeout=patience)
        return inference

    def _make_tracer(self) -> Tracer | None:
        tracing = environment.tracing()
        return None if tracing is None else Tracer(tracing, self._version, self._config.providers.get)

    async def start(self, base_url: str) -> None:
        """Begin everything that runs beside the calls. `base_url` is where this server is reached from here."""
        self.base_url = base_url
        await self._counters.start()
        for provider in self._providers.values():
            await provider.start()
        for work in (self._keys.watch(), self._ledger.run(), self._load_faces()):
            self._tasks.append(asyncio.create_task(work))

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
        closers = [provider.close() for provider in self._providers.values()]
        for failed in await asyncio.gather(*closers, return_exceptions=True):
            if isinstance(failed, BaseException):
                log.error("A part did not stop cleanly: %s", type(failed).__name__)
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
        await self._load("control", self._build_control)
        await self._load("tracking", self._build_tracking)
        if self._settings.lab:
            await self._load("lab", self._build_lab)
        else:
            self._parts["lab"].state = "off"
            self._parts["lab"].loaded.set()
        # What is loaded now stays for good: the collector need not walk all of Gradio's objects
        # in the middle of somebody's stream.
        gc.freeze()
        # And what calls leave behind goes by itself: to look for more after 700 of its objects takes 2 % of a call.
        gc.set_threshold(10_000, 20, 20)

    async def _load(self, name: str, build: Callable[[], Awaitable[App]]) -> None:
        part = self._parts[name]
        began = time.perf_counter()
        try:
            part.app = await build()
            part.state = "ready"
            log.info("The %s is ready (%.1f s)", name, time.perf_counter() - began)
        except GatewayError as error:
            log.error("The %s could not be loaded: %s", name, error.message)
            part.state = f"failed: {type(error).__name__}"
        except Exception as error:
            log.exception("The %s could not be loaded", name)
            part.state = f"failed: {type(error).__name__}"
        part.loaded.set()

    async def _build_control(self) -> App:
        def build() -> App:
            from gateway.api import control

            return control.create(self._version, self._access, self._keys, self._ledger)

        return await asyncio.to_thread(build)

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

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Hand a request to the face its raw path belongs to."""
        path: str = scope["path"]
        if path.startswith("/v1/") and not path.startswith("/v1/traces"):
            await self._inference(scope, receive, send)
        elif path.startswith(mlflow_gateway.PREFIXES):
            await self._mlflow_gateway(scope, receive, send)
        elif path == "/health":
            await health.alive(send)
        elif path.startswith(_TRACKING):
            await self._guarded(scope, receive, send, "tracking", self._allow_tracking)
        elif path.startswith(_CONTROL):
            await self._guarded(scope, receive, send, "control", self._allow_control)
        elif path == "/lab" or path.startswith("/lab/"):
            await self._guarded(scope, receive, send, "lab", self._allow_lab)
        elif path == "/health/ready":
            await self._ready(scope, send)
        elif path == "/":
            await http.answer(send, 307, {"location": "/lab/" if self._settings.lab else "/docs"}, b"")
        else:
            method = scope["method"]
            await http.answer_error(send, NotFound(f"There is no {method} {path[:200]} here. See /docs."), {})

    async def _guarded(
        self,
        scope: http.Scope,
        receive: http.Receive,
        send: http.Send,
        name: str,
        allow: Callable[[http.Scope, Mapping[bytes, bytes]], None],
    ) -> None:
        """Let an allowed caller through to a face, once it is loaded."""
        part = self._parts[name]
        try:
            headers = dict(scope["headers"])
            try:
                allow(scope, headers)
            except InvalidKey:
                if not await self._access.look_again(headers):
                    raise
                allow(scope, headers)
            async with asyncio.timeout(_PATIENCE):
                await part.loaded.wait()
            if part.state == "off":
                raise NotFound(f"The {name} is off.")
            if part.app is None:
                raise Overloaded(f"The {name} is {part.state}.")
        except TimeoutError:
            await self._refuse(scope, send, name, Overloaded(f"The {name} is still loading."))
        except GatewayError as error:
            await self._refuse(scope, send, name, error)
        else:
            await part.app(scope, receive, send)

    async def _refuse(self, scope: http.Scope, send: http.Send, name: str, error: GatewayError) -> None:
        if name == "tracking":
            from promptlab import errors as lab_errors

            kind = {401: lab_errors.Unauthenticated, 403: lab_errors.PermissionDenied}.get(error.status)
            status, body = lab_errors.to_mlflow((kind or lab_errors.Unavailable)(error.message))
            headers: Mapping[str, str] = {"content-type": "application/json"}
        else:
            status, headers, body = to_openai(error)
        challenge = {"www-authenticate": 'Basic realm="Promptyard: the password is a key"'}
        browser = name == "control" and not scope["path"].startswith("/admin/")
        await http.answer(send, status, {**headers, **(challenge if status == 401 and browser else {})}, body)

    def _allow_tracking(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        if scope["path"] == "/version":
            self._access.check_origin(headers)
        else:
            self._access.allow(headers, Scope.TRACKING)

    def _allow_control(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        # Handlers under /admin/ say themselves which scope they need; the pages need any key.
        self._access.key(headers)

    def _allow_lab(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        # With an admin key the lab signs its visitors in itself.
        self._access.check_origin(headers)

    async def _ready(self, scope: http.Scope, send: http.Send) -> None:
        try:
            self._access.key(dict(scope["headers"]))
            detailed = True
        except (InvalidKey, Forbidden):
            detailed = False
        await health.ready(send, lambda: self._states(detailed=detailed))

    def _states(self, *, detailed: bool) -> Mapping[str, Any]:
        providers = {name: provider.status() for name, provider in self._providers.items()}
        parts = {name: part.state for name, part in self._parts.items()}
        needed = [*providers.values(), parts["control"], parts["tracking"]]
        loading = any(state == "loading" for state in needed)
        failed = any(state.startswith("failed") for state in needed)
        status = "failed" if failed else "loading" if loading else "ready"
        if not detailed:
            return {"status": status}
        counters = self._counters.status()
        traces = {} if self._tracer is None else {"traces": self._tracer.status()}
        own = {"status": status, "version": self._version, "providers": providers, "counters": counters}
        return {**own, **traces, **parts}


class _Part:
    """A face that loads behind the data plane."""

    def __init__(self) -> None:
        self.loaded = asyncio.Event()
        self.app: App | None = None
        self.state = "loading"


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
