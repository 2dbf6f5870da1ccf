"""Logged models, inputs and bulk histories over HTTP: what is missing, wrong or too long, on both databases."""

from __future__ import annotations

import itertools
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

API = "/api/2.0/mlflow"
MODELS = f"{API}/logged-models"
NOWHERE = "m-" + "0" * 32


def post(http: httpx.Client, path: str, **fields: Any) -> Any:
    response = http.post(f"{API}/{path}", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def new_experiment(http: httpx.Client) -> str:
    return str(post(http, "experiments/create", name=uuid.uuid4().hex)["experiment_id"])


def new_run(http: httpx.Client, experiment_id: str = "0") -> str:
    return str(post(http, "runs/create", experiment_id=experiment_id)["run"]["info"]["run_id"])


def new_model(http: httpx.Client, experiment_id: str = "0", **fields: Any) -> str:
    return str(post(http, "logged-models", experiment_id=experiment_id, **fields)["model"]["info"]["model_id"])


def dataset(**fields: str) -> dict[str, Any]:
    return {"dataset": {"name": "d", "digest": "1", "source_type": "code", "source": "{}", **fields}}


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["error_code"] == {400: "INVALID_PARAMETER_VALUE", 404: "RESOURCE_DOES_NOT_EXIST"}[status]
    assert "SELECT" not in body["message"]
    return str(body["message"])


# ── what is missing, wrong or too long ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("verb", "path", "fields", "missing"),
    [
        ("POST", "logged-models", {}, "experiment_id"),
        ("POST", "logged-models", {"experiment_id": "0", "params": [{"value": "1"}]}, "params[0].key"),
        ("PATCH", f"logged-models/{NOWHERE}", {}, "status"),
        ("POST", "logged-models/search", {}, "experiment_ids"),
        ("POST", "runs/outputs", {"run_id": "x"}, "models"),
        ("POST", "runs/outputs", {"run_id": "x", "models": [{}]}, "models[0].model_id"),
        ("POST", "runs/log-inputs", {"datasets": []}, "run_id"),
        ("POST", "runs/log-inputs", {"run_id": "x", "datasets": [{}]}, "datasets[0].dataset"),
        ("POST", "runs/log-inputs", {"run_id": "x", "datasets": [dataset(name="")]}, "datasets[0].dataset.name"),
        ("POST", "runs/log-inputs", {"run_id": "x", "models": [{"model_id": ""}]}, "models[0].model_id"),
        ("POST", "runs/log-model", {"run_id": "x"}, "model_json"),
        ("GET", "metrics/get-history-bulk-interval", {"metric_key": "m"}, "run_ids"),
        ("GET", "metrics/get-history-bulk-interval", {"run_ids": "x"}, "metric_key"),
        ("GET", f"logged-models/{NOWHERE}/artifacts/files", {}, "artifact_file_path"),
    ],
)
def test_what_is_missing_is_named(http: httpx.Client, verb: str, path: str, fields: Any, missing: str) -> None:
    as_query = {"params": fields} if verb == "GET" else {"json": fields}
    message = refused(http.request(verb, f"{API}/{path}", **as_query))
    assert message.startswith(f"Missing value for required parameter '{missing}'.")


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("logged-models", {"experiment_id": "x"}, "must be a valid integer"),
        ("logged-models", {"name": 1}, "for parameter 'name'"),
        ("logged-models", {"name": "a/b"}, "cannot contain the following characters"),
        ("logged-models", {"name": "x" * 501}, "maximum length of 500"),
        ("logged-models", {"model_type": "x" * 501}, "maximum length of 500"),
        ("logged-models", {"name": "a\0"}, "for parameter 'name'"),
        ("logged-models", {"tags": [{"key": "x" * 256}]}, "maximum length of 255"),
        ("logged-models", {"params": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, "two values"),
        ("logged-models", {"params": [{"key": str(i), "value": ""} for i in range(1001)]}, "at most 1000 params"),
        ("logged-models/search", {"filter": "nothing.x = 1"}, "Expected one of ['attributes'"),
        ("logged-models/search", {"filter": "colour = 'x'"}, "Invalid attribute key 'colour'"),
        ("logged-models/search", {"filter": "metrics.m > 'x'"}, "Expected numeric value type for metric"),
        ("logged-models/search", {"filter": "name > 'x'"}, "Invalid comparator '>'"),
        ("logged-models/search", {"order_by": [{}]}, "`field_name` in the `order_by` clause must be specified."),
        ("logged-models/search", {"order_by": [{"field_name": "params.x"}]}, "Only metrics are supported."),
        ("logged-models/search", {"order_by": [{"field_name": "colour"}]}, "Invalid order by field name: colour"),
        (
            "logged-models/search",
            {"order_by": [{"field_name": "metrics.m", "dataset_digest": "1"}]},
            "only be specified if `dataset_name`",
        ),
        ("logged-models/search", {"order_by": ["name"]}, "for parameter 'order_by[0]'"),
        ("logged-models/search", {"datasets": [{}]}, "`dataset_name` in the `datasets` clause must be specified."),
        ("logged-models/search", {"max_results": -1}, "at least 1, but got value -1"),
        ("logged-models/search", {"max_results": 50_001}, "at most 50000"),
        ("logged-models/search", {"page_token": "x"}, "Invalid page token"),
        ("logged-models/search", {"page_token": "e30="}, "Invalid page token"),
        ("experiments/search-datasets", {"experiment_ids": []}, "at least one experiment_id"),
        ("experiments/search-datasets", {"experiment_ids": ["0"] * 21}, "more than 20 experiment_ids. Received 21"),
        ("experiments/search-datasets", {"experiment_ids": ["x"]}, "must be a valid integer"),
    ],
)
def test_what_is_wrong_is_said(http: httpx.Client, path: str, fields: Any, words: str) -> None:
    fields = {"experiment_id": "0", "experiment_ids": ["0"], **fields}
    assert words in refused(http.post(f"{API}/{path}", json=fields))


