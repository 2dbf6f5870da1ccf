"""A LiteLLM proxy's configuration becomes ours: what is carried over, what is listed, and that no secret is copied."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gateway import config, config_yaml
from gateway.errors import ConfigError
from gateway.importers import litellm, writing
from tests.gateway.importers.importing import Imported, imported


@pytest.fixture
def take(tmp_path: Path) -> Any:
    """The import of a text."""
    return lambda text: imported(litellm, text, tmp_path)


def one(params: str, beside: str = "", name: str = "m") -> str:
    """A file with one model."""
    return f"model_list:\n  - {{model_name: {name}, litellm_params: {{{params}}}{', ' + beside if beside else ''}}}\n"


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (
        "model: openai/gpt-4o, api_key: os.environ/MY_KEY",
        {"type": "openai", "api_key": "${MY_KEY}", "model": "gpt-4o"},
    ),
    "openai by its name alone": (
        "model: gpt-4o, organization: org-1",
        {"type": "openai", "api_key": "${OPENAI_API_KEY}", "headers": {"OpenAI-Organization": "org-1"},
         "model": "gpt-4o"},
    ),
    "openai's own address": (
        "model: openai/gpt-4o, api_key: os.environ/K, api_base: 'https://api.openai.com/v1/'",
        {"type": "openai", "api_key": "${K}", "model": "gpt-4o"},
    ),
    "a server that speaks as openai": (
        "model: openai/org/mine, api_base: 'http://gpu-1:8000/v1/', api_key: none",
        {"type": "openai_compatible", "base_url": "http://gpu-1:8000/v1", "model": "org/mine"},
    ),
    "an address in a variable": (
        "model: openai/mine, api_base: os.environ/BASE, api_key: os.environ/K",
        {"type": "openai_compatible", "base_url": "${BASE}", "api_key": "${K}", "model": "mine"},
    ),
    "azure": (
        "model: azure/dep, api_base: 'https://x.openai.azure.com/', api_version: '2024-06-01', api_key: os.environ/K",
        {"type": "litellm", "base_url": "https://x.openai.azure.com", "api_key": "${K}",
         "options": {"api_version": "2024-06-01"}, "model": "azure/dep"},
    ),
    "an api version that YAML takes for a date": (
        "model: azure/dep, api_base: 'https://x.openai.azure.com/', api_version: 2024-06-01",
        {"type": "litellm", "base_url": "https://x.openai.azure.com", "options": {"api_version": "2024-06-01"},
         "model": "azure/dep"},
    ),
    "anthropic": (
        "model: claude-sonnet-4-5",
        {"type": "anthropic", "api_key": "${ANTHROPIC_API_KEY}", "model": "claude-sonnet-4-5"},
    ),
    "bedrock": (
        "model: bedrock/a:0, aws_region_name: r, aws_access_key_id: os.environ/A, aws_secret_access_key: s3cret-word",
        {"type": "litellm", "model": "bedrock/a:0",
         "options": {"aws_region_name": "r", "aws_access_key_id": "${A}",
                     "aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}"}},
    ),
    "vertex": (
        "model: vertex_ai/gemini-2.5-pro, vertex_project: p, vertex_credentials: '{\"private_key\": \"s3cret-word\"}'",
        {"type": "litellm", "model": "vertex_ai/gemini-2.5-pro",
         "options": {"vertex_project": "p", "vertex_credentials": "${VERTEX_CREDENTIALS}"}},
    ),
    "ollama": (
        "model: ollama/llama3.2, api_base: 'http://localhost:11434'",
        {"type": "openai_compatible", "base_url": "http://localhost:11434/v1", "model": "llama3.2"},
    ),
    "ollama where it always is": (
        "model: ollama_chat/llama3.2",
        {"type": "openai_compatible", "base_url": "http://127.0.0.1:11434/v1", "model": "llama3.2"},
    ),
    "vllm": (
        "model: hosted_vllm/Qwen/Qwen3-8B, api_base: 'http://gpu-1:8000/v1'",
        {"type": "openai_compatible", "base_url": "http://gpu-1:8000/v1", "model": "Qwen/Qwen3-8B"},
    ),
    "a provider named apart": (
        "model: llama-3, custom_llm_provider: groq",
        {"type": "groq", "api_key": "${GROQ_API_KEY}", "model": "llama-3"},
    ),
    "one only litellm knows": (
        "model: novita/deepseek-r1, api_key: s3cret-word",
        {"type": "litellm", "api_key": "${NOVITA_API_KEY}", "model": "novita/deepseek-r1"},
    ),
    "headers": (
        "model: openai/m, api_base: 'http://h/v1', api_key: os.environ/K, headers: {X-A: s3cret-word, user-agent: b}",
        {"type": "openai_compatible", "base_url": "http://h/v1", "api_key": "${K}", "model": "m",
         "headers": {"X-A": "${X_A}", "user-agent": "b"}},
    ),
    "an address with a password": (
        "model: openai/m, api_base: 'http://me:s3cret-word@h:9/v1?key=s3cret-word', api_key: os.environ/K",
        {"type": "openai_compatible", "base_url": "http://h:9/v1", "api_key": "${K}", "model": "m"},
    ),
    "a dollar": (
        "model: vertex_ai/g, vertex_project: 'a${B}'",
        {"type": "litellm", "options": {"vertex_project": "a$${B}"}, "model": "vertex_ai/g"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("params", "expected"), MODELS.values(), ids=MODELS)
def test_a_model(params: str, expected: dict[str, Any], take: Any) -> None:
    found: Imported = take(one(params))
    assert found.model("m") == expected
    assert "s3cret-word" not in found.text + "".join(found.told)


SHARED = """\
model_list:
  - {model_name: m, litellm_params: {model: openai/a, api_key: os.environ/K, PARAMS0}}
  - {model_name: m, litellm_params: {model: openai/b, api_key: os.environ/K, PARAMS1}}
