"""Templates become the texts that MLflow's client makes of them, and nothing runs away in them."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from promptlab.prompt_template import PromptTemplate, TemplateFailed
from promptlab.templates import VariablesMismatch

Template = str | list[dict[str, Any]]

# A template and values for which MLflow's client has a text.
ODD: list[tuple[Template, dict[str, Any]]] = [
    ("Hello {{ name }}!", {"name": "you"}),
    ("{{name}}{{ name }}{{  name\t}}{{\nname\n}}", {"name": "x"}),
    ("", {}),
    ("no variables { name } {name} {{}} {{ }} {{{}}}", {}),
    ("{{{name}}} {{{{name}}}}", {"name": "x"}),
    ("{{ name }", {}),
    ("{ {name} } {{na me}} {{1a}} {{a-b}} {{é}}", {}),
    ("{{a-b}} {{1a}} {{é}} {{ü}}", {"a-b": 1, "1a": 2, "é": 3, "ü": 4}),
    ("{{user.name}} {{user . name}}", {"user.name": "x"}),
    ("{{_a}} {{A9_}} {{a}} {{ab}}", {"_a": 1, "A9_": 2, "a": 3, "ab": 4}),
    ("{{x}}", {"x": r"C:\new\1\g<0>\u00e9"}),
    ("{{x}}", {"x": "a\nb\r\n\tc\0"}),
    ("{{x}} {{y}} {{z}} {{w}}", {"x": 1, "y": 1.0, "z": True, "w": None}),
    ("{{x}} {{y}}", {"x": [1, "a"], "y": {"a": None}}),
    ("{{x}}", {"x": ""}),
    ("{{x}}", {"x": "{{ other }} {% if %} {{"}),
    ("{{x}}", {"x": "ü – 日本 🎉"}),
    ("{{ x | upper }} {{ x }} {{ x.y }} {{ x() }}", {"x": "a", "x.y": "b"}),
    ("{# comment #} {{x}} {{ '{{' }}", {"x": 1}),
    ("{% raw %}{{x}}{% endraw %} {{x}}", {"x": 1}),
    ("Hi {% if name %}{{ name }}{% else %}you{% endif %}!", {"name": "A"}),
    ("Hi {% if name %}{{ name }}{% else %}you{% endif %}!", {}),
    ("{% for x in xs %}{{ loop.index }}:{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}", {"xs": ["a", "b"]}),
    ("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", {"d": {"a": 1, "b": [2]}}),
    ("{% if true %}x{% endif %}\n", {}),
    ("{% if true %}x{% endif %}\n\n", {}),
    ("{%- if true -%} x {%- endif %} {{ gone }} {{ gone | default('d') }}", {}),
    ("{% set y = x | upper %}{{ y }} {{ x | length }} {{ x ~ 1 }}", {"x": "ab"}),
    ("{% if x %}{{ x }}{% endif %}", {"x": "{{ y }} {% raw %} <b> & '"}),
    ("{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(x) }} {{ range(3) | list }}", {"x": 1}),
    ("{% if 2 * 3 == 6 and 'ab' * 2 == 'abab' and 2 ** 3 == 8 and '%03d' % 7 == '007' %}ok{% endif %}", {}),
    ([{"role": "user", "content": "{{x}}"}], {"x": 1}),
    ([{"role": "system", "content": "S"}, {"role": "user", "content": 'say "{{ x }}"\n\\{{x}}'}], {"x": '"\\n'}),
    ([{"role": "user", "content": "é {{ x }}"}, {"role": "assistant", "content": ""}], {"x": "ü"}),
    ([{"role": "user", "content": "plain"}], {}),
    ([{"role": "user", "content": "{{x}}", "name": "left out"}], {"x": 1}),
    (
        [{"role": "user", "content": "{% if x %}{{x}}{% endif %}"}, {"role": "user", "content": "{{ y }}{{x}}"}],
        {"x": 1},
    ),
]


@pytest.fixture(scope="module")
def formatted() -> Callable[[Template, dict[str, Any]], Any]:
    """What MLflow's client makes of a template and values."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(os.environ, "MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities.model_registry import PromptVersion
    return lambda template, values: PromptVersion("p", 1, template).format(**values)


@pytest.mark.parametrize(("template", "values"), ODD)
def test_it_is_what_mlflows_client_makes_of_it(
    formatted: Callable[[Template, dict[str, Any]], Any], template: Template, values: dict[str, Any]
) -> None:
    assert PromptTemplate(template).render(values) == formatted(template, values)


