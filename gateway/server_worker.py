"""A worker: a process that answers calls on the port of its control process, and hands it everything else."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from gateway import reload
from gateway import settings as environment
from gateway.api.faces import App, Calls
from gateway.api.handover import Giver, HandingProtocol
from gateway.errors import ConfigError, Overloaded
from gateway.journal import Journal
from gateway.providers.embedded import Lent, Place
from gateway.server_link import Line
from gateway.server_plane import DataPlane, Own
from gateway.server_process import Server, allow_many_files, log_to_stderr
from gateway.server_workers import journal_of
from gateway.settings import Settings
from gateway.store.usage import UsageStore

#: How often the control process is told of calls under way and traces kept, where that has changed, in seconds.
_BEAT = 0.1
#: How long whoever asks what was used waits for the control process to have brought it into SQL.
_PATIENCE = 10.0


class _Asking:
    """Has the control process bring this worker's journal into SQL, with all others."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._number = 0

    async def flush(self) -> None:
        """As `Filling` has it. Raises `Overloaded`."""
        if self.line is None:
            return  # while it starts, and once it has ended, others see to it
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self.line.say({"flush": number})
        try:
            async with asyncio.timeout(_PATIENCE):
                await answer
        finally:
            del self._asked[number]

    def hear(self, number: int, why: str | None) -> None:
        """Take the answer."""
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return
        if why is None:
            answer.set_result(None)
        else:
            answer.set_exception(Overloaded("The database does not answer.", code="database_unavailable"))

    async def run(self) -> None:
        """As `Filling` has it: the control process does it by itself."""


class Worker:
    """What a worker serves (`server_process.Served`)."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.settings = Settings.model_validate(order["settings"])
        self._asking = _Asking()
        self._lent = Lent()
        self._tell_of_models(order["lent"])
        own = Own(journal_of(self.settings, order["number"]), self._fill, lent=self._lent)
        self._data = DataPlane(self.settings, reload.read(self.settings.config), order["version"], own)
        if order["lab_key"] is not None:
            self._data.keys.know_lab(order["lab_key"])
        self.app: App = Calls(self._data.inference, self._data.mlflow)
        self._giver = Giver(socket.socket(fileno=order["give"]))
        self.protocol = functools.partial(HandingProtocol, self._giver.give)
        self._line: Line | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._said: dict[str, Any] = {}

    def _fill(self, _journal: Journal, _store: UsageStore) -> _Asking:
        return self._asking

    def _tell_of_models(self, lent: Mapping[str, Any]) -> None:
        self._lent.tell({name: (status, place and Place(*place)) for name, (status, place) in lent.items()})

    @property
    def busy(self) -> bool:
        """Until the control process says go, or is gone: whoever still connects is told that the server is stopping."""
        return self._asking.line is not None or bool(self._data.plane.running)

    def drain(self) -> None:
        """Take no more calls. Those under way go on."""
        self._data.plane.stop()

    def hang_up(self) -> None:
        """Nothing: the control process says when to read the files."""

    async def start(self, base_url: str) -> None:
        """Begin to answer."""
        await self._data.start()

    async def listen(self, link: socket.socket) -> None:
        """Say that calls are answered, and hear what the control process says, until it is gone: then stop."""
        self._line = self._asking.line = await Line.over(link)
        self._line.say({"ready": True})
        self._tasks = [asyncio.create_task(work) for work in (self._hear(self._line), self._beat(self._line))]

    async def _hear(self, line: Line) -> None:
        while (heard := await line.hear()) is not None:
            if "lent" in heard:
                self._tell_of_models(heard["lent"])
            if "flushed" in heard:
                self._asking.hear(heard["flushed"], heard["why"])
            if "reload" in heard:
                with contextlib.suppress(ConfigError):  # told already; the control process will read it again, too
                    await self._data.reloader.reload("the control process has")
                line.say({"reloaded": heard["reload"]})
        self._asking.line = None
        if not self._data.plane.stopping:
            os.kill(os.getpid(), signal.SIGTERM)

    async def _beat(self, line: Line) -> None:
        while True:
            recorder = self._data.recorder
            said = {"running": self._data.plane.running, "traces": (recorder.recorded, recorder.dropped)}
            if said != self._said:
                self._said = said
                line.say(said)
            await asyncio.sleep(_BEAT)

    async def close_lab(self) -> None:
        """It has none."""

    async def close(self) -> None:
        """Stop everything."""
        self._giver.close()
        await self._data.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._line is not None:
            self._line.close()


def main() -> None:
    """Do as the first line says that comes through the descriptor named on the command line."""
    link = socket.socket(fileno=int(sys.argv[1]))
    order = orjson.loads(_first_line(link))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # until uvicorn takes over
    log_to_stderr(order["settings"]["log_level"])
    environment.quieten_libraries()
    allow_many_files()
    worker = Worker(order)
    server = Server(worker, worker.settings.drain, order["base_url"], began=functools.partial(worker.listen, link))
    with socket.socket(fileno=order["listener"]) as listener:
        server.run(sockets=[listener])


def _first_line(link: socket.socket) -> bytes:
    """Read no more than it: what follows is read by the event loop."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = link.recv(1)
        if not piece:
            raise SystemExit(0)
        line += piece
    return bytes(line)


if __name__ == "__main__":
    main()
