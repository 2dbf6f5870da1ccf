"""An evaluation as runs: a parent with the report, a child for each variant with its metrics and table of answers."""

from __future__ import annotations

import json
import re

from promptlab import limits
from promptlab.client_calls import Caller, RunLog
from promptlab.evaluation import cases, writing
from promptlab.evaluation.book import Book
from promptlab.evaluation.cases import text_of
from promptlab.evaluation.report import Report, Summary

TABLE = "eval_results_table.json"
_PARENT, _LOGGED, _PROMPTS = "mlflow.parentRunId", "mlflow.loggedArtifacts", "mlflow.linkedPrompts"
_KIND = {"promptyard.kind": "evaluation"}


async def log(caller: Caller, report: Report, book: Book) -> None:
    """Log the report as runs, and note their ids on it. Raises `CallFailed`; a run that was begun is marked failed."""
    plan = report.plan
    experiment = await caller.experiment_named(plan.experiment)
    params = {
        "cases": plan.source,
        "cases_digest": cases.digest(plan.cases),
        "case_count": str(len(plan.cases)),
        "repeats": str(plan.repeats),
        "baseline": plan.baseline.name,
        "scorers": ", ".join(rule.name for rule in plan.rules),
    }
    metrics = {"cost": report.usd, "seconds": report.seconds, "answers": float(len(report.results))}
    parent, uri = await caller.begin_run(experiment, plan.name, RunLog(metrics, _short(params), _KIND))
    report.run_id = parent
    whole = False
    try:
        for one in report.variants:
            await _log_variant(caller, experiment, report, one, book)
        if report.judged:
            gate = "passed" if report.passed else "failed"
            await caller.log(parent, RunLog(tags={"promptyard.gate": gate}))
        document = json.dumps(writing.document(report), ensure_ascii=False, default=str)
        await caller.upload(uri, "evaluation.json", document.encode("utf-8", "replace"))
        await caller.upload(uri, "report.md", writing.markdown(report).encode("utf-8", "replace"))
        whole = True
    finally:
        await caller.end_run(parent, failed=not whole)


async def _log_variant(caller: Caller, experiment: str, report: Report, one: Summary, book: Book) -> None:
    variant = one.variant
    params = {"prompt": variant.prompt.name}
    params |= {"outputs": variant.recorded} if variant.recorded else {"model_route": variant.route}
    params |= {name: text_of(value) for name, value in variant.parameters.items()}
    kept = variant.prompt.registered
    if kept is not None:
        template = kept.template.template
        params["prompt_version"] = f"{kept.name}/{kept.version}"
        params["prompt_template"] = template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)
    elif len(variant.prompt.messages) == 1:
        params["prompt_template"] = variant.prompt.messages[0][1]
    else:
        params["prompt_template"] = json.dumps(variant.prompt.messages, ensure_ascii=False)
    metrics = {}
    for name, each in one.metrics.items():
        metrics[f"{name}/mean" if each.low is not None else name] = each.value
        if each.low is not None and each.high is not None:
            metrics |= {f"{name}/low": each.low, f"{name}/high": each.high}
    tags = {_PARENT: str(report.run_id), _LOGGED: json.dumps([{"path": TABLE, "type": "table"}]), **_KIND}
    if kept is not None:
        tags[_PROMPTS] = json.dumps([{"name": kept.name, "version": str(kept.version)}])
    if variant is not report.plan.baseline:
        tags["promptyard.verdict"] = str(report.verdict(variant.name))
    run, uri = await caller.begin_run(experiment, variant.name, RunLog(metrics, _short(params), tags))
    report.run_ids[variant.name] = run
    whole = False
    try:
        rows = json.dumps(writing.table(report, one, book), ensure_ascii=False, default=str)
        await caller.upload(uri, TABLE, rows.encode("utf-8", "replace"))
        whole = True
    finally:
        await caller.end_run(run, failed=not whole)


def _short(params: dict[str, str]) -> dict[str, str]:
    """Params within MLflow's limit: what is longer is in the run's files anyway, and is cut with a sign of it."""
    most = limits.MAX_PARAM_VALUE
    return {_key(name): text if len(text) <= most else text[: most - 1] + "…" for name, text in params.items()}


def _key(name: str) -> str:
    """A parameter's name as MLflow takes it."""
    return re.sub(r"[^\w.\- ]", "_", name)[: limits.MAX_KEY].strip(". ") or "_"
