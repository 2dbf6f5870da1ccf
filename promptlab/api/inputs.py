"""What runs read and made, over HTTP: datasets, and logged models."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import (
    RUN_ID,
    Arguments,
    Endpoints,
    Field,
    Fields,
    ListOf,
    integer,
    message,
    required,
    string,
)
from promptlab.entities import Dataset, DatasetInput, ModelOutput, Tag
from promptlab.lab import Lab

# A dataset's profile alone may be 16 MiB, before its quotes are escaped.
_MAX_BODY = 40 * 1024 * 1024
_DATASET: Fields = {
    "name": required(string),
    "digest": required(string),
    "source_type": required(string),
    "source": required(string),
    "schema": Field(string),
    "profile": Field(string),
}
_TAG: Fields = {"key": required(string), "value": Field(string, default="")}
_INPUT: Fields = {"dataset": required(message(_DATASET)), "tags": Field(ListOf(message(_TAG)), default=())}
_INPUTS = {
    "run_id": RUN_ID,
    "datasets": Field(ListOf(message(_INPUT)), default=()),
    "models": Field(ListOf(message({"model_id": required(string)})), default=()),
}
_OUTPUT: Fields = {"model_id": required(string), "step": Field(integer, default=0)}
_OUTPUTS = {"run_id": RUN_ID, "models": required(ListOf(message(_OUTPUT)))}

served = Endpoints()


@served.post("runs/log-inputs", _INPUTS, max_body=_MAX_BODY)
def log(lab: Lab, call: Arguments) -> Any:
    """Note datasets and logged models that a run read."""
    datasets = [
        DatasetInput(Dataset(**one["dataset"]), tuple(Tag(**tag) for tag in one["tags"])) for one in call["datasets"]
    ]
    lab.inputs.log(call["run_id"], datasets, [one["model_id"] for one in call["models"]])
    return {}


@served.post("runs/outputs", _OUTPUTS)
def log_outputs(lab: Lab, call: Arguments) -> Any:
    """Note logged models that a run made."""
    lab.inputs.log_outputs(call["run_id"], [ModelOutput(**one) for one in call["models"]])
    return {}


@served.post("runs/log-model", {"run_id": RUN_ID, "model_json": required(string)})
def note_model(lab: Lab, call: Arguments) -> Any:
    """Note a model in a tag of its run, as clients before MLflow 3 do."""
    lab.inputs.note_model(call["run_id"], call["model_json"])
    return {}


@served.post("experiments/search-datasets", {"experiment_ids": Field(ListOf(string), default=())})
def search_datasets(lab: Lab, call: Arguments) -> Any:
    """The datasets that runs of some experiments read."""
    found = [
        {"experiment_id": str(one.experiment_id), "name": one.name, "digest": one.digest}
        | ({} if one.context is None else {"context": one.context})
        for one in lab.inputs.search_datasets(call["experiment_ids"])
    ]
    return {"dataset_summaries": found} if found else {}
