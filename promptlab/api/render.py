"""The lab's words as MLflow's messages. What is unset is left out, as on MLflow's wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptlab.api.wire import number
from promptlab.entities import DatasetInput, Experiment, FileInfo, Inputs, Metric, Param, Run, RunInfo, Tag


def experiment(found: Experiment) -> dict[str, Any]:
    """An `Experiment` message."""
    shown: dict[str, Any] = {
        "experiment_id": str(found.id),
        "name": found.name,
        "artifact_location": found.artifact_location,
        "lifecycle_stage": _stage(found.deleted),
        "last_update_time": found.updated,
        "creation_time": found.created,
        "workspace": "default",
    }
    if found.tags:
        shown["tags"] = [label(tag) for tag in found.tags]
    return shown


def run_info(info: RunInfo) -> dict[str, Any]:
    """A `RunInfo` message, under both names of the id: R reads the old one."""
    shown: dict[str, Any] = {
        "run_uuid": info.id,
        "experiment_id": str(info.experiment_id),
        "run_name": info.name,
        "user_id": info.user,
        "status": info.status,
        "start_time": info.start,
        "artifact_uri": info.artifact_uri,
        "lifecycle_stage": _stage(info.deleted),
        "run_id": info.id,
    }
    if info.end is not None:
        shown["end_time"] = info.end
    return shown


def run(found: Run) -> dict[str, Any]:
    """A `Run` message."""
    data: dict[str, Any] = {}
    if found.metrics:
        data["metrics"] = [metric(one) for one in found.metrics]
    if found.params:
        data["params"] = [label(one) for one in found.params]
    if found.tags:
        data["tags"] = [label(one) for one in found.tags]
    return {"info": run_info(found.info), "data": data, **_read_and_made(found.inputs)}


def _read_and_made(found: Inputs) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if found.datasets:
        inputs["dataset_inputs"] = [_dataset_input(one) for one in found.datasets]
    if found.models:
        inputs["model_inputs"] = [{"model_id": model_id} for model_id in found.models]
    outputs = [{"model_id": one.model_id, "step": one.step} for one in found.outputs]
    return {"inputs": inputs, "outputs": {"model_outputs": outputs} if outputs else {}}


def _dataset_input(found: DatasetInput) -> dict[str, Any]:
    dataset = found.dataset
    shown: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "source_type": dataset.source_type,
            "source": dataset.source,
        }
    }
    if dataset.schema is not None:
        shown["dataset"]["schema"] = dataset.schema
    if dataset.profile is not None:
        shown["dataset"]["profile"] = dataset.profile
    if found.tags:
        shown["tags"] = [label(tag) for tag in found.tags]
    return shown


def metric(point: Metric) -> dict[str, Any]:
    """A `Metric` message."""
    return {"key": point.key, "value": number(point.value), "timestamp": point.timestamp, "step": point.step}


def label(pair: Tag | Param) -> dict[str, str]:
    """A `Param`, `RunTag` or `ExperimentTag` message."""
    return {"key": pair.key, "value": pair.value}


def files(found: Sequence[FileInfo]) -> dict[str, Any]:
    """The field `files`, or nothing for an empty folder."""
    if not found:
        return {}
    return {
        "files": [
            {"path": file.path, "is_dir": True}
            if file.size is None
            else {"path": file.path, "is_dir": False, "file_size": file.size}
            for file in found
        ]
    }


def _stage(deleted: bool) -> str:
    return "deleted" if deleted else "active"
