"""The figures of a run: gathered by round, judged against the bars, written as Markdown or JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import Sample

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


@dataclass(frozen=True)
class Bar:
    """One figure the project promises. `value` gives what is compared; `least` says on which side it must be."""

    what: str
    needs: str
    unit: str
    limit: float
    least: bool
    value: Callable[[Figures], Spread | None]

    def met(self, figures: Figures) -> bool | None:
        """Whether the median keeps the promise; None where it was not measured."""
        spread = self.value(figures)
        if spread is None:
            return None
        return spread.median >= self.limit if self.least else spread.median <= self.limit


BARS = (
    Bar("chat answers/s over MLflow's gateway", "chat", "x", 5.0, True, lambda f: f.ratio("chat")),
    Bar("chat answers/s over LiteLLM's proxy", "chat", "x", 50.0, True, lambda f: f.ratio("chat", "litellm")),
    Bar("added to a lone caller's p50", "alone", "ms", 0.35, False, lambda f: f.spread("alone added", OURS)),
    Bar("chunks per CPU-second over MLflow's gateway", "streams", "x", 2.0, True, lambda f: f.ratio("streams")),
    Bar("chunks per CPU-second over LiteLLM's proxy", "streams", "x", 25.0, True,
        lambda f: f.ratio("streams", "litellm")),
    Bar("memory of an open stream, of 1,000", "held", "KB", 80, False, lambda f: f.spread("held", OURS)),
    Bar("start to first /v1/models, empty data folder", "start", "ms", 1500, False,
        lambda f: f.spread("start empty", OURS)),
    Bar("memory with the lab loaded", "memory", "MB", 350, False, lambda f: f.spread("memory", OURS)),
)  # fmt: skip


@dataclass
class Run:
    """One run of the bench and everything its report says."""

    figures: Figures
    rounds: int
    only: tuple[str, ...]
    command: str
    tools: str
    servers: dict[str, str] = field(default_factory=dict)  # name → version and features
    commands: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # name → why it was not measured
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def failed(self) -> bool:
        """Whether a bar was measured and missed, or a figure of ours it needs is missing or invalid."""
        ours_broke = OURS in self.missing or any(server == OURS for _, server in self.figures.wrong)
        return ours_broke or any(bar.met(self.figures) is False for bar in BARS if bar.needs in self.only)

    def disturbed(self) -> bool:
        """Whether other work ran: before, or beside a server that 32 callers did not let fill its core."""
        shares = [values for (name, server), values in self.figures.samples.items()
                  if name == "chat core" and server in self.servers]  # fmt: skip
        return self.load >= 0.3 or any(min(values) < 90 for values in shares)

    def as_json(self) -> dict[str, Any]:
        """The run as data: every sample, every bar."""
        figures = []
        for (name, server), values in self.figures.samples.items():
            wrong = self.figures.wrong.get((name, server))
            figures.append({"what": name, "server": server, "rounds": values, "median": statistics.median(values),
                            "invalid": wrong})  # fmt: skip
        bars = []
        for bar in BARS:
            spread = bar.value(self.figures)
            bars.append({"what": bar.what, "unit": bar.unit, "bar": bar.limit, "at_least": bar.least,
                         "median": spread and spread.median, "met": bar.met(self.figures)})  # fmt: skip
        return {"machine": machine(), "load_average_before": self.load, "disturbed": self.disturbed(),
                "command": self.command, "tools": self.tools,
                "rounds": self.rounds, "servers": self.servers, "commands": self.commands, "missing": self.missing,
                "figures": figures, "bars": bars}  # fmt: skip

    def as_markdown(self) -> str:
        """The run as a page to read."""
        said = " **Other work was running: these figures are indicative only.**" if self.disturbed() else ""
        head = (
            f"# Bench\n\n{machine()}.\n`{self.command}`, {self.rounds} round(s), median (least to most). {self.tools} "
            "Each server alone on one core; stand-in and load on another. "
            f"Load average before: {self.load:.2f}.{said}"
        )
        parts = [
            head,
            _table(["bar", "promised", "measured", ""], [self._bar(bar) for bar in BARS if bar.needs in self.only]),
            self._figures(),
            "Features on:\n\n" + "\n".join(f"- {name} {text}" for name, text in self.servers.items()),
        ]
        if self.commands:
            parts.append("Commands:\n\n" + "\n".join(f"- `{command}`" for command in self.commands))
        if self.missing:
            parts.append("Not measured:\n\n" + "\n".join(f"- {name}: {why}" for name, why in self.missing.items()))
        return "\n\n".join(parts) + "\n"

    def _bar(self, bar: Bar) -> list[str]:
        spread, met = bar.value(self.figures), bar.met(self.figures)
        sign = "≥" if bar.least else "≤"
        verdict = "not measured" if met is None else "met" if met else "**not met**"
        return [bar.what, f"{sign} {bar.limit:g} {bar.unit}", shown(spread), verdict]

    def _figures(self) -> str:
        servers = [*self.servers, DIRECT]
        rows = []
        for name, title in ROWS.items():
            if any((name, server) in self.figures.samples for server in servers):
                rows.append([title, *(self._cell(name, server) for server in servers)])
        return _table(["figure", *servers], rows)

    def _cell(self, name: str, server: str) -> str:
        wrong = self.figures.wrong.get((name, server))
        return f"invalid: {wrong}" if wrong else shown(self.figures.spread(name, server))


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


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
