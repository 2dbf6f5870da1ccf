"""Traces over MLflow's second protocol: how its clients before 3.0 begin, end and find them."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import KEY_VALUE, Arguments, Endpoints, Field, ListOf, integer, message, required, string
from promptlab.api.wire_traces import choice
from promptlab.entities_traces import STATES, Trace
from promptlab.lab import Lab

_STATUSES = ("TRACE_STATUS_UNSPECIFIED", *STATES[1:])
_ID = {"request_id": required(string)}
_SAID = {
    "timestamp_ms": required(integer),
    "request_metadata": Field(ListOf(message(KEY_VALUE)), default=()),
    "tags": Field(ListOf(message(KEY_VALUE)), default=()),
}
_SEARCH = {
    "experiment_ids": required(ListOf(string)),
    "filter": Field(string, default=""),
    "max_results": Field(integer, default=100),
    "order_by": Field(ListOf(string), default=()),
    "page_token": Field(string),
}

served = Endpoints()


@served.post("traces", {"experiment_id": Field(string, default=""), **_SAID})
def begin(lab: Lab, call: Arguments) -> Any:
    """A new trace, under way."""
    metadata, tags = _labels(call["request_metadata"]), _labels(call["tags"])
    return {"trace_info": info(lab.traces.begin(call["experiment_id"], call["timestamp_ms"], metadata, tags))}


@served.patch("traces/{request_id}", {**_ID, **_SAID, "status": Field(choice(_STATUSES), default=_STATUSES[0])})
def end(lab: Lab, call: Arguments) -> Any:
    """The trace, over."""
    metadata, tags = _labels(call["request_metadata"]), _labels(call["tags"])
    state = STATES[_STATUSES.index(call["status"])]
    return {"trace_info": info(lab.traces.end(call["request_id"], call["timestamp_ms"], state, metadata, tags))}


@served.get("traces/{request_id}/info", _ID)
def get(lab: Lab, call: Arguments) -> Any:
    """The trace without its spans."""
    return {"trace_info": info(lab.traces.info(call["request_id"]))}


@served.get("traces", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the traces a filter finds, and the token of the next page if there is one."""
    page = lab.traces.search(
        call["experiment_ids"], call["filter"], call["order_by"], call["max_results"], call["page_token"]
    )
    answer: dict[str, Any] = {"traces": [info(trace) for trace in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


def _labels(given: list[dict[str, str]]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in given}


def info(trace: Trace) -> dict[str, Any]:
    """A `TraceInfo` message."""
    shown = {
        "request_id": trace.id,
        "experiment_id": str(trace.experiment_id),
        "timestamp_ms": trace.timestamp,
        "execution_time_ms": trace.duration or 0,
        "status": _STATUSES[STATES.index(trace.state)],
    }
    for name, labels in (("request_metadata", trace.metadata), ("tags", trace.tags)):
        if labels:
            shown[name] = [{"key": key, "value": value} for key, value in labels.items()]
    return shown
