"""What may stand in `routes.yaml`: each key with its type, range, example and meaning."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, WithJsonSchema

from gateway import strict
from gateway.config_routes import RouteModel
from gateway.providers.fake_script import FakeStep
from gateway.strict import Strict

EMBEDDED_MODELS = ("smollm2",)
OPENAI_URL = "https://api.openai.com/v1"
# Headers the transport writes itself; two of them would leave the upstream to choose.
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade")
)
_OWN_OPTIONS = ("model", "messages", "input", "stream", "api_key", "api_base", "base_url")
_ROUTE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
_PROVIDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _route_name(name: str) -> str:
    if not re.fullmatch(_ROUTE_NAME, name):
        raise strict.refusal(
            "cannot be a route's name. Use up to 128 letters, digits and . _ : / @ + -, a letter or digit first."
        )
    if name.startswith("prompt:"):
        raise strict.refusal("cannot be a route's name: 'prompt:' begins the names of registered prompts.")
    return name


def _provider_name(name: str) -> str:
    if not re.fullmatch(_PROVIDER_NAME, name):
        raise strict.refusal(
            "cannot be a provider's name. Use up to 64 letters, digits and . _ -, a letter or digit first."
        )
    return name


def _base_url(value: str) -> str:
    """An upstream's address without its last slash. Refusals do not quote it: it may hold a password."""
    try:
        parts = urlsplit(value)
        port_is_bad = parts.port == 0
    except ValueError:
        raise strict.refusal("is not an address. For example: http://gpu-1:8000/v1") from None
    if parts.scheme not in ("http", "https"):
        raise strict.refusal("must begin with http:// or https://. For example: http://gpu-1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise strict.refusal('holds a user or password. Remove it and write: api_key: "${NAME}"')
    if "?" in value or "#" in value:
        raise strict.refusal("holds a '?' or '#'. Remove all from there on: paths are appended to it.")
    if not parts.hostname or port_is_bad or not re.fullmatch(r"[!-~]+", value):
        raise strict.refusal("is not an address. For example: http://gpu-1:8000/v1")
    path = parts.path.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/embeddings"):
        if path.endswith(tail):
            raise strict.refusal(f"ends in {tail}, which is appended to it. Stop before that.")
    return value.rstrip("/")


def _header_safe(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not re.fullmatch(r"[ -~]+", text) or text != text.strip():
        raise strict.refusal("must be printable ASCII, not empty and without spaces around it.")
    return value


def _header_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise strict.refusal("is not a header's name.")
    if name.lower() in _OWN_HEADERS:
        raise strict.refusal("is a header the gateway writes itself. Remove it.")
    return name


def _options(value: dict[str, Any]) -> dict[str, Any]:
    for name in _OWN_OPTIONS:
        if name in value:
            where = "beside 'options'" if name in ("api_key", "base_url", "api_base") else "in the route or request"
            key = "base_url" if name == "api_base" else name
            raise strict.refusal(f"may not hold '{name}'. Its place is {where}, as '{key}'.")
    return value


BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    WithJsonSchema({"type": "string", "pattern": r"^(https?://|\$\{)", "maxLength": 2048}),
]
Secret = Annotated[SecretStr, AfterValidator(_header_safe)]
Headers = dict[Annotated[str, AfterValidator(_header_name)], Secret]
_KEY = 'The upstream\'s credential: "${NAME}" from the environment or "${file:path}", never the secret itself'


class EmbeddedProvider(Strict):
    """The model that comes with Promptyard, run by llama.cpp in a child process."""

    type: Literal["embedded"] = Field(description="SmolLM2-135M on this machine's CPU; its one model is `smollm2`")


class OpenAIProvider(Strict):
    """OpenAI itself."""

    type: Literal["openai"] = Field(description="OpenAI's API")
    base_url: BaseUrl = Field(OPENAI_URL, description="Prefix of OpenAI's paths, without the last slash")
    api_key: Secret = Field(description=_KEY, examples=['"${OPENAI_API_KEY}"'])
    headers: Headers = Field({}, description="Headers sent with every call, as OpenAI-Organization")


class OpenAICompatibleProvider(Strict):
    """A server that speaks OpenAI's API: vLLM, Ollama, Azure's v1 API, and most others."""

    type: Literal["openai_compatible"] = Field(description="Any server that speaks OpenAI's API")
    base_url: BaseUrl = Field(
        description="Prefix of OpenAI's paths, usually ending in /v1", examples=["http://gpu-1:8000/v1"]
    )
    api_key: Secret | None = Field(None, description=_KEY, examples=['"${GPU_API_KEY}"'])
    headers: Headers = Field({}, description="Headers sent with every call")


class LiteLLMProvider(Strict):
    """Anything litellm knows; the model is named as litellm names it."""

    type: Literal["litellm"] = Field(description="Called through litellm: Anthropic, Bedrock, Vertex, Gemini, …")
    base_url: BaseUrl | None = Field(None, description="The upstream's address where it is not litellm's own default")
    api_key: Secret | None = Field(None, description=_KEY, examples=['"${ANTHROPIC_API_KEY}"'])
    options: Annotated[dict[str, Any], AfterValidator(_options)] = Field(
        {}, description="More arguments of litellm's completion call, as aws_region_name", examples=["{timeout: 30}"]
    )


class FakeProvider(Strict):
    """Answers without any model, at once or by a script: for tests of applications."""

    type: Literal["fake"] = Field(description="Answers by itself; for tests")
    script: Annotated[list[FakeStep], Field(min_length=1)] | None = Field(
        None,
        description="What it answers, call by call; without it, every call gets an echo",
        examples=["[{answer: Hi}]"],
    )
    cycle: bool = Field(False, description="After the last step begin again; false repeats the last step")
    prefill: bool = Field(False, description="Whether it goes on where an assistant's last message ends")


AnyProvider = Annotated[
    EmbeddedProvider | OpenAIProvider | OpenAICompatibleProvider | LiteLLMProvider | FakeProvider,
    Field(discriminator="type"),
]


class File(Strict):
    """Providers, and the routes that use them."""

    providers: dict[Annotated[str, AfterValidator(_provider_name)], AnyProvider] = Field(
        min_length=1, description="Who serves upstream models, by a name of your choice",
        examples=["{local: {type: embedded}}"],
    )  # fmt: skip
    routes: dict[Annotated[str, AfterValidator(_route_name)], RouteModel] = Field(
        min_length=1, description="The names callers send as `model`",
        examples=["{chat: {deployments: [{provider: local, model: smollm2}]}}"],
    )  # fmt: skip
