"""Traces over HTTP: MLflow's third protocol of them, and those calls of the second that its clients still make."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import Arguments, Endpoints, Field, ListOf, boolean, integer, message, required, string
from promptlab.api.wire_traces import LOCATION, read_info, shown_info, shown_trace
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

_ID = {"trace_id": required(string)}
_OLD_ID = {"request_id": required(string)}
_TAG = {"key": required(string), "value": Field(string, default="")}
_MANY = {"trace_ids": required(ListOf(string)), "experiment_ids": Field(ListOf(string), default=())}
_LINKS = {"trace_ids": required(ListOf(string)), "run_id": required(string)}
_PROMPT = {"name": required(string), "version": required(lambda value, path: string(str(value), path))}
_PROMPTS = {**_ID, "prompt_versions": required(ListOf(message(_PROMPT)))}
_DELETED = {
    "experiment_id": required(string),
    "max_timestamp_millis": Field(integer),
    "max_traces": Field(integer),
    "request_ids": Field(ListOf(string), default=()),
}

served = Endpoints()


@served.post("traces", {"trace": required(read_info)}, version="3.0")
def start(lab: Lab, call: Arguments) -> Any:
    """Keep what is said of a trace; its spans come by OpenTelemetry's own protocol, sooner or later."""
    experiment_id, said = call["trace"]
    return {"trace": {"trace_info": shown_info(lab.traces.start(experiment_id, said))}}


@served.get("traces/get", {**_ID, "allow_partial": Field(boolean, default=False)}, version="3.0")
def get(lab: Lab, call: Arguments) -> Any:
    """The trace with its spans."""
    trace, spans = lab.traces.get(call["trace_id"], partial=call["allow_partial"])
    return {"trace": shown_trace(trace, spans)}


@served.get("traces/batchGet", _MANY, version="3.0")
def get_all(lab: Lab, call: Arguments) -> Any:
    """Those of these traces that are complete, with their spans."""
    found = lab.traces.get_all(call["trace_ids"], call["experiment_ids"])
    return {"traces": [shown_trace(trace, spans) for trace, spans in found]} if found else {}


@served.post("traces/batchGetInfos", _MANY, version="3.0")
def infos(lab: Lab, call: Arguments) -> Any:
    """Those of these traces that there are, without their spans."""
    found = lab.traces.infos(call["trace_ids"], call["experiment_ids"])
    return {"trace_infos": [shown_info(trace) for trace in found]} if found else {}


@served.post(
    "traces/search",
    {
        "locations": required(ListOf(message(LOCATION))),
        "filter": Field(string, default=""),
        "max_results": Field(integer, default=100),
        "order_by": Field(ListOf(string), default=()),
        "page_token": Field(string),
    },
    version="3.0",
)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the traces a filter finds, and the token of the next page if there is one."""
    experiments = []
    for at, location in enumerate(call["locations"]):
        named = (location["mlflow_experiment"] or {}).get("experiment_id")
        if not named:
            raise InvalidParameter(
                f"'locations[{at}].mlflow_experiment.experiment_id' is missing: traces are kept in experiments only"
            )
        experiments.append(named)
    page = lab.traces.search(experiments, call["filter"], call["order_by"], call["max_results"], call["page_token"])
    answer: dict[str, Any] = {"traces": [shown_info(trace) for trace in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.post("traces/delete-traces", _DELETED)
@served.post("traces/delete-traces", _DELETED, version="3.0")
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove traces; how many there were."""
    gone = lab.traces.delete(
        call["experiment_id"], call["request_ids"], call["max_timestamp_millis"], call["max_traces"]
    )
    return {"traces_deleted": gone}


@served.post("traces/link-to-run", _LINKS)
@served.post("traces/link-to-run", _LINKS, version="3.0")
def link_to_run(lab: Lab, call: Arguments) -> Any:
    """Have traces belong to a run."""
    lab.traces.link_to_run(call["trace_ids"], call["run_id"])
    return {}


@served.post("traces/link-prompts", _PROMPTS)
@served.post("traces/link-prompts", _PROMPTS, version="3.0")
def link_prompts(lab: Lab, call: Arguments) -> Any:
    """Note the versions of prompts that a trace made use of."""
    versions = [(one["name"], one["version"]) for one in call["prompt_versions"]]
    lab.traces.link_prompts(call["trace_id"], versions)
    return {}


@served.get("traces/{trace_id}", _ID, version="3.0")
def info(lab: Lab, call: Arguments) -> Any:
    """The trace without its spans."""
    return {"trace": {"trace_info": shown_info(lab.traces.info(call["trace_id"]))}}


@served.patch("traces/{trace_id}/tags", {**_ID, **_TAG}, version="3.0")
def set_tag(lab: Lab, call: Arguments) -> Any:
    """Set or change a tag."""
    lab.traces.set_tag(call["trace_id"], call["key"], call["value"])
    return {}


@served.patch("traces/{request_id}/tags", {**_OLD_ID, **_TAG})
def set_tag_by_request(lab: Lab, call: Arguments) -> Any:
    """The same, as Python's client asks it."""
    lab.traces.set_tag(call["request_id"], call["key"], call["value"])
    return {}


@served.delete("traces/{trace_id}/tags", {**_ID, "key": required(string)}, version="3.0")
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a trace."""
    lab.traces.delete_tag(call["trace_id"], call["key"])
    return {}


@served.delete("traces/{request_id}/tags", {**_OLD_ID, "key": required(string)})
def delete_tag_by_request(lab: Lab, call: Arguments) -> Any:
    """The same, as Python's client asks it."""
    lab.traces.delete_tag(call["request_id"], call["key"])
    return {}
