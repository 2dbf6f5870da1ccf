"""The stock MLflow client, unmodified, logs models, datasets, tables and figures with us, and finds them again."""

from __future__ import annotations

import math
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_mlflow_client import ROUTES, SETTINGS
from tests.conftest import StartServer

pytestmark = [
    # pandas, matplotlib and scikit-learn, which the client brings along, announce their own futures.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MORE_SETTINGS = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2", "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1"}


@pytest.fixture(scope="module")
def library(start_servers: StartServer) -> Iterator[Any]:
    """`mlflow`, pointed at a server of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SETTINGS | MORE_SETTINGS).items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        mlflow.set_tracking_uri(start_servers(ROUTES, admin_key=None).url)
        yield mlflow


@pytest.fixture
def mlflow(library: Any) -> Iterator[Any]:
    """The same, in an experiment of the test's own."""
    library.set_experiment(f"models-{uuid.uuid4().hex}")
    yield library
    while library.active_run() is not None:
        library.end_run()


@pytest.fixture
def experiment(mlflow: Any) -> str:
    """The id of that experiment."""
    return str(mlflow.tracking.fluent._get_experiment_id())


def doubled(model_input):  # Without hints, which the client would read as the model's signature.
    """A model that is a function."""
    return [2 * value for value in model_input]


def test_a_function_becomes_a_model_and_comes_back(mlflow: Any, experiment: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_params({"depth": 3, "name": "x"})
        mlflow.log_metric("loss", 0.5)
        logged = mlflow.pyfunc.log_model(
            name="model", python_model=doubled, pip_requirements=[], registered_model_name=f"m-{experiment}"
        )
    for address in (
        f"models:/{logged.model_id}",
        f"runs:/{run.info.run_id}/model",
        logged.model_uri,
        f"models:/m-{experiment}/1",
    ):
        assert mlflow.pyfunc.load_model(address).predict([1.5, 2.0]) == [3.0, 4.0]
    found = mlflow.get_logged_model(logged.model_id)
    assert (found.name, found.status.value, found.source_run_id) == ("model", "READY", run.info.run_id)
    assert found.params == {"depth": "3", "name": "x"}
    assert [(metric.key, metric.value) for metric in found.metrics] == [("loss", 0.5)]
    assert found.tags["mlflow.modelVersions"].startswith('[{"name": "m-')
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert [(output.model_id, output.step) for output in outputs] == [(logged.model_id, 0)]
    assert [one.model_id for one in mlflow.search_logged_models([experiment], output_format="list")] == [
        logged.model_id
    ]
    assert mlflow.MlflowClient().list_logged_model_artifacts(logged.model_id)


def test_scikit_learn_logs_by_itself(mlflow: Any, experiment: str) -> None:
    import numpy
    from sklearn.linear_model import LogisticRegression

    cases, labels = numpy.array([[0.0], [1.0], [2.0], [3.0]]), numpy.array([0, 0, 1, 1])
    mlflow.sklearn.autolog(log_input_examples=True, log_model_signatures=True)
    try:
        with mlflow.start_run() as run, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegression().fit(cases, labels)
    finally:
        mlflow.sklearn.autolog(disable=True)
    ended = mlflow.get_run(run.info.run_id)
    assert ended.data.params["fit_intercept"] == "True"
    assert ended.data.metrics["training_accuracy_score"] == 1.0
    assert [one.dataset.name for one in ended.inputs.dataset_inputs] == ["dataset"]
    assert "estimator.html" in [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    (logged,) = mlflow.search_logged_models([experiment], output_format="list")
    assert ended.data.tags["estimator_name"] == "LogisticRegression"
    loaded = mlflow.sklearn.load_model(f"models:/{logged.model_id}")
    assert (loaded.predict(cases) == model.predict(cases)).all()


def test_runs_are_found_by_the_data_they_read(mlflow: Any, experiment: str) -> None:
    import pandas

    cases = pandas.DataFrame({"x": [1, 2, 3], "y": ["a", "b", "c"]})
    train = mlflow.data.from_pandas(cases, source="file.csv", name="cases", targets="y")
    other = mlflow.data.from_pandas(cases[:1], name="other")
    with mlflow.start_run(run_name="both") as both:
        mlflow.log_input(train, context="training", tags={"fold": "1"})
        mlflow.log_input(train, context="again")
        mlflow.log_inputs([other], ["test"], [{}])
    with mlflow.start_run(run_name="one"):
        mlflow.log_input(train, context="validation")
    read = {one.dataset.name: one for one in mlflow.get_run(both.info.run_id).inputs.dataset_inputs}
    assert list(read) == ["cases", "other"]
    assert {tag.key: tag.value for tag in read["cases"].tags} == {"mlflow.data.context": "training", "fold": "1"}
    assert read["cases"].dataset.digest == train.digest
    assert mlflow.data.get_source(read["cases"]).uri == "file.csv"
    for text, names in (
        ("dataset.name = 'cases'", ["both", "one"]),
        ("dataset.name = 'other' AND dataset.context = 'training'", ["both"]),
        (f"datasets.digest IN ('{train.digest}')", ["both", "one"]),
        ("dataset.context LIKE 'valid%'", ["one"]),
        ("dataset.name ILIKE 'OTHER' AND dataset.context != 'test'", ["both"]),
        ("dataset.context = 'again'", []),
    ):
        found = mlflow.search_runs([experiment], text, output_format="list")
        assert sorted(run.info.run_name for run in found) == names, text


def test_logged_models_are_found_by_what_was_measured(mlflow: Any, experiment: str) -> None:
    import pandas

    on = {name: mlflow.data.from_pandas(pandas.DataFrame({"x": [len(name)]}), name=name) for name in ("a", "bb")}
    ids = {}
    with mlflow.start_run() as run:
        for name, values in {"low": (0.1, 0.9), "high": (0.8, 0.2), "none": (math.nan, 0.3)}.items():
            model = mlflow.create_external_model(name=name, params={"size": name}, tags={"kind": "test"})
            ids[name] = model.model_id
            for dataset, value in zip(on.values(), values, strict=True):
                mlflow.log_metric("acc", value, model_id=model.model_id, dataset=dataset)
    bare = mlflow.initialize_logged_model(name="bare", model_type="agent")
    measured = mlflow.get_logged_model(ids["none"]).metrics
    assert sorted((one.dataset_name, str(one.value), one.run_id) for one in measured) == [
        ("a", "nan", run.info.run_id),
        ("bb", "0.3", run.info.run_id),
    ]

    def found(text: str = "", **options: Any) -> list[str]:
        return [one.name for one in mlflow.search_logged_models([experiment], text, output_format="list", **options)]

    def by_acc(dataset: str, ascending: bool) -> list[dict[str, Any]]:
        return [{"field_name": "metrics.acc", "ascending": ascending, "dataset_name": dataset}]

    assert found() == ["bare", "none", "high", "low"]
    assert found(max_results=3, order_by=[{"field_name": "name"}]) == ["bare", "high", "low"]
    assert found(order_by=by_acc("a", ascending=True)) == ["low", "high", "none", "bare"]
    assert found(order_by=by_acc("bb", ascending=False)) == ["low", "none", "high", "bare"]
    assert found("metrics.acc > 0.5", datasets=[{"dataset_name": "a"}]) == ["high"]
    assert found("metrics.acc > 0.5") == ["high", "low"]
    assert found(datasets=[{"dataset_name": "bb", "dataset_digest": on["bb"].digest}]) == ["none", "high", "low"]
    assert found("params.size = 'low' AND tags.kind LIKE 'te%' AND attributes.status = 'READY'") == ["low"]
    assert found("name IN ('bare', 'low') AND model_type != 'x'") == ["bare", "low"]
    assert found("model_type = 'agent' AND status = 'PENDING'") == ["bare"]
    assert found(f"source_run_id = '{run.info.run_id}' AND creation_time > 0 AND name ILIKE 'H%'") == ["high"]
    mlflow.set_logged_model_tags(ids["low"], {"a/b": "1", "kind": "new"})
    mlflow.delete_logged_model_tag(ids["low"], "a/b")
    tags = mlflow.get_logged_model(ids["low"]).tags
    assert "a/b" not in tags
    assert tags["kind"] == "new"
    mlflow.finalize_logged_model(bare.model_id, "FAILED")
    assert mlflow.get_logged_model(bare.model_id).status.value == "FAILED"
    mlflow.MlflowClient().delete_logged_model(bare.model_id)
    assert found("status = 'FAILED'") == []
    with pytest.raises(mlflow.MlflowException, match="not found") as gone:
        mlflow.get_logged_model(bare.model_id)
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_pages_of_logged_models_hold_each_once(mlflow: Any, experiment: str) -> None:
    client = mlflow.MlflowClient()
    names = [client.create_logged_model(experiment, name=f"m{i}").name for i in range(5)]
    pages, token = [], None
    while True:
        page = client.search_logged_models([experiment], max_results=2, page_token=token)
        pages.append([one.name for one in page])
        token = page.token
        if not token:
            break
    assert pages == [names[4:2:-1], names[2:0:-1], names[:1]]


def test_tables_figures_images_and_dicts(mlflow: Any, experiment: str, tmp_path: Path) -> None:
    import matplotlib.pyplot
    import numpy

    with mlflow.start_run() as run:
        mlflow.log_table({"question": ["a", "b"], "answer": [1, 2]}, "tables/answers.json")
        mlflow.log_table({"question": ["c"], "answer": [3]}, "tables/answers.json")
        figure, axes = matplotlib.pyplot.subplots()
        axes.plot([1, 2])
        mlflow.log_figure(figure, "plots/figure.png")
        matplotlib.pyplot.close(figure)
        mlflow.log_image(numpy.zeros((8, 8, 3), dtype=numpy.uint8), "black.png")
        mlflow.log_image(numpy.ones((8, 8), dtype=numpy.uint8), key="dog", step=3)
        mlflow.log_dict({"a": [1]}, "config/a.json")
    table = mlflow.load_table("tables/answers.json", run_ids=[run.info.run_id], extra_columns=["run_id"])
    assert table["answer"].tolist() == [1, 2, 3]
    root = f"runs:/{run.info.run_id}"
    assert mlflow.artifacts.load_dict(f"{root}/config/a.json") == {"a": [1]}
    assert mlflow.artifacts.load_image(f"{root}/black.png").size == (8, 8)
    local = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="", dst_path=str(tmp_path))
    assert (Path(local) / "plots/figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.suffix for file in (Path(local) / "images").iterdir()) == [".png", ".webp"]


def test_system_metrics_are_logged_beside_the_work(mlflow: Any) -> None:
    mlflow.enable_system_metrics_logging()
    try:
        with mlflow.start_run() as run:
            for step in range(20):
                mlflow.log_metric("step", step, step=step, synchronous=False)
            mlflow.flush_async_logging()
            monitor = mlflow.tracking.fluent.run_id_to_system_metrics_monitor[run.info.run_id]
            monitor._shutdown_event.wait(0.7)
    finally:
        mlflow.disable_system_metrics_logging()
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["step"] == 19
    assert metrics["system/cpu_utilization_percentage"] >= 0
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "step")) == 20
