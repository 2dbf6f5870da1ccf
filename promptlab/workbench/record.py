"""Answers of the playground stored as runs, the way MLflow's PromptLab stores them."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from promptlab.client import CallFailed, Visitor
from promptlab.workbench.asking import Answer
from promptlab.workbench.form import Form

DEFAULT_EXPERIMENT = "Playground"


async def log(
    visitor: Visitor, form: Form, answers: list[Answer], experiment: str, run_name: str
) -> tuple[str, list[str]]:
    """The experiment's id and the ids of the new runs, one for each answer that is whole.

    Raises `CallFailed` in the server's words; runs stored before the failure stay.
    """
    experiment_id = await visitor.experiment_named(experiment.strip() or DEFAULT_EXPERIMENT)
    whole = [answer for answer in answers if answer.state == "done"]
    runs = []
    for answer in whole:
        name = run_name.strip()
        if name and len(whole) > 1:
            name = f"{name} · {answer.route}"
        try:
            made = await visitor.create_promptlab_run(promptlab_run(form, answer, experiment_id, name))
        except CallFailed as error:
            if error.status != 400 or "Param value" not in str(error):
                raise
            # The server cannot know that these params are what the visitor calls prompt and system text.
            advice = "The prompt and the system text become params of the run: shorten the longer one to log it."
            raise CallFailed(f"{error}. {advice}", status=400, code=error.code) from error
        runs.append(made["info"]["run_id"])
    return experiment_id, runs


def promptlab_run(form: Form, answer: Answer, experiment_id: str, name: str) -> dict[str, Any]:
    """The body of `runs/create-promptlab-run` for one answer. Every value but the metrics' is text.

    MLflow's PromptLab knows no system text (mlflow#11091): it is kept as the parameter `system_prompt`.
    """
    parameters = {"route_type": "llm/v1/chat", **form.parameters()}
    if form.system.strip():
        parameters["system_prompt"] = form.system
    output = {"MLFLOW_latency": f"{1000 * (answer.total or 0):.1f}"}
    if answer.output_tokens is not None:
        output["MLFLOW_total_tokens"] = str((answer.input_tokens or 0) + answer.output_tokens)
    return {
        "experiment_id": experiment_id,
        "run_name": name,
        "tags": [],
        "prompt_template": form.template,
        "prompt_parameters": _pairs(form.used_values),
        "model_route": answer.route,
        "model_parameters": _pairs(parameters),
        "model_input": form.prompt,
        "model_output": answer.text,
        "model_output_parameters": _pairs(output),
        "mlflow_version": f"promptyard {version('promptyard')}",
        "user_id": "lab",
        "start_time": int(answer.started * 1000),
        # Beyond MLflow's own fields: the run took as long as its answer did, whenever it is logged, and our
        # server stores the metrics with it, all or none.
        "end_time": int((answer.started + (answer.total or 0)) * 1000),
        "metrics": metrics(answer),
    }


def metrics(answer: Answer) -> list[dict[str, Any]]:
    """What was measured: seconds, tokens, and US dollars when the model has a price."""
    at = int((answer.started + (answer.total or 0)) * 1000)
    found = {
        "latency": answer.total,
        "first_token": answer.first_token,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "cost": answer.cost,
    }
    return [
        {"key": name, "value": value, "timestamp": at, "step": 0} for name, value in found.items() if value is not None
    ]


def _pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"key": name, "value": value if isinstance(value, str) else json.dumps(value)} for name, value in values.items()
    ]
