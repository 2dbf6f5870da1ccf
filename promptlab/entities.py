"""The lab's words: experiments, runs and what is logged on them. No behaviour, no IO. Times are UTC milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


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
    """One measured point. `value` may be NaN; infinities are kept as the largest finite number."""

    key: str
    value: float
    timestamp: int
    step: int = 0


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
    """A run with its latest metrics, params and tags."""

    info: RunInfo
    metrics: tuple[Metric, ...] = ()
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()


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
