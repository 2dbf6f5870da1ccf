"""Templates: which variables they have, and what becomes of them."""

from __future__ import annotations

import pytest

from promptlab.templates import VariablesMismatch, render, variables


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("", ()),
        ("no variable", ()),
        ("{{name}}", ("name",)),
        ("{{ name }}", ("name",)),
        ("{{\tname\n}}", ("name",)),
        ("{{ b }} {{ a }} {{ b }}", ("b", "a")),
        ("{{ Name }} {{ name }}", ("Name", "name")),
        ("{{ stock-type_2 }}", ("stock-type_2",)),
        ("{{ größe }} {{ 名前 }}", ("größe", "名前")),
        ("{{ two words }}", ()),
        ("{{}} {{ }}", ()),
        ("{ name }", ()),
        ("{{{ name }}}", ("name",)),
        ("{{ a }}{{ b }}", ("a", "b")),
        ("{{ a.b }}", ()),
    ],
)
def test_variables(template: str, names: tuple[str, ...]) -> None:
    assert variables(template) == names


@pytest.mark.parametrize(
    ("template", "values", "rendered"),
    [
        ("", {}, ""),
        ("as it is", {}, "as it is"),
        ("Sell {{ what }}.", {"what": "books"}, "Sell books."),
        ("{{a}}{{a}}", {"a": "x"}, "xx"),
        ("{{ a }}", {"a": ""}, ""),
        ("{{ a }} and {{ b }}", {"a": "{{ b }}", "b": "B"}, "{{ b }} and B"),
        ("{{ a }}", {"a": r"\1 \g<0> $1"}, r"\1 \g<0> $1"),
        ("{{ a }}", {"a": "line\nline"}, "line\nline"),
        ("{{ two words }} {{ a }}", {"a": "x"}, "{{ two words }} x"),
    ],
)
def test_render(template: str, values: dict[str, str], rendered: str) -> None:
    assert render(template, values) == rendered


@pytest.mark.parametrize(
    ("template", "values", "missing", "unknown"),
    [
        ("{{ a }}", {}, ("a",), ()),
        ("{{ a }} {{ b }}", {}, ("a", "b"), ()),
        ("text", {"a": "x"}, (), ("a",)),
        ("{{ a }}", {"b": "x"}, ("a",), ("b",)),
        ("{{ a }}", {"A": "x"}, ("a",), ("A",)),
    ],
)
def test_values_that_do_not_fit_are_named(
    template: str, values: dict[str, str], missing: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    with pytest.raises(VariablesMismatch) as refused:
        render(template, values)
    assert (refused.value.missing, refused.value.unknown) == (missing, unknown)
    for name in missing + unknown:
        assert f"`{name}`" in str(refused.value)
