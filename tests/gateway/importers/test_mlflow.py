"""An MLflow AI Gateway's configuration becomes ours: what is carried over, what is listed, and that no secret is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.importers import mlflow
from tests.gateway.importers.importing import Imported, imported


@pytest.fixture
def take(tmp_path: Path) -> Any:
    """The import of a text."""
    return lambda text: imported(mlflow, text, tmp_path)


def one(provider: str, config: str, beside: str = "", name: str = "m", kind: str = "llm/v1/chat") -> str:
    """A file with one endpoint."""
    model = f"{{provider: {provider}, name: {name}-1, config: {{{config}}}}}"
    return f"endpoints:\n  - {{name: {name}, endpoint_type: {kind}, model: {model}{', ' + beside if beside else ''}}}\n"


AZURE = "openai_api_base: 'https://x.openai.azure.com/', openai_deployment_name: dep, "
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai": ("openai", "openai_api_key: $OPENAI_API_KEY, openai_organization: org-1",
               {"type": "openai", "api_key": "${OPENAI_API_KEY}", "headers": {"OpenAI-Organization": "org-1"},
                "model": "m-1"}),
    "a server that speaks as openai": ("openai", "openai_api_key: $K, openai_api_base: 'http://gpu-1:8000/v1'",
                                       {"type": "openai_compatible", "base_url": "http://gpu-1:8000/v1",
                                        "api_key": "${K}", "model": "m-1"}),
    "azure": ("openai", AZURE + "openai_api_key: $K, openai_api_type: azure, openai_api_version: '2023-05-15'",
              {"type": "litellm", "base_url": "https://x.openai.azure.com", "api_key": "${K}",
               "options": {"api_version": "2023-05-15"}, "model": "azure/dep"}),
    "azure by its directory": ("openai", AZURE + "openai_api_key: s3cret-word, openai_api_type: AzureAD, "
                               + "openai_api_version: '1'",
                               {"type": "litellm", "base_url": "https://x.openai.azure.com", "model": "azure/dep",
                                "options": {"api_version": "1", "azure_ad_token": "${AZURE_API_KEY}"}}),
    "anthropic": ("anthropic", "anthropic_api_key: s3cret-word, anthropic_api_base: 'https://api.anthropic.com/v1'",
                  {"type": "anthropic", "api_key": "${ANTHROPIC_API_KEY}", "model": "m-1"}),
    "anthropic elsewhere": ("anthropic", "anthropic_api_key: $K, anthropic_api_base: 'https://proxy.corp/v1'",
                            {"type": "litellm", "base_url": "https://proxy.corp", "api_key": "${K}",
                             "model": "anthropic/m-1"}),
    "gemini": ("gemini", "gemini_api_key: $K", {"type": "gemini", "api_key": "${K}", "model": "m-1"}),
    "bedrock by role": ("bedrock", "aws_config: {aws_role_arn: 'arn:aws:iam::1:role/r', aws_region: eu-west-1}",
                        {"type": "litellm", "model": "bedrock/m-1",
                         "options": {"aws_role_name": "arn:aws:iam::1:role/r", "aws_region_name": "eu-west-1",
                                     "aws_session_name": "promptyard"}}),
    "bedrock by keys": ("amazon-bedrock", "aws_config: {aws_access_key_id: $A, aws_secret_access_key: s3cret-word}",
                        {"type": "litellm", "model": "bedrock/m-1",
                         "options": {"aws_access_key_id": "${A}",
                                     "aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}"}}),
    "bedrock by a token": ("bedrock", "aws_config: {aws_bearer_token: $T, aws_region: eu-west-1}",
                           {"type": "litellm", "api_key": "${T}", "model": "bedrock/m-1",
                            "options": {"aws_region_name": "eu-west-1"}}),
    "cohere": ("cohere", "cohere_api_key: $K", {"type": "cohere", "api_key": "${K}", "model": "m-1"}),
    "together": ("togetherai", "togetherai_api_key: $K",
                 {"type": "together", "api_key": "${K}", "model": "m-1"}),
    "groq": ("groq", "api_key: $K", {"type": "groq", "api_key": "${K}", "model": "m-1"}),
    "ollama": ("ollama", "api_key: $K, api_base: 'http://gpu-2:11434/v1'",
               {"type": "openai_compatible", "base_url": "http://gpu-2:11434/v1", "api_key": "${K}", "model": "m-1"}),
    "tgi": ("huggingface-text-generation-inference", "hf_server_url: 'http://gpu-3:8080'",
            {"type": "openai_compatible", "base_url": "http://gpu-3:8080/v1", "model": "m-1"}),
    "databricks": ("databricks", "host: 'https://w.databricks.com', token: $K",
                   {"type": "litellm", "base_url": "https://w.databricks.com/serving-endpoints", "api_key": "${K}",
                    "model": "databricks/m-1"}),
    "vertex": ("vertex_ai", "vertex_project: p, vertex_location: us-central1, vertex_credentials: s3cret-word",
               {"type": "litellm", "model": "vertex_ai/m-1",
                "options": {"vertex_project": "p", "vertex_location": "us-central1",
                            "vertex_credentials": "${VERTEX_CREDENTIALS}"}}),
    "litellm": ("litellm", "litellm_provider: groq, litellm_auth_config: {api_key: s3cret-word}",
                {"type": "groq", "api_key": "${GROQ_API_KEY}", "model": "m-1"}),
    "portkey": ("portkey", "api_key: $K, portkey_provider: '@openai-prod'",
                {"type": "openai_compatible", "base_url": "https://api.portkey.ai/v1", "api_key": "${K}",
                 "headers": {"x-portkey-provider": "@openai-prod"}, "model": "m-1"}),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "config", "expected"), MODELS.values(), ids=MODELS)
def test_a_model(provider: str, config: str, expected: dict[str, Any], take: Any) -> None:
    found: Imported = take(one(provider, config))
    assert found.model("m") == expected
    assert "s3cret-word" not in found.text + "".join(found.told)
    assert all("secret was written out" in line for line in found.told)


def test_a_credential_in_a_file(take: Any, tmp_path: Path) -> None:
    (tmp_path / "openai.key").write_text("s3cret-word\n")
    found: Imported = take(one("openai", "openai_api_key: openai.key"))
    assert found.providers["openai"]["api_key"] == f"${{file:{tmp_path / 'openai.key'}}}"
    key = found.config.providers["openai"].api_key
    assert key is not None
    assert key.get_secret_value() == "s3cret-word"


def test_a_file_that_is_not_there_may_be_the_secret(take: Any) -> None:
    assert take(one("openai", "openai_api_key: /s3cret/word")).providers["openai"]["api_key"] == "${OPENAI_API_KEY}"


@pytest.mark.parametrize("kind", ["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"])
@pytest.mark.parametrize("spelling", ["endpoints", "routes"])
def test_tasks_in_both_spellings(kind: str, spelling: str, take: Any) -> None:
    text = one("openai", "openai_api_key: $K", kind=kind)
    if spelling == "routes":
        text = text.replace("endpoints:", "routes:").replace("endpoint_type", "route_type")
    found: Imported = take(text)
    assert found.routes["m"].get("task", "chat") == ("embeddings" if "embed" in kind else "chat")
    assert found.told == []


@pytest.mark.parametrize(("period", "rpm"), [("minute", 9), ("1 minute", 9), ("60 seconds", 9), ("hour", None),
                                             ("second", None), ("5 minutes", None), ("day", None)])  # fmt: skip
def test_limits(period: str, rpm: int | None, take: Any) -> None:
    found: Imported = take(one("openai", "openai_api_key: $K", f"limit: {{calls: 9, renewal_period: {period}}}"))
    assert found.routes["m"].get("limits") == (None if rpm is None else {"rpm": rpm})
    assert ("for all callers" if rpm else f"9 calls in '{period}'") in found.lost("endpoints[0].limit")


SPLIT = """\
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model: {provider: openai, name: gpt-4o-mini, config: {openai_api_key: $OPENAI_API_KEY}}
    limit: {calls: 10, renewal_period: minute}
  - name: chat-b
    endpoint_type: llm/v1/chat
    model: {provider: anthropic, name: claude-sonnet-4-5, config: {anthropic_api_key: $ANTHROPIC_API_KEY}}
