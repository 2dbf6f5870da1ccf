"""PromptLab runs over HTTP: one prompt, one model, one answer, logged as a run."""

from __future__ import annotations

from typing import Any

from promptlab.api import render
from promptlab.api.metrics import METRIC, metric_of
from promptlab.api.wire import Arguments, Endpoints, Field, Fields, ListOf, integer, message, string
from promptlab.entities import Param, Tag
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab
from promptlab.promptlab_runs import PromptlabRun, log_promptlab_run


def _text(value: Any, path: str) -> str:
    """Text; numbers and Booleans as MLflow's own server writes them."""
    return string(str(value) if isinstance(value, int | float) else value, path)


_PAIR: Fields = {"key": Field(string, default=""), "value": Field(_text, default="")}
_PAIRS = Field(ListOf(message(_PAIR)), default=())
_FIELDS: Fields = {
    "experiment_id": Field(string),
    "run_name": Field(string, default=""),
    "tags": _PAIRS,
    "prompt_template": Field(string),
    # MLflow refuses a prompt without variables; here an empty list says there are none.
    "prompt_parameters": Field(ListOf(message(_PAIR)), default=None),
    "model_route": Field(string),
    "model_parameters": _PAIRS,
    "model_input": Field(string),
    "model_output": Field(string, default=""),
    "model_output_parameters": _PAIRS,
    "mlflow_version": Field(string),
    "user_id": Field(string, default="unknown"),
    "start_time": Field(integer),
    # Ours: when the answer ended. MLflow's runs end when they are logged.
    "end_time": Field(integer),
    # Ours: MLflow's server has its clients log them in a second call.
    "metrics": Field(ListOf(message(METRIC)), default=()),
}
_REQUIRED = ("experiment_id", "prompt_template", "prompt_parameters", "model_route", "model_input", "mlflow_version")

served = Endpoints()


@served.post("runs/create-promptlab-run", _FIELDS)
def create(lab: Lab, call: Arguments) -> Any:
    """A finished run that holds one prompt, its parameters and its answers, as MLflow's PromptLab makes it."""
    for name in _REQUIRED:
        if call[name] is None or call[name] == "":
            raise InvalidParameter(f"CreatePromptlabRun request must specify {name}.")
    wanted = PromptlabRun(
        experiment_id=call["experiment_id"],
        name=call["run_name"],
        user=call["user_id"],
        start=call["start_time"],
        tags=tuple(Tag(**tag) for tag in call["tags"]),
        template=call["prompt_template"],
        variables=_params(call["prompt_parameters"]),
        route=call["model_route"],
        parameters=_params(call["model_parameters"]),
        prompt=call["model_input"],
        answer=call["model_output"],
        answer_facts=_params(call["model_output_parameters"]),
        metrics=tuple(metric_of(metric) for metric in call["metrics"]),
        end=call["end_time"],
    )
    return {"run": render.run(log_promptlab_run(lab, wanted))}


def _params(pairs: list[Arguments]) -> tuple[Param, ...]:
    return tuple(Param(**pair) for pair in pairs)
