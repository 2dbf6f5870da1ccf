"""Evaluation datasets and scorers over HTTP, on both databases, as MLflow's server answers its client."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

API = "/api/3.0/mlflow"


class Client:
    """Asks the server, and requires that it answers."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def __call__(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """The answer's JSON."""
        answer = self.ask(method, path, **fields)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ask(self, method: str, path: str, **fields: Any) -> httpx.Response:
        """The whole answer."""
        if method == "GET":
            return self._http.request(method, f"{API}/{path}", params=fields)
        return self._http.request(method, f"{API}/{path}", json=fields)

    def dataset(self, name: str = "cases", **fields: Any) -> str:
        """The id of a new dataset."""
        return str(self("POST", "datasets/create", name=name, **fields)["dataset"]["dataset_id"])

    def merge(self, dataset: str, *records: object) -> dict[str, Any]:
        """Add records."""
        return self("POST", f"datasets/{dataset}/records", records=json.dumps(records))

    def records(self, dataset: str, **fields: Any) -> list[dict[str, Any]]:
        """Its records."""
        return list(json.loads(self("GET", f"datasets/{dataset}/records", **fields)["records"]))

    def experiment(self) -> str:
        """A new experiment."""
        name = uuid.uuid4().hex
        made = self._http.post("/api/2.0/mlflow/experiments/create", json={"name": name})
        return str(made.json()["experiment_id"])


@pytest.fixture
def api(http: httpx.Client) -> Iterator[Client]:
    return Client(http)


def test_a_dataset_is_what_was_said_of_it(api: Client) -> None:
    tags = json.dumps({"a": "b", "n": 1, "gone": None, "mlflow.user": "ann"})
    experiment = api.experiment()
    made = api("POST", "datasets/create", name="d", experiment_ids=[experiment], tags=tags)["dataset"]
    assert json.loads(made.pop("tags")) == {"a": "b", "n": "1", "mlflow.user": "ann"}
    assert made.pop("experiment_ids") == [experiment]
    assert made["dataset_id"].startswith("d-")
    assert len(made["dataset_id"]) == 34
    assert len(made["digest"]) == 8
    assert (made["name"], made["created_by"], made["last_updated_by"]) == ("d", "ann", "ann")
    assert "schema" not in made
    assert "profile" not in made
    assert made["created_time"] == made["last_update_time"]


def test_records_with_the_same_inputs_are_one(api: Client) -> None:
    dataset = api.dataset()
    first = {"inputs": {"q": "a", "n": 1}, "expectations": {"x": "1"}, "tags": {"mlflow.user": "ann"}}
    first["source"] = {"source_type": "human", "source_data": {"source_id": "h"}}
    assert api.merge(dataset, first, {"inputs": {"q": "b"}, "outputs": "said"}) == {
        "inserted_count": 2,
        "updated_count": 0,
    }
    again = {"inputs": {"n": 1, "q": "a"}, "expectations": {"y": True}, "outputs": {"o": [1.5]}, "tags": {"k": 2}}
    twice = [{"inputs": {"q": "new"}, "outputs": 1}, {"inputs": {"q": "new"}, "expectations": {"z": None}}]
    assert api.merge(dataset, again, *twice) == {"inserted_count": 1, "updated_count": 2}
    one, other, new = api.records(dataset)
    assert one["inputs"] == {"q": "a", "n": 1}
    assert one["expectations"] == {"x": "1", "y": True}
    assert one["outputs"] == {"o": [1.5]}
    assert one["tags"] == {"mlflow.user": "ann", "k": "2"}
    assert one["source"] == {"source_type": "HUMAN", "source_data": {"source_id": "h"}}
    assert (one["source_id"], one["source_type"], one["created_by"]) == ("h", "HUMAN", "ann")
    assert other["outputs"] == "said"
    assert (new["outputs"], new["expectations"]) == (1, {"z": None})
    found = api("GET", f"datasets/{dataset}")["dataset"]
    assert json.loads(found["profile"]) == {"num_records": 3}
    assert json.loads(found["schema"]) == {
        "inputs": {"q": "string", "n": "integer"},
        "outputs": "string",
        "expectations": {"x": "string", "y": "boolean", "z": "null"},
        "version": "1.0",
    }
    assert found["last_updated_by"] == "ann"


