"""The composition root: builds every object once, serves every face on one port, takes all of it down again."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.alerts import Watch
from gateway.api.faces import App, Faces
from gateway.api.protocol import BoundedProtocol
from gateway.database import Database, open_database
from gateway.errors import ConfigError, GatewayError
from gateway.explain import Explainer
from gateway.filling import Filler, Fillers
from gateway.journal import Journal, JournalReader
from gateway.ledger import Ledger
from gateway.metrics import Metrics
from gateway.providers.embedded import EmbeddedProvider
from gateway.reload import Reading
from gateway.server_plane import DataPlane, Own, open_gateway_database, url_of
from gateway.server_workers import Shared, Workers, journal_of, journals_of
from gateway.settings import Settings
from gateway.store.alerts import AlertStore
from gateway.store.audit import AuditStore
from gateway.store.tenants import TenantStore
from gateway.store.usage import UsageStore
from gateway.tenants import Tenants
from gateway.types import UsageRecord

if TYPE_CHECKING:
    from gateway.api.metrics import Gauge

__all__ = ["Application", "open_gateway_database", "open_tracking_database"]

log = logging.getLogger(__name__)


class Application:
    """Everything behind one port. `start` makes the data plane answer; the rest loads behind it.

    With workers, those have the port: this is then the control process, which is handed whatever is no call.
    """

    def __init__(self, settings: Settings, reading: Reading, version: str) -> None:
        self._settings = settings
        self._version = version
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tracking_database: Database | None = None
        self._close_tracking: Callable[[], None] = _nothing
        self._metrics = Metrics()
        self.workers = Workers(settings, version) if settings.workers > 1 else None
        followed = None if self.workers is None else self.workers.reload
        own = Own(settings.data / "journal", self._fill, self._heard, followed=followed)
        self._data = DataPlane(settings, reading, version, own)
        self.plane, self.reloader = self._data.plane, self._data.reloader
        self._alerts = AlertStore(self._data.database)
        self._watch = Watch(
            self._data.ledger, self._alerts, self._data.keys, lambda: self.plane.current.config, self._data.transport
        )
        self.faces = Faces(
            self._data.access,
            self.plane,
            self._data.inference,
            self._data.mlflow,
            self._states,
            to_mlflow=_to_mlflow,
            lab=settings.lab,
        )
        self._lab: Any = None
        self._lab_key: str | None = None
        self.base_url = ""

    def _fill(self, journal: Journal, store: UsageStore) -> Fillers:
        """Brings this process's journal into SQL, and those of its workers."""
        readers = map(JournalReader, journals_of(self._settings))
        return Fillers([Filler(journal, store), *(Filler(one, store, self._heard_elsewhere) for one in readers)])

    def _heard(self, record: UsageRecord) -> None:
        self._metrics.add(record)
        self._watch.heard(record)

    def _heard_elsewhere(self, record: UsageRecord) -> None:
        """As `_heard`, of a worker's record: its thread is the filling one."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._heard, record)

    async def start(self, base_url: str) -> None:
        """Begin everything that runs beside the calls. `base_url` is where this server is reached from here."""
        self.base_url = base_url
        self._loop = asyncio.get_running_loop()
        self._lab_key = self._data.keys.create_for_lab() if self._settings.lab and self._data.keys.protected else None
        await asyncio.to_thread(settle_workers, self._settings, self._data.database)
        await self._data.start()
        for work in (self.reloader.watch(), self._watch.run(), self._load_faces()):
            self._tasks.append(asyncio.create_task(work))

    @property
    def app(self) -> App:
        """Everything, as one ASGI application."""
        return self.faces

    @property
    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What reads a connection."""
        return BoundedProtocol

    async def start_workers(
        self, listeners: Sequence[socket.socket], protocol: Callable[[bytes], asyncio.Protocol]
    ) -> None:
        """Have workers answer on `listeners`, each on one; connections they hand over are read by `protocol`."""
        assert self.workers is not None  # noqa: S101 - asked for where there are some
        shared = Shared(self.base_url, self._lab_key, self._lent, self._data.ledger.flush, protocol)
        await self.workers.start(listeners, shared)

    def _lent(self) -> Mapping[str, Any]:
        """The embedded models, as workers are told of them."""
        providers = self.plane.current.providers
        lent = {name: one.lent() for name, one in providers.items() if isinstance(one, EmbeddedProvider)}
        return {name: (status, place and list(place)) for name, (status, place) in lent.items()}

    def hang_up(self) -> None:
        """Read the configuration anew."""
        self.reloader.ask("SIGHUP")

    @property
    def busy(self) -> bool:
        """Whether a request is under way that ends by itself: the lab's pages hold theirs open."""
        return bool(self.plane.running or self.faces.running or (self.workers is not None and self.workers.running))

    def drain(self) -> None:
        """Take no more calls. Those under way go on."""
        self.plane.stop()
        if self.workers is not None:
            self.workers.drain()

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
        if self.workers is not None:
            await self.workers.close()
        await self._data.close()
        await asyncio.to_thread(self._close_tracking)
        if self._tracking_database is not None:
            await asyncio.to_thread(self._tracking_database.close)

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

            data = self._data
            explainer = Explainer(self.plane, data.keys, data.counters)
            owners = control.Owners(data.keys, Tenants(TenantStore(data.database), data.keys.refresh))
            books = control.Books(data.ledger, AuditStore(data.database), self._alerts, self._metrics, self._gauges())
            return control.create(self._version, data.access, owners, books, self.reloader, explainer)

        return await asyncio.to_thread(build)

    def _gauges(self) -> list[Gauge]:
        from gateway.api.metrics import Gauge

        counters, workers = self._data.counters, self.workers
        loops = "Whether limits are counted where they should be: 0 while Redis is away and each process counts alone"
        return [
            Gauge("promptyard_running_calls", "Calls under way", self._running_calls),
            Gauge("promptyard_counters_shared", loops, lambda: "gone" not in counters.status()),
            Gauge("promptyard_processes", "Processes that share the counters", lambda: counters.members),
            Gauge("promptyard_workers", "Workers that answer calls", lambda: 0 if workers is None else workers.ready),
            Gauge("promptyard_traces_recorded", "Traces of calls kept in experiments", lambda: self._traces()[0], True),
            Gauge("promptyard_traces_dropped", "Traces of calls not kept", lambda: self._traces()[1], True),
            Gauge("promptyard_ready", "1 once every part is ready", lambda: self._states()["status"] == "ready"),
        ]

    def _traces(self) -> tuple[int, int]:
        """Traces of calls that experiments keep, and those that were dropped: here and by workers."""
        here = self._data.recorder
        recorded, dropped = (0, 0) if self.workers is None else self.workers.traces
        return here.recorded + recorded, here.dropped + dropped

    def _running_calls(self) -> int:
        return self.plane.running + (0 if self.workers is None else self.workers.running)

    async def _build_tracking(self) -> App:
        def build() -> App:
            from promptlab.api import app

            settings = self._settings
            self._tracking_database = open_tracking_database(settings)
            kept = settings.artifacts
            made = app.create(
                self._tracking_database,
                settings.data / "artifacts" if kept is None else kept.get_secret_value(),
                largest_artifact=settings.max_artifact,
                private_webhooks=settings.private_webhooks,
            )
            self._close_tracking = made.state.close
            return made

        return await asyncio.to_thread(build)

    async def _build_lab(self) -> App:
        def build() -> Any:
            from promptlab.workbench.app import Workbench

            return Workbench(self.base_url, self._lab_key, self._version, self._settings.data)

        self._lab = await asyncio.to_thread(build)
        await self._lab.start()
        app: App = self._lab
        return app

    def _states(self) -> dict[str, Any]:
        providers = {name: provider.status() for name, provider in self.plane.current.providers.items()}
        parts = self.faces.states()
        needed = [*providers.values(), parts["control"], parts["tracking"]]
        if self.workers is not None:
            needed.append(self.workers.status())
        loading = any(state == "loading" for state in needed)
        failed = any(state.startswith("failed") for state in needed)
        status = "failed" if failed else "loading" if loading else "stopping" if self.plane.stopping else "ready"
        counters, tracer = self._data.counters.status(), self._data.tracer
        traces = {} if tracer is None else {"traces": tracer.status()}
        own = {"status": status, "version": self._version, "providers": providers, "counters": counters}
        workers = {} if self.workers is None else {"workers": self.workers.status()}
        return {**own, **workers, **traces, **parts}


