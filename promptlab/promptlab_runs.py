"""The rule of PromptLab: how one prompt, one model and one answer become a run that MLflow's own pages understand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import orjson

from promptlab import limits
from promptlab.artifacts import proxied_path
from promptlab.entities import Metric, Param, Run, RunStatus, Tag
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

TABLE = "eval_results_table.json"
_TAGS = (
    Tag("mlflow.loggedArtifacts", orjson.dumps([{"path": TABLE, "type": "table"}]).decode()),
    Tag("mlflow.runSourceType", "PROMPT_ENGINEERING"),
)


@dataclass(frozen=True, slots=True)
class PromptlabRun:
    """What is to be logged. `variables` fill the template, `answer_facts` are columns beside the answer.

    `end` is when the answer ended, in milliseconds; without one the run ends when it is logged.
    """

    experiment_id: str
    name: str
    user: str
    start: int | None
    tags: tuple[Tag, ...]
    template: str
    variables: tuple[Param, ...]
    route: str
    parameters: tuple[Param, ...]
    prompt: str
    answer: str
    answer_facts: tuple[Param, ...]
    metrics: tuple[Metric, ...] = ()
    end: int | None = None


def log_promptlab_run(lab: Lab, wanted: PromptlabRun) -> Run:
    """The finished run, with its params, tags, metrics and the table of its one case.

    What cannot be logged is refused before anything is written. If the table cannot be
    written the run is left marked FAILED, as MLflow leaves it.
    """
    params = [*wanted.parameters, Param("model_route", wanted.route), Param("prompt_template", wanted.template)]
    limits.check_batch(wanted.metrics, params, _TAGS)
    if proxied_path(lab.experiment(wanted.experiment_id).artifact_location) is None:
        raise InvalidParameter(f"The artifacts of experiment {wanted.experiment_id} are not kept by this server.")
    made = lab.create_run(wanted.experiment_id, wanted.user, wanted.name, wanted.start, wanted.tags)
    run_id = made.info.id
    status = RunStatus.FAILED
    try:
        lab.log_batch(run_id, wanted.metrics, params, _TAGS)
        _, path = lab.artifact_path(run_id, TABLE)
        lab.artifacts.write(path, _table(wanted))
        status = RunStatus.FINISHED
    finally:
        lab.update_run(run_id, status, time.time_ns() // 1_000_000 if wanted.end is None else wanted.end, None)
    return lab.run(run_id)


def _table(wanted: PromptlabRun) -> bytes:
    cells = [*wanted.variables, Param("prompt", wanted.prompt), Param("output", wanted.answer), *wanted.answer_facts]
    return orjson.dumps({"columns": [cell.key for cell in cells], "data": [[cell.value for cell in cells]]})
