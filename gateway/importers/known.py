"""Providers as other gateways name them, and how each is written in our `routes.yaml`: one row each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from gateway.providers.rows import find
from gateway.routes import CONVERSATIONS, RouteTask, Task


@dataclass(frozen=True, slots=True)
class Kind:
    """How a provider is written here.

    `variable` is where its credential usually stands; a kind that `asks` is given that variable
    where the source names no credential. `prefix` goes before the model's name, `tail` after an address that does
    not end in it yet, and `base_url` stands in where the source names no address. `row` is the provider in
    `providers.yaml` that takes its models under the same names.
    """

    type: str
    variable: str
    asks: bool = True
    prefix: str = ""
    tail: str = ""
    base_url: str | None = None
    row: str | None = None

    def serves(self, asked: str) -> bool:
        """Whether what is written so answers `asked`: a route's task, or `completions`."""
        row = find(self.type)
        if row is None:
            return asked in _THROUGH_LITELLM
        needed = {"chat": CONVERSATIONS, "completions": (Task.COMPLETIONS,)}.get(asked) or RouteTask(asked).tasks
        return any(task in row.paths for task in needed)


_THROUGH_LITELLM = ("chat", "completions", "embeddings")


def _litellm(variable: str, prefix: str, row: str | None = None, *, asks: bool = True) -> Kind:
    return Kind("litellm", variable, asks=asks, prefix=prefix, row=row)


def _server(variable: str, tail: str = "", base_url: str | None = None) -> Kind:
    return Kind("openai_compatible", variable, asks=False, tail=tail, base_url=base_url)


#: By litellm's name of the provider. A name that is not here goes through litellm under that name; so do those whose
#: models litellm names otherwise than they do themselves (Fireworks, Hugging Face, GitHub).
KINDS = {
    "openai": Kind("openai", "OPENAI_API_KEY"),
    # Azure and the clouds may be signed in by other means than a key, which litellm finds by itself.
    "azure": _litellm("AZURE_API_KEY", "azure/", asks=False),
    "bedrock": _litellm("AWS_BEARER_TOKEN_BEDROCK", "bedrock/", asks=False),
    "vertex_ai": _litellm("VERTEX_API_KEY", "vertex_ai/", asks=False),
    "databricks": _litellm("DATABRICKS_API_KEY", "databricks/", asks=False),
    "anthropic": _litellm("ANTHROPIC_API_KEY", "anthropic/", "anthropic"),
    "gemini": _litellm("GEMINI_API_KEY", "gemini/", "gemini"),
    "mistral": _litellm("MISTRAL_API_KEY", "mistral/", "mistral"),
    "cohere": _litellm("COHERE_API_KEY", "cohere/", "cohere"),
    "ai21": _litellm("AI21_API_KEY", "ai21/", "ai21"),
    "groq": _litellm("GROQ_API_KEY", "groq/", "groq"),
    "deepseek": _litellm("DEEPSEEK_API_KEY", "deepseek/", "deepseek"),
    "xai": _litellm("XAI_API_KEY", "xai/", "xai"),
    "together_ai": _litellm("TOGETHERAI_API_KEY", "together_ai/", "together"),
    "fireworks_ai": _litellm("FIREWORKS_AI_API_KEY", "fireworks_ai/"),
    "openrouter": _litellm("OPENROUTER_API_KEY", "openrouter/", "openrouter"),
    "perplexity": _litellm("PERPLEXITYAI_API_KEY", "perplexity/", "perplexity"),
    "cerebras": _litellm("CEREBRAS_API_KEY", "cerebras/", "cerebras"),
    "nvidia_nim": _litellm("NVIDIA_NIM_API_KEY", "nvidia_nim/", "nvidia_nim"),
    "huggingface": _litellm("HUGGINGFACE_API_KEY", "huggingface/"),
    "github": _litellm("GITHUB_API_KEY", "github/"),
    "vllm": _server("HOSTED_VLLM_API_KEY", base_url="${HOSTED_VLLM_API_BASE}"),
    "lm_studio": _server("LM_STUDIO_API_KEY", base_url="${LM_STUDIO_API_BASE}"),
    "llamafile": _server("LLAMAFILE_API_KEY", base_url="http://127.0.0.1:8080/v1"),
    "ollama": _server("OLLAMA_API_KEY", "/v1", "http://127.0.0.1:11434/v1"),
    "tgi": _server("TGI_API_KEY", "/v1"),
    "portkey": _server("PORTKEY_API_KEY", base_url="https://api.portkey.ai/v1"),
}

