"""Words of logged models: models that runs made, before anybody registers them. Times are UTC milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from promptlab.entities import Metric, Param, Tag

# The tag of a logged model that tells which registered versions were made of it, as JSON.
MODEL_VERSIONS = "mlflow.modelVersions"


class LoggedModelStatus(IntEnum):
    """How far a logged model's files are; names and numbers as in MLflow's protocol."""

    LOGGED_MODEL_STATUS_UNSPECIFIED = 0
    LOGGED_MODEL_PENDING = 1
    LOGGED_MODEL_READY = 2
    LOGGED_MODEL_UPLOAD_FAILED = 3


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A point measured of a logged model, and the run that measured it."""

    point: Metric
    run_id: str


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that a run made. `number` is the store's own key, `id` the caller's."""

    number: int
    id: str
    experiment_id: int
    name: str
    artifact_uri: str
    created: int
    updated: int
    status: LoggedModelStatus
    model_type: str
    source_run_id: str
    deleted: bool = False
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()
    metrics: tuple[ModelMetric, ...] = ()


@dataclass(frozen=True, slots=True)
class NewLoggedModel:
    """What the maker of a logged model says."""

    experiment_id: str
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """One key to sort logged models by: an attribute, or a metric, on one dataset where it is named."""

    field: str
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """Which dataset a search's metrics are to be of; without a digest any of that name."""

    name: str
    digest: str = ""
