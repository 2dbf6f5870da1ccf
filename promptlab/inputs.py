"""The rules of what runs read and made: datasets, and logged models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from promptlab import existing, limits, limits_models
from promptlab.entities import DatasetInput, ModelOutput, Tag
from promptlab.errors import InvalidParameter
from promptlab.ports import Database
from promptlab.store import Connection, inputs, runs

MAX_EXPERIMENTS = 20
MAX_SUMMARIES = 1000
# The tag in which clients before MLflow 3, and R's, note the models of a run.
_MODEL_HISTORY = "mlflow.log-model.history"
_MODEL_FIELDS = ("artifact_path", "flavors", "run_id", "utc_time_created")
_MODEL_NOTED = ("run_id", "artifact_path", "utc_time_created", "model_uuid")


class RunInputs:
    """What runs read and made. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    def log(self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[str]) -> None:
        """Note what a run read. In one experiment a dataset is one by its name and digest."""
        limits.check_run_id(run_id)
        limits_models.check_inputs(datasets)
        read = [ModelOutput(model_id) for model_id in models]
        limits_models.check_models(read)

        def work(connection: Connection) -> None:
            info = existing.active_run(connection, run_id)
            inputs.log_datasets(connection, info, datasets)
            inputs.log_models(connection, info.number, read, output=False)

        self._database.write(work)

    def log_outputs(self, run_id: str, models: Sequence[ModelOutput]) -> None:
        """Note which logged models a run made. One that is noted already stays as it is."""
        limits_models.check_models(models)

        def work(connection: Connection) -> None:
            info = existing.active_run(connection, run_id)
            inputs.log_models(connection, info.number, models, output=True)

        self._database.write(work)

    def search_datasets(self, experiment_ids: Sequence[str]) -> list[inputs.Summary]:
        """The datasets that runs of these experiments read, and what for."""
        if not experiment_ids:
            raise InvalidParameter("SearchDatasets request must specify at least one experiment_id.")
        if len(experiment_ids) > MAX_EXPERIMENTS:
            raise InvalidParameter(
                f"SearchDatasets request cannot specify more than {MAX_EXPERIMENTS} experiment_ids. "
                f"Received {len(experiment_ids)} experiment_ids."
            )
        numbers = [limits.experiment_number(experiment_id) for experiment_id in experiment_ids]
        with self._database.read() as connection:
            return inputs.summaries(connection, numbers, MAX_SUMMARIES)

    def note_model(self, run_id: str, model_json: str) -> None:
        """Note a model in a tag of its run, as clients did before there were logged models."""
        noted = _noted(model_json)

        def work(connection: Connection) -> None:
            info = existing.active_run(connection, run_id)
            before = runs.tag_of(connection, info.number, _MODEL_HISTORY)
            tag = Tag(_MODEL_HISTORY, json.dumps([*_history(before), noted]))
            limits.check_tag(tag)
            runs.set_tags(connection, info.number, [tag])

        self._database.write(work)


def _noted(model_json: str) -> dict[str, Any]:
    try:
        model = orjson.loads(model_json)
    except orjson.JSONDecodeError:
        model = None
    if not isinstance(model, dict):
        raise InvalidParameter(f"Malformed model info. \n {model_json[:1000]} \n is not a valid JSON.")
    missing = [name for name in _MODEL_FIELDS if name not in model]
    if missing:
        raise InvalidParameter(f"Model json is missing mandatory fields: {missing}")
    flavors = model["flavors"]
    if not isinstance(flavors, dict):
        raise InvalidParameter("The field 'flavors' of the model json must be an object.")
    noted = {
        name: model[name] for name in ("run_id", "artifact_path", "utc_time_created", "model_uuid") if name in model
    }
    return noted | {"flavors": {name: _without_config(flavor) for name, flavor in flavors.items()}}


def _without_config(flavor: Any) -> Any:
    return {name: value for name, value in flavor.items() if name != "config"} if isinstance(flavor, dict) else flavor


def _history(tag: str | None) -> list[Any]:
    try:
        before = orjson.loads(tag or "[]")
    except orjson.JSONDecodeError:
        return []
    return before if isinstance(before, list) else []