def test_records_come_in_pages_and_go_by_their_ids(api: Client) -> None:
    dataset = api.dataset()
    api.merge(dataset, *({"inputs": {"n": n}} for n in range(25)))
    seen: list[int] = []
    fields: dict[str, Any] = {"max_results": 10}
    while True:
        page = api("GET", f"datasets/{dataset}/records", **fields)
        seen += [record["inputs"]["n"] for record in json.loads(page["records"])]
        if "next_page_token" not in page:
            break
        fields["page_token"] = page["next_page_token"]
    assert seen == list(range(25))
    ids = [record["dataset_record_id"] for record in api.records(dataset)[:5]]
    gone = api("DELETE", f"datasets/{dataset}/records", dataset_record_ids=[*ids, "dr-none"])
    assert gone == {"deleted_count": 5}
    assert [record["inputs"]["n"] for record in api.records(dataset)] == list(range(5, 25))
    assert json.loads(api("GET", f"datasets/{dataset}")["dataset"]["profile"]) == {"num_records": 20}


def test_tags_and_experiments_change(api: Client) -> None:
    one, two = api.experiment(), api.experiment()
    dataset = api.dataset(experiment_ids=[one])
    assert api("PATCH", f"datasets/{dataset}/tags", tags=json.dumps({"a": "1", "b/c": "2"})) == {}
    assert api("DELETE", f"datasets/{dataset}/tags/a") == {}
    assert api("DELETE", f"datasets/{dataset}/tags/never") == {}
    assert json.loads(api("GET", f"datasets/{dataset}")["dataset"]["tags"]) == {"b/c": "2"}
    api("POST", f"datasets/{dataset}/add-experiments", experiment_ids=[two, one, two])
    assert api("GET", f"datasets/{dataset}/experiment-ids") == {"experiment_ids": sorted([one, two], key=int)}
    api("POST", f"datasets/{dataset}/remove-experiments", experiment_ids=[one])
    assert api("GET", f"datasets/{dataset}/experiment-ids") == {"experiment_ids": [two]}
    assert api("DELETE", f"datasets/{dataset}") == {}
    assert api("DELETE", f"datasets/{dataset}") == {}
    assert api.ask("GET", f"datasets/{dataset}").status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cba"),
        ("name = 'a'", "a"),
        ("name IN ('a', 'c')", "ca"),
        ("name LIKE '%A%'", ""),
        ("name ILIKE '%A%'", "a"),
        ("tags.kind = 'x'", "ba"),
        ("tags.kind = 'x' AND name != 'a'", "b"),
        ("tags.kind IS NULL", "c"),
        ("created_by = 'ann'", "a"),
        ("created_time > 0 AND last_update_time >= 0", "cba"),
        ("created_time < 0", ""),
    ],
)
def test_a_filter_finds_what_it_says(api: Client, method: str, text: str, found: str) -> None:
    experiment = api.experiment()
    for name, tags in (("a", {"kind": "x", "mlflow.user": "ann"}), ("b", {"kind": "x"}), ("c", {})):
        api.dataset(name, experiment_ids=[experiment], tags=json.dumps(tags))
    page = api(method, "datasets/search", experiment_ids=[experiment], filter_string=text, order_by=["name DESC"])
    assert "".join(one["name"] for one in page.get("datasets", [])) == found


