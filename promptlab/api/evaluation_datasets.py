"""Evaluation datasets over HTTP. What is free in form travels as JSON inside strings, as on MLflow's wire."""

from __future__ import annotations

from typing import Any

import orjson

from promptlab.api.wire import Arguments, Endpoints, Field, ListOf, integer, required, string
from promptlab.entities_datasets import EvaluationDataset, Record
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

_ID = {"dataset_id": required(string)}
_EXPERIMENTS = {**_ID, "experiment_ids": Field(ListOf(string), default=())}
_SEARCH = {
    "experiment_ids": Field(ListOf(string), default=()),
    "filter_string": Field(string, default=""),
    "max_results": Field(integer, default=1000),
    "order_by": Field(ListOf(string), default=()),
    "page_token": Field(string),
}

served = Endpoints()


def tags(value: Any, path: str) -> dict[str, str]:
    """Tags as a string of JSON; those that are null are left out."""
    said = _json(value, path)
    if not isinstance(said, dict):
        raise InvalidParameter(f"'{path}' must be a JSON object, as a string")
    texts = {key: one if isinstance(one, str) else orjson.dumps(one).decode() for key, one in said.items()}
    return {key: string(texts[key], path) for key in said if said[key] is not None}


def records(value: Any, path: str) -> list[object]:
    """Records as a string of JSON."""
    said = _json(value, path)
    if not isinstance(said, list):
        raise InvalidParameter(f"'{path}' must be a JSON list of objects, as a string")
    return said


def _json(value: Any, path: str) -> Any:
    text = string(value, path)
    # A NUL in a text would be one PostgreSQL cannot keep.
    if "\\u0000" in text:
        raise InvalidParameter(f"'{path}' holds a NUL character")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"'{path}' is not valid JSON: {error}") from None


@served.post(
    "datasets/create",
    {
        "name": required(string),
        "experiment_ids": Field(ListOf(string), default=()),
        "tags": Field(tags, default={}),
    },
    version="3.0",
)
def create(lab: Lab, call: Arguments) -> Any:
    """A new dataset, empty."""
    made = lab.evaluation_datasets.create(call["name"], call["experiment_ids"], call["tags"])
    return {"dataset": dataset(made) | {"experiment_ids": lab.evaluation_datasets.experiment_ids(made.id)}}


@served.post("datasets/search", _SEARCH, version="3.0")
@served.get("datasets/search", _SEARCH, version="3.0")
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the datasets a filter finds, and the token of the next page if there is one."""
    page = lab.evaluation_datasets.search(
        call["experiment_ids"], call["filter_string"], call["order_by"], call["max_results"], call["page_token"]
    )
    answer: dict[str, Any] = {"datasets": [dataset(one) for one in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.get("datasets/{dataset_id}", _ID, version="3.0")
def get(lab: Lab, call: Arguments) -> Any:
    """The dataset, without its records."""
    return {"dataset": dataset(lab.evaluation_datasets.get(call["dataset_id"]))}


@served.delete("datasets/{dataset_id}", _ID, version="3.0")
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove a dataset and its records."""
    lab.evaluation_datasets.delete(call["dataset_id"])
    return {}


@served.patch("datasets/{dataset_id}/tags", {**_ID, "tags": required(tags)}, version="3.0")
def set_tags(lab: Lab, call: Arguments) -> Any:
    """Set tags, beside those there are."""
    lab.evaluation_datasets.set_tags(call["dataset_id"], call["tags"])
    return {}


@served.delete("datasets/{dataset_id}/tags/{key}", {**_ID, "key": required(string)}, version="3.0")
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a dataset."""
    lab.evaluation_datasets.delete_tag(call["dataset_id"], call["key"])
    return {}


@served.post("datasets/{dataset_id}/records", {**_ID, "records": required(records)}, version="3.0")
def merge(lab: Lab, call: Arguments) -> Any:
    """Add records; those whose inputs are there already add to what is there."""
    inserted, updated = lab.evaluation_datasets.merge(call["dataset_id"], call["records"])
    return {"inserted_count": inserted, "updated_count": updated}


@served.get(
    "datasets/{dataset_id}/records",
    {**_ID, "max_results": Field(integer, default=1000), "page_token": Field(string)},
    version="3.0",
)
def list_records(lab: Lab, call: Arguments) -> Any:
    """One page of records, as a string of JSON."""
    page = lab.evaluation_datasets.records(call["dataset_id"], call["max_results"], call["page_token"])
    shown = orjson.dumps([record(one, call["dataset_id"]) for one in page.items]).decode()
    return {"records": shown} | ({"next_page_token": page.token} if page.token else {})


@served.delete(
    "datasets/{dataset_id}/records", {**_ID, "dataset_record_ids": Field(ListOf(string), default=())}, version="3.0"
)
def delete_records(lab: Lab, call: Arguments) -> Any:
    """Remove records; how many there were."""
    return {"deleted_count": lab.evaluation_datasets.delete_records(call["dataset_id"], call["dataset_record_ids"])}


@served.get("datasets/{dataset_id}/experiment-ids", _ID, version="3.0")
def experiment_ids(lab: Lab, call: Arguments) -> Any:
    """The experiments that a dataset belongs to."""
    found = lab.evaluation_datasets.experiment_ids(call["dataset_id"])
    return {"experiment_ids": found} if found else {}


@served.post("datasets/{dataset_id}/add-experiments", _EXPERIMENTS, version="3.0")
def add_experiments(lab: Lab, call: Arguments) -> Any:
    """The dataset, which belongs to more experiments."""
    return {"dataset": dataset(lab.evaluation_datasets.add_to(call["dataset_id"], call["experiment_ids"]))}


@served.post("datasets/{dataset_id}/remove-experiments", _EXPERIMENTS, version="3.0")
def remove_experiments(lab: Lab, call: Arguments) -> Any:
    """The dataset, which belongs to fewer experiments."""
    return {"dataset": dataset(lab.evaluation_datasets.remove_from(call["dataset_id"], call["experiment_ids"]))}


def dataset(found: EvaluationDataset) -> dict[str, Any]:
    """A `Dataset` message."""
    shown = {
        "dataset_id": found.id,
        "name": found.name,
        "tags": orjson.dumps(found.tags or {}).decode(),
        "digest": found.digest,
        "created_time": found.created,
        "last_update_time": found.updated,
        "created_by": found.created_by,
        "last_updated_by": found.updated_by,
        "schema": None if found.schema is None else orjson.dumps(found.schema).decode(),
        "profile": orjson.dumps({"num_records": found.records}).decode() if found.records else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def record(found: Record, dataset_id: str) -> dict[str, Any]:
    """A record as MLflow's client reads it; where it came from is said twice, as it expects."""
    source = found.source or {}
    data = source.get("source_data") or {}
    shown = {
        "dataset_record_id": found.id,
        "dataset_id": dataset_id,
        "inputs": found.inputs,
        "outputs": found.outputs,
        "expectations": found.expectations,
        "tags": found.tags or {},
        "source": found.source,
        "source_id": data.get("trace_id" if source.get("source_type") == "TRACE" else "source_id"),
        "source_type": source.get("source_type"),
        "created_time": found.created,
        "last_update_time": found.updated,
        "created_by": found.created_by,
        "last_updated_by": found.updated_by,
    }
    return {name: value for name, value in shown.items() if value is not None}
