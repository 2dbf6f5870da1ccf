"""The stock MLflow client, unmodified, does its daily work against our tracking server, on both databases."""

from __future__ import annotations

import json
import math
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.services import postgres

pytestmark = [
    # pandas and matplotlib, which the client brings along, announce their own futures.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROUTES = """\
providers:
  fake: {type: fake}
routes:
  fake: {deployments: [{provider: fake, model: fake}]}
"""

# Fail at the first error instead of repeating the call for minutes; ask nobody but our server.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MPLBACKEND": "agg",
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def tracking_server(request: pytest.FixtureRequest, start_servers: StartServer) -> Iterator[str]:
    """The address of the whole product in protected mode, once on each database."""
    if request.param == "sqlite":
        yield start_servers(ROUTES, admin_key=None).url
        return
    of_server = request.getfixturevalue("postgres_url")
    with postgres.new_database(of_server, f"mlflow_{uuid.uuid4().hex}") as url:
        yield start_servers(ROUTES, admin_key=None, database_url=url).url


@pytest.fixture(scope="module")
def client_library() -> Iterator[ModuleType]:
    """The module `mlflow`, with settings that suit a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        yield mlflow


@pytest.fixture
def mlflow(client_library: ModuleType, tracking_server: str) -> Iterator[Any]:
    """`mlflow`, pointed at our server and in an experiment of the test's own."""
    client_library.set_tracking_uri(tracking_server)
    client_library.set_experiment(f"test-{uuid.uuid4().hex}")
    yield client_library
    while client_library.active_run() is not None:
        client_library.end_run()


@pytest.fixture
def client(mlflow: Any) -> Any:
    """The lower-level client of the same server."""
    return mlflow.MlflowClient()


def test_experiments_live_die_and_come_back(mlflow: Any, client: Any) -> None:
    name = f"life-{uuid.uuid4().hex}"
    made = mlflow.set_experiment(name)
    assert mlflow.set_experiment(name).experiment_id == made.experiment_id
    assert made.artifact_location == f"mlflow-artifacts:/{made.experiment_id}"
    client.set_experiment_tag(made.experiment_id, "team", "x")
    assert client.get_experiment_by_name(name).tags == {"team": "x"}
    client.delete_experiment_tag(made.experiment_id, "team")
    client.rename_experiment(made.experiment_id, name + "-2")
    assert client.get_experiment(made.experiment_id).name == name + "-2"
    assert client.get_experiment_by_name(name) is None
    client.delete_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).lifecycle_stage == "deleted"
    with pytest.raises(mlflow.MlflowException, match="already exists") as taken:
        client.create_experiment(name + "-2")
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.restore_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).tags == {}


def test_experiments_are_searched(mlflow: Any, client: Any) -> None:
    prefix = uuid.uuid4().hex
    ids = [client.create_experiment(f"{prefix}-{i}", tags={"n": str(i)}) for i in range(5)]
    pages = []
    token = None
    while True:
        page = client.search_experiments(
            filter_string=f"name LIKE '{prefix}%'", order_by=["name DESC"], max_results=2, page_token=token
        )
        pages.append([found.experiment_id for found in page])
        token = page.token
        if not token:
            break
    assert pages == [ids[4:2:-1], ids[2:0:-1], ids[:1]]
    assert [
        found.experiment_id
        for found in client.search_experiments(filter_string=f"tags.n = '3' AND name ILIKE '{prefix.upper()}%'")
    ] == [ids[3]]
    default = client.search_experiments(filter_string="name = 'Default'")
    assert [found.experiment_id for found in default] == ["0"]


def test_a_run_keeps_what_is_logged_on_it(mlflow: Any, client: Any) -> None:
    with mlflow.start_run(run_name="whole", tags={"given": "1"}, description="why") as run:
        mlflow.log_param("alone", 1)
        mlflow.log_params({"a": "x", "b": 2.5})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metrics({"loss": 0.25, "accuracy": 1.0}, step=2)
        mlflow.log_metric("nothing", math.nan)
        mlflow.log_metric("much", math.inf)
        mlflow.set_tag("alone", "yes")
        mlflow.set_tags({"t": "1", "gone": "1"})
        mlflow.delete_tag("gone")
    found = client.get_run(run.info.run_id)
    assert (found.info.run_name, found.info.status, found.info.lifecycle_stage) == ("whole", "FINISHED", "active")
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"alone": "1", "a": "x", "b": "2.5"}
    assert math.isnan(found.data.metrics.pop("nothing"))
    assert found.data.metrics == {"loss": 0.25, "accuracy": 1.0, "much": 1.7976931348623157e308}
    tags = {key: value for key, value in found.data.tags.items() if not key.startswith("mlflow.")}
    assert tags == {"given": "1", "alone": "yes", "t": "1"}
    assert found.data.tags["mlflow.note.content"] == "why"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    with pytest.raises(mlflow.MlflowException, match="Changing param values is not allowed"):
        client.log_param(run.info.run_id, "alone", 2)


