"""The bars of a run, and its report as Markdown or JSON."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.bench.report import DIRECT, OURS, Figures, Spread, as_table, machine, rows, shown


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
    Bar("what limits and a budget take off chat, in memory", "machinery", "%", 15, False,
        lambda f: f.spread("machinery", OURS)),
    Bar("what limits and a budget take off chat, with Redis", "machinery", "%", 30, False,
        lambda f: f.spread("machinery redis", OURS)),
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
            as_table(["bar", "promised", "measured", ""], [self._bar(bar) for bar in BARS if bar.needs in self.only]),
            as_table(["figure", *(servers := [*self.servers, DIRECT])], rows(self.figures, servers)),
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
