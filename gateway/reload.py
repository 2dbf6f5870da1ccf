"""The configuration read anew while it is served: when its files change, on a signal, or when an admin asks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from gateway import changes, config, prices, settings
from gateway.changes import Change
from gateway.errors import ConfigError
from gateway.plane import Plane
from gateway.prices import PriceTable
from gateway.routes import Config

log = logging.getLogger(__name__)

#: How often the files are looked at, in seconds; and how long a change is left to be finished before it is read.
LOOK, SETTLE = 0.5, 0.05
#: A file that never comes to rest is read all the same after so many looks.
_LOOKS = 10

#: When each file was changed, which one it is and how long; None where it is not there.
Seen = Mapping[Path, tuple[int, int, int] | None]


class Reading(NamedTuple):
    """A configuration with its prices, and the version of the texts it was read from."""

    config: Config
    version: str


def read(path: Path) -> Reading:
    """What the files say now: `routes.yaml` at `path`, the secrets it names and the prices beside it.

    Raises `ConfigError` with every problem.
    """
    understood = config.load(path, settings.environment())
    table = PriceTable.load(path.parent, settings.price_map_file())
    digest = hashlib.sha256()
    for file in (path, prices.own_file(path.parent)):
        # Of secrets nothing: a short one could be guessed from it.
        digest.update(file.read_bytes() if file.exists() else b"")
    return Reading(table.priced(understood), digest.hexdigest()[:12])


class Reloader:
    """Brings what the files say to the plane, one reading at a time. `refused` is why the last was not taken over."""

    def __init__(self, path: Path, plane: Plane, followed: Callable[[], Awaitable[None]] | None = None) -> None:
        """`followed` is awaited once a reading is served here: others may have to serve it too."""
        self.path = path
        self.plane = plane
        self._followed = followed
        self.refused: ConfigError | None = None
        self._seen: Seen = {}
        self._lock = asyncio.Lock()
        self._asked: set[asyncio.Task[None]] = set()

    async def reload(self, why: str) -> tuple[Change, ...]:
        """Read the files and serve what they say. What changed; nothing does where they cannot be understood whole.

        Raises `ConfigError` with every problem then.
        """
        async with self._lock:
            try:
                reading = await asyncio.to_thread(self._read)
            except ConfigError as error:
                self.refused = error
                log.error("%s cannot be taken over (%s); what was served stays:", self.path, why)
                for line in error.message.splitlines():
                    log.error("  %s", line)
                raise
            self.refused = None
            before = self.plane.current
            changed = changes.between(before.config, reading.config)
            if changed or reading.version != before.version:
                await self.plane.swap(reading.config, reading.version)
                log.info("%s is taken over as version %s (%s): %s", self.path, reading.version, why, _told(changed))
                if self._followed is not None:
                    await self._followed()
            return changed

    def ask(self, why: str) -> None:
        """Reload soon; how it went is in the log."""
        task = asyncio.create_task(self._try(why))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def watch(self) -> None:
        """Reload whenever a file changes, for ever."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                if await asyncio.to_thread(self._differs):
                    await self._try("its files changed")
            except Exception:
                log.exception("The files of the configuration could not be looked at")

    async def _try(self, why: str) -> None:
        try:
            await self.reload(why)
        except ConfigError:
            return  # told already
        except Exception:
            log.exception("%s could not be taken over; what was served stays", self.path)

    def _read(self) -> Reading:
        for _ in range(_LOOKS):
            # Looked at before they are read: what is written meanwhile is a change to come.
            self._seen = _look((*config.files(self.path), prices.own_file(self.path.parent)))
            try:
                reading = read(self.path)
            except ConfigError:
                if _look(self._seen) == self._seen:
                    raise
                continue
            if _look(self._seen) == self._seen:
                return reading
        return read(self.path)

    def _differs(self) -> bool:
        """Whether a file is another than when it was read. Waits until whoever writes it has finished."""
        if not self._seen:
            return True  # it was read before anybody looked
        seen = _look(self._seen)
        if seen == self._seen:
            return False
        for _ in range(_LOOKS):
            before = seen
            time.sleep(SETTLE)
            seen = _look(self._seen)
            if seen == before:
                break
        return True


def _told(changed: tuple[Change, ...]) -> str:
    return "; ".join(map(str, changed)) or "nothing that matters changed"


def _look(files: Iterable[Path]) -> Seen:
    seen: dict[Path, tuple[int, int, int] | None] = {}
    for file in files:
        try:
            stat = file.stat()
            seen[file] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            seen[file] = None
    return seen