routes:
  - name: chat-split
    task_type: llm/v1/chat
    destinations: [{name: chat, traffic_percentage: 80}, {name: chat-b, traffic_percentage: 20}]
"""


def test_a_traffic_split(take: Any) -> None:
    found: Imported = take(SPLIT)
    assert found.routes["chat-split"] == {
        "deployments": [
            {"provider": "openai", "model": "gpt-4o-mini", "weight": 80},
            {"provider": "anthropic", "model": "claude-sonnet-4-5", "weight": 20},
        ]
    }
    assert "counts calls to it alone" in found.lost("routes[0].destinations[0]")


def test_mlflow_takes_what_we_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files above are its own kind: MLflow's reader accepts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("mlflow.gateway.config")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "K", "A", "T"):
        monkeypatch.setenv(name, "x")
    path = tmp_path / "theirs.yaml"
    # A limit would need a library of theirs that is not here.
    for text in [
        re.sub("    limit: .*\n", "", SPLIT),
        *(one(provider, config) for provider, config, _ in MODELS.values()),
    ]:
        path.write_text(text)
        assert theirs._load_gateway_config(path).endpoints


KEY = "openai_api_key: $K"
LOST: dict[str, tuple[str, str, str]] = {
    "a service that ended": (one("palm", "palm_api_key: $K", name="x"), "model.provider", "has ended"),
    "mlflow's own models": (one("mlflow-model-serving", "model_server_url: 'http://h'", name="x"), "model.provider",
                            "no model API"),
    "an unknown type": (one("openai", KEY, name="x", kind="llm/v1/images"), "", "'llm/v1/images'"),
    "a name we refuse": (one("openai", KEY, name="_x"), "", "cannot be a route's name"),
    "a version": (one("anthropic", "anthropic_api_key: $K, anthropic_version: 2024-01-01", name="x"),
                  "model.config.anthropic_version", "litellm sends its own"),
    "a role's time": (one("bedrock", "aws_config: {aws_role_arn: a, session_length_seconds: 9}", name="x"),
                      "model.config.aws_config.session_length_seconds", "how long"),
    "what nobody knows": (one("openai", f"{KEY}, wombat: 1", name="x"), "model.config.wombat", "ignores"),
    "beside the model": (one("openai", KEY, "wombat: 1", name="x"), "wombat", "ignores"),
    "a name twice": (one("openai", KEY), "", "there already"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "key", "said"), LOST.values(), ids=LOST)
def test_what_is_lost_is_listed(text: str, key: str, said: str, take: Any) -> None:
    found: Imported = take(one("openai", KEY) + text.partition("\n")[2])
    assert said in found.lost(f"endpoints[1].{key}".rstrip("."))
    assert said.split()[-1] in found.text


REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("{}\n", "has no list 'endpoints'"),
    "the other's": ("model_list: []\n", "promptyard import litellm"),
    "nothing that can be served": (one("palm", "palm_api_key: s3cret-word"), "nothing in it can be served"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_understood(text: str, said: str, take: Any) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        take(text)
    assert "s3cret-word" not in caught.value.message
