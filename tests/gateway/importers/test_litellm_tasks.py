"""What a model of a LiteLLM proxy is for decides which kind of provider it becomes here: one that answers that."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.importers import litellm
from tests.gateway.importers.importing import imported
from tests.gateway.importers.test_litellm import one

TASKS: dict[str, tuple[str, str, str, str]] = {
    "a name that says it": ("model: whisper-1", "", "transcriptions", "openai"),
    "pictures": ("model: dall-e-3", "", "images", "openai"),
    "a voice": ("model: openai/tts-1", "", "speech", "openai"),
    "a mode": ("model: openai/m", "model_info: {mode: moderation}", "moderations", "openai"),
    "a server": ("model: openai/bge-reranker, api_base: 'http://h/v1', api_key: none", "", "rerank",
                 "openai_compatible"),
    "a row": ("model: cohere/rerank-v3.5", "", "rerank", "cohere"),
    "vectors its row has": ("model: mistral/mistral-embed", "", "embeddings", "mistral"),
    "vectors its row has not": ("model: groq/some-embed", "", "embeddings", "litellm"),
    "completions its row has not": ("model: cohere/command", "model_info: {mode: completion}", "chat", "litellm"),
}  # fmt: skip


@pytest.mark.parametrize(("params", "beside", "task", "type_"), TASKS.values(), ids=TASKS)
def test_a_task_goes_where_it_is_answered(params: str, beside: str, task: str, type_: str, tmp_path: Path) -> None:
    found = imported(litellm, one(params, beside), tmp_path)
    assert (found.routes["m"].get("task", "chat"), found.model("m")["type"]) == (task, type_)
    assert found.told == []


@pytest.mark.parametrize(
    ("params", "type_", "model"),
    [
        ("model: anthropic/claude-x", "anthropic", "claude-x"),
        ("model: anthropic/claude-x, api_base: 'https://proxy.corp'", "litellm", "anthropic/claude-x"),
        ("model: gemini/g, vertex_project: p", "litellm", "gemini/g"),
        ("model: fireworks_ai/llama", "litellm", "fireworks_ai/llama"),  # whose names litellm makes longer
        ("model: openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
    ],
)
def test_a_provider_of_our_own_is_asked_without_litellm(params: str, type_: str, model: str, tmp_path: Path) -> None:
    found = imported(litellm, one(params), tmp_path).model("m")
    assert (found["type"], found["model"]) == (type_, model)
