"""The stock MLflow client, unmodified, keeps evaluation datasets, scorers and webhooks with us."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.test_mlflow_client import ROUTES, SETTINGS
from tests.conftest import StartServer
from tests.promptlab.test_webhooks import Receiver

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def mlflow(start_servers: StartServer) -> Iterator[Any]:
    """`mlflow`, pointed at a server of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        mlflow.set_tracking_uri(start_servers(ROUTES, admin_key=None, private_webhooks=True).url)
        yield mlflow


def test_a_datasets_life(mlflow: Any) -> None:
    from mlflow.genai import datasets

    experiment = mlflow.create_experiment(uuid.uuid4().hex)
    other = mlflow.create_experiment(uuid.uuid4().hex)
    name = uuid.uuid4().hex
    made = datasets.create_dataset(name=name, experiment_id=[experiment], tags={"team": "a"})
    assert made.experiment_ids == [experiment]
    made.merge_records(
        [
            {"inputs": {"question": "2+2?"}, "expectations": {"expected_response": "4"}},
            {"inputs": {"question": "capital of France?"}, "outputs": {"answer": "Paris"}},
        ]
    )
    made.merge_records([{"inputs": {"question": "2+2?"}, "expectations": {"why": "sum"}}])
    found = datasets.get_dataset(dataset_id=made.dataset_id)
    rows = found.to_df()
    assert len(rows) == 2
    assert rows["expectations"][0] == {"expected_response": "4", "why": "sum"}
    assert rows["outputs"][1] == {"answer": "Paris"}
    datasets.set_dataset_tags(dataset_id=made.dataset_id, tags={"stage": "draft"})
    datasets.delete_dataset_tag(dataset_id=made.dataset_id, key="team")
    page = datasets.search_datasets(experiment_ids=experiment, filter_string="tags.stage = 'draft'")
    assert [one.dataset_id for one in page] == [made.dataset_id]
    datasets.add_dataset_to_experiments(dataset_id=made.dataset_id, experiment_ids=[other])
    assert sorted(datasets.get_dataset(dataset_id=made.dataset_id).experiment_ids) == sorted([experiment, other])
    datasets.remove_dataset_from_experiments(dataset_id=made.dataset_id, experiment_ids=[experiment])
    assert not list(datasets.search_datasets(experiment_ids=experiment))
    assert found.delete_records([rows["dataset_record_id"][0]]) == 1
    datasets.delete_dataset(dataset_id=made.dataset_id)
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        datasets.get_dataset(dataset_id=made.dataset_id)


def test_a_scorers_life(mlflow: Any) -> None:
    from mlflow.genai.scorers import Guidelines, delete_scorer, get_scorer, list_scorers

    experiment = mlflow.create_experiment(uuid.uuid4().hex)
    for text in ("Be nice.", "Be brief."):
        judge = Guidelines(name="manners", guidelines=text, model="openai:/gpt-4o-mini")
        judge.register(experiment_id=experiment)
    assert [one.name for one in list_scorers(experiment_id=experiment)] == ["manners"]
    assert get_scorer(name="manners", experiment_id=experiment).guidelines == "Be brief."
    assert get_scorer(name="manners", experiment_id=experiment, version=1).guidelines == "Be nice."
    delete_scorer(name="manners", experiment_id=experiment, version=1)
    delete_scorer(name="manners", experiment_id=experiment, version="all")
    assert list_scorers(experiment_id=experiment) == []


def test_a_webhooks_life(mlflow: Any) -> None:
    from mlflow.entities.webhook import WebhookEvent

    client, receiver = mlflow.MlflowClient(), Receiver()
    try:
        made = client.create_webhook(
            name="deploy", url=receiver.url, events=[WebhookEvent("prompt_alias", "created")], secret="between us two"
        )
        assert [one.webhook_id for one in client.list_webhooks()] == [made.webhook_id]
        tried = client.test_webhook(made.webhook_id)
        assert (tried.success, tried.response_status) == (True, 200)
        assert receiver.next()[1]["data"]["alias"] == "example_alias"
        mlflow.genai.register_prompt(name="hooked", template="Hi {{x}}")
        mlflow.genai.set_prompt_alias("hooked", alias="production", version=1)
        headers, said = receiver.next()
        assert said["data"] == {"name": "hooked", "alias": "production", "version": "1"}
        assert headers["x-mlflow-signature"].startswith("v1,")
        assert client.update_webhook(made.webhook_id, description="d").description == "d"
        client.delete_webhook(made.webhook_id)
        assert not list(client.list_webhooks())
    finally:
        receiver.close()
