"""Runs over HTTP: their life, params and tags. Metrics have a file of their own."""

from __future__ import annotations

from typing import Any

from promptlab.api import render
from promptlab.api.metrics import METRIC, metric_of
from promptlab.api.wire import (
    KEY_VALUE,
    RUN_ID,
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
from promptlab.entities import Param, RunStatus, Tag, ViewType
from promptlab.lab import Lab

_ID = {"run_id": RUN_ID}
_PAIRS = Field(ListOf(message(KEY_VALUE)), default=())
_CREATE = {
    "experiment_id": Field(string, default=""),
    "user_id": Field(string, default=""),
    "run_name": Field(string, default=""),
    "start_time": Field(integer),
    "tags": _PAIRS,
}
_UPDATE = {**_ID, "status": Field(one_of(RunStatus)), "end_time": Field(integer), "run_name": Field(string)}
_SEARCH = {
    "experiment_ids": Field(ListOf(string), default=()),
    "filter": Field(string, default=""),
    "run_view_type": Field(one_of(ViewType), default=ViewType.ACTIVE_ONLY),
    "max_results": Field(integer, default=1000),
    "order_by": Field(ListOf(string), default=()),
    "page_token": Field(string),
}
_BATCH = {**_ID, "metrics": Field(ListOf(message(METRIC)), default=()), "params": _PAIRS, "tags": _PAIRS}

served = Endpoints()


@served.post("runs/create", _CREATE)
def create(lab: Lab, call: Arguments) -> Any:
    """A new run, with a name made up where the caller gave none."""
    tags = [Tag(**tag) for tag in call["tags"]]
    made = lab.create_run(call["experiment_id"], call["user_id"], call["run_name"], call["start_time"], tags)
    return {"run": render.run(made)}


@served.get("runs/get", _ID)
def get(lab: Lab, call: Arguments) -> Any:
    """The run of that id, with its params, tags and latest metrics."""
    return {"run": render.run(lab.run(call["run_id"]))}


@served.post("runs/update", _UPDATE)
def update(lab: Lab, call: Arguments) -> Any:
    """The run after its status, end time or name has changed."""
    info = lab.update_run(call["run_id"], call["status"], call["end_time"], call["run_name"])
    return {"run_info": render.run_info(info)}


@served.post("runs/delete", _ID)
def delete(lab: Lab, call: Arguments) -> Any:
    """Mark a run as deleted."""
    lab.delete_run(call["run_id"])
    return {}


@served.post("runs/restore", _ID)
def restore(lab: Lab, call: Arguments) -> Any:
    """Bring back a deleted run."""
    lab.restore_run(call["run_id"])
    return {}


@served.post("runs/search", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the runs a filter finds, and the token of the next page if there is one."""
    page = lab.search_runs(
        call["experiment_ids"],
        call["filter"],
        call["run_view_type"],
        call["order_by"],
        call["max_results"],
        call["page_token"],
    )
    answer: dict[str, Any] = {"runs": [render.run(found) for found in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.post("runs/log-parameter", {**_ID, **KEY_VALUE})
def log_param(lab: Lab, call: Arguments) -> Any:
    """Log a param of a run; one that is there already cannot change."""
    lab.log_param(call["run_id"], Param(call["key"], call["value"]))
    return {}


@served.post("runs/set-tag", {**_ID, **KEY_VALUE})
def set_tag(lab: Lab, call: Arguments) -> Any:
    """Set a tag of a run, in place of one with that key."""
    lab.set_tag(call["run_id"], Tag(call["key"], call["value"]))
    return {}


@served.post("runs/delete-tag", {**_ID, "key": required(string)})
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a run."""
    lab.delete_tag(call["run_id"], call["key"])
    return {}


@served.post("runs/log-batch", _BATCH)
def log_batch(lab: Lab, call: Arguments) -> Any:
    """Log metrics, params and tags of a run together: all of them or none."""
    lab.log_batch(
        call["run_id"],
        [metric_of(metric) for metric in call["metrics"]],
        [Param(**param) for param in call["params"]],
        [Tag(**tag) for tag in call["tags"]],
    )
    return {}
