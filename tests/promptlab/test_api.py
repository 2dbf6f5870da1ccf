"""The tracking server over HTTP: its paths, its errors, the habits of each client, on both databases."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

RUNS = "/api/2.0/mlflow/runs"
EXPERIMENTS = "/api/2.0/mlflow/experiments"


def post(http: httpx.Client, path: str, **fields: Any) -> dict[str, Any]:
    response = http.post(path, json=fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def new_run(http: httpx.Client) -> str:
    run_id: str = post(http, f"{RUNS}/create", experiment_id="0", start_time=1)["run"]["info"]["run_id"]
    return run_id


# ── who we are, and what we do not have ──────────────────────────────────────────────────────────


def test_the_handshake(http: httpx.Client) -> None:
    assert http.get("/health").text == "OK"
    assert http.get("/version").text == "3.17.2"
    for prefix in ("/api", "/ajax-api"):
        info = http.get(f"{prefix}/3.0/mlflow/server-info").json()
        assert info["store_type"] == "SqlStore"
        assert not info["multipart_uploads_enabled"]


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/2.0/mlflow/registered-models/nothing"),
        ("POST", "/api/3.0/mlflow/issues"),
        ("POST", "/v1/metrics"),
        ("POST", "/api/2.0/mlflow/runs/create/"),
        ("GET", "/api/9.0/mlflow/runs/get"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ],
)
def test_what_is_not_served_is_said_in_json(http: httpx.Client, verb: str, path: str) -> None:
    response = http.request(verb, path)
    assert response.status_code == 404
    assert response.json() == {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": f"This server has no endpoint {verb} {path}",
    }


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", f"{RUNS}/create"), ("DELETE", f"{RUNS}/get"), ("POST", "/api/2.0/mlflow-artifacts/artifacts/x")],
)
def test_a_wrong_verb(http: httpx.Client, verb: str, path: str) -> None:
    response = http.request(verb, path)
    assert response.status_code == 405
    assert response.json()["error_code"] == "BAD_REQUEST"


def test_importing_the_server_is_light() -> None:
    # Its start is the start of the whole product: nothing of these may be on the way to the first answer.
    heavy = {"alembic", "gradio", "litellm", "mlflow", "numpy", "pandas", "psycopg"}
    code = f"import sys, promptlab.api.app, gateway.database; print({heavy!r} & sys.modules.keys() or 'none')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "none"


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b"{", JSON, "The request body is not valid JSON"),
        (b"\x80\xff", JSON, "The request body is not valid JSON"),
        (b"[1]", JSON, "The request body must be a JSON object."),
        (b'"{"', JSON, "The request body is not valid JSON"),
        (b'"\\ud800"', JSON, "The request body is not valid JSON"),
        (b"[" * 100_000, JSON, "The request body is not valid JSON"),
        (b"{}", {"content-type": "text/plain"}, "Bad Request. Content-Type must be one of ['application/json']."),
        (b"{}", {}, "Bad Request. Content-Type header is missing."),
        (b"{}", JSON, "Missing value for required parameter 'name'."),
        (b"[]", JSON, "Missing value for required parameter 'name'."),
        (b"null", JSON, "Missing value for required parameter 'name'."),
        (b"", {}, "Missing value for required parameter 'name'."),
        (b'{"name": "x", "experimentName": 1, "tags": "x"}', JSON, "Invalid value \"x\" for parameter 'tags' supplied"),
        (b'{"name": "a\\u0000b"}', JSON, "for parameter 'name' supplied"),
    ],
)
def test_a_body_that_cannot_be_understood(http: httpx.Client, body: bytes, headers: dict[str, str], says: str) -> None:
    response = http.post(f"{EXPERIMENTS}/create", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert says in response.json()["message"]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_a_body_may_be_json_inside_json(http: httpx.Client, content_type: str) -> None:
    body = orjson.dumps(orjson.dumps({"experimentId": "0", "runName": "inside"}).decode())
    response = http.post(f"{RUNS}/create", content=body, headers={"content-type": content_type})
    assert response.json()["run"]["info"]["run_name"] == "inside"


def test_a_body_without_end_is_refused(http: httpx.Client) -> None:
    response = http.post(f"{RUNS}/log-batch", content=b" " * (16 * 1024 * 1024 + 1), headers=JSON)
    assert response.status_code == 413
    assert "larger than" in response.json()["message"]


def test_the_server_goes_on_after_a_client_that_leaves(http: httpx.Client, server: str) -> None:
    target = urlsplit(server)
    for path in (f"POST {RUNS}/create", "PUT /api/2.0/mlflow-artifacts/artifacts/left"):
        with socket.create_connection((target.hostname or "", target.port or 0)) as leaving:
            leaving.sendall(f"{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    assert http.get("/health").text == "OK"
    assert http.get("/api/2.0/mlflow-artifacts/artifacts/left").status_code == 404


# ── the habits of clients ────────────────────────────────────────────────────────────────────────


def test_java_and_r_send_strings(http: httpx.Client) -> None:
    run = post(http, f"{RUNS}/create", experiment_id="0", start_time="17", user_id="r")["run"]["info"]["run_uuid"]
    post(http, f"{RUNS}/log-metric", run_uuid=run, key="m", value="0.5", timestamp="18", step="3")
    post(http, f"{RUNS}/log-metric", run_uuid=run, key="n", value="NaN", timestamp="18")
    post(http, f"{RUNS}/update", run_uuid=run, status="3", end_time="19")
    found = http.get(f"{RUNS}/get", params={"run_uuid": run}).json()["run"]
    assert found["info"]["run_id"] == found["info"]["run_uuid"] == run
    assert (found["info"]["start_time"], found["info"]["end_time"], found["info"]["status"]) == (17, 19, "FINISHED")
    assert found["data"]["metrics"] == [
        {"key": "m", "value": 0.5, "timestamp": 18, "step": 3},
        {"key": "n", "value": "NaN", "timestamp": 18, "step": 0},
    ]


def test_what_is_unset_is_left_out(http: httpx.Client) -> None:
    run = new_run(http)
    found = http.get(f"{RUNS}/get", params={"run_id": run}).json()["run"]
    assert "end_time" not in found["info"]
    assert set(found["data"]) == {"tags"}
    assert post(http, f"{RUNS}/search", experiment_ids=["0"], filter="metrics.none > 0") == {}
    assert http.get("/api/2.0/mlflow/metrics/get-history", params={"run_id": run, "metric_key": "x"}).json() == {}
    assert post(http, "/api/2.0/mlflow/logged-models/search", experiment_ids=["0"]) == {}


def test_lists_in_a_query(http: httpx.Client) -> None:
    made = [post(http, f"{EXPERIMENTS}/create", name=f"listed {name}")["experiment_id"] for name in "ab"]
    asked = {"filter": "name LIKE 'listed %'", "order_by": ["name DESC", "experiment_id"], "view_type": "ACTIVE_ONLY"}
    found = http.get(f"{EXPERIMENTS}/search", params=asked).json()["experiments"]
    assert [experiment["experiment_id"] for experiment in found] == made[::-1]
    once = http.get(f"{EXPERIMENTS}/search", params={**asked, "order_by": "name", "max_results": "1"}).json()
    assert [experiment["experiment_id"] for experiment in once["experiments"]] == made[:1]
    assert "next_page_token" in once


def test_every_path_has_its_twin_for_browsers(http: httpx.Client) -> None:
    found = http.get("/ajax-api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).json()["experiment"]
    assert (found["name"], found["artifact_location"], found["lifecycle_stage"]) == (
        "Default",
        "mlflow-artifacts:/0",
        "active",
    )


def test_a_users_mistake_is_never_a_servers_failure(http: httpx.Client) -> None:
    run = new_run(http)
    post(http, f"{RUNS}/log-parameter", run_id=run, key="p", value="1")
    mistakes = [
        (f"{RUNS}/log-parameter", {"run_id": run, "key": "p", "value": "2"}, 400),
        (f"{RUNS}/log-metric", {"run_id": run, "key": "m", "value": "x", "timestamp": 1}, 400),
        (f"{RUNS}/log-metric", {"run_id": run, "key": "m", "value": 1}, 400),
        (f"{RUNS}/log-batch", {"run_id": run, "metrics": [{"key": "m", "value": 1}]}, 400),
        (f"{RUNS}/log-batch", {"run_id": "?", "metrics": []}, 400),
        (f"{RUNS}/delete-tag", {"run_id": run, "key": "none"}, 404),
        (f"{RUNS}/update", {"run_id": "none"}, 404),
        (f"{RUNS}/search", {"experiment_ids": ["0"], "filter": "foo"}, 400),
        (f"{RUNS}/search", {"experiment_ids": ["0"], "max_results": 50_001}, 400),
        (f"{RUNS}/search", {"experiment_ids": ["0"], "order_by": ["metrics.a", "metrics.a"]}, 400),
        (f"{EXPERIMENTS}/create", {"name": "Default"}, 400),
        (f"{EXPERIMENTS}/update", {"experiment_id": "0", "new_name": ""}, 400),
        (f"{EXPERIMENTS}/get-by-name", {}, 405),
    ]
    for path, fields, status in mistakes:
        response = http.post(path, json=fields)
        assert response.status_code == status, (path, fields, response.text)
        assert set(response.json()) == {"error_code", "message"}
        assert "SQL" not in response.text


# ── PromptLab ────────────────────────────────────────────────────────────────────────────────────

PROMPTLAB = {
    "experiment_id": "0",
    "run_name": "tried",
    "tags": [{"key": "mine", "value": "1"}],
    "prompt_template": "Sell {{ stock_type }}.",
    "prompt_parameters": [{"key": "stock_type", "value": "books"}],
    "model_route": "chat",
    "model_parameters": [{"key": "temperature", "value": 0.5}, {"key": "route_type", "value": "llm/v1/chat"}],
    "model_input": "Sell books.",
    "model_output": "Buy!",
    "model_output_parameters": [
        {"key": "MLFLOW_latency", "value": 812.3},
        {"key": "MLFLOW_total_tokens", "value": "41"},
    ],
    "mlflow_version": "3.17.2",
    "start_time": 5,
    "metrics": [{"key": "latency", "value": 0.8, "timestamp": 5}],
}


@pytest.mark.parametrize("prefix", ["/ajax-api", "/api"])
def test_a_promptlab_run(http: httpx.Client, prefix: str) -> None:
    run = post(http, f"{prefix}/2.0/mlflow/runs/create-promptlab-run", **PROMPTLAB)["run"]
    info = run["info"]
    assert (info["run_name"], info["user_id"], info["status"], info["start_time"]) == (
        "tried",
        "unknown",
        "FINISHED",
        5,
    )
    assert info["end_time"] > 5
    assert {param["key"]: param["value"] for param in run["data"]["params"]} == {
        "temperature": "0.5",
        "route_type": "llm/v1/chat",
        "model_route": "chat",
        "prompt_template": "Sell {{ stock_type }}.",
    }
    assert run["data"]["metrics"] == [{"key": "latency", "value": 0.8, "timestamp": 5, "step": 0}]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert orjson.loads(tags.pop("mlflow.loggedArtifacts")) == [{"path": "eval_results_table.json", "type": "table"}]
    assert tags == {"mine": "1", "mlflow.runName": "tried", "mlflow.runSourceType": "PROMPT_ENGINEERING"}
    table = http.get("/get-artifact", params={"run_id": info["run_id"], "path": "eval_results_table.json"}).json()
    assert table == {
        "columns": ["stock_type", "prompt", "output", "MLFLOW_latency", "MLFLOW_total_tokens"],
        "data": [["books", "Sell books.", "Buy!", "812.3", "41"]],
    }


@pytest.mark.parametrize(
    "name", ["experiment_id", "prompt_template", "prompt_parameters", "model_route", "model_input", "mlflow_version"]
)
def test_what_a_promptlab_run_needs(http: httpx.Client, name: str) -> None:
    fields = {key: value for key, value in PROMPTLAB.items() if key != name}
    response = http.post("/ajax-api/2.0/mlflow/runs/create-promptlab-run", json=fields)
    assert response.status_code == 400
    assert response.json()["message"] == f"CreatePromptlabRun request must specify {name}."


def test_a_prompt_without_variables_is_logged_too(http: httpx.Client) -> None:
    fields = {**PROMPTLAB, "prompt_parameters": []}
    run = post(http, "/api/2.0/mlflow/runs/create-promptlab-run", **fields)["run"]["info"]["run_id"]
    table = http.get("/get-artifact", params={"run_id": run, "path": "eval_results_table.json"}).json()
    assert table["columns"] == ["prompt", "output", "MLFLOW_latency", "MLFLOW_total_tokens"]


def test_a_promptlab_run_that_cannot_be_logged_leaves_none_behind(http: httpx.Client) -> None:
    experiment = post(http, f"{EXPERIMENTS}/create", name="promptlab")["experiment_id"]
    fields = {**PROMPTLAB, "experiment_id": experiment, "prompt_template": "x" * 6001}
    response = http.post("/ajax-api/2.0/mlflow/runs/create-promptlab-run", json=fields)
    assert response.status_code == 400
    assert post(http, f"{RUNS}/search", experiment_ids=[experiment], run_view_type="ALL") == {}