def test_nested_and_failed_runs(mlflow: Any, client: Any) -> None:
    with mlflow.start_run() as parent, mlflow.start_run(nested=True) as child:
        pass
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    assert [run.info.run_id for run in children] == [child.info.run_id]
    with pytest.raises(ZeroDivisionError), mlflow.start_run() as failing:
        raise ZeroDivisionError
    assert client.get_run(failing.info.run_id).info.status == "FAILED"


def test_a_run_is_taken_up_again_renamed_deleted_and_restored(mlflow: Any, client: Any) -> None:
    with mlflow.start_run() as run:
        pass
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("later", 1)
    client.update_run(run.info.run_id, name="renamed")
    client.set_terminated(run.info.run_id, "KILLED")
    found = client.get_run(run.info.run_id)
    assert (found.info.run_name, found.data.tags["mlflow.runName"], found.info.status) == (
        "renamed",
        "renamed",
        "KILLED",
    )
    client.delete_run(run.info.run_id)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert mlflow.search_runs(output_format="list") == []
    with pytest.raises(mlflow.MlflowException, match="must be in the 'active' state"):
        client.log_metric(run.info.run_id, "m", 1)
    client.restore_run(run.info.run_id)
    assert len(mlflow.search_runs(output_format="list")) == 1
    with pytest.raises(mlflow.MlflowException, match="not found") as missing:
        client.get_run("0" * 32)
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_runs_are_searched(mlflow: Any, client: Any) -> None:
    for index, name in enumerate(("a", "b", "c")):
        with mlflow.start_run(run_name=name):
            mlflow.log_metric("m", index)
            mlflow.log_param("p", name.upper())
            mlflow.set_tag("key with space", "even" if index % 2 == 0 else "odd")

    def names(text: str, *order_by: str) -> list[str]:
        found = mlflow.search_runs(filter_string=text, order_by=list(order_by), output_format="list")
        return [run.info.run_name for run in found]

    assert names("metrics.m >= 1", "metrics.m DESC") == ["c", "b"]
    assert names("params.p ILIKE 'a'") == ["a"]
    assert names("tags.`key with space` = 'even' AND attributes.status = 'FINISHED'", "params.p ASC") == ["a", "c"]
    assert names("run_name LIKE '_'", "attributes.start_time ASC") == ["a", "b", "c"]
    assert names("tags.missing IS NULL and metrics.m != 1", "metrics.m") == ["a", "c"]
    frame = mlflow.search_runs(order_by=["metrics.m"])
    assert list(frame["params.p"]) == ["A", "B", "C"]
    experiment = mlflow.get_experiment_by_name(mlflow.get_experiment(frame["experiment_id"][0]).name).experiment_id
    first = client.search_runs([experiment], order_by=["metrics.m"], max_results=2)
    rest = client.search_runs([experiment], order_by=["metrics.m"], max_results=2, page_token=first.token)
    assert [run.info.run_name for run in [*first, *rest]] == ["a", "b", "c"]
    assert not rest.token
    with pytest.raises(mlflow.MlflowException, match="Invalid entity type 'foo'"):
        names("foo.bar = 1")


