"""Filters that begin with WHERE, over HTTP and in every search there is, on both databases."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.promptlab.test_api_models import API, dataset, new_experiment, new_run, post


@pytest.fixture(scope="module")
def experiment(server: str) -> str:
    """An experiment in which there is something of each kind: `a`, `b` and `c`."""
    with httpx.Client(base_url=server) as http:
        number = new_experiment(http)
        for index, name in enumerate("abc"):
            run = new_run(http, number)
            tags = [{"key": "kind", "value": f"kind-{name}"}, {"key": "mlflow.runName", "value": name}]
            post(http, "runs/log-batch", run_id=run, tags=tags, metrics=[{"key": "m", "value": index, "timestamp": 1}])
            post(http, "runs/log-inputs", run_id=run, datasets=[dataset(name=name)])
            post(http, "logged-models", experiment_id=number, name=name, tags=tags[:1])
            post(http, "registered-models/create", name=f"{name}-{number}", tags=tags[:1])
            post(http, "experiments/create", name=f"{name}-{number}", tags=tags[:1])
            made = http.post("/api/3.0/mlflow/datasets/create", json={"name": name, "experiment_ids": [number]})
            assert made.status_code == 200
            trace = {
                "trace_id": f"tr-{index}{int(number):031x}",
                "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": number}},
                "request_time": "2026-01-01T00:00:00Z",
                "state": "OK",
                "tags": {"kind": f"kind-{name}", "mlflow.traceName": name},
            }
            started = http.post("/api/3.0/mlflow/traces", json={"trace": {"trace_info": trace}})
            assert started.status_code == 200, started.text
    return number


def found(http: httpx.Client, experiment: str, text: str) -> dict[str, list[str]]:
    """The names that each search finds."""
    here: dict[str, Any] = {"experiment_ids": [experiment]}
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    named = text.replace("NAME", "name")
    of_all = f"{named} AND name LIKE '%-{experiment}'"
    registered = http.get(f"{API}/registered-models/search", params={"filter": of_all}).json()
    traces = http.post("/api/3.0/mlflow/traces/search", json={"locations": [location], "filter": named}).json()
    runs = post(http, "runs/search", **here, filter=text.replace("NAME", "run_name"))
    models = post(http, "logged-models/search", **here, filter=named)
    experiments = post(http, "experiments/search", filter=of_all, max_results=100)
    return {
        "runs": sorted(one["info"]["run_name"] for one in runs.get("runs", [])),
        "logged models": sorted(one["info"]["name"] for one in models.get("models", [])),
        "experiments": sorted(one["name"][0] for one in experiments.get("experiments", [])),
        "registered models": sorted(one["name"][0] for one in registered.get("registered_models", [])),
        "traces": sorted(one["tags"]["mlflow.traceName"] for one in traces.get("traces", [])),
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("WHERE (tags.kind = 'kind-a' OR tags.kind = 'kind-c')", ["a", "c"]),
        ("WHERE (tags.kind RLIKE '^kind-[ab]$')", ["a", "b"]),
        ("WHERE (NAME RLIKE '^a' OR NAME LIKE 'b%' AND tags.kind = 'kind-b')", ["a", "b"]),
        ("WHERE (NAME RLIKE '^a' OR tags.kind = 'kind-b') AND (tags.kind != 'kind-a' OR NAME LIKE 'c%')", ["b"]),
    ],
)
def test_every_search_knows_or_parentheses_and_rlike(
    http: httpx.Client, experiment: str, text: str, names: list[str]
) -> None:
    for kind, got in found(http, experiment, text).items():
        assert got == names, kind


def test_what_only_some_searches_have(http: httpx.Client, experiment: str) -> None:
    here: dict[str, Any] = {"experiment_ids": [experiment]}
    text = "WHERE metrics.m > 1.5 OR dataset.name = 'a' OR dataset.name RLIKE 'nothing'"
    runs = post(http, "runs/search", **here, filter=text)["runs"]
    assert sorted(run["info"]["run_name"] for run in runs) == ["a", "c"]
    request = {**here, "filter_string": "WHERE name = 'a' OR name RLIKE 'c'"}
    datasets = http.post("/api/3.0/mlflow/datasets/search", json=request).json()["datasets"]
    assert sorted(one["name"] for one in datasets) == ["a", "c"]
    for broken in ("WHERE tags.kind RLIKE '('", "WHERE tags.kind RLIKE '(?<=a)b'", "WHERE tags.kind OR", "WHERE ("):
        response = http.post(f"{API}/runs/search", json={**here, "filter": broken})
        assert (response.status_code, response.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
