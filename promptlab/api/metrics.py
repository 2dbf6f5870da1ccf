"""Metrics over HTTP."""

from __future__ import annotations

from typing import Any

from promptlab.api import render
from promptlab.api.wire import RUN_ID, Arguments, Endpoints, Field, Fields, double, integer, required, string
from promptlab.entities import Metric
from promptlab.lab import Lab

METRIC: Fields = {
    "key": required(string),
    "value": required(double),
    "timestamp": required(integer),
    "step": Field(integer, default=0),
}
_HISTORY = {
    "run_id": RUN_ID,
    "metric_key": required(string),
    "page_token": Field(string),
    "max_results": Field(integer),
}


def metric_of(call: Arguments) -> Metric:
    """The point these fields describe."""
    return Metric(call["key"], call["value"], call["timestamp"], call["step"])


served = Endpoints()


@served.post("runs/log-metric", {"run_id": RUN_ID, **METRIC})
def log(lab: Lab, call: Arguments) -> Any:
    """Add one point to a metric of a run."""
    lab.log_metric(call["run_id"], metric_of(call))
    return {}


@served.get("metrics/get-history", _HISTORY)
def history(lab: Lab, call: Arguments) -> Any:
    """One page of the points of one metric, and the token of the next page if there is one."""
    page = lab.metric_history(call["run_id"], call["metric_key"], call["max_results"], call["page_token"])
    answer: dict[str, Any] = {"metrics": [render.metric(one) for one in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})