def _nothing() -> None:
    """What was never begun needs no end."""


def open_tracking_database(settings: Settings) -> Database:
    """The database of experiments. On SQLite a file of its own: writers of one do not wait for the other's."""
    return open_database(url_of(settings, "tracking"))


def settle_workers(settings: Settings, database: Database) -> None:
    """Bring into SQL what workers wrote that are gone, and settle what a kill cut short of theirs.

    Before the first of ours answers: whoever asks it then what was used is told of all of it. A worker that outlives
    the kill of its server for a moment still holds its journal: the one that follows it settles that. Raises
    `ConfigError` where such a one is none of ours any more.
    """
    store = UsageStore(database)
    for folder in sorted(settings.data.glob(journal_of(settings, "*").name)):
        if folder.is_dir():
            try:
                _settle(folder, store)
            except ConfigError:
                if folder not in journals_of(settings):
                    raise


def _settle(folder: Path, store: UsageStore) -> None:
    journal = Journal(folder)
    try:
        Ledger(journal, store).recover()
        Filler(journal, store).fill()
    finally:
        journal.close()


def _to_mlflow(error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
    """A refusal of ours as MLflow's clients read it."""
    from promptlab import errors as lab_errors

    kind = {401: lab_errors.Unauthenticated, 403: lab_errors.PermissionDenied}.get(error.status)
    status, body = lab_errors.to_mlflow((kind or lab_errors.Unavailable)(error.message))
    wait = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return status, {"content-type": "application/json", **wait}, body
