"""The lab's words: experiments, runs and what is logged on them. No behaviour, no IO. Times are UTC milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

# The tag of a dataset that a run read: what it was read for, such as `training`.
DATASET_CONTEXT = "mlflow.data.context"


class ViewType(IntEnum):
    """Which of the living and the deleted a search returns; numbers as in MLflow's protocol."""

    ACTIVE_ONLY = 1
    DELETED_ONLY = 2
    ALL = 3


class RunStatus(IntEnum):
    """How far a run is; numbers as in MLflow's protocol."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5


@dataclass(frozen=True, slots=True)
class Param:
    """A run's setting, written once."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A label on an experiment or a run, which may be changed."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured point. `value` may be NaN; infinities are kept as the largest finite number.

    With a `model_id` it is measured of that logged model too, on the dataset named here if any.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that runs of one experiment read. Its name and digest say which; its text is the client's own JSON."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run read, and what for."""

    dataset: Dataset
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A logged model that a run made, and at which step."""

    model_id: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What runs read and made: datasets, and logged models by their ids."""

    datasets: tuple[DatasetInput, ...] = ()
    models: tuple[str, ...] = ()
    outputs: tuple[ModelOutput, ...] = ()


@dataclass(frozen=True, slots=True)
class Experiment:
    """What groups runs. `id` is a whole number; on MLflow's wire it is a string."""

    id: int
    name: str
    artifact_location: str
    deleted: bool
    created: int
    updated: int
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run without what was logged on it. `number` is the store's own key, `id` the caller's."""

    number: int
    id: str
    experiment_id: int
    name: str
    user: str
    status: str
    start: int
    end: int | None
    artifact_uri: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its latest metrics, params and tags, and what it read and made."""

    info: RunInfo
    metrics: tuple[Metric, ...] = ()
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()
    inputs: Inputs = Inputs()


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or folder in the artifact store. `size` is None for a folder."""

    path: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a search's results; `token` asks for the rest and is None when there is none."""

    items: Sequence[T]
    token: str | None = None
