"""The registry's rules, on both databases: names, versions, stages, aliases, sources."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from promptlab.entities import Tag
from promptlab.entities_registry import IS_PROMPT, PROMPT_TEXT, ModelVersion, NewVersion
from promptlab.errors import AlreadyExists, InvalidParameter, NotFound
from promptlab.lab import Lab
from promptlab.registry import Registry

PROMPT = Tag(IS_PROMPT, "true")
IN_ORDER = ("name", "version_number")


@pytest.fixture
def registry(shared_lab: Lab) -> Registry:
    """An empty registry: what a test before left is removed."""
    registry = shared_lab.registry
    for wanted in ("", f"tags.`{IS_PROMPT}` = 'true'"):
        for model in registry.search_models(wanted, (), 100, None).items:
            registry.delete_model(model.name)
    return registry


def versions(registry: Registry) -> list[str]:
    return [f"{one.name}/{one.version}" for one in registry.search_versions("", IN_ORDER, 100, None).items]


def add(registry: Registry, name: str = "m", source: str = "s3://models/m", tags: Sequence[Tag] = ()) -> ModelVersion:
    return registry.create_version(NewVersion(name, source, tags=tuple(tags)))


def test_a_name_is_a_models_or_a_prompts(registry: Registry) -> None:
    registry.create_model("m", None, [])
    registry.create_model("p", None, [PROMPT])
    with pytest.raises(AlreadyExists, match=r"^Registered Model \(name=m\) already exists\.$"):
        registry.create_model("m", None, [])
    with pytest.raises(AlreadyExists, match=r"^Prompt \(name=p\) already exists\.$"):
        registry.create_model("p", None, [PROMPT])
    with pytest.raises(AlreadyExists, match="create a prompt with name 'm', but the name is already taken by a regist"):
        registry.create_model("m", None, [PROMPT])


def test_numbers_are_not_given_out_again(registry: Registry) -> None:
    registry.create_model("m", None, [])
    assert [add(registry).version for _ in range(3)] == [1, 2, 3]
    registry.set_alias("m", "best", "3")
    registry.set_alias("m", "other", "1")
    registry.delete_version("m", "3")
    assert [(one.alias, one.version) for one in registry.model("m").aliases] == [("other", 1)]
    assert versions(registry) == ["m/1", "m/2"]
    for forgotten in ("3", "4", "99999999999999999999"):
        with pytest.raises(NotFound, match=r"^Model Version \(name=m, version=\d+\) not found$"):
            registry.version("m", forgotten)
    with pytest.raises(NotFound):
        registry.delete_version("m", "3")
    assert registry.version_by_alias("m", "latest").version == 2
    assert add(registry).version == 4
    registry.delete_model("m")
    assert registry.search_models("", (), 1, None).items == versions(registry) == []
    registry.create_model("m", None, [])
    assert add(registry).version == 1


def test_versions_made_at_once_have_numbers_of_their_own(registry: Registry) -> None:
    registry.create_model("m", None, [])
    made: list[int] = []
    threads = [threading.Thread(target=lambda: made.extend(add(registry).version for _ in range(5))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 31))


def test_a_rename_takes_everything_along(registry: Registry) -> None:
    registry.create_model("old", "about", [Tag("a", "b")])
    add(registry, "old")
    registry.set_alias("old", "best", "1")
    registry.create_model("taken", None, [])
    with pytest.raises(AlreadyExists, match=r"^Registered Model \(name=taken\) already exists\.$"):
        registry.rename_model("old", "taken")
    renamed = registry.rename_model("old", "new")
    assert (renamed.name, renamed.description, renamed.tags) == ("new", "about", (Tag("a", "b"),))
    assert registry.version_by_alias("new", "best").name == "new"
    with pytest.raises(NotFound, match=r"^Registered Model with name=old not found$"):
        registry.model("old")
    with pytest.raises(InvalidParameter, match="Missing value for required parameter 'new_name'"):
        registry.rename_model("new", " ")


def test_aliases_move_and_are_told_with_versions(registry: Registry) -> None:
    registry.create_model("m", None, [])
    with pytest.raises(NotFound, match=r"^Latest version not found for model m\.$"):
        registry.version_by_alias("m", "latest")
    add(registry)
    add(registry)
    for alias in ("best", "b-2"):
        registry.set_alias("m", alias, "1")
    assert registry.version("m", "1").aliases == ("b-2", "best")
    registry.set_alias("m", "best", "2")
    assert registry.version_by_alias("m", "best").version == 2
    assert registry.version_by_alias("m", "LATEST").aliases == ("best",)
    assert [one.aliases for one in registry.latest_versions("m", [])] == [("best",)]
    registry.delete_alias("m", "best")
    registry.delete_alias("m", "best")
    with pytest.raises(InvalidParameter, match=r"^Registered model alias best not found\.$"):
        registry.version_by_alias("m", "best")
    for alias, says in [
        ("latest", "reserved"),
        ("Latest", "reserved"),
        ("v12", "reserved"),
        ("a b", "Invalid alias name: 'a b'"),
        ("a\n", "Invalid alias name"),
        ("", "cannot be empty"),
        ("x" * 256, "exceeds the maximum length of 255"),
    ]:
        with pytest.raises(InvalidParameter, match=says):
            registry.set_alias("m", alias, "1")
    with pytest.raises(NotFound, match="version=7"):
        registry.set_alias("m", "best", "7")
    with pytest.raises(InvalidParameter, match=r"^Parameter 'version' must be an integer, got '1_0'\.$"):
        registry.set_alias("m", "best", "1_0")


def test_stages(registry: Registry) -> None:
    registry.create_model("m", None, [])
    for _ in range(3):
        add(registry)
    registry.transition_version("m", "1", "staging", archive=False)
    registry.transition_version("m", "2", "Staging", archive=True)
    found = {one.version: one.stage for one in registry.latest_versions("m", [])}
    assert found == {1: "Archived", 2: "Staging", 3: "None"}
    assert [one.version for one in registry.latest_versions("m", ["NONE"])] == [3]
    assert [one.version for one in registry.model("m").latest] == [1, 2, 3]
    with pytest.raises(InvalidParameter, match="Invalid Model Version stage: Best"):
        registry.transition_version("m", "1", "Best", archive=False)
    with pytest.raises(InvalidParameter, match="because 'None' is not an Active stage"):
        registry.transition_version("m", "1", "None", archive=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (" ", "Missing value for required parameter 'name'"),
        ("a/b", "Names cannot contain '/' or ':'"),
        ("a:b", "Names cannot contain '/' or ':'"),
        (".", "would resolve to '.'"),
        ("..", "would resolve to '..'"),
        ("x" * 257, "'name' exceeds the maximum length of 256"),
    ],
)
def test_names_that_are_refused(registry: Registry, name: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        registry.create_model(name, None, [])


def test_tags_have_limits(registry: Registry) -> None:
    registry.create_model("m", None, [Tag("k", "x" * 100_000), Tag("a", "1"), Tag("a", "2")])
    assert registry.model("m").tags[0] == Tag("a", "2")
    for tag, says in [
        (Tag("k", "x" * 100_001), "'value' exceeds the maximum length of 100000 characters"),
        (Tag(PROMPT_TEXT, "x" * 100_001), "Prompt text exceeds max length of 100000 characters"),
        (Tag("k" * 251, "x"), "'key' exceeds the maximum length of 250 characters"),
        (Tag("a/../b", "x"), "must not resolve to other names"),
    ]:
        with pytest.raises(InvalidParameter, match=says):
            registry.set_model_tag("m", tag)
        with pytest.raises(InvalidParameter, match=says):
            add(registry, tags=[tag])


def test_a_tag_is_taken_away_whether_it_is_there_or_not(registry: Registry) -> None:
    registry.create_model("m", None, [Tag("k", "v")])
    add(registry, tags=[Tag("k", "v")])
    for _ in range(2):
        registry.delete_model_tag("m", "k")
        registry.delete_version_tag("m", "1", "k")
    assert registry.model("m").tags == registry.version("m", "1").tags == ()
    with pytest.raises(InvalidParameter, match="must not resolve to other names"):
        registry.delete_model_tag("m", "../k")
    with pytest.raises(InvalidParameter, match="must not resolve to other names"):
        registry.delete_version_tag("m", "1", "../k")


def test_sources_of_prompts_are_a_word(registry: Registry) -> None:
    registry.create_model("p", None, [PROMPT])
    assert add(registry, "p", "dummy-source", [PROMPT]).source == "dummy-source"
    assert add(registry, "p", "prompt-template", [PROMPT]).version == 2
    with pytest.raises(InvalidParameter, match="Prompt sources must use an MLflow placeholder"):
        add(registry, "p", "s3://models/m", [PROMPT])


def test_a_version_made_of_another_has_its_files(registry: Registry) -> None:
    registry.create_model("m", None, [])
    first = registry.create_version(NewVersion("m", "s3://models/m", run_id="r"))
    registry.set_alias("m", "best", "1")
    registry.transition_version("m", "1", "Production", archive=False)
    registry.create_model("copy", None, [])
    for source in ("models:/m/1", "models:/m@best", "models:/m/Production", "models:/m/latest"):
        copy = add(registry, "copy", source)
        assert (copy.source, copy.location, copy.run_id) == ("models:/m/1", first.location, "r")
    assert registry.location("copy", "1") == "s3://models/m"
    registry.create_model("p", None, [PROMPT])
    for source, says in [
        ("models:/p/1", "Prompt versions cannot be used"),
        ("models://elsewhere/m/1", "must use the active model registry"),
        ("models:/m/1/2", "must identify the resource"),
        ("models:/", "must identify the resource"),
        ("models:/m-0123", "must identify the resource"),
    ]:
        with pytest.raises(InvalidParameter, match=says):
            add(registry, "copy", source)
    with pytest.raises(InvalidParameter, match="must match the referenced model version"):
        registry.create_version(NewVersion("copy", "models:/m/1", run_id="other"))
    for source in ("models:/nobody/1", "models:/m/9", "models:/m/Archived"):
        with pytest.raises(NotFound):
            add(registry, "copy", source)


def test_sources_are_the_runs_own(registry: Registry, shared_lab: Lab) -> None:
    lab = shared_lab
    lab.create_experiment("local", "file:///models", [])
    proxied = lab.create_run("0", "me", "r", None, []).info
    local = lab.create_run(str(lab.experiment_by_name("local").id), "me", "r", None, []).info
    registry.create_model("m", None, [])

    inside = local.artifact_uri.removeprefix("file://")
    for source, run_id, wanted in [
        (f"runs:/{proxied.id}/model", proxied.id, False),
        (f"runs:/{proxied.id}/model", local.id, True),
        (f"runs:/{proxied.id}/model", None, True),
        (f"{proxied.artifact_uri}/model", proxied.id, False),
        (f"{proxied.artifact_uri}/model", local.id, True),
        (f"{proxied.artifact_uri}/../other", proxied.id, True),
        (f"{proxied.artifact_uri}/%2e%2e/other", proxied.id, True),
        (f"{proxied.artifact_uri}/%252e%252e/other", proxied.id, True),
        (f"http://here/api/2.0/mlflow-artifacts/artifacts/{proxied.id}/model", proxied.id, True),
        (f"{inside}/model", local.id, False),
        (f"file://{inside}/model", local.id, False),
        (f"file://elsewhere{inside}/model", local.id, True),
        (f"{inside}x/model", local.id, True),
        (f"{inside}/../../model", local.id, True),
        (f"{inside}/model", proxied.id, True),
        ("/etc/passwd", proxied.id, True),
        ("/etc/passwd", "nobody", True),
        ("/etc/passwd", None, True),
        ("file:///etc/passwd", None, True),
        ("model", local.id, True),
        ("s3://bucket/model", None, False),
        ("s3://bucket/a/../model", None, True),
        ("s3:bucket", None, True),
        ("https://[broken/model", None, True),
    ]:
        new = NewVersion("m", source, run_id=run_id)
        if not wanted:
            assert registry.create_version(new).source == source
            continue
        with pytest.raises(InvalidParameter) as refused:
            registry.create_version(new)
        assert refused.value.message.startswith(f"Invalid model version source: '{source}'")