@pytest.mark.parametrize(
    ("template", "values", "missing", "unknown"),
    [
        ("{{a}} {{ b }}", {}, ("a", "b"), ()),
        ("{{a}} {{ b }}", {"b": 1, "c": 2}, ("a",), ("c",)),
        ("{{a}}", {"a": 1, "A": 2, "a.b": 3}, (), ("A", "a.b")),
        ("{{user.name}}", {"user": {"name": "x"}}, ("user.name",), ("user",)),
        ("{{axb}}", {"axb": 1, "a.b": 2}, (), ("a.b",)),
        ([{"role": "user", "content": "{{a}}"}, {"role": "user", "content": "{{b}}"}], {"a": 1}, ("b",), ()),
        ([{"role": "{{r}}", "content": "x"}], {}, ("r",), ()),
        ("{% if a %}{{ b }}{% endif %}", {"c": 1}, (), ("c",)),
    ],
)
def test_missing_and_unknown_variables_are_named(
    template: Template, values: dict[str, Any], missing: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    with pytest.raises(VariablesMismatch) as refused:
        PromptTemplate(template).render(values)
    assert (refused.value.missing, refused.value.unknown) == (missing, unknown)


def test_a_value_is_never_part_of_the_template() -> None:
    template = PromptTemplate("{{a}} {{b}} {{ {{a}} }}")
    assert template.render({"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}} {{ {{b}} }}"
    assert template.render({"a": "b", "b": "x"}) == "b x {{ b }}"


def test_the_variables_of_a_template() -> None:
    assert PromptTemplate("{{b}} {{a}} {{ b }} {{c.d}}").variables == ("b", "a", "c.d")
    jinja = PromptTemplate("{% for x in xs %}{{ x }}{{ y }}{% endfor %}{{ range(2) }}")
    assert set(jinja.variables) >= {"xs", "y"}
    assert "range" not in jinja.variables
    assert (jinja.is_jinja, jinja.required) == (True, ())


def test_parts_of_a_message_are_filled_one_by_one() -> None:
    parts = [{"type": "text", "text": "{{a}}"}, {"type": "image_url", "image_url": {"url": "data:{{a}}"}}]
    filled = [{"type": "text", "text": "1"}, {"type": "image_url", "image_url": {"url": "data:{{a}}"}}]
    assert PromptTemplate([{"role": "user", "content": parts}]).render({"a": 1}) == [
        {"role": "user", "content": filled}
    ]
    assert PromptTemplate([{"role": "user", "content": None}]).render({}) == [{"role": "user", "content": None}]
    jinja = [{"type": "text", "text": "{% if a %}{{ a }}{% endif %}"}, {"type": "text", "text": "b"}]
    [message] = PromptTemplate([{"role": "user", "content": jinja}]).render({"a": 1})
    assert isinstance(message, dict)
    assert [part["text"] for part in message["content"]] == ["1", "b"]


@pytest.mark.parametrize("template", [{"role": "user"}, [1], [{"content": "x"}], [{"role": 1, "content": "x"}], 7])
def test_what_is_no_list_of_messages_is_refused(template: Any) -> None:
    with pytest.raises(TemplateFailed, match="not a list of messages"):
        PromptTemplate(template)


@pytest.mark.parametrize("template", ["{% if %}", "{% for x in %}", "{% nothing %}", "{% if x %}", "{{ x {% if y %}"])
def test_what_jinja_cannot_read_is_refused_at_once(template: str) -> None:
    with pytest.raises(TemplateFailed, match="TemplateSyntaxError"):
        PromptTemplate(template)


@pytest.mark.parametrize(
    "template",
    [
        "{% if 1 %}{{ ''.__class__.__mro__[1].__subclasses__() }}{% endif %}",
        "{% if 1 %}{{ cycler.__init__.__globals__.os.popen('id').read() }}{% endif %}",
        "{% if 1 %}{{ x.__class__.__base__ }}{% endif %}",
        "{% include 'file' %}",
        "{% import 'os' as os %}",
        "{% if 1 %}{{ 1 / 0 }}{% endif %}",
        "{% if 1 %}{{ gone.attribute.more }}{% endif %}",
        "{% if 1 %}{{ 'x' * 100001 }}{% endif %}",
        "{% if 1 %}{{ 9 ** 99999999 }}{% endif %}",
        "{% if 1 %}{{ '%999999d' % 1 }}{% endif %}",
        "{% for x in range(1000000) %}{{ x }}{% endfor %}",
        "{% for x in range(10000) %}{% for y in range(10000) %}.{% endfor %}{% endfor %}",
        "{% for x in range(1000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        r"{% if 1 %}{{ '\ud800' }}{% endif %}",
    ],
)
def test_nothing_escapes_the_sandbox_or_runs_for_ever(template: str) -> None:
    started = time.perf_counter()
    with pytest.raises(TemplateFailed, match=r"cannot be rendered|becomes longer"):
        PromptTemplate(template).render({"x": 1} if "{{ x." in template else {})
    assert time.perf_counter() - started < 2


def test_a_prompt_that_grows_too_long_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="becomes longer than"):
        PromptTemplate("{{x}}" * 11).render({"x": "y" * 1_000_000})
    with pytest.raises(TemplateFailed, match="becomes longer than"):
        PromptTemplate([{"role": "user", "content": "{{x}}"}] * 11).render({"x": "y" * 1_000_000})
