"""What the registry's two searches find, in which order, page by page, on both databases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from promptlab.entities import Tag
from promptlab.entities_registry import IS_PROMPT, NewVersion
from promptlab.errors import InvalidParameter
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
