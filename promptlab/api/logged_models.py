"""Logged models over HTTP, with their params, tags and files."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from promptlab.api import render
from promptlab.api.artifacts import attachment
from promptlab.api.wire import (
    KEY_VALUE,
    Arguments,
    Endpoints,
    Field,
    Fields,
    ListOf,
    arguments,
    boolean,
    guarded,
    integer,
    message,
    one_of,
    required,
    string,
)
from promptlab.entities import Param, Tag
from promptlab.entities_models import (
    DatasetFilter,
    LoggedModel,
    LoggedModelStatus,
    ModelMetric,
    ModelOrder,
    NewLoggedModel,
)
from promptlab.lab import Lab
from promptlab.ports import Stored

_ID = {"model_id": required(string)}
_PAIRS = Field(ListOf(message(KEY_VALUE)), default=())
_CREATE: Fields = {
    "experiment_id": required(string),
    "name": Field(string, default=""),
    "model_type": Field(string, default=""),
    "source_run_id": Field(string, default=""),
    "params": _PAIRS,
    "tags": _PAIRS,
}
_ON: Fields = {"dataset_name": Field(string, default=""), "dataset_digest": Field(string, default="")}
_ORDER: Fields = {"field_name": Field(string, default=""), "ascending": Field(boolean, default=True), **_ON}
_SEARCH: Fields = {
    "experiment_ids": required(ListOf(string)),
    "filter": Field(string, default=""),
    "datasets": Field(ListOf(message(_ON)), default=()),
    "max_results": Field(integer, default=50),
    "order_by": Field(ListOf(message(_ORDER)), default=()),
    "page_token": Field(string),
}
_FOLDER = {**_ID, "artifact_directory_path": Field(string, default=""), "page_token": Field(string)}

served = Endpoints()


@served.post("logged-models", _CREATE)
def create(lab: Lab, call: Arguments) -> Any:
    """A new logged model, with a name made up where the caller gave none."""
    pairs: dict[str, Any] = {
        "params": tuple(Param(**param) for param in call.pop("params")),
        "tags": tuple(Tag(**tag) for tag in call.pop("tags")),
    }
    return {"model": shown(lab.logged_models.create(NewLoggedModel(**call, **pairs)))}


@served.post("logged-models/search", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the logged models a filter finds, and the token of the next page if there is one."""
    page = lab.logged_models.search(
        call["experiment_ids"],
        call["filter"],
        [DatasetFilter(one["dataset_name"], one["dataset_digest"]) for one in call["datasets"]],
        [
            ModelOrder(one["field_name"], one["ascending"], one["dataset_name"], one["dataset_digest"])
            for one in call["order_by"]
        ],
        call["max_results"],
        call["page_token"],
    )
    answer: dict[str, Any] = {"models": [shown(found) for found in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.get("logged-models/{model_id}", {**_ID, "allow_deleted": Field(boolean, default=False)})
def get(lab: Lab, call: Arguments) -> Any:
    """The logged model of that id, with its params, tags and metrics."""
    return {"model": shown(lab.logged_models.get(call["model_id"], deleted_too=call["allow_deleted"]))}


@served.patch("logged-models/{model_id}", {**_ID, "status": required(one_of(LoggedModelStatus))})
def finish(lab: Lab, call: Arguments) -> Any:
    """The logged model after its maker has said how the upload of its files went."""
    return {"model": shown(lab.logged_models.finish(call["model_id"], call["status"]))}


@served.delete("logged-models/{model_id}", _ID)
def delete(lab: Lab, call: Arguments) -> Any:
    """Mark a logged model as deleted."""
    lab.logged_models.delete(call["model_id"])
    return {}


@served.post("logged-models/{model_id}/params", {**_ID, "params": _PAIRS})
def log_params(lab: Lab, call: Arguments) -> Any:
    """Log params of a logged model; those that are there already cannot change."""
    lab.logged_models.log_params(call["model_id"], [Param(**param) for param in call["params"]])
    return {}


@served.patch("logged-models/{model_id}/tags", {**_ID, "tags": _PAIRS})
def set_tags(lab: Lab, call: Arguments) -> Any:
    """Set tags of a logged model, in place of those with the same keys."""
    lab.logged_models.set_tags(call["model_id"], [Tag(**tag) for tag in call["tags"]])
    return {}


@served.delete("logged-models/{model_id}/tags/{tag_key:path}", {**_ID, "tag_key": required(string)})
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a logged model."""
    lab.logged_models.delete_tag(call["model_id"], call["tag_key"])
    return {}


@served.get("logged-models/{model_id}/artifacts/directories", _FOLDER)
def list_files(lab: Lab, call: Arguments) -> Any:
    """The files and folders directly below a path of a logged model's artifacts."""
    model, found = lab.logged_models.list_artifacts(call["model_id"], call["artifact_directory_path"])
    return {"root_uri": model.artifact_uri, **render.files(found)}


def raw(lab: Lab) -> APIRouter:
    """The files of logged models, as the web UI downloads them."""

    @guarded
    async def file(request: Request) -> Response:
        call = arguments(request, b"", {**_ID, "artifact_file_path": required(string)})

        def find() -> Stored:
            _, path = lab.logged_models.artifact_path(call["model_id"], call["artifact_file_path"])
            return lab.artifacts.open(path)

        return attachment(await to_thread.run_sync(find))

    router = APIRouter()
    for prefix in ("/api", "/ajax-api"):
        path = f"{prefix}/2.0/mlflow/logged-models/{{model_id}}/artifacts/files"
        router.add_api_route(path, file, methods=["GET"], response_model=None)
    return router


def shown(found: LoggedModel) -> dict[str, Any]:
    """A `LoggedModel` message."""
    info: dict[str, Any] = {
        "model_id": found.id,
        "experiment_id": str(found.experiment_id),
        "name": found.name,
        "creation_timestamp_ms": found.created,
        "last_updated_timestamp_ms": found.updated,
        "artifact_uri": found.artifact_uri,
        "status": found.status.name,
        "model_type": found.model_type,
        "source_run_id": found.source_run_id,
    }
    if found.tags:
        info["tags"] = [render.label(tag) for tag in found.tags]
    data: dict[str, Any] = {}
    if found.params:
        data["params"] = [render.label(param) for param in found.params]
    if found.metrics:
        data["metrics"] = [_measured(one) for one in found.metrics]
    return {"info": info, "data": data}


def _measured(found: ModelMetric) -> dict[str, Any]:
    # MLflow's own server forgets here that a value was NaN and says 0.
    point = {**render.metric(found.point), "model_id": found.point.model_id, "run_id": found.run_id}
    if found.point.dataset_name:
        point["dataset_name"] = found.point.dataset_name
    if found.point.dataset_digest:
        point["dataset_digest"] = found.point.dataset_digest
    return point
