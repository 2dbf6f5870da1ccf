"""`promptyard serve` as a process: a socket, uvicorn on it, a banner, signals, and an end within a known time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Protocol

import uvicorn

from gateway import settings as environment
from gateway.api.faces import App
from gateway.api.handover import TakenProtocol
from gateway.reload import Reading
from gateway.routes import Config, RouteTask
from gateway.server import Application
from gateway.server_sockets import address_of, listen
from gateway.settings import Settings

#: Answers under way get this long to end by themselves once Ctrl-C asks for a stop, in seconds.
_DRAIN = 1.5
#: The process ends this long after a stop was asked for, whatever hangs (a database that is gone): usage is in the
#: journal, children end when we do.
_END = 4.0
#: And this long after everything was closed, whatever a thread still imports.
_REST = 0.5


class Served(Protocol):
    """What a server serves: a whole Promptyard, or a worker of one."""

    async def start(self, base_url: str) -> None:
        """Begin everything that runs beside the calls."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way that ends by itself."""

    def drain(self) -> None:
        """Take no more calls. Those under way go on."""

    def hang_up(self) -> None:
        """Do what SIGHUP asks for."""

    async def close_lab(self) -> None:
        """Send away those whose requests never end by themselves."""

    async def close(self) -> None:
        """Stop everything."""

    @property
    def app(self) -> App:
        """What answers."""

    @property
    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What a connection is read by, made with uvicorn's own arguments."""


def run(settings: Settings, reading: Reading, version: str, started: float) -> None:
    """Serve until a signal says stop. `started` is when this process began, UTC epoch seconds.

    Raises `ConfigError` when this address cannot or must not be served.
    """
    log_to_stderr(settings.log_level)
    environment.quieten_libraries()
    allow_many_files()
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in listen(settings)]
        address = address_of(listeners[0])
        app = Application(settings, reading, version)
        said = banner(settings, reading.config, version, address)

        async def began() -> None:
            if app.workers is not None:
                await app.start_workers(listeners, server.connection)
            took = time.time() - started
            print(f"{said}\nReady after {took:.1f} s; Ctrl-C stops.", flush=True)  # noqa: T201 - for a person

        server = Server(app, settings.drain, address, began=began)
        server.run(sockets=[] if app.workers is not None else listeners)


class Server(uvicorn.Server):
    """uvicorn with the start and the stop of what it serves inside its own."""

    def __init__(
        self, served: Served, drain: float, base_url: str, began: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`began` is awaited once connections are accepted."""
        super().__init__(
            uvicorn.Config(
                served.app,
                http=served.protocol,  # type: ignore[arg-type]  # it calls whatever this is
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_DRAIN,  # type: ignore[arg-type]  # it is handed to asyncio, which takes 1.5
            )
        )
        self._app = served
        self._base_url = base_url
        self._began = began
        self._drain = drain
        #: Until when the calls under way are waited for, once no more are taken.
        self._until: float | None = None
        self._terminal = sys.stdin is not None and sys.stdin.isatty()

    def connection(self, came: bytes) -> asyncio.Protocol:
        """What reads a connection that a worker accepted, and of which it has read this much."""
        state = {} if self.lifespan.state is None else self.lifespan.state
        return TakenProtocol(came, config=self.config, server_state=self.server_state, app_state=state)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, what is served first."""
        await self._app.start(self._base_url)
        await super().startup(sockets=sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        if self._began is not None:
            await self._began()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C stops soon; SIGTERM lets the calls under way end first, and takes no more. A second stops at once."""
        if self._until is not None or self.should_exit:
            self.config.timeout_graceful_shutdown = 0
            self.force_exit = self.should_exit
        elif sig == signal.SIGTERM and self._drain:
            self._until = time.monotonic() + self._drain
            self._app.drain()
            self._captured_signals.append(sig)
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now, asked ten times a second."""
        if self._until is not None and not self.should_exit:
            late = time.monotonic() >= self._until
            if late:
                self.config.timeout_graceful_shutdown = 0
            if late or not self._app.busy:  # never set back: a signal may have set it meanwhile
                self.should_exit = True
        return await super().on_tick(counter)

    def _hang_up(self) -> None:
        # The signal also says that the terminal is gone, and who started us in it with it.
        if self._terminal and not sys.stdin.isatty():
            self.handle_exit(signal.SIGHUP, None)
        else:
            self._app.hang_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End within a known time."""
        _leave_after(_END)
        await self._app.close_lab()
        await super().shutdown(sockets=sockets)
        if self.force_exit:  # then uvicorn has left them as they were
            for task in self.server_state.tasks:
                task.cancel()
        await self._app.close()
        _leave_after(_REST)


def _leave_after(seconds: float) -> None:
    """End the process then, unless it has ended. Python itself would wait for every thread, the lab's import too."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def banner(settings: Settings, config: Config, version: str, base_url: str) -> str:
    """What a person needs to know to begin: addresses, a call to paste, where data lives."""
    chat = next((route.name for route in config.routes.values() if route.task is RouteTask.CHAT), None)
    lines = [
        f"Promptyard {version}",
        "",
        f"  API       {base_url}/v1  (OpenAI's; models: {', '.join(config.routes)})",
        f"  Lab       {base_url}/lab/" if settings.lab else "  Lab       off",
        f"  Tracking  {base_url}  (export MLFLOW_TRACKING_URI={base_url})",
        f"  Docs      {base_url}/docs",
        f"  Data      {settings.data.resolve()}",
        "",
    ]
    if settings.admin_key is None:
        lines += ["  No admin key is set: only this machine is served, and no key is needed.", ""]
    faulty = [route.name for route in config.routes.values() if route.fault]
    if faulty:
        lines += [f"  FAULTS    injected on purpose: {', '.join(faulty)}", ""]
    if chat is not None:
        body = json.dumps({"model": chat, "messages": [{"role": "user", "content": "Say hello."}]})
        url = shlex.quote(f"{base_url}/v1/chat/completions")
        call = f"curl {url}{_key_for_curl(settings)} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
        lines += [f"  {call}", ""]
    return "\n".join(lines)


def _key_for_curl(settings: Settings) -> str:
    """The admin key as a shell finds it where the server found it, without showing it."""
    if settings.admin_key is None:
        return ""
    where = "$PROMPTYARD_ADMIN_KEY"
    if settings.admin_key_file is not None:
        where = f"$(cat {shlex.quote(str(settings.admin_key_file.resolve()))})"
    return f' -H "Authorization: Bearer {where}"'


def allow_many_files() -> None:
    """Let this process open as many files as it may at all: a stream takes two, and shells begin with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a higher limit than they grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _OneLine(logging.Formatter):
    """Keeps a message on its line: a caller's path, quoted in it, cannot make up lines or colour the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name in `logging`
        return super().formatMessage(record).translate(_SHOWN)


_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def log_to_stderr(level: str) -> None:
    """Have everything from `level` on logged there, calls on lines of their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Lines of calls carry a time of their own: they are written some at once.
    calls = logging.getLogger("gateway.calls")
    calls.propagate = False
    calls.handlers = [logging.StreamHandler(sys.stderr)]
    # Found out anew for each record, and printed by none.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # What these say at info is said better by the banner and by the line of each call.
    for name in ("uvicorn", "uvicorn.error", "httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