"""

TOGETHER: dict[str, tuple[str, str, list[float | None], dict[str, Any]]] = {
    "nothing said": ("", "", [None, None], {}),
    "weights": ("weight: 9", "weight: 1", [9, 1], {}),
    "one weight": ("weight: 9", "", [9, 0], {}),
    "weights alike": ("weight: 2", "weight: 2", [None, None], {}),
    "shared by requests": ("rpm: 600", "rpm: 200", [3, 1], {"limits": {"rpm": 800}}),
    "shared by tokens": ("tpm: 20_000", "tpm: 100_000", [1, 5], {"limits": {"tpm": 120000}}),
    "requests of one only": ("rpm: 600", "", [1, 0], {}),
    "a short timeout": ("timeout: 5", "timeout: 5", [None, None], {"timeouts": {"total": 5}}),
    "the longer of two": ("timeout: 90", "timeout: 30", [None, None],
                          {"timeouts": {"first_token": 90, "idle": 90, "total": 90}}),
    "a stream's": ("timeout: 30, stream_timeout: 0.5", "timeout: 30, stream_timeout: 0.5", [None, None],
                   {"timeouts": {"first_token": 0.5, "idle": 0.5, "total": 30}}),
    "output": ("max_tokens: 100", "max_tokens: 200", [None, None], {"max_output_tokens": 200}),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "weights", "rest"), TOGETHER.values(), ids=TOGETHER)
def test_models_of_one_name(
    first: str, second: str, weights: list[float | None], rest: dict[str, Any], take: Any
) -> None:
    route = take(SHARED.replace("PARAMS0", first).replace("PARAMS1", second)).routes["m"]
    deployments = route.pop("deployments")
    assert [(one["model"], one.get("weight")) for one in deployments] == list(zip("ab", weights, strict=True))
    assert route == rest


def test_what_a_deployment_keeps(take: Any) -> None:
    found = take(SHARED.replace("PARAMS0", "order: 1, max_parallel_requests: 3").replace("PARAMS1", "order: 2"))
    assert found.routes["m"]["deployments"] == [
        {"provider": "openai", "model": "a", "order": 1, "concurrency": 3},
        {"provider": "openai", "model": "b", "order": 2},
    ]
    assert found.told == []


ROUTING: dict[str, tuple[str, str, dict[str, Any]]] = {
    "least busy": ("", "router_settings: {routing_strategy: least-busy}", {"strategy": "least_busy"}),
    "the quickest": ("", "router_settings: {routing_strategy: latency-based-routing}", {"strategy": "latency"}),
    "the cheapest": ("", "router_settings: {routing_strategy: cost-based-routing}", {"strategy": "cheapest"}),
    "retries": ("", "litellm_settings: {num_retries: 3}", {"retries": {"times": 3}}),
    "the router's first": ("", "router_settings: {num_retries: 2, retry_after: 5}\nlitellm_settings: {num_retries: 3}",
                           {"retries": {"times": 2, "backoff": 5}}),
    "a model's own": (", max_retries: 4", "litellm_settings: {num_retries: 3}", {"retries": {"times": 4}}),
    "no retries": (", num_retries: 0", "litellm_settings: {num_retries: 3}", {}),
    "a cooldown": ("", "router_settings: {allowed_fails: 2, cooldown_time: 30}",
                   {"cooldown": {"failures": 3, "seconds": 30}}),
    "what is dropped": ("", "litellm_settings: {drop_params: true}", {"unsupported": "drop"}),
    "what one model drops": (", drop_params: true", "", {"unsupported": "drop"}),
    "a timeout": ("", "router_settings: {timeout: 45}", {"timeouts": {"total": 45}}),
    "a stream's": ("", "router_settings: {stream_timeout: 20}", {"timeouts": {"first_token": 20, "idle": 20}}),
}  # fmt: skip


@pytest.mark.parametrize(("params", "settings", "expected"), ROUTING.values(), ids=ROUTING)
def test_how_a_route_is_called(params: str, settings: str, expected: dict[str, Any], take: Any) -> None:
    route = take(one(f"model: gpt-4o{params}") + settings + "\n").routes["m"]
    del route["deployments"]
    assert route == expected


def test_the_same_deployment_twice_is_one(take: Any) -> None:
    text = SHARED.replace("openai/b", "openai/a").replace("PARAMS0", "weight: 2").replace("PARAMS1", "weight: 3")
    assert take(text).routes["m"]["deployments"] == [{"provider": "openai", "model": "a", "weight": 5}]


PROVIDERS = """\
model_list:
  - {model_name: a, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: b, litellm_params: {model: gpt-4o-mini}}
  - {model_name: c, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY_TEAM2}}
  - {model_name: d, litellm_params: {model: openai/gpt-4o, api_key: sk-written-out}}
  - {model_name: e, litellm_params: {model: openai/gpt-4o-mini, api_key: sk-written-out}}
  - {model_name: f, litellm_params: {model: openai/gpt-4o, api_key: sk-another}}
  - {model_name: g, litellm_params: {model: openai/q, api_base: "http://gpu-1:8000/v1", api_key: none}}
  - {model_name: h, litellm_params: {model: openai/q, api_base: "http://10.0.0.2:8000/v1", api_key: none}}
  - {model_name: i, litellm_params: {model: azure/d, api_base: "https://eu.openai.azure.com", api_key: os.environ/A}}
  - {model_name: j, litellm_params: {model: azure/d, api_base: "https://us.openai.azure.com", api_key: os.environ/B}}
