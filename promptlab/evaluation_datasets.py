"""The rules of evaluation datasets: who belongs to what, and how records with the same inputs become one."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from promptlab import existing, filters
from promptlab.entities import Page
from promptlab.entities_datasets import USER, EvaluationDataset, Record
from promptlab.errors import InvalidParameter, NotFound
from promptlab.filters_datasets import DATASETS
from promptlab.ports import Database
from promptlab.store import Connection, evaluation_datasets

T = TypeVar("T")

MAX_DATASETS = 1000
MAX_RECORDS = 10_000
MAX_NAME = 500
MAX_TAG_KEY, MAX_TAG_VALUE = 255, 8000
_SOURCES = ("UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE")
_PARTS = ("inputs", "outputs", "expectations")
#: MLflow's words for the kinds of JSON. Booleans come first: Python's are numbers too.
_KINDS = ((bool, "boolean"), (int, "integer"), (float, "float"), (str, "string"), (list, "array"), (dict, "object"))


class EvaluationDatasets:
    """Evaluation datasets. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    def create(self, name: str, experiment_ids: Sequence[str], tags: Mapping[str, str]) -> EvaluationDataset:
        """A new dataset, empty, of these experiments. Names are not unique: ids are."""
        if len(name) > MAX_NAME:
            raise InvalidParameter(f"'name' exceeds the maximum length of {MAX_NAME} characters")
        _check_tags(tags)
        now, by = _now(), tags.get(USER)
        new = EvaluationDataset(
            number=0,
            id=f"d-{secrets.token_hex(16)}",
            name=name,
            created=now,
            updated=now,
            digest=_digest(name, now),
            created_by=by,
            updated_by=by,
        )

        def work(connection: Connection) -> EvaluationDataset:
            experiments = _experiments(connection, experiment_ids)
            number = evaluation_datasets.insert(connection, new)
            evaluation_datasets.set_tags(connection, number, tags)
            evaluation_datasets.add_to(connection, number, experiments)
            return _found(connection, new.id)

        return self._database.write(work)

    def get(self, dataset_id: str) -> EvaluationDataset:
        """The dataset of that id. Raises `NotFound`."""
        with self._database.read() as connection:
            return _found(connection, dataset_id)

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset and its records. That it is gone already is no fault."""
        self._database.write(lambda connection: evaluation_datasets.delete(connection, dataset_id))

    def search(
        self, experiment_ids: Sequence[str], text: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[EvaluationDataset]:
        """A page of the datasets of any of these experiments (of all, where none is named) that a filter finds."""
        _check_page_size(limit, MAX_DATASETS)
        clauses, orders = filters.parse_filter(text, DATASETS), filters.parse_order_by(order_by, DATASETS)
        with self._database.read() as connection:
            experiments = [existing.experiment(connection, one).id for one in experiment_ids]
            return evaluation_datasets.search(connection, experiments, clauses, orders, limit, token)

    def set_tags(self, dataset_id: str, tags: Mapping[str, str]) -> None:
        """Set or change tags of a dataset."""
        _check_tags(tags)
        self._write(dataset_id, lambda connection, found: evaluation_datasets.set_tags(connection, found.number, tags))

    def delete_tag(self, dataset_id: str, key: str) -> None:
        """Take a tag from a dataset, if it has it."""
        self._write(dataset_id, lambda connection, found: evaluation_datasets.delete_tag(connection, found.number, key))

    def experiment_ids(self, dataset_id: str) -> list[str]:
        """The experiments that a dataset belongs to."""
        with self._database.read() as connection:
            found = _found(connection, dataset_id)
            return [str(one) for one in evaluation_datasets.experiments_of(connection, found.number)]

    def add_to(self, dataset_id: str, experiment_ids: Sequence[str]) -> EvaluationDataset:
        """The dataset, which belongs to these experiments too."""

        def work(connection: Connection, found: EvaluationDataset) -> EvaluationDataset:
            evaluation_datasets.add_to(connection, found.number, _experiments(connection, experiment_ids))
            evaluation_datasets.update(connection, found.number, updated=_now())
            return _found(connection, dataset_id)

        return self._write(dataset_id, work)

    def remove_from(self, dataset_id: str, experiment_ids: Sequence[str]) -> EvaluationDataset:
        """The dataset, which belongs to these experiments no more."""

        def work(connection: Connection, found: EvaluationDataset) -> EvaluationDataset:
            experiments = [existing.experiment(connection, one).id for one in experiment_ids]
            evaluation_datasets.remove_from(connection, found.number, experiments)
            evaluation_datasets.update(connection, found.number, updated=_now())
            return _found(connection, dataset_id)

        return self._write(dataset_id, work)

    def records(self, dataset_id: str, limit: int, token: str | None) -> Page[Record]:
        """A page of the records of a dataset, in the order in which they came."""
        _check_page_size(limit, MAX_RECORDS)
        with self._database.read() as connection:
            return evaluation_datasets.records(connection, _found(connection, dataset_id).number, limit, token)

    def merge(self, dataset_id: str, given: Sequence[object]) -> tuple[int, int]:
        """Add records; one whose inputs are there already adds to that. How many were new, and how many were not."""
        said = [_checked(one, at) for at, one in enumerate(given)]
        hashes = [_hash(one["inputs"]) for one in said]

        def work(connection: Connection, found: EvaluationDataset) -> tuple[int, int]:
            now = _now()
            there = evaluation_datasets.records_by_hash(connection, found.number, list(dict.fromkeys(hashes)))
            new: dict[str, Record] = {}
            changed: dict[str, Record] = {}
            updated = 0
            for of, one in zip(hashes, said, strict=True):
                if of in new:
                    new[of] = _merged(new[of], one, now)
                elif of in there:
                    changed[of] = _merged(changed.get(of, there[of]), one, now)
                else:
                    new[of] = _record(one, now)
                    continue
                updated += 1
            evaluation_datasets.insert_records(connection, found.number, new)
            evaluation_datasets.update_records(connection, changed.values())
            by = next((one["tags"][USER] for one in reversed(said) if USER in (one["tags"] or {})), None)
            evaluation_datasets.update(
                connection,
                found.number,
                updated=now,
                updated_by=by or found.updated_by,
                digest=_digest(found.name, now),
                schema=orjson.dumps(_schema(found.schema, said)).decode(),
                records=found.records + len(new),
            )
            return len(new), updated

        return self._write(dataset_id, work)

    def delete_records(self, dataset_id: str, ids: Sequence[str]) -> int:
        """Remove records; how many there were."""

        def work(connection: Connection, found: EvaluationDataset) -> int:
            removed, now = evaluation_datasets.delete_records(connection, found.number, ids), _now()
            if removed:
                left, digest = found.records - removed, _digest(found.name, now)
                evaluation_datasets.update(connection, found.number, records=left, updated=now, digest=digest)
            return removed

        return self._write(dataset_id, work)

    def _write(self, dataset_id: str, work: Callable[[Connection, EvaluationDataset], T]) -> T:
        def locked(connection: Connection) -> T:
            return work(connection, _found(connection, dataset_id, lock=True))

        return self._database.write(locked)


def _found(connection: Connection, dataset_id: str, *, lock: bool = False) -> EvaluationDataset:
    found = evaluation_datasets.find(connection, dataset_id, lock=lock)
    if found is None:
        raise NotFound(f"Evaluation dataset with id '{dataset_id}' not found")
    return found


def _experiments(connection: Connection, experiment_ids: Iterable[str]) -> list[int]:
    return [existing.active_experiment(connection, one).id for one in experiment_ids]


def _checked(given: object, at: int) -> dict[str, Any]:
    """What a record says, each part of the kind it must be."""
    if not isinstance(given, dict):
        raise InvalidParameter(f"records[{at}] must be an object with 'inputs', not {type(given).__name__}")
    said = {name: given.get(name) for name in ("inputs", "outputs", "expectations", "tags", "source")}
    said["inputs"] = {} if said["inputs"] is None else said["inputs"]
    for name in ("inputs", "expectations", "tags", "source"):
        if said[name] is not None and not isinstance(said[name], dict):
            raise InvalidParameter(f"records[{at}].{name} must be an object, not {type(said[name]).__name__}")
    if said["tags"]:
        said["tags"] = {key: str(value) for key, value in said["tags"].items() if value is not None}
    if (source := said["source"]) is not None:
        kind = str(source.get("source_type", _SOURCES[0])).upper()
        if kind not in _SOURCES:
            raise InvalidParameter(
                f"records[{at}].source: Invalid dataset record source type: {kind}. "
                f"Valid source types: {list(_SOURCES)}"
            )
        said["source"] = {"source_type": kind, "source_data": source.get("source_data") or {}}
    said["says_outputs"] = "outputs" in given
    return said


def _record(said: Mapping[str, Any], now: int) -> Record:
    by = (said["tags"] or {}).get(USER)
    outputs = said["outputs"] if said["says_outputs"] else {}
    parts = {name: said[name] for name in ("inputs", "expectations", "tags", "source")}
    return Record(f"dr-{secrets.token_hex(16)}", **parts, outputs=outputs, created=now, updated=now,
                  created_by=by, updated_by=by)  # fmt: skip


def _merged(there: Record, said: Mapping[str, Any], now: int) -> Record:
    """A record with what is said anew: outputs take the place of those before, the rest is added to."""
    tags = said["tags"] or {}
    return replace(
        there,
        outputs=said["outputs"] if said["says_outputs"] else there.outputs,
        expectations={**(there.expectations or {}), **said["expectations"]}
        if said["expectations"]
        else there.expectations,
        tags={**(there.tags or {}), **tags} if tags else there.tags,
        updated=now,
        updated_by=tags.get(USER, there.updated_by),
    )


def _schema(before: Mapping[str, Any] | None, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The kinds of all fields seen so far; what was seen first of a field counts."""
    schema: dict[str, Any] = dict(before or {"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"})
    for one in said:
        for part in _PARTS:
            value = one[part]
            if isinstance(value, dict):
                if isinstance(schema[part], dict):
                    schema[part] = {**{name: _kind(field) for name, field in value.items()}, **schema[part]}
            elif value is not None and not schema[part]:
                schema[part] = _kind(value)
    return schema


def _kind(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")


def _hash(inputs: object) -> str:
    # As MLflow does it, so that a dataset that moves here or away keeps what its records are known by.
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _digest(name: str, updated: int) -> str:
    return hashlib.sha256(f"{name}:{updated}".encode()).hexdigest()[:8]


def _check_tags(tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        if not 0 < len(key) <= MAX_TAG_KEY or len(value) > MAX_TAG_VALUE:
            raise InvalidParameter(
                f"The tag '{key[:50]}' must have a key of 1 to {MAX_TAG_KEY} and a value of at most "
                f"{MAX_TAG_VALUE} characters"
            )


def _check_page_size(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise InvalidParameter(f"Invalid value {limit} for parameter 'max_results' supplied: must be 1 to {most}")


def _now() -> int:
    return time.time_ns() // 1_000_000
