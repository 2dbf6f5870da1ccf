"""Experiments over HTTP."""

from __future__ import annotations

from typing import Any

from promptlab.api import render
from promptlab.api.wire import (
    KEY_VALUE,
    Arguments,
    Endpoints,
    Field,
    ListOf,
    integer,
    message,
    one_of,
    required,
    string,
)
from promptlab.entities import Tag, ViewType
from promptlab.lab import Lab

_ID = {"experiment_id": required(string)}
_SEARCH = {
    "max_results": Field(integer, default=1000),
    "page_token": Field(string),
    "filter": Field(string, default=""),
    "order_by": Field(ListOf(string), default=()),
    "view_type": Field(one_of(ViewType), default=ViewType.ACTIVE_ONLY),
}
_NEW = {
    "name": required(string),
    "artifact_location": Field(string),
    "tags": Field(ListOf(message(KEY_VALUE)), default=()),
}


served = Endpoints()


@served.post("experiments/create", _NEW)
def create(lab: Lab, call: Arguments) -> Any:
    """The id of a new experiment."""
    tags = [Tag(**tag) for tag in call["tags"]]
    return {"experiment_id": str(lab.create_experiment(call["name"], call["artifact_location"], tags))}


@served.get("experiments/get", _ID)
def get(lab: Lab, call: Arguments) -> Any:
    """The experiment of that id, deleted or not."""
    return {"experiment": render.experiment(lab.experiment(call["experiment_id"]))}


@served.get("experiments/get-by-name", {"experiment_name": required(string)})
def get_by_name(lab: Lab, call: Arguments) -> Any:
    """The experiment of that name, deleted or not."""
    return {"experiment": render.experiment(lab.experiment_by_name(call["experiment_name"]))}


@served.post("experiments/search", _SEARCH)
@served.get("experiments/search", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the experiments a filter finds, and the token of the next page if there is one."""
    page = lab.search_experiments(
        call["view_type"], call["filter"], call["order_by"], call["max_results"], call["page_token"]
    )
    answer: dict[str, Any] = {}
    if page.items:
        answer["experiments"] = [render.experiment(found) for found in page.items]
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.post("experiments/delete", _ID)
def delete(lab: Lab, call: Arguments) -> Any:
    """Mark an experiment and its runs as deleted."""
    lab.delete_experiment(call["experiment_id"])
    return {}


@served.post("experiments/restore", _ID)
def restore(lab: Lab, call: Arguments) -> Any:
    """Bring back a deleted experiment and its runs."""
    lab.restore_experiment(call["experiment_id"])
    return {}


@served.post("experiments/update", {**_ID, "new_name": required(string)})
def update(lab: Lab, call: Arguments) -> Any:
    """Give an experiment another name."""
    lab.rename_experiment(call["experiment_id"], call["new_name"])
    return {}


@served.post("experiments/set-experiment-tag", {**_ID, **KEY_VALUE})
def set_tag(lab: Lab, call: Arguments) -> Any:
    """Set a tag of an experiment, in place of one with that key."""
    lab.set_experiment_tag(call["experiment_id"], Tag(call["key"], call["value"]))
    return {}


@served.post("experiments/delete-experiment-tag", {**_ID, "key": required(string)})
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from an experiment."""
    lab.delete_experiment_tag(call["experiment_id"], call["key"])
    return {}
