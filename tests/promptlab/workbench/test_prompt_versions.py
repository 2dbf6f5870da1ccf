"""Prompts on the lab's page: what differs is marked, and whatever somebody wrote is text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from promptlab.workbench.prompt_versions import Shown, diff, listed, move_form, version_part, versions_table

EVIL = '<img src=x onerror="alert(1)">'


def shown(text: Any, version: int = 1, aliases: tuple[str, ...] = (), **tags: str) -> Shown:
    written = text if isinstance(text, str) else json.dumps(text)
    kind = "text" if isinstance(text, str) else "chat"
    named = {f"_mlflow_prompt_{key}": value for key, value in tags.items()}
    own = {"mlflow.prompt.text": written, "_mlflow_prompt_type": kind, **named}
    return Shown(version, 1000, EVIL, own, aliases)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a x c", "a <del>b</del><mark>x</mark> c"),
        ("a", "a b", "a<mark> b</mark>"),
        ("a b", "a", "a<del> b</del>"),
        ("{{ x }}", "{{ y }}", "{{ <del>x</del><mark>y</mark> }}"),
        ("", "<b>", "<mark>&lt;b&gt;</mark>"),
        ("x " * 3000, "<b>" * 2000, "&lt;b&gt;" * 2000),
    ],
)
def test_words_that_differ_are_marked(before: str, after: str, wanted: str) -> None:
    assert diff(before, after) == wanted


def test_what_somebody_wrote_is_text() -> None:
    one = shown([{"role": EVIL, "content": EVIL}], aliases=(EVIL,), model_config=json.dumps({"model_name": EVIL}))
    other = shown([{"role": "user", "content": "x"}, {"role": EVIL, "content": EVIL}], version=2)
    found = {"name": EVIL, "latest_versions": [{"version": "3"}], "aliases": [{"alias": EVIL, "version": "1"}]}
    for html in (
        version_part(one, None),
        version_part(one, other),
        versions_table([one, other], 1, 2),
        move_form([one], 1),
        listed([found], EVIL, EVIL),
    ):
        assert "<img" not in html


def test_a_version_that_cannot_be_read_is_shown_as_it_is() -> None:
    for text, kind in (("{% if %}", "text"), ("[1]", "chat"), ("{", "chat")):
        one = Shown(1, None, "", {"mlflow.prompt.text": text, "_mlflow_prompt_type": kind}, ())
        assert (one.messages, one.variables) == ([("", text)], ())
        assert "no variables" in version_part(one, None)
    broken = shown("x", model_config="{", response_format="{")
    assert broken.config == {}
    assert "<pre" in version_part(broken, None)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("Hi {{x}}", {"template": ["Hi {{x}}"], "route": ["chat"], "temperature": ["0.5"]}),
        (
            [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
            {"template": ["U"], "system": ["S"], "route": ["chat"], "temperature": ["0.5"]},
        ),
        ([{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}], None),
    ],
)
def test_what_the_playground_has_room_for_opens_there(text: Any, fields: dict[str, list[str]] | None) -> None:
    config = json.dumps({"model_name": "chat", "temperature": 0.5, "top_p": 1})
    address = shown(text, model_config=config).playground
    assert (None if address is None else parse_qs(address.removeprefix("./?"))) == fields
