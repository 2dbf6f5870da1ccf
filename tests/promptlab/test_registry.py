"""The registry's rules, on both databases: names, versions, stages, aliases, sources, and what a filter finds."""

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
# name, is a prompt, model's tag t, versions' tags t
MODELS: list[tuple[str, bool, str | None, list[str | None]]] = [
    ("alpha", False, "Red", ["one", None, "two"]),
    ("beta", False, None, ["One"]),
    ("gamma_1", False, "x" * 300, []),
    ("support", True, "Red", ["one", "two"]),
    ("Zeta", True, None, []),
]


@pytest.fixture(scope="module")
def filled(shared_lab: Lab) -> Registry:
    """Those models and prompts, for tests that only read."""
    registry = shared_lab.registry
    for name, prompt, tag, versions in MODELS:
        base = (PROMPT,) if prompt else ()
        registry.create_model(name, None, [*base, *([] if tag is None else [Tag("t", tag)])])
        for number, value in enumerate(versions, 1):
            tags = (*base, *(() if value is None else (Tag("t", value),)))
            source = "dummy-source" if prompt else f"s3://models/{name}/{number}"
            registry.create_version(NewVersion(name, source, run_id=f"run-{number}", tags=tags))
    return registry


@pytest.fixture
def registry(lab: Lab) -> Registry:
    """An empty registry."""
    return lab.registry


def add(registry: Registry, name: str = "m", source: str = "s3://models/m", tags: Sequence[Tag] = ()) -> ModelVersion:
    return registry.create_version(NewVersion(name, source, tags=tuple(tags)))


def models(registry: Registry, text: str = "", order_by: Sequence[str] = (), limit: int = 100) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = registry.search_models(text, order_by, limit, token)
        found += [model.name for model in page.items]
        token = page.token
        if token is None:
            return found


def versions(registry: Registry, text: str = "", order_by: Sequence[str] = (), limit: int = 100) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = registry.search_versions(text, order_by, limit, token)
        found += [f"{one.name}/{one.version}" for one in page.items]
        token = page.token
        if token is None:
            return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "alpha beta gamma_1"),
        ("name = 'alpha'", "alpha"),
        ("name != 'alpha'", "beta gamma_1"),
        ("attribute.name LIKE '%a'", "alpha beta"),
        ("name ILIKE 'ALP%'", "alpha"),
        ("name LIKE 'ALP%'", ""),
        ("name IN ('alpha', 'support', 'nobody')", "alpha"),
        ("name NOT IN ('alpha')", "beta gamma_1"),
        ("tags.t = 'Red'", "alpha"),
        ("tag.t != 'Red'", "gamma_1"),
        ("tags.t ILIKE 'red'", "alpha"),
        (f"tags.t = '{'x' * 300}'", "gamma_1"),
        (f"tags.t = '{'x' * 299}'", ""),
        ("tags.t IS NULL", "beta"),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", "Zeta support"),
        ("tags.`mlflow.prompt.is_prompt` = 'TRUE'", ""),
        ("tags.`mlflow.prompt.is_prompt` != 'false'", "Zeta support"),
        ("tags.`mlflow.prompt.is_prompt` = 'false'", "alpha beta gamma_1"),
        ("tags.`mlflow.prompt.is_prompt` != 'true' AND name LIKE 'a%'", "alpha"),
        ("name LIKE 's%' AND tag.`mlflow.prompt.is_prompt` = 'true'", "support"),
        ("tag.`mlflow.prompt.is_prompt` = 'true' AND tags.t = 'Red'", "support"),
        ("name = 'support'", ""),
    ],
)
def test_which_models_a_filter_finds(filled: Registry, text: str, found: str) -> None:
    assert models(filled, text) == found.split()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name = 'alpha'", "alpha/3 alpha/2 alpha/1"),
        ("name = 'alpha' AND version_number > 1", "alpha/3 alpha/2"),
        ("name = 'alpha' AND version_number <= '2'", "alpha/2 alpha/1"),
        ("version_number = 3", "alpha/3"),
        ("version_number > 2.5", "alpha/3"),
        ("run_id = 'run-1'", "alpha/1 beta/1"),
        ("run_id IN ('run-2', 'run-3')", "alpha/3 alpha/2"),
        ("source_path LIKE 's3://models/alpha/%'", "alpha/3 alpha/2 alpha/1"),
        ("tags.t = 'one'", "alpha/1"),
        ("tags.t ILIKE 'ONE'", "alpha/1 beta/1"),
        ("tags.t IS NULL", "alpha/2"),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", "support/2 support/1"),
        ("name = 'support' AND tag.`mlflow.prompt.is_prompt` = 'true' AND tag.t = 'two'", "support/2"),
        ("name = 'support'", ""),
    ],
)
def test_which_versions_a_filter_finds(filled: Registry, text: str, found: str) -> None:
    assert versions(filled, text, ["name", "version_number DESC"]) == found.split()


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ([], "alpha beta gamma_1"),
        (["name DESC"], "gamma_1 beta alpha"),
        (["timestamp DESC"], "gamma_1 beta alpha"),
        (["last_updated_timestamp", "name DESC"], "alpha beta gamma_1"),
    ],
)
def test_in_which_order_and_page_by_page(filled: Registry, order_by: list[str], found: str) -> None:
    assert models(filled, order_by=order_by, limit=1) == models(filled, order_by=order_by)
    if "timestamp" not in "".join(order_by):
        assert models(filled, order_by=order_by, limit=2) == found.split()


