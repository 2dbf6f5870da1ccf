"""Logged models over HTTP: for now the one question that downloads of artifacts ask on the way."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import Arguments, Endpoints, ListOf, required, string
from promptlab.lab import Lab

served = Endpoints()


@served.post("logged-models/search", {"experiment_ids": required(ListOf(string))})
def search(lab: Lab, call: Arguments) -> Any:
    """An empty answer, once every experiment named is known to exist."""
    # Nothing can log a model yet, so whatever the filter says, none is found. The ids are still checked.
    for experiment_id in call["experiment_ids"]:
        lab.experiment(experiment_id)
    return {}