"""


def test_providers_are_made_once_and_named_for_people(take: Any) -> None:
    found: Imported = take(PROVIDERS)
    used = {name: route["deployments"][0]["provider"] for name, route in found.routes.items()}
    assert used == {"a": "openai", "b": "openai", "c": "openai-team2", "d": "openai-2", "e": "openai-2",
                    "f": "openai-3", "g": "gpu-1", "h": "openai-4", "i": "azure", "j": "azure-us"}  # fmt: skip
    # A written-out secret gets a name that means nothing else in the file.
    assert found.providers["openai-2"]["api_key"] == "${OPENAI_API_KEY_2}"
    assert found.providers["openai-3"]["api_key"] == "${OPENAI_API_KEY_3}"
    assert "sk-" not in found.text + "".join(found.told)


FALLBACKS = """\
model_list:
  - {model_name: a, litellm_params: {model: openai/a, rpm: 5}}
  - {model_name: b, litellm_params: {model: openai/b}}
  - {model_name: c, litellm_params: {model: openai/c}}
  - {model_name: e, litellm_params: {model: openai/text-embedding-3-small}}
router_settings:
  fallbacks: [{a: [b, e, nope]}, {b: [a]}, {x: [a]}]
  context_window_fallbacks: [{a: [c]}, {c: [a, c]}]
  model_group_alias: {alias: a, hidden: {model: c, hidden: true}, wrong: x}