def test_versions_page_by_page(filled: Registry) -> None:
    for order_by in ([], ["name"], ["version_number"], ["creation_timestamp DESC"], ["name DESC", "version_number"]):
        whole = versions(filled, order_by=order_by)
        assert sorted(whole) == ["alpha/1", "alpha/2", "alpha/3", "beta/1"]
        assert versions(filled, order_by=order_by, limit=1) == whole
    assert versions(filled, order_by=["version_number"]) == ["alpha/1", "beta/1", "alpha/2", "alpha/3"]


@pytest.mark.parametrize(
    ("text", "order_by", "limit", "says"),
    [
        ("run_id = 'x'", [], 10, "Invalid attribute key 'run_id'"),
        ("metrics.m > 1", [], 10, "Invalid entity type 'metrics'"),
        ("name > 'a'", [], 10, "Invalid comparator '>'"),
        ("name = 1", [], 10, "Expected a quoted string value"),
        ("tags.t > 'x'", [], 10, "Invalid comparator '>'"),
        ("name = 'a' OR name = 'b'", [], 10, "Invalid clause"),
        ("", ["creation_timestamp"], 10, "Invalid attribute key 'creation_timestamp'"),
        ("", ["tags.t"], 10, "Invalid order_by entity"),
        ("", ["timestamp", "last_updated_timestamp"], 10, "duplicate fields"),
        ("", [], 1001, "It must be at most 1000, but got value 1001"),
        ("", [], 0, "positive integer"),
    ],
)
def test_searches_that_are_refused(filled: Registry, text: str, order_by: list[str], limit: int, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        filled.search_models(text, order_by, limit, None)


def test_a_page_of_versions_has_its_own_limit(filled: Registry) -> None:
    assert len(filled.search_versions("", [], 200_000, None).items) == 4
    with pytest.raises(InvalidParameter, match="at most 200000, but got value 200001"):
        filled.search_versions("", [], 200_001, None)


def test_a_page_token_that_is_none_is_refused(filled: Registry) -> None:
    for token in ("!", "YQ==", "eyJvZmZzZXQiOiAxfQ=="):
        with pytest.raises(InvalidParameter, match="Invalid page token"):
            filled.search_models("", [], 10, token)
        with pytest.raises(InvalidParameter, match="Invalid page token"):
            filled.search_versions("", [], 10, token)


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
    assert versions(registry, order_by=["version_number"]) == ["m/1", "m/2"]
    for forgotten in ("3", "4", "99999999999999999999"):
        with pytest.raises(NotFound, match=r"^Model Version \(name=m, version=\d+\) not found$"):
            registry.version("m", forgotten)
    with pytest.raises(NotFound):
        registry.delete_version("m", "3")
    assert registry.version_by_alias("m", "latest").version == 2
    assert add(registry).version == 4
    registry.delete_model("m")
    assert models(registry) == versions(registry) == []
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


def test_sources_are_the_runs_own(lab: Lab) -> None:
    lab.create_experiment("local", "file:///models", [])
    proxied = lab.create_run("0", "me", "r", None, []).info
    local = lab.create_run(str(lab.experiment_by_name("local").id), "me", "r", None, []).info
    lab.registry.create_model("m", None, [])

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
            assert lab.registry.create_version(new).source == source
            continue
        with pytest.raises(InvalidParameter) as refused:
            lab.registry.create_version(new)
        assert refused.value.message.startswith(f"Invalid model version source: '{source}'")
