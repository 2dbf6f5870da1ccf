"""An evaluation from a plan to its report: forecast, run, compare, log."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.client import Server
from promptlab.client_calls import Caller
from promptlab.evaluation import plan as plans
from promptlab.evaluation import registered, tracking
from promptlab.evaluation import report as reports
from promptlab.evaluation.book import Book
from promptlab.evaluation.forecast import Forecast
from promptlab.evaluation.gate import Gate
from promptlab.evaluation.plan import Plan
from promptlab.evaluation.problems import Stopped
from promptlab.evaluation.report import Report
from promptlab.evaluation.running import Progress, Running


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation runs: the server, the key to call it with, and the file that keeps the answers."""

    server: str
    key: str | None
    answers: Path


@dataclass(frozen=True, slots=True)
class Listening:
    """What is told on the way: the forecast, once; how far it is, four times a second."""

    forecast: Callable[[Forecast], None]
    progress: Callable[[Progress], None]


def answers_file(folder: Path, name: str) -> Path:
    """Where the answers of an evaluation are kept that names no file for them."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "evaluation"
    return folder / ".promptyard" / f"{plain[:100]}.answers.jsonl"


QUIET = Listening(lambda _: None, lambda _: None)


async def evaluated(
    plan: Plan,
    place: Place,
    *,
    gate: str | None = None,
    settled: bool = False,
    log: bool = True,
    listening: Listening = QUIET,
) -> Report:
    """The report of a plan. `settled`: the gate must hold for the whole of each interval.

    Raises `PlanInvalid` before anything is asked, `Stopped` where it would be or becomes too dear or the server refuses
    to go on, and `CallFailed` where it cannot be reached. Answers are kept in `place.answers` as they come.
    """
    async with Server(place.server) as server:
        caller = Caller.at(server, place.key)
        offers = await caller.offers()
        with Book(place.answers) as book:
            running = Running(plan, caller, book, offers)
            condition = None if gate is None else Gate(gate, reports.expected(plan), settled=settled)
            foreseen = running.forecast()
            listening.forecast(foreseen)
            check_cost(foreseen, plan.max_cost)
            began = time.monotonic()
            results = await running.run(listening.progress)
            report = reports.of(plan, results, running.spent, time.monotonic() - began)
            report.judged = [] if condition is None else condition.judge(report)
            if log:
                await tracking.log(caller, report, book)
    return report


async def understood(document: Any, folder: Path, place: Place) -> Plan:
    """The plan that a document describes, with what it names of the server's. Raises `PlanInvalid`, `CallFailed`."""
    if not registered.needs(document):
        return plans.read(document, folder)
    async with Server(place.server) as server:
        kept = await registered.found(document, Caller.at(server, place.key))
    return plans.read(document, folder, kept)


async def foreseen(plan: Plan, place: Place) -> Forecast:
    """What a plan would take. Nothing is asked of any model."""
    async with Server(place.server) as server:
        caller = Caller.at(server, place.key)
        offers = await caller.offers()
        with Book(place.answers) as book:
            return Running(plan, caller, book, offers).forecast()


def check_cost(foreseen: Forecast, most: float | None) -> None:
    """Raise `Stopped` where an evaluation would likely cost more than it may."""
    if most is None:
        return
    if foreseen.usd.likely > most:
        raise Stopped(
            f"Not begun: it would likely cost {foreseen.usd.likely:.6f} USD ({foreseen.usd.least:.6f} to "
            f"{foreseen.usd.most:.6f}), more than max_cost, {most:g}. Raise it, or ask less: fewer cases, repeats or "
            "variants, or a lower max_tokens."
        )
    if foreseen.unpriced:
        raise Stopped(
            f"Not begun: nobody knows the price of {', '.join(foreseen.unpriced)}, so max_cost cannot be kept. "
            "Price it in config/prices.yaml of the server, or leave max_cost out."
        )


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` comes to, also where an event loop runs already, as in a notebook: then in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:
            failed.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,))
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
