"""The figures of a run: gathered by round, written as a table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.bench.measure import Sample

OURS, RIVAL = "promptyard", "mlflow"
DIRECT = "stand-in, direct"

# Name of a value → what the table calls it.
ROWS = {
    "chat": "chat, 32 callers: answers/s",
    "chat cpu": "chat: answers per CPU-second",
    "chat core": "chat: CPU time used, % of one core",
    "tls cpu": "chat, the upstream asked over TLS: answers per CPU-second (load by our own generator)",
    "chat p50": "chat: p50, ms",
    "chat p99": "chat: p99, ms",
    "alone": "chat, 1 caller: p50, ms",
    "alone added": "chat, 1 caller: p50 over asking the stand-in, ms",
    "streams": "streams, 256 at once: chunks per CPU-second",
    "streams wall": "streams: chunks/s on one core",
    "streams first": "streams: first chunk p50, ms",
    "streams whole": "streams: whole stream p50, ms (the stand-in takes 500)",
    "held": "streams, 1,000 open and quiet: KB each",
    "start empty": "start to first /v1/models, empty data folder: ms",
    "start again": "start to first /v1/models, data there: ms",
    "memory": "memory, lab loaded, model's child not counted: MB",
    "memory after": "memory after the load of this run: MB",
    "machinery": "what a key's and a route's limits and a budget take off chat, counters in memory: %",
    "machinery redis": "the same, counters in Redis on the load's core: %",
}


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Figures:
    """All samples of a run, by name of the value and server."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    wrong: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, server: str, sample: Sample) -> None:
        """Take one round's sample. One bad round spoils the figure: a median would hide it."""
        for name, value in sample.values.items():
            self.samples.setdefault((name, server), []).append(value)
            if sample.wrong is not None:
                self.wrong[name, server] = sample.wrong

    def spread(self, name: str, server: str) -> Spread | None:
        """The figure, or None where it was not measured or is invalid."""
        values = self.samples.get((name, server))
        return Spread.of(values) if values and (name, server) not in self.wrong else None

    def ratio(self, name: str, rival: str = RIVAL) -> Spread | None:
        """Ours over the rival's, taken within each round, so that a slow minute of the machine hits both."""
        ours, theirs = self.samples.get((name, OURS), []), self.samples.get((name, rival), [])
        if not ours or not theirs or (name, OURS) in self.wrong or (name, rival) in self.wrong:
            return None
        return Spread.of([mine / his for mine, his in zip(ours, theirs, strict=False)])


def shown(spread: Spread | None) -> str:
    """`median (least to most)` with as many decimals as the size of the value deserves."""
    if spread is None:
        return "-"
    digits = 0 if spread.median >= 100 else 1 if spread.median >= 10 else 2
    one = f"{spread.median:,.{digits}f}"
    if spread.least == spread.most:
        return one
    return f"{one} ({spread.least:,.{digits}f} to {spread.most:,.{digits}f})"


def machine() -> str:
    """The machine in one line."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({name}), {system}, Python {platform.python_version()}"


def rows(figures: Figures, servers: Sequence[str]) -> list[list[str]]:
    """What was measured of `servers`, a row for each figure."""
    return [
        [title, *(_cell(figures, name, server) for server in servers)]
        for name, title in ROWS.items()
        if any((name, server) in figures.samples for server in servers)
    ]


def _cell(figures: Figures, name: str, server: str) -> str:
    wrong = figures.wrong.get((name, server))
    return f"invalid: {wrong}" if wrong else shown(figures.spread(name, server))


def as_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