#: Other names of the same providers: litellm's older ones, and MLflow's.
_ALSO = {
    "text-completion-openai": "openai",
    "custom_openai": "openai",
    "openai_like": "openai",
    "cohere_chat": "cohere",
    "ai21_chat": "ai21",
    "hosted_vllm": "vllm",
    "ollama_chat": "ollama",
    "azure_text": "azure",
    "amazon-bedrock": "bedrock",
    "databricks-model-serving": "databricks",
    "togetherai": "together_ai",
    "ai21labs": "ai21",
    "huggingface-text-generation-inference": "tgi",
}

# Names that say whose they are. litellm goes by its list of models; these are the families in it.
_FAMILIES = (
    (r"(gpt-|chatgpt-|o[134]($|-)|ft:gpt-|text-embedding-(3|ada)|davinci-|babbage-)", "openai"),
    (r"(dall-e-|whisper-|tts-1|(omni|text)-moderation-)", "openai"),
    (r"claude-", "anthropic"),
    (r"(gemini-|text-embedding-00|textembedding-gecko)", "vertex_ai"),
    (r"(command|embed-(english|multilingual))", "cohere"),
)

_TASKS = (
    (r"rerank", "rerank"),
    (r"embed|(^|[/-])(bge|e5|gte)-|voyage", "embeddings"),
    (r"moderation", "moderation"),
    (r"dall-e|gpt-image|imagen|flux|stable-diffusion|stable-image", "image_generation"),
    (r"whisper|transcribe", "audio_transcription"),
    (r"(^|[/-])tts(-|$)", "audio_speech"),
)


def canonical(provider: str) -> str:
    """The name under which `KINDS` may know `provider`."""
    return _ALSO.get(provider, provider)


def own(kind: Kind, asked: str) -> Kind:
    """`kind` as the provider's own row, where it has one and that answers `asked`; else as it is."""
    direct = replace(kind, type=kind.row, prefix="", row=None) if kind.row else kind
    return direct if direct.serves(asked) else kind


def kind(provider: str) -> Kind:
    """How `provider` is written here; through litellm where there is no row for it."""
    known = KINDS.get(canonical(provider))
    if known is not None:
        return known
    words = re.sub(r"[^A-Za-z0-9]+", "_", provider).upper().strip("_") or "UPSTREAM"
    return Kind("litellm", f"{words}_API_KEY", asks=False, prefix=f"{provider}/" if provider else "")


def family(model: str) -> str:
    """The provider a bare model name belongs to, or nothing: litellm is asked at the call then."""
    return next((provider for pattern, provider in _FAMILIES if re.match(pattern, model)), "")


def task_of(model: str) -> str:
    """What a model is for, by its name; `chat` where that says nothing else."""
    return next((task for pattern, task in _TASKS if re.search(pattern, model.lower())), "chat")


def names(provider: str, data: dict[str, Any]) -> Iterator[str]:
    """Names for a provider in our file, the best first: whose it is, where it is, whose credential, a number."""
    whose = re.sub(r"[^A-Za-z0-9._-]+", "-", canonical(provider).replace("_", "-")).strip("-._")[:40] or "upstream"
    place = _host(data.get("base_url") or "")
    if data["type"] == "openai_compatible" and whose == "openai" and place:
        yield place
        whose = place
    yield whose
    if place and place != whose:
        yield f"{whose}-{place}"
    options = data.get("options", {})
    for name in ("aws_region_name", "vertex_location", "vertex_project"):
        if re.fullmatch(r"[A-Za-z0-9-]{1,20}", str(options.get(name, ""))):
            yield f"{whose}-{options[name]}"
    words = re.sub(r"[^a-z0-9]+", "-", str(data.get("api_key", "")).lower()).strip("-")
    rest = "-".join(word for word in words.split("-") if word not in {"api", "key", "file", *whose.split("-")})
    if rest:
        yield f"{whose}-{rest[:20]}".rstrip("-")
    number = 2
    while True:
        yield f"{whose}-{number}"
        number += 1


def _host(url: str) -> str:
    """The first word of an address's host, or nothing where it is a number or this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    first = "local" if host in ("localhost", "127.0.0.1", "::1") else host.partition(".")[0]
    return first[:30].strip("-") if re.fullmatch(r"[a-z][a-z0-9-]*", first) and first != "api" else ""