def test_datasets_come_in_pages(api: Client) -> None:
    experiment = api.experiment()
    made = [api.dataset(f"p{n}", experiment_ids=[experiment]) for n in range(5)]
    seen, fields = [], {"experiment_ids": [experiment], "max_results": 2}
    while True:
        page = api("POST", "datasets/search", **fields)
        seen += [one["dataset_id"] for one in page["datasets"]]
        if "next_page_token" not in page:
            break
        fields["page_token"] = page["next_page_token"]
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "said"),
    [
        ("POST", "datasets/create", {}, 400, "Missing value for required parameter 'name'"),
        ("POST", "datasets/create", {"name": "x" * 501}, 400, "'name' exceeds the maximum length of 500"),
        ("POST", "datasets/create", {"name": "x", "tags": "{"}, 400, "'tags' is not valid JSON"),
        ("POST", "datasets/create", {"name": "x", "tags": "[]"}, 400, "'tags' must be a JSON object"),
        ("POST", "datasets/create", {"name": "x", "tags": '{"a": "\\u0000"}'}, 400, "NUL"),
        ("POST", "datasets/create", {"name": "x", "experiment_ids": ["77777"]}, 404, "No Experiment with id=77777"),
        ("GET", "datasets/d-none", {}, 404, "Evaluation dataset with id 'd-none' not found"),
        ("POST", "datasets/d-none/records", {"records": "[]"}, 404, "not found"),
        ("PATCH", "datasets/d-none/tags", {"tags": "{}"}, 404, "not found"),
        ("GET", "datasets/d-none/records", {}, 404, "not found"),
        ("GET", "datasets/d-none/experiment-ids", {}, 404, "not found"),
        ("POST", "datasets/search", {"filter_string": "nonsense = 1"}, 400, "Invalid attribute key 'nonsense'"),
        ("POST", "datasets/search", {"order_by": ["created_by"]}, 400, "Invalid attribute key 'created_by'"),
        ("POST", "datasets/search", {"max_results": 1001}, 400, "max_results"),
        ("POST", "datasets/search", {"page_token": "?"}, 400, "Invalid page token"),
        ("POST", "datasets/{id}/records", {"records": '{"a": 1}'}, 400, "must be a JSON list"),
        ("POST", "datasets/{id}/records", {"records": "[3]"}, 400, "records[0] must be an object"),
        ("POST", "datasets/{id}/records", {"records": '[{"inputs": 3}]'}, 400, "records[0].inputs must be an object"),
        ("POST", "datasets/{id}/records", {"records": '[{}, {"tags": []}]'}, 400, "records[1].tags must be an object"),
        (
            "POST",
            "datasets/{id}/records",
            {"records": '[{"source": {"source_type": "moon"}}]'},
            400,
            "Invalid dataset record source type: MOON",
        ),
        ("POST", "scorers/register", {"experiment_id": "0", "name": "s"}, 400, "'serialized_scorer'"),
        ("POST", "scorers/register", {"experiment_id": "0", "name": " ", "serialized_scorer": "{}"}, 400, "name"),
        ("POST", "scorers/register", {"experiment_id": "0", "name": "s", "serialized_scorer": "x"}, 400, "JSON object"),
        ("GET", "scorers/get", {"experiment_id": "0", "name": "none"}, 404, "Scorer with name 'none' not found"),
        ("DELETE", "scorers/delete", {"experiment_id": "0", "name": "none"}, 404, "Scorer with name 'none' not found"),
        ("GET", "scorers/list", {"experiment_id": "0", "experiment_ids": ["0"]}, 400, "Cannot specify both"),
        ("GET", "scorers/list", {"experiment_id": "77777"}, 404, "No Experiment with id=77777"),
    ],
)
def test_what_is_wrong_is_named(
    api: Client, method: str, path: str, fields: dict[str, Any], status: int, said: str
) -> None:
    path = path.replace("{id}", api.dataset()) if "{id}" in path else path
    answer = api.ask(method, path, **fields)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["message"]


def test_scorers_are_kept_in_versions(api: Client) -> None:
    one, two = api.experiment(), api.experiment()

    def register(experiment: str, name: str, text: str) -> dict[str, Any]:
        return api("POST", "scorers/register", experiment_id=experiment, name=name, serialized_scorer=text)

    first = register(one, "s", '{"n": 1}')
    assert (first["version"], first["experiment_id"], first["name"]) == (1, one, "s")
    assert first["serialized_scorer"] == '{"n": 1}'
    assert register(one, "s", '{"n": 2}')["version"] == 2
    assert register(one, "t", "{}")["scorer_id"] != first["scorer_id"]
    register(two, "s", "{}")
    listed = api("GET", "scorers/list", experiment_id=one)["scorers"]
    assert [(found["scorer_name"], found["scorer_version"]) for found in listed] == [("s", 2), ("t", 1)]
    assert all(found["experiment_id"] == int(one) for found in listed)
    assert len(api("GET", "scorers/list", experiment_ids=[one, two])["scorers"]) == 3
    of = {"experiment_id": one, "name": "s"}
    assert [found["scorer_version"] for found in api("GET", "scorers/versions", **of)["scorers"]] == [1, 2]
    assert api("GET", "scorers/get", **of)["scorer"]["serialized_scorer"] == '{"n": 2}'
    assert api("GET", "scorers/get", **of, version=1)["scorer"]["scorer_version"] == 1
    assert api.ask("GET", "scorers/get", **of, version=7).status_code == 404
    assert api("GET", "scorers/online-configs", scorer_ids=[first["scorer_id"]]) == {"configs": []}
    assert api("DELETE", "scorers/delete", **of, version=1) == {}
    assert api.ask("DELETE", "scorers/delete", **of, version=1).status_code == 404
    assert register(one, "s", "{}")["version"] == 3
    assert api("DELETE", "scorers/delete", **of) == {}
    assert api.ask("GET", "scorers/versions", **of).status_code == 404