@pytest.mark.parametrize(
    ("name", "length"),
    [("name", 500), ("digest", 36), ("source", 65_535), ("schema", 1_048_575), ("profile", 16_777_215)],
)
def test_a_dataset_may_be_so_long_and_no_longer(http: httpx.Client, name: str, length: int) -> None:
    run = new_run(http, new_experiment(http))
    post(http, "runs/log-inputs", run_id=run, datasets=[dataset(**{name: "é" * length})])
    too_long = {"run_id": run, "datasets": [dataset(**{name: "é" * (length + 1)})]}
    assert f"'{name}' exceeds the maximum length of {length}" in refused(
        http.post(f"{API}/runs/log-inputs", json=too_long)
    )
    found = http.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["inputs"]["dataset_inputs"]
    assert [one["dataset"][name] for one in found] == ["é" * length]


def test_what_is_not_there_is_not_found(http: httpx.Client) -> None:
    run, point = new_run(http), {"key": "m", "value": 1, "timestamp": 1}
    for verb, path, fields in (
        ("GET", NOWHERE, {}),
        ("PATCH", NOWHERE, {"status": "LOGGED_MODEL_READY"}),
        ("DELETE", NOWHERE, {}),
        ("PATCH", f"{NOWHERE}/tags", {"tags": []}),
        ("DELETE", f"{NOWHERE}/tags/x", {}),
        ("POST", f"{NOWHERE}/params", {"params": []}),
        ("GET", f"{NOWHERE}/artifacts/directories", {}),
        ("GET", f"{NOWHERE}/artifacts/files?artifact_file_path=x", {}),
    ):
        message = refused(http.request(verb, f"{MODELS}/{path}", json=fields or None), 404)
        assert message == f"Logged model with ID '{NOWHERE}' not found."
    refused(http.post(f"{API}/runs/log-metric", json={"run_id": run, **point, "model_id": NOWHERE}), 404)
    batch = {"run_id": run, "metrics": [point, {**point, "model_id": NOWHERE}]}
    refused(http.post(f"{API}/runs/log-batch", json=batch), 404)
    assert http.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"].get("metrics") is None
    for path in ("runs/log-inputs", "runs/outputs"):
        refused(http.post(f"{API}/{path}", json={"run_id": "0" * 32, "models": [{"model_id": "x"}]}), 404)
    refused(http.delete(f"{MODELS}/{new_model(http)}/tags/none"), 404)
    refused(http.post(f"{MODELS}", json={"experiment_id": "99999"}), 404)


