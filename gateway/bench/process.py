"""Processes that a bench starts: pinned to one core, accounted for with their children, ended by id.

The kernel tells of them in `/proc`, so this is for Linux.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from gateway import settings

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
NO_NETWORK = {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", "NO_PROXY": "*", "no_proxy": "*"}


class Unavailable(Exception):
    """A server could not be installed or started; the text says why, for the table."""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """A small environment for a server: nothing of the user's settings or credentials, then `more`."""
    ours = settings.environment()
    # The same code as this, wherever it was started from.
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return {**{name: ours[name] for name in KEPT if name in ours}, **path, **NO_NETWORK, **more}


def _become(core: int) -> None:
    """Make the process that is about to be a server keep to `core`, and end when this one is killed outright."""
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True)
class Process:
    """One process, told from a later one with the same id by when it began."""

    pid: int
    began: int

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process that has `pid` now."""
        facts = _facts(pid)
        return cls(pid, int(facts[_BEGAN])) if facts else None

    def facts(self) -> list[str]:
        """What the kernel says of it, from its state on (proc(5), `stat`); nothing once it has ended."""
        facts = _facts(self.pid)
        return facts if facts and int(facts[_BEGAN]) == self.began and facts[0] != "Z" else []

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return bool(self.facts())

    def command(self) -> str:
        """Its command line."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""

    def children(self) -> list[Process]:
        """All its descendants."""
        parents: dict[int, list[int]] = {}
        for each in Path("/proc").iterdir():
            if each.name.isdecimal() and (facts := _facts(int(each.name))):
                parents.setdefault(int(facts[_PARENT]), []).append(int(each.name))
        rest, found = [self.pid], []
        while rest:
            below = parents.get(rest.pop(), [])
            rest += below
            found += [one for pid in below if (one := Process.find(pid))]
        return found


#: Where the facts stand in what follows the name of a process.
_PARENT, _TIMES, _BEGAN, _RESIDENT = 1, slice(11, 15), 19, 21


def _facts(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Child:
    """A started process. As a context manager it is ended, with all its descendants, on the way out."""

    def __init__(
        self, command: Sequence[str], *, core: int, log: Path, env: Mapping[str, str], cwd: Path, url: str = ""
    ) -> None:
        self.command = list(command)
        self.url = url
        self.log = log
        self.began = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands of our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd=cwd,
                start_new_session=True,  # Ctrl-C comes to us alone, and we end them
                preexec_fn=partial(_become, core),
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def wait_for(
        self,
        path: str,
        *,
        until: Callable[[Any], bool] = lambda _answer: True,
        seconds: float = 90,
        key: str | None = None,
        pause: float = 0.05,
    ) -> Any:
        """The JSON (or text) of the first 200 from `path` that is as `until` wants it.

        Raises `Unavailable` when the process ends before, or the time does.
        """
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                raise Unavailable(f"it ended with {self._process.returncode}: {self.last_words()}")
            answer = get(self.url + path, key)
            if answer is not None and until(answer):
                return answer
            time.sleep(pause)
        raise Unavailable(f"no answer from {path} within {seconds:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines it wrote."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:])[-400:]

    def tree(self, leave_out: Callable[[str], bool] | None = None) -> list[Process]:
        """The process and its descendants, without those whose command line `leave_out` picks."""
        root = Process.find(self.pid)
        if root is None:
            return []
        return [root, *(one for one in root.children() if leave_out is None or not leave_out(one.command()))]

    def cpu(self) -> float:
        """Seconds of user and system time used so far by the whole tree, the ended and reaped included."""
        # User, system, and both of reaped children.
        ticks = sum(int(time) for process in self.tree() for time in process.facts()[_TIMES])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self, leave_out: Callable[[str], bool] | None = None) -> int:
        """Bytes of resident memory, summed over the tree but for what `leave_out` picks."""
        pages = sum(int(facts[_RESIDENT]) for process in self.tree(leave_out) if (facts := process.facts()))
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """End it as its user would, then whatever is left of its tree, by id."""
        left = self.tree()[1:]
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for process in left:
            if process.is_running():  # and no other that was given its id
                os.kill(process.pid, signal.SIGKILL)
        deadline = time.perf_counter() + 5
        while any(process.is_running() for process in left) and time.perf_counter() < deadline:
            time.sleep(0.01)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str, key: str | None = None) -> Any:
    """The answer of a GET, as JSON where it is JSON; None unless it came with status 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", parts.path, headers={"authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status != 200:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def two_cores() -> tuple[int, int]:
    """The core of the server under test, and the core of stand-in and load generator."""
    if not hasattr(os, "sched_getaffinity"):
        raise Unavailable("pinning processes to a core needs Linux")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Unavailable("two cores are needed: one for the server, one for the load")
    return cores[0], cores[1]
