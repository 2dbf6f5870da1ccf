"""`make bench`: our figures beside MLflow's gateway and LiteLLM's proxy, measured in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gateway.bench import measure
from gateway.bench.process import Unavailable, two_cores
from gateway.bench.report import DIRECT, OURS, Figures
from gateway.bench.servers import Promptyard, Started, start_standin
from tests.bench.machinery import Metered, machinery
from tests.bench.measure import chat
from tests.bench.report import Run
from tests.bench.servers import PEERS, ROOT, Server, certificate
from tests.services import redis
from tests.services.found import Found

KINDS = ("chat", "alone", "streams", "held", "tls", "start", "memory", "machinery")
LOADS = {"chat": chat, "alone": measure.alone, "streams": measure.streams, "held": measure.held}


def arguments(given: list[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, about a minute, figures less certain")
    parser.add_argument("--rounds", type=int, help="rounds to take medians of (3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one load (8; 3 with --quick)")
    parser.add_argument("--only", type=_list(KINDS), default=KINDS, metavar="KIND,…", help=", ".join(KINDS))
    parser.add_argument("--peers", type=_list((*PEERS, "none")), default=tuple(PEERS), metavar="PEER,…",
                        help=f"{', '.join(PEERS)} or none")  # fmt: skip
    parser.add_argument("--without-ours", action="store_true", help="the peers alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    known = parser.parse_args(given)
    known.rounds = known.rounds or (1 if known.quick else 3)
    known.seconds = known.seconds or (3.0 if known.quick else 8.0)
    return known


def _list(allowed: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(allowed)}")
        return names

    return parse


class Bench:
    """One run: the same measurements for each server, round after round, one server at a time."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self._asked = asked
        self._folder = folder
        self._core, self._load_core = two_cores()
        # Everything that is not the server under test stays off its core: this process, wrk, the generator.
        os.sched_setaffinity(0, {self._load_core})
        # A thousand callers here, and as many connections again to the upstream in the server that inherits it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        tools = "Chat load by wrk." if shutil.which("wrk") else (
            "Chat load by our own generator: wrk is not on PATH (Debian and Ubuntu: `apt install wrk`).")  # fmt: skip
        command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
        tools += " A second worker is not measured: it would need a core that load and stand-in do not use."
        self.run = Run(Figures(), asked.rounds, asked.only, command, tools)
        ours: list[Server] = [] if asked.without_ours else [Promptyard()]
        self._servers = ours + [PEERS[name] for name in asked.peers if name != "none"]

    def measure(self) -> Run:
        """Measure everything that was asked for."""
        for server in self._servers:
            self.run.servers[server.name] = f"{server.version()}: {server.features}"
        folder = self._folder / "standin"
        standin = start_standin(folder, self._load_core, certificate(folder))
        with standin.child:
            for number in range(self._asked.rounds):
                self._direct(standin)
                for server in self._servers:
                    self._try(server, standin, number)
                if "machinery" in self._asked.only and OURS in self.run.servers:
                    self._machinery(standin, number)
        return self.run

    def _try(self, server: Server, standin: Started, number: int) -> None:
        """One round of one server; a server that failed once is not tried again."""
        if server.name in self.run.missing:
            return
        _say(f"round {number + 1} of {self._asked.rounds}: {server.name}")
        folder = self._folder / f"{server.name}-{number}"
        try:
            if isinstance(server, Promptyard):
                self._ours(server, folder, standin)
            elif any(kind in LOADS for kind in self._asked.only):
                self._load(server, folder, standin)
        except Unavailable as reason:
            self.run.missing[server.name] = str(reason)
            _say(f"{server.name}: {reason}")

    def _machinery(self, standin: Started, number: int) -> None:
        """What claiming costs, with counters in memory and in a Redis of our own, which shares the load's core."""
        _say(f"round {number + 1} of {self._asked.rounds}: what limits and budgets cost")
        found = redis.locate()
        with contextlib.ExitStack() as stack:
            kinds: dict[str, str | None] = {"machinery": None}
            if isinstance(found, Found):
                kinds["machinery redis"] = stack.enter_context(redis.running(found))
            for name, url in kinds.items():
                server = Metered(redis_url=url)
                started = server.start(self._folder / f"{name}-{number}", standin.child.url, self._core)
                with started.child:
                    self.run.figures.add(OURS, machinery(name, started, self._asked.seconds))

    def _ours(self, server: Promptyard, folder: Path, standin: Started) -> None:
        if "start" in self._asked.only:
            sample = measure.start(server, folder / "start", standin.child.url, self._core)
            self.run.figures.add(OURS, sample)
        if set(self._asked.only) - {"start"}:
            self._load(server, folder / "load", standin)

    def _load(self, server: Server, folder: Path, standin: Started) -> None:
        if isinstance(server, Promptyard):
            started = server.start(folder, standin.child.url, self._core, standin.tls)
        else:
            started = server.start(folder, standin.child.url, self._core)
        with started.child as child:
            self._note(child.command)
            weighed = server.name == OURS and "memory" in self._asked.only
            if weighed:
                self.run.figures.add(OURS, measure.memory(child, "memory"))
            loads = [load for kind, load in LOADS.items() if kind in self._asked.only]
            for load in loads:
                self.run.figures.add(server.name, load(started, standin, self._asked.seconds))
            if server.name == OURS and "tls" in self._asked.only and standin.tls is not None:
                self.run.figures.add(OURS, measure.tls(started, self._asked.seconds / 2))
            if weighed and loads:
                self.run.figures.add(OURS, measure.memory(child, "memory after"))

    def _direct(self, standin: Started) -> None:
        for kind, load in LOADS.items():
            if kind in self._asked.only and kind in ("chat", "streams"):
                self.run.figures.add(DIRECT, load(standin, standin, min(3.0, self._asked.seconds)))

    def _note(self, command: list[str]) -> None:
        short = shlex.join(command).replace(str(self._folder), "…").replace(str(ROOT) + "/", "")
        name = short.split(" ")[0]
        if not any(known.startswith(name + " ") for known in self.run.commands):
            self.run.commands.append(short)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ended(_number: int, _frame: object) -> NoReturn:
    # A second Ctrl-C must not interrupt the clearing up after the first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # An exception, so that every `with` on the way out ends its process.
    raise KeyboardInterrupt


def main() -> int:
    """Measure, print the table, and answer 0, or 1 when a promised figure was missed."""
    asked = arguments(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ended)
    with tempfile.TemporaryDirectory(prefix="promptyard-bench-") as folder:
        try:
            run = Bench(asked, Path(folder)).measure()
        except Unavailable as reason:
            _say(f"cannot measure here: {reason}")
            return 1
        except KeyboardInterrupt:
            _say("stopped; every process that was started is ended")
            return 130
    print(run.as_markdown())
    if asked.json:
        asked.json.write_text(json.dumps(run.as_json(), indent=2) + "\n")
    return 1 if run.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