def test_what_is_deleted_takes_nothing(http: httpx.Client) -> None:
    experiment = new_experiment(http)
    run = new_run(http, experiment)
    post(http, "experiments/delete", experiment_id=experiment)
    for path, fields in (
        ("logged-models", {"experiment_id": experiment}),
        ("runs/log-inputs", {"run_id": run, "datasets": [dataset()]}),
        ("runs/outputs", {"run_id": run, "models": [{"model_id": "x"}]}),
        ("runs/log-model", {"run_id": run, "model_json": json.dumps({name: {} for name in NOTED})}),
    ):
        assert "must be in the 'active' state" in refused(http.post(f"{API}/{path}", json=fields))


# ── logged models ────────────────────────────────────────────────────────────────────────────────


def test_a_logged_models_life(http: httpx.Client) -> None:
    made = post(http, "logged-models", experiment_id="0")["model"]
    model_id = made["info"]["model_id"]
    assert made["info"]["name"].count("-") == 2
    assert made["info"]["artifact_uri"] == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    assert made["data"] == {}
    for status in ("LOGGED_MODEL_UPLOAD_FAILED", 2, "2"):
        changed = http.patch(f"{MODELS}/{model_id}", json={"status": status}).json()["model"]["info"]
    assert changed["status"] == "LOGGED_MODEL_READY"
    param = {"params": [{"key": "a", "value": "1"}]}
    for _ in range(2):
        assert http.post(f"{MODELS}/{model_id}/params", json=param).json() == {}
    other = {"params": [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}]}
    assert "already logged with value='1'" in refused(http.post(f"{MODELS}/{model_id}/params", json=other))
    assert http.delete(f"{MODELS}/{model_id}").json() == {}
    refused(http.get(f"{MODELS}/{model_id}"), 404)
    kept = http.get(f"{MODELS}/{model_id}", params={"allow_deleted": "true"}).json()["model"]
    assert kept["data"]["params"] == param["params"]


def test_a_page_token_is_good_for_its_own_question_only(http: httpx.Client) -> None:
    experiment = new_experiment(http)
    for _ in range(3):
        new_model(http, experiment)
    asked: dict[str, Any] = {"experiment_ids": [experiment], "max_results": 1, "filter": "status = 'PENDING'"}
    token = post(http, "logged-models/search", **asked)["next_page_token"]
    assert len(post(http, "logged-models/search", **asked, page_token=token)["models"]) == 1
    for change, words in (
        ({"experiment_ids": ["0"]}, "Experiment IDs in the page token do not match"),
        ({"filter": ""}, "Filter string in the page token does not match"),
        ({"order_by": [{"field_name": "name"}]}, "Order by in the page token does not match"),
        ({"datasets": [{"dataset_name": "d"}]}, "Datasets in the page token do not match"),
    ):
        response = http.post(f"{MODELS}/search", json={**asked, **change, "page_token": token})
        assert words in refused(response)


