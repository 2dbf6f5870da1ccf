"""The control process's side of its workers: starts them, hears from them, starts again those that die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.api.handover import Taker
from gateway.server_link import Line, told
from gateway.settings import Settings

log = logging.getLogger(__name__)

#: A worker that lived this long is not part of a row of deaths; within one, rests before the next grow, in seconds.
_STEADY, _FIRST_REST, _LONGEST_REST = 30.0, 0.5, 10.0
#: Seconds a worker may take to answer for the first time, to take over a configuration, and to go.
_LOADING, _PATIENCE, _GOODBYE = 60.0, 5.0, 3.0
#: Seconds after which a worker that has calls under way has said so.
_HEARD = 0.4
#: How often workers are told how the embedded models are, where that has changed, in seconds.
_LOOK = 0.1


def journal_of(settings: Settings, number: int | str) -> Path:
    """The folder of a worker's journal."""
    return settings.data / f"journal-{number}"


def journals_of(settings: Settings) -> list[Path]:
    """The folders of the journals of all workers: none where one process does everything."""
    return [journal_of(settings, number) for number in range(1, settings.workers + 1)] if settings.workers > 1 else []


class Shared:
    """What the control process lets its workers have: asked for each time, as it may change."""

    def __init__(
        self,
        base_url: str,
        lab_key: str | None,
        lent: Callable[[], Mapping[str, Any]],
        flush: Callable[[], Any],
        protocol: Callable[[bytes], asyncio.Protocol],
    ) -> None:
        self.base_url, self.lab_key = base_url, lab_key
        self.lent, self.flush, self.protocol = lent, flush, protocol


class Workers:
    """All of them. `ready` is how many answer, `running` how many calls they have under way."""

    def __init__(self, settings: Settings, version: str) -> None:
        self._settings = settings
        self._version = version
        self._all: list[_Worker] = []
        self._supervising: list[asyncio.Task[None]] = []
        self._draining = False
        self._drained = float("-inf")
        self._lent: Mapping[str, Any] = {}

    @property
    def ready(self) -> int:
        """How many answer calls."""
        return sum(one.ready.is_set() for one in self._all)

    @property
    def running(self) -> int:
        """How many calls are under way there, as they said last; just after they were told to end, one at least."""
        running = sum(one.running for one in self._all)
        return max(1, running) if time.monotonic() - self._drained < _HEARD else running

    @property
    def traces(self) -> tuple[int, int]:
        """How many traces of calls they have kept, and dropped, as they said last."""
        return sum(one.traces[0] for one in self._all), sum(one.traces[1] for one in self._all)

    def status(self) -> str:
        """ "ready" once all answer, else how many do."""
        count = self._settings.workers
        return "ready" if self.ready == count else f"loading: {self.ready} of {count} answer"

    async def start(self, listeners: Sequence[socket.socket], shared: Shared) -> None:
        """Start them, and return once all of them answer. Raises `RuntimeError` where one does not."""
        for number, listener in enumerate(listeners, 1):
            self._all.append(_Worker(number, self._settings, self._version, listener, shared))
        self._supervising = [asyncio.create_task(self._supervise(one)) for one in self._all]
        self._supervising.append(asyncio.create_task(self._tell_of_models(shared)))
        waiting = [asyncio.create_task(one.ready.wait()) for one in self._all]
        try:
            _, missing = await asyncio.wait(waiting, timeout=_LOADING)
        finally:
            for task in waiting:
                task.cancel()
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(self._all)} workers did not start")

    async def _supervise(self, worker: _Worker) -> None:
        """Have `worker` run for ever: at once again the first time, then after rests that grow."""
        rest = 0.0
        while True:
            began = time.monotonic()
            status = await worker.live(self._lent)
            if self._draining:
                return
            lived = time.monotonic() - began
            rest = 0.0 if lived > _STEADY else min(_LONGEST_REST, max(_FIRST_REST, 2 * rest)) if lived < 1 else rest
            log.error("Worker %d ended (%s); started again in %g s", worker.number, status, rest)
            await asyncio.sleep(rest)

    async def _tell_of_models(self, shared: Shared) -> None:
        while True:
            lent = shared.lent()
            if lent != self._lent:
                self._lent = lent
                for one in self._all:
                    one.say({"lent": lent})
            await asyncio.sleep(_LOOK)

    async def reload(self) -> None:
        """Have every worker serve what the files say, and return once they do; those that start meanwhile read them."""
        await asyncio.gather(*(one.reload() for one in self._all))

    def drain(self) -> None:
        """Have them take no more calls. They stay until `close`: so that whoever connects meanwhile is answered."""
        self._draining, self._drained = True, time.monotonic()
        for one in self._all:
            one.signal(signal.SIGTERM)

    async def close(self) -> None:
        """End them, soon."""
        drained, self._draining = self._draining, True
        for one in self._all:
            if drained:
                one.hang_up()
            else:
                one.signal(signal.SIGINT)
        await asyncio.gather(*(one.gone() for one in self._all))
        for task in self._supervising:
            task.cancel()
        await asyncio.gather(*self._supervising, return_exceptions=True)