litellm_settings:
  default_fallbacks: [c]
"""


def test_fallbacks_and_aliases(take: Any) -> None:
    found: Imported = take(FALLBACKS)
    fallbacks = {name: route.get("fallbacks", []) for name, route in found.routes.items()}
    assert fallbacks == {"a": ["b"], "b": [], "c": [], "e": [], "alias": ["b"], "hidden": []}
    context = {name: route.get("context_fallbacks") for name, route in found.routes.items()}
    assert context == {"a": ["c"], "b": None, "c": ["a"], "e": None, "alias": ["c"], "hidden": ["a", "c"]}
    assert found.routes["alias"]["deployments"] == found.routes["a"]["deployments"]
    assert found.routes["e"]["task"] == "embeddings"
    assert "circle" in found.lost("router_settings.fallbacks[1].b[0]")
    assert "is for embeddings" in found.lost("router_settings.fallbacks[0].a[1]")
    assert "'nope' is no route" in found.lost("router_settings.fallbacks[0].a[2]")
    assert "'x' is no route" in found.lost("router_settings.fallbacks[2].x")
    assert "limits are counted apart" in found.lost("router_settings.model_group_alias.alias")
    assert "alias is left out" in found.lost("router_settings.model_group_alias.wrong")


def test_default_fallbacks_are_for_routes_without(take: Any) -> None:
    found: Imported = take(FALLBACKS.replace("{b: [a]}, ", "").replace("[c]", "[c, a]"))
    assert {name: route.get("fallbacks") for name, route in found.routes.items()} == {
        "a": ["b"], "b": ["c"], "c": None, "e": None, "alias": ["b"], "hidden": None,
    }  # fmt: skip


def test_timeouts_of_the_whole_file(take: Any) -> None:
    found: Imported = take(one("model: gpt-4o") + "litellm_settings: {request_timeout: 45}\n")
    assert found.routes["m"]["timeouts"] == {"total": 45}
    assert "theirs.yaml:3: litellm_settings.request_timeout: " in found.told[-1]


def test_credentials_by_name(take: Any) -> None:
    text = one("model: azure/d, litellm_credential_name: eu")
    values = "{api_key: os.environ/EU_KEY, api_base: 'https://eu.openai.azure.com'}"
    found: Imported = take(text + f"credential_list:\n  - {{credential_name: eu, credential_values: {values}}}\n")
    assert found.providers == {
        "azure": {"type": "litellm", "base_url": "https://eu.openai.azure.com", "api_key": "${EU_KEY}"}
    }
    assert found.told == []


LOST: dict[str, tuple[str, str, str]] = {
    "a default": (one("model: gpt-4o, temperature: 0.2"), "model_list[0].litellm_params.temperature", "callers"),
    "a default of 0": (one("model: gpt-4o, temperature: 0"), "model_list[0].litellm_params.temperature", "callers"),
    "a price": (one("model: gpt-4o, input_cost_per_token: 1e-6"), "model_list[0].litellm_params.input_cost_per_token",
                "config/prices.yaml"),
    "what nobody knows": (one("model: gpt-4o, wombat: 2"), "model_list[0].litellm_params.wombat", "not known here"),
    "a note": (one("model: gpt-4o", "model_info: {id: x}"), "model_list[0].model_info.id", "comment"),
    "a limit by reference": (one("model: gpt-4o, rpm: os.environ/RPM"), "model_list[0].litellm_params.rpm", "a number"),
    "a strategy": (one("model: gpt-4o") + "router_settings: {routing_strategy: usage-based-routing-v2}\n",
                   "router_settings.routing_strategy", "by weight"),
    "retries by error": (one("model: gpt-4o") + "router_settings: {retry_policy: {TimeoutErrorRetries: 2}}\n",
                         "router_settings.retry_policy", "whatever the error"),
    "a retry by reference": (one("model: gpt-4o") + "litellm_settings: {num_retries: os.environ/N}\n",
                             "litellm_settings.num_retries", "a number"),
    "failures in a minute": (one("model: gpt-4o") + "router_settings: {allowed_fails: 3}\n",
                             "router_settings.allowed_fails", "in a row"),
    "parameters one by one": (one("model: gpt-4o, additional_drop_params: [x]"),
                              "model_list[0].litellm_params.additional_drop_params", "refusal"),
    "a filter's refusal": (one("model: gpt-4o") + "litellm_settings: {content_policy_fallbacks: [{m: [m]}]}\n",
                           "litellm_settings.content_policy_fallbacks", "is kept"),
    "a cache": (one("model: gpt-4o") + "litellm_settings: {cache: true}\n", "litellm_settings.cache", "cache"),
    "callbacks": (one("model: gpt-4o") + "litellm_settings: {success_callback: [x]}\n",
                  "litellm_settings.success_callback", "usage"),
    "the admin's key": (one("model: gpt-4o") + "general_settings: {master_key: sk-1}\n", "general_settings.master_key",
                        "PROMPTYARD_ADMIN_KEY"),
    "guardrails": (one("model: gpt-4o") + "guardrails: [{guardrail_name: x}]\n", "guardrails", "checks"),
    "any model": (one("model: gpt-4o") + "  - {model_name: 'openai/*', litellm_params: {model: 'openai/*'}}\n",
                  "model_list[1]", "stands for any model"),
    "pictures": (one("model: gpt-4o") + "  - {model_name: p, litellm_params: {model: imagen-4}}\n", "model_list[1]",
                 "image_generation"),
    "a mode": (one("model: gpt-4o") + "  - {model_name: p, litellm_params: {model: x}, model_info: {mode: rerank}}\n",
               "model_list[1]", "'rerank'"),
    "no model": (one("model: gpt-4o") + "  - {litellm_params: {model: x}}\n", "model_list[1]", "needs 'model_name'"),
    "two tasks": (one("model: gpt-4o") + "  - {model_name: m, litellm_params: {model: text-embedding-3-small}}\n",
                  "model_list[1]", "one task"),
    "a name we refuse": (one("model: gpt-4o") + "  - {model_name: 'a b', litellm_params: {model: gpt-4o}}\n",
                         "model_list[1]", "cannot be a route's name"),
    "an address that is none": (one("model: gpt-4o")
                                + "  - {model_name: b, litellm_params: {model: openai/x, api_base: 'gpu:8000'}}\n",
                                "model_list[1]", "http://"),
    "a server without a key": (one("model: openai/x, api_base: 'http://h/v1'"), "model_list[0].litellm_params",
                               "not sent to strangers"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "key", "said"), LOST.values(), ids=LOST)
def test_what_is_lost_is_listed(text: str, key: str, said: str, take: Any) -> None:
    found: Imported = take(text)
    assert said in found.lost(key)
    # It is said in the file too, where it belongs.
    assert f"{key.rpartition('].')[2] or key}: " in found.text
    assert list(found.routes) == ["m"]


@pytest.mark.parametrize("settings", ["router_settings: {routing_strategy: simple-shuffle, num_retries: 0}",
                                      "litellm_settings: {drop_params: false, cache: false, callbacks: []}",
                                      "general_settings: {}", "environment_variables:"])  # fmt: skip
def test_what_changes_nothing_is_not_listed(settings: str, take: Any) -> None:
    found: Imported = take(one("model: gpt-4o") + settings + "\n")
    assert found.told == []
    assert "Left out" not in found.text


def test_the_same_said_of_many_is_said_once(take: Any) -> None:
    lines = "".join(one("model: gpt-4o, temperature: 1", name=name).partition("\n")[2] for name in "abc")
    [told] = take("model_list:\n" + lines).told
    assert told.endswith("(lines 3, 4 too)")


OUT_OF_RANGE: dict[str, tuple[str, str]] = {
    "no requests": ("model: gpt-4o, rpm: 0", "limits.rpm must be at least 1, not 0."),
    "a long wait": ("model: gpt-4o, timeout: 100000", "timeouts.total must be at most 86400, not 100000."),
    "an endless answer": ("model: gpt-4o, max_tokens: 10000000000", "max_output_tokens must be at most"),
    "a header of ours": ("model: gpt-4o, headers: {Host: x}", "headers.Host is a header the gateway writes itself."),
}


@pytest.mark.parametrize(("params", "said"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_a_value_out_of_range_is_left_out_alone(params: str, said: str, take: Any) -> None:
    found: Imported = take(one(params))
    assert any(f"left out: {said}" in line for line in found.told), found.told
    assert found.routes == {"m": {"deployments": [{"provider": "openai", "model": "gpt-4o"}]}}


def test_weights_out_of_range_are_left_out(take: Any) -> None:
    found: Imported = take(SHARED.replace("PARAMS0", "weight: 2").replace("PARAMS1", "weight: -3"))
    assert [one.get("weight") for one in found.routes["m"]["deployments"]] == [2, None]


REFUSED: dict[str, tuple[str, str]] = {
    "a list": ("- a\n", "has no list 'model_list'"),
    "no models": ("model_list: []\n", "has no list 'model_list'"),
    "the other's": ("endpoints: []\n", "promptyard import mlflow"),
    "nothing that can be served": (one("model: vertex_ai/imagen-4"), "nothing in it can be served"),
    "no name we take": (one("model: gpt-4o", name="'a b'"), "cannot be a route's name"),
    "no address we take": (one("model: openai/x, api_base: s3cret-word, api_key: s3cret-word"), "must begin with http"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_understood(text: str, said: str, take: Any) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        take(text)
    assert "s3cret-word" not in caught.value.message


def examples() -> list[Path]:
    """The example configurations that come with litellm itself."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    [package] = spec.submodule_search_locations or []
    folder = Path(package) / "proxy"
    return [
        folder / "proxy_config.yaml",
        folder / "dev_config.yaml",
        *sorted(folder.glob("example_config_yaml/*.yaml")),
    ]


def test_litellms_own_examples_can_be_served(tmp_path: Path) -> None:
    served = 0
    # Two of them have no model that could be served: a file of settings, and one with a misplaced 'model'.
    for example in examples():
        try:
            plan = litellm.read(config_yaml.read(example))
        except ConfigError:
            continue
        path = tmp_path / example.name
        path.write_text(writing.text(plan, "Written by a test."))
        served += len(config.load(path, dict.fromkeys(plan.variables(), "https://x")).routes)
    assert served > 40
