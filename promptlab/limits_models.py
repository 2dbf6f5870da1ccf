"""What may be said of logged models, and of what runs read: MLflow's limits and its texts.

Source: https://github.com/mlflow/mlflow/blob/master/mlflow/utils/validation.py
"""

from __future__ import annotations

from collections.abc import Sequence

from promptlab.entities import Dataset, DatasetInput, Metric, ModelOutput, Param, Tag
from promptlab.entities_models import NewLoggedModel
from promptlab.errors import InvalidParameter
from promptlab.limits import check_length

MAX_NAME = 500
MAX_MODEL_TYPE = 500
MAX_LABEL_KEY = 255
MAX_ID = 256
MAX_DATASET_NAME = 500
MAX_DATASET_DIGEST = 36
MAX_DATASET_SOURCE_TYPE = 36
MAX_DATASET_SOURCE = 65_535
MAX_DATASET_SCHEMA = 1_048_575
MAX_DATASET_PROFILE = 16_777_215
MAX_INPUT_TAG_KEY = 255
MAX_INPUT_TAG_VALUE = 500
# Ours: MLflow takes as many as fit into a request.
MAX_AT_ONCE = 1000

_BAD = ("/", ":", ".", "%", '"', "'")


def check_new(new: NewLoggedModel) -> None:
    """Raise unless such a logged model may be made."""
    if any(letter in new.name for letter in _BAD):
        raise InvalidParameter(
            f"Invalid model name ({new.name!r}) provided. Model name must be a non-empty string "
            f"and cannot contain the following characters: {_BAD}"
        )
    check_length("name", MAX_NAME, new.name)
    check_length("model_type", MAX_MODEL_TYPE, new.model_type)
    check_length("source_run_id", MAX_ID, new.source_run_id)
    check_labels("params", new.params)
    check_labels("tags", new.tags)


def check_labels(what: str, labels: Sequence[Param | Tag]) -> None:
    """Raise unless these may be params or tags of a logged model; `what` says which."""
    check_count(what, labels)
    for index, label in enumerate(labels):
        check_length(f"{what}[{index}].key", MAX_LABEL_KEY, label.key)


def check_count(what: str, items: Sequence[object]) -> None:
    """Raise for more than one call may hold."""
    if len(items) > MAX_AT_ONCE:
        raise InvalidParameter(
            f"A request can contain at most {MAX_AT_ONCE} {what}. Got {len(items)} {what}. "
            f"Please split up {what} across multiple requests and try again."
        )


def check_inputs(inputs: Sequence[DatasetInput]) -> None:
    """Raise unless a run may have read these."""
    check_count("datasets", inputs)
    for one in inputs:
        _check_dataset(one.dataset)
        for tag in one.tags:
            check_length("key", MAX_INPUT_TAG_KEY, tag.key)
            check_length("value", MAX_INPUT_TAG_VALUE, tag.value)


def _check_dataset(dataset: Dataset) -> None:
    check_length("name", MAX_DATASET_NAME, dataset.name)
    check_length("digest", MAX_DATASET_DIGEST, dataset.digest)
    check_length("source_type", MAX_DATASET_SOURCE_TYPE, dataset.source_type)
    check_length("source", MAX_DATASET_SOURCE, dataset.source)
    check_length("schema", MAX_DATASET_SCHEMA, dataset.schema or "")
    check_length("profile", MAX_DATASET_PROFILE, dataset.profile or "")


def check_models(models: Sequence[ModelOutput]) -> None:
    """Raise unless these may be the models that a run read or made."""
    check_count("models", models)
    for one in models:
        check_length("model_id", MAX_ID, one.model_id)


def check_measured(metric: Metric) -> None:
    """Raise unless the dataset on which a metric was measured may be called so."""
    check_length("dataset_name", MAX_DATASET_NAME, metric.dataset_name)
    check_length("dataset_digest", MAX_DATASET_DIGEST, metric.dataset_digest)
