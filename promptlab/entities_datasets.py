"""The words of evaluation datasets and of scorers that are kept. Times are UTC epoch milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The tag that says who did it, in MLflow's words.
USER = "mlflow.user"


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """A named set of records to evaluate on. `schema` is the kinds of the fields of its records, by part and name."""

    number: int
    id: str
    name: str
    created: int
    updated: int
    digest: str
    created_by: str | None = None
    updated_by: str | None = None
    schema: Mapping[str, Any] | None = None
    records: int = 0
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One case of a dataset. Its inputs are what it is known by: a dataset has no two records with the same."""

    id: str
    inputs: Mapping[str, Any]
    outputs: Any
    expectations: Mapping[str, Any] | None
    tags: Mapping[str, str] | None
    source: Mapping[str, Any] | None
    created: int
    updated: int
    created_by: str | None = None
    updated_by: str | None = None


@dataclass(frozen=True, slots=True)
class Scorer:
    """One version of a scorer of an experiment, serialised by MLflow's client: what is in it is not looked at."""

    id: str
    experiment: int
    name: str
    version: int
    serialized: str
    created: int
