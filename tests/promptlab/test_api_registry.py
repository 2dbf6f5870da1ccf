"""The registry over HTTP: what is missing or wrong, and the habits of each client, on both databases."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

API = "/api/2.0/mlflow"
MODELS = f"{API}/registered-models"
VERSIONS = f"{API}/model-versions"


def named(http: httpx.Client, versions: int = 0) -> str:
    """The name of a new model with so many versions."""
    name = f"m-{uuid.uuid4().hex}"
    assert http.post(f"{MODELS}/create", json={"name": name}).status_code == 200
    for _ in range(versions):
        assert http.post(f"{VERSIONS}/create", json={"name": name, "source": "s3://m/m"}).status_code == 200
    return name


@pytest.mark.parametrize(
    ("verb", "path", "fields", "missing"),
    [
        ("POST", "registered-models/create", {}, "name"),
        ("POST", "registered-models/create", {"name": "m", "tags": [{"value": "x"}]}, "tags[0].key"),
        ("POST", "registered-models/rename", {"name": "m"}, "new_name"),
        ("PATCH", "registered-models/update", {"description": "x"}, "name"),
        ("DELETE", "registered-models/delete", {}, "name"),
        ("GET", "registered-models/get", {}, "name"),
        ("POST", "registered-models/get-latest-versions", {}, "name"),
        ("GET", "registered-models/get-latest-versions", {}, "name"),
        ("POST", "registered-models/set-tag", {"name": "m", "value": "x"}, "key"),
        ("DELETE", "registered-models/delete-tag", {"name": "m"}, "key"),
        ("POST", "registered-models/alias", {"name": "m", "alias": "a"}, "version"),
        ("DELETE", "registered-models/alias", {"name": "m"}, "alias"),
        ("GET", "registered-models/alias", {"name": "m", "alias": ""}, "alias"),
        ("POST", "model-versions/create", {"name": "m"}, "source"),
        ("PATCH", "model-versions/update", {"name": "m"}, "version"),
        ("POST", "model-versions/transition-stage", {"name": "m", "version": "1"}, "stage"),
        ("DELETE", "model-versions/delete", {"name": "m"}, "version"),
        ("GET", "model-versions/get", {"name": "m"}, "version"),
        ("POST", "model-versions/set-tag", {"name": "m", "version": "1"}, "key"),
        ("DELETE", "model-versions/delete-tag", {"name": "m", "version": "1"}, "key"),
        ("GET", "model-versions/get-download-uri", {"version": "1"}, "name"),
    ],
)
def test_what_is_missing_is_named(http: httpx.Client, verb: str, path: str, fields: Any, missing: str) -> None:
    as_query = {"params": fields} if verb == "GET" else {"json": fields}
    response = http.request(verb, f"{API}/{path}", **as_query)
    assert response.status_code == 400
    assert response.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert response.json()["message"].startswith(f"Missing value for required parameter '{missing}'.")


@pytest.mark.parametrize(
    ("path", "fields", "wrong"),
    [
        ("registered-models/create", {"name": 1}, "name"),
        ("registered-models/create", {"name": "a\0b"}, "name"),
        ("registered-models/create", {"name": "m", "tags": {}}, "tags"),
        ("registered-models/create", {"name": "m", "tags": [{"key": "k", "value": 1}]}, "tags[0].value"),
        ("registered-models/search", {"max_results": "many"}, "max_results"),
        ("registered-models/search", {"order_by": "name"}, "order_by"),
        ("registered-models/alias", {"name": "m", "alias": "a", "version": 1}, "version"),
        ("model-versions/create", {"name": "m", "source": ["x"]}, "source"),
        (
            "model-versions/transition-stage",
            {"name": "m", "version": "1", "stage": "None", "archive_existing_versions": "yes"},
            "archive_existing_versions",
        ),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, path: str, fields: Any, wrong: str) -> None:
    response = http.post(f"{API}/{path}", json=fields)
    assert response.status_code == 400
    assert f"for parameter '{wrong}' supplied:  Hint: Value was of type" in response.json()["message"]


def test_what_is_not_there_is_404_but_an_alias(http: httpx.Client) -> None:
    name = named(http)
    for path, fields, status in [
        ("registered-models/get", {"name": "nobody"}, 404),
        ("registered-models/alias", {"name": "nobody", "alias": "a"}, 404),
        ("registered-models/alias", {"name": name, "alias": "a"}, 400),
        ("registered-models/alias", {"name": name, "alias": "latest"}, 404),
        ("model-versions/get", {"name": "nobody", "version": "1"}, 404),
        ("model-versions/get", {"name": name, "version": "1"}, 404),
        ("model-versions/get", {"name": name, "version": "one"}, 400),
    ]:
        response = http.get(f"{API}/{path}", params=fields)
        assert response.status_code == status, response.text
    created = http.post(f"{VERSIONS}/create", json={"name": "nobody", "source": "s3://m/m"})
    assert created.json()["message"] == "Registered Model with name=nobody not found"


def test_r_searches_with_post_and_archives_with_capitals(http: httpx.Client) -> None:
    name = named(http, versions=2)
    asked = {"filter": f"name = '{name}'", "max_results": "10", "order_by": []}
    found = http.post(f"{MODELS}/search", json=asked).json()
    assert [model["name"] for model in found["registered_models"]] == [name]
    assert "next_page_token" not in found
    for version, archive in (("1", "FALSE"), ("2", "TRUE")):
        moved = {"name": name, "version": version, "stage": "Production", "archive_existing_versions": archive}
        answer = http.post(f"{VERSIONS}/transition-stage", json=moved).json()
        assert answer["model_version"]["current_stage"] == "Production"
    latest = http.get(f"{MODELS}/get-latest-versions", params=[("name", name), ("stages", "Archived")]).json()
    assert [version["version"] for version in latest["model_versions"]] == ["1"]


def test_a_search_is_paged_over_http(http: httpx.Client) -> None:
    name = named(http, versions=3)
    found: list[str] = []
    token = ""
    while token is not None:
        asked = {"filter": f"name = '{name}'", "max_results": 2, "page_token": token}
        page = http.get(f"{VERSIONS}/search", params=asked).json()
        found += [version["version"] for version in page["model_versions"]]
        token = page.get("next_page_token")
    assert found == ["3", "2", "1"]
    assert http.get(f"{VERSIONS}/search", params={"filter": "name = 'nobody'"}).json() == {}


def test_deletes_are_read_from_the_query_too(http: httpx.Client) -> None:
    name = named(http, versions=1)
    http.post(f"{MODELS}/set-tag", json={"name": name, "key": "k", "value": "v"})
    for path, fields in [
        ("registered-models/delete-tag", {"name": name, "key": "k"}),
        ("model-versions/delete", {"name": name, "version": "1"}),
        ("registered-models/delete", {"name": name}),
    ]:
        assert http.delete(f"/ajax-api/2.0/mlflow/{path}", params=fields).json() == {}
    assert http.get(f"{MODELS}/get", params={"name": name}).status_code == 404


def test_a_versions_files_are_handed_out(http: httpx.Client) -> None:
    run = http.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 1}).json()["run"]["info"]
    root = run["artifact_uri"].removeprefix("mlflow-artifacts:")
    assert http.put(f"/api/2.0/mlflow-artifacts/artifacts{root}/m/MLmodel", content=b"flavors").status_code == 200
    name = named(http, versions=1)
    source = f"{run['artifact_uri']}/m"
    http.post(f"{VERSIONS}/create", json={"name": name, "source": source, "run_id": run["run_id"]})

    def asked(version: str, path: str) -> httpx.Response:
        return http.get("/model-versions/get-artifact", params={"name": name, "version": version, "path": path})

    assert asked("2", "MLmodel").content == b"flavors"
    assert asked("2", "MLmodel").headers["x-content-type-options"] == "nosniff"
    assert asked("2", "../../secret").status_code == 400
    assert asked("2", "nothing").status_code == 404
    assert "which this server does not serve" in asked("1", "MLmodel").json()["message"]
    assert asked("3", "MLmodel").status_code == 404
