"""Metrics over HTTP."""

from __future__ import annotations

from typing import Any

from promptlab.api import render
from promptlab.api.wire import RUN_ID, Arguments, Endpoints, Field, Fields, ListOf, double, integer, required, string
from promptlab.entities import Metric
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab
from promptlab.metrics import MAX_HISTORY_PAGE, MAX_SAMPLES

METRIC: Fields = {
    "key": required(string),
    "value": required(double),
    "timestamp": required(integer),
    "step": Field(integer, default=0),
    "model_id": Field(string, default=""),
    "dataset_name": Field(string, default=""),
    "dataset_digest": Field(string, default=""),
}
_HISTORY = {
    "run_id": RUN_ID,
    "metric_key": required(string),
    "page_token": Field(string),
    "max_results": Field(integer),
}


def metric_of(call: Arguments) -> Metric:
    """The point these fields describe."""
    return Metric(**call)


# The web UI's own words, from before there were messages for it.
_BULK = {
    "run_id": Field(ListOf(string), default=()),
    "metric_key": Field(string),
    "max_results": Field(integer, default=MAX_HISTORY_PAGE),
}
_INTERVAL = {
    "run_ids": required(ListOf(string)),
    "metric_key": required(string),
    "start_step": Field(integer),
    "end_step": Field(integer),
    "max_results": Field(integer, default=MAX_SAMPLES),
}

served = Endpoints()


@served.post("runs/log-metric", {"run_id": RUN_ID, **METRIC})
def log(lab: Lab, call: Arguments) -> Any:
    """Add one point to a metric of a run."""
    lab.log_metric(call.pop("run_id"), metric_of(call))
    return {}


@served.get("metrics/get-history", _HISTORY)
def history(lab: Lab, call: Arguments) -> Any:
    """One page of the points of one metric, and the token of the next page if there is one."""
    page = lab.metrics.history(call["run_id"], call["metric_key"], call["max_results"], call["page_token"])
    answer: dict[str, Any] = {"metrics": [render.metric(one) for one in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.get("metrics/get-history-bulk", _BULK)
def histories(lab: Lab, call: Arguments) -> Any:
    """The first points of one metric of several runs."""
    if not call["run_id"]:
        raise InvalidParameter("GetMetricHistoryBulk request must specify at least one run_id.")
    if call["metric_key"] is None:
        raise InvalidParameter("GetMetricHistoryBulk request must specify a metric_key.")
    return {"metrics": _of_runs(lab.metrics.histories(call["run_id"], call["metric_key"], call["max_results"]))}


@served.get("metrics/get-history-bulk-interval", _INTERVAL)
def samples(lab: Lab, call: Arguments) -> Any:
    """Some points of one metric of several runs, evenly spread between two steps."""
    steps = (call["start_step"], call["end_step"])
    found = lab.metrics.samples(call["run_ids"], call["metric_key"], steps, call["max_results"])
    return {"metrics": _of_runs(found)} if found else {}


def _of_runs(found: list[tuple[str, Metric]]) -> list[dict[str, Any]]:
    return [{**render.metric(point), "run_id": run_id} for run_id, point in found]
