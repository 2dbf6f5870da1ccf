"""Prompts are found by name and alias or version, and say what is there where they are not, on both databases."""

from __future__ import annotations

import json

import pytest

from promptlab.entities import Tag
from promptlab.entities_registry import NewVersion
from promptlab.errors import InvalidParameter, NotFound
from promptlab.lab import Lab
from promptlab.prompts import Prompts

IS_PROMPT = Tag("mlflow.prompt.is_prompt", "true")


def add(lab: Lab, name: str, text: str, **tags: str) -> None:
    named = [Tag(f"_mlflow_prompt_{key}", value) for key, value in tags.items()]
    own = (IS_PROMPT, Tag("mlflow.prompt.text", text), *named)
    lab.registry.create_version(NewVersion(name, "dummy-source", tags=own))


@pytest.fixture
def prompts(lab: Lab) -> Prompts:
    """Prompts of a registry with one prompt of two versions, one without any, and a model."""
    for name in ("support", "empty"):
        lab.registry.create_model(name, None, [IS_PROMPT])
    lab.registry.create_model("model", None, [])
    add(lab, "support", "Hi {{ who }}", model_config='{"model_name": "chat"}', response_format='{"type": "object"}')
    chat = [{"role": "system", "content": "Be {{ how }}."}]
    add(lab, "support", json.dumps(chat), type="chat")
    lab.registry.set_alias("support", "production", "1")
    lab.registry.set_alias("support", "b", "2")
    return Prompts(lab.registry)


def test_a_prompt_is_found_by_alias_and_version(prompts: Prompts) -> None:
    first = prompts.find("support", alias="production")
    assert (first.name, first.version, first.config) == ("support", 1, {"model_name": "chat"})
    assert first.response_format == {"type": "object"}
    assert first.messages({"who": "you"}) == [{"role": "user", "content": "Hi you"}]
    for found in (prompts.find("support"), prompts.find("support", version=2), prompts.find("support", alias="b")):
        assert (found.version, found.config, found.response_format) == (2, {}, None)
        assert found.messages({"how": "brief"}) == [{"role": "system", "content": "Be brief."}]


def test_a_moved_alias_and_a_changed_config_are_found_at_once(lab: Lab, prompts: Prompts) -> None:
    assert prompts.find("support", alias="production").version == 1
    lab.registry.set_alias("support", "production", "2")
    assert prompts.find("support", alias="production").version == 2
    lab.registry.set_version_tag("support", "2", Tag("_mlflow_prompt_model_config", '{"model_name": "other"}'))
    assert prompts.find("support", version=2).config == {"model_name": "other"}


def test_what_is_not_there_is_said_with_what_is(lab: Lab, prompts: Prompts) -> None:
    for name, alias, version, says in [
        ("nobody", "production", None, "There is no prompt 'nobody'."),
        ("a/b", None, None, "There is no prompt 'a/b'."),
        ("support", "c", None, "The prompt 'support' has no alias 'c'; it has: 'b', 'production'."),
        ("support", "c d", None, "The prompt 'support' has no alias 'c d'; it has: 'b', 'production'."),
        ("support", None, 9, "The prompt 'support' has no version 9; its latest is 2."),
        ("empty", None, 1, "The prompt 'empty' has no versions."),
        ("empty", "latest", None, "The prompt 'empty' has no versions."),
    ]:
        with pytest.raises(NotFound) as refused:
            prompts.find(name, alias=alias, version=version)
        assert refused.value.message == says
    lab.registry.create_version(NewVersion("model", "s3://m/m"))
    with pytest.raises(InvalidParameter, match="'model' version 1 is no prompt"):
        prompts.find("model", version=1)


@pytest.mark.parametrize(
    ("text", "tags", "says"),
    [
        ("{% if %}", {}, "TemplateSyntaxError"),
        ("no json", {"type": "chat"}, "not the JSON it should be"),
        ('[{"role": "user"}, 1]', {"type": "chat"}, "not a list of messages"),
        ("x", {"model_config": "{"}, "not the JSON it should be"),
        ("[" * 50_000, {"type": "chat"}, "not the JSON it should be"),
        ("x", {"model_config": '{"a": ' + "[" * 300 + "]" * 300 + "}"}, "not the JSON it should be"),
        ("x", {"model_config": r'{"a": "\ud800"}'}, "not the JSON it should be"),
        ("x", {"model_config": '{"a": NaN}'}, "not the JSON it should be"),
        ("x", {"model_config": "[]"}, "is no object"),
        ("x", {"response_format": "[]"}, "is no object"),
    ],
)
def test_a_prompt_that_cannot_be_used_says_why(
    lab: Lab, prompts: Prompts, text: str, tags: dict[str, str], says: str
) -> None:
    add(lab, "empty", text, **tags)
    with pytest.raises(InvalidParameter, match=f"The prompt 'empty' version 1 cannot be used.*{says}"):
        prompts.find("empty")


def test_all_prompts_with_their_aliases(prompts: Prompts) -> None:
    assert prompts.aliases() == {"empty": (), "support": ("b", "production")}