def test_artifacts_go_up_and_come_down(mlflow: Any, client: Any, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    (tmp_path / "up" / "sub").mkdir(parents=True)
    (tmp_path / "up" / "one.bin").write_bytes(bytes(range(256)))
    (tmp_path / "up" / "sub" / "zwei ü.txt").write_text("zwei")
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "notes/a b.txt")
        mlflow.log_dict({"k": [1, 2]}, "d.json")
        mlflow.log_artifact(tmp_path / "up" / "one.bin")
        mlflow.log_artifacts(tmp_path / "up", "folder")
        figure = plt.figure()
        mlflow.log_figure(figure, "figure.png")
        plt.close(figure)
    run_id = run.info.run_id
    listed = {file.path: file.file_size for file in client.list_artifacts(run_id)}
    assert list(listed) == ["d.json", "figure.png", "folder", "notes", "one.bin"]
    assert (listed["folder"], listed["one.bin"]) == (None, 256)
    assert [file.path for file in client.list_artifacts(run_id, "folder")] == ["folder/one.bin", "folder/sub"]
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/a b.txt") == "hello"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/d.json") == {"k": [1, 2]}
    down = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(tmp_path / "down")))
    assert (down / "folder" / "one.bin").read_bytes() == bytes(range(256))
    assert (down / "folder" / "sub" / "zwei ü.txt").read_text() == "zwei"
    assert (down / "figure.png").read_bytes().startswith(b"\x89PNG")
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/folder", dst_path=str(tmp_path)))
    assert sorted(path.name for path in folder.iterdir()) == ["one.bin", "sub"]


def test_tables_are_logged_loaded_and_grown(mlflow: Any) -> None:
    with mlflow.start_run() as run:
        mlflow.log_table({"q": ["x", "y"], "n": [1, 2]}, "table.json")
        mlflow.log_table({"q": ["z"], "n": [3]}, "table.json")
    table = mlflow.load_table("table.json", run_ids=[run.info.run_id], extra_columns=["run_id"])
    assert list(table["q"]) == ["x", "y", "z"]
    assert list(table["n"]) == [1, 2, 3]
    assert set(table["run_id"]) == {run.info.run_id}


def test_a_promptlab_run_is_read_as_mlflow_reads_its_own(mlflow: Any, client: Any, tracking_server: str) -> None:
    import httpx

    experiment = mlflow.set_experiment(f"lab-{uuid.uuid4().hex}").experiment_id
    logged = httpx.post(
        f"{tracking_server}/ajax-api/2.0/mlflow/runs/create-promptlab-run",
        json={
            "experiment_id": experiment,
            "prompt_template": "Say {{word}}",
            "prompt_parameters": [{"key": "word", "value": "hi"}],
            "model_route": "chat",
            "model_parameters": [{"key": "temperature", "value": 0}],
            "model_input": "Say hi",
            "model_output": "hi",
            "mlflow_version": "3.17.2",
        },
    )
    run_id = logged.json()["run"]["info"]["run_id"]
    client.log_batch(run_id, metrics=[mlflow.entities.Metric("latency", 1.5, 1, 0)])
    found = mlflow.search_runs(filter_string="tags.mlflow.runSourceType = 'PROMPT_ENGINEERING'", output_format="list")
    assert [run.info.run_id for run in found] == [run_id]
    assert found[0].data.metrics == {"latency": 1.5}
    table = mlflow.load_table("eval_results_table.json", run_ids=[run_id])
    assert json.loads(table.to_json(orient="records")) == [{"word": "hi", "prompt": "Say hi", "output": "hi"}]


def test_many_metrics_in_batches_and_in_the_background(mlflow: Any, client: Any) -> None:
    with mlflow.start_run() as run:
        points = [mlflow.entities.Metric("m", step / 7, 1_000 + step, step) for step in range(2_500)]
        for start in range(0, len(points), 1_000):
            client.log_batch(run.info.run_id, metrics=points[start : start + 1_000])
        mlflow.log_metrics({"later": 1.0}, synchronous=False).wait()
    assert client.get_metric_history(run.info.run_id, "m") == points
    assert client.get_run(run.info.run_id).data.metrics == {"m": 2_499 / 7, "later": 1.0}
    with pytest.raises(mlflow.MlflowException, match="at most 1000"):
        mlflow.store.tracking.rest_store.RestStore.log_batch(
            client._tracking_client.store, run.info.run_id, points[:1_001], [], []
        )


def test_what_is_not_built_says_so(mlflow: Any, client: Any) -> None:
    with pytest.raises(mlflow.MlflowException) as absent:
        mlflow.MlflowClient(tracking_uri=mlflow.get_tracking_uri()).list_workspaces()
    assert absent.value.error_code == "ENDPOINT_NOT_FOUND"