class _Worker:
    """One worker, through all its lives."""

    def __init__(self, number: int, settings: Settings, version: str, listener: socket.socket, shared: Shared) -> None:
        self.number = number
        self.ready = asyncio.Event()
        self.running = 0
        #: Traces kept and dropped, and those by its former lives.
        self.traces = self._before = (0, 0)
        self._settings = settings
        self._version = version
        self._listener = listener
        self._shared = shared
        self._process: asyncio.subprocess.Process | None = None
        self._line: Line | None = None
        self._flushing: set[asyncio.Task[None]] = set()
        self._reloads = 0
        self._reloaded = asyncio.Event()

    async def live(self, lent: Mapping[str, Any]) -> str:
        """One life, from its start to its end; how it ended."""
        (ours, theirs), (take, give) = socket.socketpair(), socket.socketpair()
        handed = (theirs.fileno(), give.fileno(), self._listener.fileno())
        with theirs, give:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway.server_worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=handed,
                # Out of the terminal's process group: Ctrl-C is for us, who tell them.
                start_new_session=True,
            )
        taker = Taker(take, self._shared.protocol)
        self._line = await Line.over(ours)
        self.say(
            {
                "settings": told(self._settings),
                "version": self._version,
                "number": self.number,
                "give": handed[1],
                "listener": handed[2],
                "base_url": self._shared.base_url,
                "lab_key": self._shared.lab_key,
                "lent": lent,
            }
        )
        try:
            while (heard := await self._line.hear()) is not None:
                self._hear(heard)
            status = await self._process.wait()
        finally:
            self.ready.clear()
            self.running = 0
            self._before = self.traces
            self._reloaded.set()
            self._line.close()
            taker.close()
        return f"by signal {-status}" if status < 0 else f"with status {status}"

    def _hear(self, heard: Mapping[str, Any]) -> None:
        self.running = heard.get("running", self.running)
        if "traces" in heard:
            self.traces = (self._before[0] + heard["traces"][0], self._before[1] + heard["traces"][1])
        if "ready" in heard:
            self.ready.set()
        if heard.get("reloaded") == self._reloads:
            self._reloaded.set()
        if "flush" in heard:
            task = asyncio.create_task(self._flush(heard["flush"]))
            self._flushing.add(task)
            task.add_done_callback(self._flushing.discard)

    async def _flush(self, number: int) -> None:
        """Bring every journal into SQL for a worker that is about to ask it."""
        why = None
        try:
            await self._shared.flush()
        except Exception as error:
            why = str(error)
        self.say({"flushed": number, "why": why})

    def say(self, what: Mapping[str, Any]) -> None:
        """Tell it something, if it is there."""
        if self._line is not None:
            self._line.say(what)

    async def reload(self) -> None:
        """Have it read the files, and wait until it has; not for ever."""
        if not self.ready.is_set():
            return  # it reads them when it starts
        self._reloads += 1
        self._reloaded.clear()
        self.say({"reload": self._reloads})
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._reloaded.wait()
        except TimeoutError:
            log.warning("Worker %d has not taken over the configuration within %g s", self.number, _PATIENCE)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def hang_up(self) -> None:
        """Say nothing more, and hear nothing: one that takes no more calls goes then."""
        if self._line is not None:
            self._line.close()

    async def gone(self) -> None:
        """See it gone, by force if it must be."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()
