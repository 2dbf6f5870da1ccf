"""Scorers over HTTP: what MLflow's client serialised, kept in versions."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import Arguments, Endpoints, Field, ListOf, integer, required, string
from promptlab.entities_datasets import Scorer
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

_NAMED = {"experiment_id": required(string), "name": required(string)}
_VERSION = {**_NAMED, "version": Field(integer)}

served = Endpoints()


@served.post("scorers/register", {**_NAMED, "serialized_scorer": required(string)}, version="3.0")
def register(lab: Lab, call: Arguments) -> Any:
    """The next version of a scorer."""
    made = lab.scorers.register(call["experiment_id"], call["name"], call["serialized_scorer"])
    return {
        "version": made.version,
        "scorer_id": made.id,
        "experiment_id": str(made.experiment),
        "name": made.name,
        "serialized_scorer": made.serialized,
        "creation_time": made.created,
    }


@served.get(
    "scorers/list",
    {"experiment_id": Field(string), "experiment_ids": Field(ListOf(string))},
    version="3.0",
)
def list_all(lab: Lab, call: Arguments) -> Any:
    """The newest version of each scorer of one experiment, of several, or of all."""
    one, several = call["experiment_id"], call["experiment_ids"]
    if one and several is not None:
        raise InvalidParameter(
            "Cannot specify both 'experiment_id' and 'experiment_ids'. Use 'experiment_ids' to scope the query to "
            "multiple experiments, or 'experiment_id' to scope it to a single experiment."
        )
    return _shown(lab.scorers.newest([one] if one else several))


@served.get("scorers/versions", _NAMED, version="3.0")
def versions(lab: Lab, call: Arguments) -> Any:
    """Every version of a scorer."""
    return _shown(lab.scorers.versions(call["experiment_id"], call["name"]))


@served.get("scorers/get", _VERSION, version="3.0")
def get(lab: Lab, call: Arguments) -> Any:
    """One version of a scorer, the newest where none is named."""
    return {"scorer": _message(lab.scorers.get(call["experiment_id"], call["name"], call["version"]))}


@served.delete("scorers/delete", _VERSION, version="3.0")
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove one version of a scorer, or all of them where none is named."""
    lab.scorers.delete(call["experiment_id"], call["name"], call["version"])
    return {}


@served.get("scorers/online-configs", {"scorer_ids": Field(ListOf(string), default=())}, version="3.0")
def online_configs(_lab: Lab, _call: Arguments) -> Any:
    """Which scorers score traces as they come: none does here. MLflow's client asks whenever it shows a scorer."""
    return {"configs": []}


def _shown(found: list[Scorer]) -> dict[str, Any]:
    return {"scorers": [_message(one) for one in found]} if found else {}


def _message(found: Scorer) -> dict[str, Any]:
    return {
        "experiment_id": found.experiment,
        "scorer_name": found.name,
        "scorer_version": found.version,
        "serialized_scorer": found.serialized,
        "creation_time": found.created,
        "scorer_id": found.id,
    }
