"""What is written reads back as the same values, and a comment ends where it should, whatever a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import config_yaml
from gateway.importers import litellm, writing

VALUES: list[Any] = [
    *["plain", "gpt-4o-mini", "a/b.c_d", "true", "No", "null", "~", "on", "y", "1", "1.5", "1e5", "0x1f", "2024-08-06"],
    *[
        "",
        " ",
        "a: b",
        "a #b",
        "- a",
        "{a}",
        "[a]",
        "a,b",
        "'",
        '"',
        "\\",
        "${NAME}",
        "$$",
        "@a",
        "a:b",
        "*a",
        "&a",
        "!a",
    ],
    *["\n", "\t", "\x00", "\x7f", "\x85", "\u2028", "\ufeff", "é", "日本", "🙂", "\U000e0001"],
    *[0, 1, -5, 10**12, 0.5, 1.25, 1e-05, 1e6, True, False, None, [], {}],
    *[["a", 1, {"b": "c d"}], {"a b": {"c": [1, "2"]}}, {"1": "x"}],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_reads_back(value: Any) -> None:
    assert config_yaml.value(writing.flow(value)) == value
    assert config_yaml.value(writing.flow({"key": [value]})) == {"key": [value]}
    assert type(config_yaml.value(writing.flow(value))) is type(value) or isinstance(value, float)


def test_a_name_cannot_end_a_comment(tmp_path: Path) -> None:
    names = '"a\\nproviders: {x: {type: fake}}"', '"b\\u2028evil: 1"', '"c\\u0085evil: 1"'
    lines = "".join(f"  - {{model_name: {name}, litellm_params: {{model: '*'}}}}\n" for name in names)
    source = tmp_path / "theirs.yaml"
    source.write_text(f"model_list:\n  - {{model_name: m, litellm_params: {{model: gpt-4o}}}}\n{lines}")
    plan = litellm.read(config_yaml.read(source))
    data = config_yaml.value(writing.text(plan, "by\na\x85test"))
    assert data == {
        "providers": {"openai": {"type": "openai", "api_key": "${OPENAI_API_KEY}"}},
        "routes": {"m": {"deployments": [{"provider": "openai", "model": "gpt-4o"}]}},
    }
    assert all(line.isprintable() for line in plan.told())


def test_the_file_as_a_person_would_write_it(tmp_path: Path) -> None:
    source = tmp_path / "theirs.yaml"
    source.write_text(
        "model_list:\n"
        "  - {model_name: fast, litellm_params: {model: gpt-4o, api_key: os.environ/K, rpm: 9, temperature: 1}}\n"
        "  - {model_name: own, litellm_params: {model: hosted_vllm/q, api_base: 'http://gpu-1:8000/v1', weight: 4}}\n"
        "  - {model_name: own, litellm_params: {model: hosted_vllm/q2, api_base: 'http://gpu-1:8000/v1', weight: 1}}\n"
        "litellm_settings: {fallbacks: [{fast: [own]}], cache: true}\n"
    )
    assert writing.text(litellm.read(config_yaml.read(source)), "From a test.") == (
        "# From a test. `promptyard check` says whether it can be served.\n"
        "#\n"
        "# Left out:\n"
        "# - line 5, litellm_settings.cache: a cache of answers. Here it is the route's own: `cache: {ttl: …}`.\n"
        "\n"
        "providers:\n"
        '  openai: {type: openai, api_key: "${K}"}\n'
        '  vllm: {type: openai_compatible, base_url: "http://gpu-1:8000/v1"}\n'
        "\n"
        "routes:\n"
        "  # - line 2, litellm_params.temperature: a default for callers who send none. A route adds nothing to a\n"
        "  #   request: have the callers send it.\n"
        "  fast:\n"
        "    deployments: [{provider: openai, model: gpt-4o}]\n"
        "    fallbacks: [own]\n"
        "    limits: {rpm: 9}\n"
        "\n"
        "  own:\n"
        "    deployments:\n"
        "      - {provider: vllm, model: q, weight: 4}\n"
        "      - {provider: vllm, model: q2, weight: 1}\n"
    )
