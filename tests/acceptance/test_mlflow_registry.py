"""The stock MLflow client, unmodified, registers models and prompts with us, finds them, and renders them."""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tests.acceptance.test_mlflow_client import ROUTES, SETTINGS
from tests.conftest import StartServer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Answer(pydantic.BaseModel):
    """What a prompt may ask a model for."""

    text: str


@pytest.fixture(scope="module")
def mlflow(start_servers: StartServer) -> Iterator[Any]:
    """`mlflow`, pointed at a server of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        mlflow.set_tracking_uri(start_servers(ROUTES, admin_key=None).url)
        mlflow.set_experiment("registry")
        yield mlflow


@pytest.fixture
def client(mlflow: Any) -> Any:
    """The lower-level client of the same server."""
    return mlflow.MlflowClient()


@pytest.fixture
def name() -> str:
    """A name that nothing has yet."""
    return f"x-{uuid.uuid4().hex}"


def test_a_models_life(mlflow: Any, client: Any, name: str) -> None:
    made = client.create_registered_model(name, tags={"team": "a"}, description="about")
    assert (made.name, made.tags, made.description) == (name, {"team": "a"}, "about")
    with pytest.raises(mlflow.exceptions.MlflowException, match="already exists") as refused:
        client.create_registered_model(name)
    assert refused.value.error_code == "RESOURCE_ALREADY_EXISTS"
    with mlflow.start_run() as run:
        mlflow.log_text("flavors", "model/MLmodel")
    source = f"{run.info.artifact_uri}/model"
    first = client.create_model_version(name, source, run.info.run_id, tags={"k": "v"})
    assert (first.version, first.status, first.current_stage) == ("1", "READY", "None")
    second = client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id, description="2nd")
    assert (second.version, second.run_id, second.description) == ("2", run.info.run_id, "2nd")
    client.set_registered_model_alias(name, "champion", 2)
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    assert client.get_model_version(name, 2).aliases == ["champion"]
    client.set_model_version_tag(name, "1", "checked", "yes")
    client.delete_model_version_tag(name, "1", "k")
    assert client.get_model_version(name, "1").tags == {"checked": "yes"}
    client.transition_model_version_stage(name, "1", "Production")
    assert {one.version for one in client.get_latest_versions(name)} == {"1", "2"}
    copy = client.copy_model_version(f"models:/{name}@champion", f"{name}-copy")
    assert copy.source == f"models:/{name}/2"
    assert client.get_model_version_download_uri(f"{name}-copy", "1") == f"runs:/{run.info.run_id}/model"
    assert [one.version for one in client.search_model_versions(f"name = '{name}'")] == ["1", "2"]
    assert [mlflow.register_model("s3://models/m", name).version for _ in range(2)] == ["3", "4"]
    client.delete_model_version(name, "2")
    assert client.get_registered_model(name).aliases == {}
    client.rename_registered_model(name, f"{name}-new")
    assert [one.version for one in client.get_registered_model(f"{name}-new").latest_versions] == ["1", "4"]
    found = client.search_registered_models(f"name LIKE '{name}%'", order_by=["name DESC"], max_results=1)
    assert [one.name for one in found] == [f"{name}-new"]
    following = client.search_registered_models(f"name LIKE '{name}%'", order_by=["name DESC"], page_token=found.token)
    assert [one.name for one in following] == [f"{name}-copy"]
    client.delete_registered_model(f"{name}-new")
    with pytest.raises(mlflow.exceptions.MlflowException) as gone:
        client.get_registered_model(f"{name}-new")
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_versions_files_are_registered_from_a_run_and_downloaded(mlflow: Any, name: str, tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("flavors", "model/MLmodel")
        mlflow.log_text("weights", "model/data/weights.txt")
    made = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
    assert (made.version, made.run_id) == ("1", run.info.run_id)
    mlflow.MlflowClient().set_registered_model_alias(name, "best", "1")
    for uri in (f"models:/{name}/1", f"models:/{name}@best", f"models:/{name}/latest"):
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / uri.replace("/", "-"))))
        assert (folder / "MLmodel").read_text() == "flavors"
        assert (folder / "data" / "weights.txt").read_text() == "weights"


def test_a_text_prompts_life(mlflow: Any, client: Any, name: str) -> None:
    genai = mlflow.genai
    config = {"model_name": "fake", "temperature": 0.1, "max_tokens": 50, "seed": 7}
    first = genai.register_prompt(
        name,
        "Hello {{ who }}!",
        commit_message="first",
        tags={"author": "me"},
        response_format=Answer,
        model_config=config,
    )
    assert (first.version, first.commit_message, first.variables) == (1, "first", {"who"})
    genai.register_prompt(name, "Hi {{ who }}, {{ what }}?", commit_message="second")
    genai.set_prompt_alias(name, "production", 1)
    loaded = genai.load_prompt(f"prompts:/{name}@production")
    assert (loaded.version, loaded.template, loaded.tags) == (1, "Hello {{ who }}!", {"author": "me"})
    assert loaded.model_config == config
    assert loaded.response_format == Answer.model_json_schema()
    assert loaded.aliases == ["production"]
    assert loaded.format(who="you") == "Hello you!"
    assert genai.load_prompt(name).version == genai.load_prompt(f"prompts:/{name}@latest").version == 2
    assert genai.load_prompt(name, version=1).commit_message == "first"
    genai.set_prompt_alias(name, "production", 2)
    assert genai.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0).version == 2
    genai.set_prompt_model_config(name, 2, {"model_name": "fake", "top_p": 0.5})
    assert genai.load_prompt(name, version=2, cache_ttl_seconds=0).model_config["top_p"] == 0.5
    genai.delete_prompt_model_config(name, 2)
    assert genai.load_prompt(name, version=2, cache_ttl_seconds=0).model_config is None
    genai.set_prompt_tag(name, "team", "support")
    genai.set_prompt_version_tag(name, 2, "checked", "yes")
    assert client.get_prompt(name).tags["team"] == "support"
    assert genai.load_prompt(name, version=2, cache_ttl_seconds=0).tags == {"checked": "yes"}
    genai.delete_prompt_tag(name, "team")
    genai.delete_prompt_version_tag(name, 2, "checked")
    assert "team" not in client.get_prompt(name).tags
    genai.delete_prompt_alias(name, "production")
    with pytest.raises(mlflow.exceptions.MlflowException, match="alias production not found"):
        genai.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0)
    assert genai.load_prompt(f"prompts:/{name}@production", allow_missing=True, cache_ttl_seconds=0) is None
    versions = client.search_prompt_versions(name)
    assert [one.version for one in versions] == [2, 1]
    client.delete_prompt_version(name, "2")
    assert genai.load_prompt(name).version == 1
    assert genai.register_prompt(name, "third").version == 3
    client.delete_prompt(name)
    assert client.get_prompt(name) is None


def test_a_chat_prompt(mlflow: Any, name: str) -> None:
    messages = [{"role": "system", "content": "Be {{ how }}."}, {"role": "user", "content": "{{q}} – «{{ how }}»"}]
    mlflow.genai.register_prompt(name, messages, commit_message="ü", response_format={"type": "object"})
    loaded = mlflow.genai.load_prompt(name, version=1)
    assert not loaded.is_text_prompt
    assert loaded.template == messages
    assert loaded.commit_message == "ü"
    assert loaded.response_format == {"type": "object"}
    assert loaded.format(how="brief", q="Why?") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why? – «brief»"},
    ]


def test_prompts_and_models_are_found_apart(mlflow: Any, client: Any, name: str) -> None:
    client.create_registered_model(f"{name}-model")
    mlflow.genai.register_prompt(f"{name}-a", "a", tags={"team": "red"})
    mlflow.genai.register_prompt(f"{name}-b", "b")
    assert [one.name for one in client.search_registered_models(f"name LIKE '{name}%'")] == [f"{name}-model"]
    prompts = mlflow.genai.search_prompts(f"name LIKE '{name}%'")
    assert [one.name for one in prompts] == [f"{name}-a", f"{name}-b"]
    tagged = mlflow.genai.search_prompts(f"name LIKE '{name}%' AND tags.team = 'red'")
    assert [one.name for one in tagged] == [f"{name}-a"]
    with pytest.raises(mlflow.exceptions.MlflowException, match="already"):
        client.create_registered_model(f"{name}-a")
    with pytest.raises(mlflow.exceptions.MlflowException, match="exist"):
        mlflow.genai.register_prompt(f"{name}-model", "text")
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        client.delete_registered_model(f"{name}-a")


def test_prompts_of_an_experiment(mlflow: Any, name: str) -> None:
    experiment = mlflow.set_experiment(f"of-{name}").experiment_id
    mlflow.genai.register_prompt(name, "text")
    mlflow.genai.load_prompt(name, version=1)
    mlflow.set_experiment("registry")
    # The client notes the experiment in a thread of its own; deleting a tag waits for it.
    client = mlflow.MlflowClient()
    client.delete_prompt_tag(name, "nothing")
    found: list[str] = []
    for _ in range(100):
        found = [one.name for one in mlflow.genai.search_prompts(f"experiment_id = '{experiment}'")]
        if found:
            break
    assert found == [name]


def test_a_run_knows_its_prompts(mlflow: Any, client: Any, name: str) -> None:
    mlflow.genai.register_prompt(name, "text {{x}}")
    with mlflow.start_run() as run:
        mlflow.genai.load_prompt(f"prompts:/{name}/1")
        mlflow.genai.load_prompt(f"prompts:/{name}@latest")
    linked = json.loads(client.get_run(run.info.run_id).data.tags["mlflow.linkedPrompts"])
    assert linked == [{"name": name, "version": "1"}]
    with mlflow.start_run() as other:
        pass
    client.link_prompt_version_to_run(other.info.run_id, f"prompts:/{name}/1")
    assert "mlflow.linkedPrompts" in client.get_run(other.info.run_id).data.tags
    # The older way, which the client still reads: a tag of the version.
    client.set_prompt_version_tag(name, 1, "mlflow.prompt.associatedRunIds", run.info.run_id)
    assert [one.version for one in client.list_logged_prompts(run.info.run_id)] == [1]
    client.detach_prompt_from_run(run.info.run_id, f"prompts:/{name}/1")
    assert client.list_logged_prompts(run.info.run_id) == []


def test_what_the_registry_refuses_reaches_the_caller_at_once(mlflow: Any, client: Any, name: str) -> None:
    mlflow.genai.register_prompt(name, "x" * 100_000)
    assert len(mlflow.genai.load_prompt(name, version=1).template) == 100_000
    for act, says in [
        (lambda: mlflow.genai.register_prompt(name, "x" * 100_001), "exceeds max length of 100000"),
        (lambda: mlflow.genai.set_prompt_alias(name, "latest", 1), "reserved"),
        (lambda: mlflow.genai.set_prompt_alias(name, "best", 9), "does not exist"),
        (lambda: client.create_model_version("nobody", "s3://m/m"), "with name=nobody not found"),
        (lambda: client.search_registered_models("run_id = 'x'"), "Invalid attribute key"),
        (lambda: client.search_registered_models(max_results=1001), "at most 1000"),
    ]:
        with pytest.raises(mlflow.exceptions.MlflowException, match=says) as refused:
            act()
        assert refused.value.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