def test_the_latest_point_of_a_metric_decides_the_order(http: httpx.Client) -> None:
    experiment = new_experiment(http)
    run = new_run(http, experiment)
    models = {name: new_model(http, experiment, name=name) for name in ("a", "b", "c")}
    for name, value, timestamp in (("a", 9, 1), ("a", 1, 3), ("b", 5, 2), ("c", "NaN", 9), ("a", 1, 3)):
        point = {"key": "m", "value": value, "timestamp": timestamp, "model_id": models[name]}
        post(http, "runs/log-metric", run_id=run, **point, dataset_name="d", dataset_digest=name)
    order = [{"field_name": "metrics.m", "ascending": False}]
    asked: dict[str, Any] = {"experiment_ids": [experiment], "order_by": order, "max_results": 1}
    names, token = [], None
    while True:
        page = post(http, "logged-models/search", **asked, **({"page_token": token} if token else {}))
        names += [one["info"]["name"] for one in page["models"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert names == ["b", "a", "c"]
    (found,) = post(http, "logged-models/search", experiment_ids=[experiment], filter="metrics.m > 8")["models"]
    assert [point["value"] for point in found["data"]["metrics"]] == [9, 1]
    nan = post(http, "logged-models/search", experiment_ids=[experiment], filter="metrics.m != 5")["models"]
    assert {one["info"]["name"] for one in nan} == {"a", "c"}


def test_a_logged_models_files(http: httpx.Client) -> None:
    model_id = new_model(http)
    proxy = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{model_id}/artifacts"
    assert http.put(f"{proxy}/data/model.bin", content=b"<script>").status_code == 200
    folders = f"{MODELS}/{model_id}/artifacts/directories"
    listed = http.get(folders).json()
    assert listed["files"] == [{"path": "data", "is_dir": True}]
    assert listed["root_uri"].endswith(f"models/{model_id}/artifacts")
    below = http.get(folders, params={"artifact_directory_path": "data"}).json()["files"]
    assert below == [{"path": "data/model.bin", "is_dir": False, "file_size": 8}]
    files = f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files"
    file = http.get(files, params={"artifact_file_path": "data/model.bin"})
    assert (file.content, file.headers["content-security-policy"]) == (b"<script>", "sandbox")
    for bad in ("../x", "/etc/passwd", "%2e%2e/x", "a\\b"):
        refused(http.get(files, params={"artifact_file_path": bad}))
        refused(http.get(folders, params={"artifact_directory_path": bad}))


# ── inputs and outputs ───────────────────────────────────────────────────────────────────────────


def test_what_is_noted_twice_is_kept_once(http: httpx.Client) -> None:
    experiment = new_experiment(http)
    run = new_run(http, experiment)
    tagged = dataset() | {"tags": [{"key": "mlflow.data.context", "value": "train"}, {"key": "k", "value": "1"}]}

    def both(_: int) -> None:
        post(http, "runs/log-inputs", run_id=run, datasets=[tagged, dataset()], models=[{"model_id": "m-1"}])
        post(http, "runs/outputs", run_id=run, models=[{"model_id": "m-2", "step": 3}, {"model_id": "m-1"}])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(both, range(8)))
    found = http.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]
    assert found["inputs"]["model_inputs"] == [{"model_id": "m-1"}]
    assert found["outputs"]["model_outputs"] == [{"model_id": "m-1", "step": 0}, {"model_id": "m-2", "step": 3}]
    (read,) = found["inputs"]["dataset_inputs"]
    assert {tag["key"]: tag["value"] for tag in read["tags"]} == {"mlflow.data.context": "train", "k": "1"}
    searched = post(http, "runs/search", experiment_ids=[experiment])["runs"]
    assert searched == [found]


def test_datasets_of_experiments_are_listed_with_their_contexts(http: httpx.Client) -> None:
    first, second = new_experiment(http), new_experiment(http)
    for experiment, context in ((first, "train"), (first, "test"), (first, "train"), (second, None)):
        tags = [{"key": "mlflow.data.context", "value": context}] if context else []
        post(http, "runs/log-inputs", run_id=new_run(http, experiment), datasets=[dataset() | {"tags": tags}])
    found = post(http, "experiments/search-datasets", experiment_ids=[first, second])["dataset_summaries"]
    assert found == [
        {"experiment_id": first, "name": "d", "digest": "1", "context": "test"},
        {"experiment_id": first, "name": "d", "digest": "1", "context": "train"},
        {"experiment_id": second, "name": "d", "digest": "1"},
    ]
    assert post(http, "experiments/search-datasets", experiment_ids=["99999"]) == {}


NOTED = ("artifact_path", "flavors", "utc_time_created", "run_id")


