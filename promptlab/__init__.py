"""Tracking, registry, evaluation and the browser workbench. Talks to the gateway over HTTP only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptlab.evaluation.report import Report
    from promptlab.evaluation.running import Progress


def evaluate(
    cases: Any,
    prompts: Mapping[str, Any],
    routes: str | Sequence[str] = (),
    scorers: Sequence[Any] = (),
    *,
    outputs: str | Sequence[str] = (),
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    repeats: int = 1,
    concurrency: int = 8,
    max_cost: float | None = None,
    baseline: str | None = None,
    gate: str | None = None,
    settled: bool = False,
    name: str = "evaluation",
    experiment: str = "Evaluation",
    server: str = "http://127.0.0.1:4000",
    key: str | None = None,
    answers: str | Path | None = None,
    log: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Every prompt on every route, on every case: answered, scored, compared with the baseline, and logged as runs.

    The arguments are those of a plan's file (`promptyard eval`). `cases` may be a file, mappings, or a data frame; a
    scorer may be a Python function as well, `function(output, case)`. `gate` is a condition such as `pass >= 0.9`, that
    `Report.passed` then tells; `settled` wants it to hold for the whole of each interval. Answers are kept in the file
    `answers` as they come: run again, what is there is not asked again. Works inside a notebook.

    Raises `PlanInvalid`, `Stopped` or `CallFailed`.
    """
    from promptlab.evaluation import evaluating

    if not isinstance(cases, str | Path):
        # A table of pandas' or polars' says its rows itself.
        told = getattr(cases, "to_dicts", None) or getattr(cases, "to_dict", None)
        rows = list(cases) if told is None else told() if hasattr(cases, "to_dicts") else told("records")
    document = {
        "cases": str(cases) if isinstance(cases, str | Path) else rows,
        "prompts": dict(prompts),
        "routes": routes if isinstance(routes, str) else list(routes),
        "outputs": outputs if isinstance(outputs, str) else list(outputs),
        "parameters": parameters if isinstance(parameters, Mapping) else list(parameters) or [{}],
        "scorers": list(scorers),
        "repeats": repeats,
        "concurrency": concurrency,
        "max_cost": max_cost,
        "baseline": baseline,
        "name": name,
        "experiment": experiment,
    }
    folder = Path.cwd()
    place = evaluating.Place(server, key, Path(answers) if answers else evaluating.answers_file(folder, name))
    listening = evaluating.QUIET if progress is None else evaluating.Listening(lambda _: None, progress)
    plan = evaluating.finished(evaluating.understood(document, folder, place))
    work = evaluating.evaluated(plan, place, gate=gate, settled=settled, log=log, listening=listening)
    report: Report = evaluating.finished(work)
    return report