def test_a_model_is_noted_in_its_run_as_old_clients_do(http: httpx.Client) -> None:
    run = new_run(http)
    for path in ("a", "b"):
        model = {"artifact_path": path, "flavors": {"f": {"config": 1, "x": 2}, "g": 1}, "utc_time_created": "t"}
        post(http, "runs/log-model", run_id=run, model_json=json.dumps({**model, "run_id": run, "more": 1}))
    tags = http.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]["tags"]
    (history,) = [json.loads(tag["value"]) for tag in tags if tag["key"] == "mlflow.log-model.history"]
    assert [one["artifact_path"] for one in history] == ["a", "b"]
    assert history[0]["flavors"] == {"f": {"x": 2}, "g": 1}
    assert "more" not in history[0]
    for broken in ("{", "[]", '"x"', json.dumps({"flavors": {}}), json.dumps(dict.fromkeys(NOTED, 1))):
        refused(http.post(f"{API}/runs/log-model", json={"run_id": run, "model_json": broken}))


# ── bulk histories ───────────────────────────────────────────────────────────────────────────────


def logged(http: httpx.Client, steps: range) -> str:
    run = new_run(http)
    points = [{"key": "m", "value": step / 2, "timestamp": 1000 - step, "step": step} for step in steps]
    post(http, "runs/log-batch", run_id=run, metrics=points)
    return run


def test_histories_of_several_runs_at_once(http: httpx.Client) -> None:
    runs = sorted([logged(http, range(3)), logged(http, range(5))])
    bulk = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    whole = http.get(bulk, params={"run_id": runs[::-1], "metric_key": "m"}).json()["metrics"]
    assert len(whole) == 8
    assert whole == sorted(whole, key=lambda point: (point["run_id"], point["timestamp"]))
    assert set(whole[0]) == {"key", "value", "timestamp", "step", "run_id"}
    some = http.get(bulk, params={"run_id": runs, "metric_key": "m", "max_results": 4}).json()["metrics"]
    assert some == whole[:4]
    assert http.get(bulk, params={"run_id": runs, "metric_key": "none"}).json() == {"metrics": []}
    for query, words in (
        ({"metric_key": "m"}, "must specify at least one run_id"),
        ({"run_id": "x"}, "must specify a metric_key"),
        ({"run_id": ["x"] * 101, "metric_key": "m"}, "more than 100 run_ids. Received 101"),
        ({"run_id": runs, "metric_key": "m", "max_results": -1}, "must not be negative"),
        ({"run_id": runs, "metric_key": "m", "max_results": "x"}, "for parameter 'max_results'"),
    ):
        assert words in refused(http.get(bulk, params=query))
    refused(http.get(bulk, params={"run_id": "0" * 32, "metric_key": "m"}), 404)


def test_histories_are_sampled_evenly_between_two_steps(http: httpx.Client) -> None:
    runs = [logged(http, range(1000)), logged(http, range(500, 510))]
    interval = f"{API}/metrics/get-history-bulk-interval"

    def steps(**query: Any) -> list[list[int]]:
        found = http.get(interval, params={"run_ids": runs, "metric_key": "m", **query}).json().get("metrics", [])
        return [[point["step"] for point in found if point["run_id"] == run] for run in runs]

    assert steps() == [list(range(1000)), list(range(500, 510))]
    first, second = steps(max_results=101)
    assert (len(first), first[0], first[-1]) == (101, 0, 999)
    assert {after - before for before, after in itertools.pairwise(first)} == {9, 10}
    assert second == list(range(500, 510))
    assert steps(max_results=1) == [[999], [509]]
    assert steps(max_results=3, start_step=505, end_step=600) == [[505, 552, 600], [505, 507, 509]]
    assert steps(start_step=2000, end_step=3000) == [[], []]
    for query, words in (
        ({"max_results": 0}, "max_results must be between 1 and 2500."),
        ({"max_results": 2501}, "max_results must be between 1 and 2500."),
        ({"start_step": 1}, "both must be specified"),
        ({"start_step": 2, "end_step": 1}, "end_step must be greater than start_step"),
        ({"run_ids": ["x"] * 101}, "at most 100 run_ids. Received 101 run_ids."),
    ):
        assert words in refused(http.get(interval, params={"run_ids": runs, "metric_key": "m", **query}))
