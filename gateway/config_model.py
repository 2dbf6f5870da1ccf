"""What may stand in `routes.yaml`: each key with its type, range, example and meaning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from gateway import strict
from gateway.config_routes import KeyModel, RouteModel
from gateway.providers.fake_script import FakeDialect, FakeStep
from gateway.providers.rows import rows
from gateway.routes import PERCENT, Task
from gateway.strict import Strict

EMBEDDED_MODELS = ("smollm2",)
# Headers the transport writes itself; two of them would leave the upstream to choose.
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade")
)
_OWN_OPTIONS = ("model", "messages", "input", "stream", "api_key", "api_base", "base_url")
_ROUTE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
_KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,25}$"
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


def _key_name(name: str) -> str:
    if not re.fullmatch(_KEY_NAME, name):
        raise strict.refusal(
            "cannot be a key's name here. Use up to 26 letters, digits and . _ -, a letter or digit first."
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
    for task in Task:
        if path.endswith(f"/{task}"):
            raise strict.refusal(f"ends in /{task}, which is appended to it. Stop before that.")
    return value.rstrip("/")


def _proxy(value: SecretStr) -> SecretStr:
    """A proxy's address. Refusals do not quote it: it may hold a password."""
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme != "http" or not re.fullmatch(r"[!-~]+", text):
        raise strict.refusal("must be the address of an HTTP proxy. For example: http://proxy:3128")
    if parts.path.strip("/") or "?" in text or "#" in text:
        raise strict.refusal("must end after host and port. For example: http://proxy:3128")
    return value


def _webhook(value: SecretStr) -> SecretStr:
    """Where alerts go. Refusals do not quote it: many hold a secret."""
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or not re.fullmatch(r"[!-~]+", text):
        raise strict.refusal("must be an address. For example: https://ops.example.com/alerts")
    if "@" in parts.netloc or "#" in text:
        raise strict.refusal("holds a user, a password or a '#'. Messages are signed with `secret` instead.")
    return value


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


def _api_version(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", value):
        raise strict.refusal("is not a version. For example: 2024-10-21")
    return value


BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    WithJsonSchema({"type": "string", "pattern": r"^(https?://|\$\{)", "maxLength": 2048}),
]
Secret = Annotated[SecretStr, AfterValidator(_header_safe)]
Proxy = Annotated[SecretStr, AfterValidator(_proxy), WithJsonSchema({"type": "string", "maxLength": 2048})]
Webhook = Annotated[SecretStr, AfterValidator(_webhook), WithJsonSchema({"type": "string", "maxLength": 2048})]
Headers = dict[Annotated[str, AfterValidator(_header_name)], Secret]
_KEY = 'The upstream\'s credential: "${NAME}" from the environment or "${file:path}", never the secret itself'


class EmbeddedProvider(Strict):
    """The model that comes with Promptyard, run by llama.cpp in a child process."""

    type: Literal["embedded"] = Field(description="SmolLM2-135M on this machine's CPU; its one model is `smollm2`")


# Known only when `providers.yaml` is read, so for a type checker they are text.
if TYPE_CHECKING:
    RowType = str
    LiteLLMType = str
else:
    RowType = Literal[tuple(name for name, row in rows().items() if row.litellm is None)]
    LiteLLMType = Literal[("litellm", *(name for name, row in rows().items() if row.litellm is not None))]
_ABOUT = {
    "litellm": "anything litellm knows; the model is named as litellm names it",
    **{name: row.about for name, row in rows().items()},
}


def _name_types(schema: dict[str, Any]) -> None:
    """Tell editors who each type is."""
    names = schema["properties"]["type"].pop("enum")
    schema["properties"]["type"]["oneOf"] = [{"const": name, "description": _ABOUT[name]} for name in names]


def _name_needs(schema: dict[str, Any]) -> None:
    """Tell editors who each type is, and which need keys that others do not."""
    _name_types(schema)
    needs = {
        "base_url": [name for name, row in rows().items() if row.base_url is None],
        "api_version": [name for name, row in rows().items() if row.api_version],
    }
    schema["allOf"] = [
        {"if": {"properties": {"type": {"enum": types}}}, "then": {"required": [key]}} for key, types in needs.items()
    ]


class HttpProvider(Strict):
    """A provider that is called over HTTP, as its type says: where, in which dialects, with what credential."""

    model_config = ConfigDict(json_schema_extra=_name_needs)

    type: RowType = Field(description="Who it is")
    base_url: BaseUrl | None = Field(
        None,
        description="Prefix of its paths, usually ending in /v1; each type but those for any address has its own",
        examples=["http://gpu-1:8000/v1"],
    )
    api_key: Secret | None = Field(None, description=_KEY, examples=['"${OPENAI_API_KEY}"'])
    api_keys: Annotated[list[Secret], Field(min_length=1, max_length=100)] | None = Field(
        None,
        description="Several credentials, used in turn; one that is refused or rate-limited rests",
        examples=['["${OPENAI_KEY_1}", "${OPENAI_KEY_2}"]'],
    )
    api_version: Annotated[str, AfterValidator(_api_version)] | None = Field(
        None,
        description="The version in the address, for a type whose addresses have one (azure_deployments)",
        examples=['"2024-10-21"'],
    )
    headers: Headers = Field({}, description="Headers sent with every call, as OpenAI-Organization")
    proxy: Proxy | None = Field(
        None,
        description='The HTTP proxy its calls leave through; with a password in it, "${NAME}"',
        examples=["http://proxy:3128"],
    )
    ca_bundle: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A file of certificates (PEM), the only authorities its TLS is to trust",
        examples=["corporate-ca.pem"],
    )


class LiteLLMProvider(Strict):
    """What is called through litellm: anything it knows, or one provider whose calls it signs."""

    model_config = ConfigDict(json_schema_extra=_name_types)

    type: LiteLLMType = Field(description="`litellm`, or whose models are named without litellm's prefix")
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
    dialects: Annotated[list[FakeDialect], Field(min_length=1)] | None = Field(
        None,
        description="What it speaks; all, where not written. Any other is translated into one of them",
        examples=["[messages]"],
    )


AnyProvider = Annotated[
    EmbeddedProvider | HttpProvider | LiteLLMProvider | FakeProvider,
    Field(discriminator="type"),
]


class AlertsModel(Strict):
    """Who is told when much of a budget is spent. Messages are signed as https://www.standardwebhooks.com has it."""

    webhook: Webhook = Field(description='Where they are posted; with a secret in it, "${NAME}"')
    secret: Secret = Field(
        description='What they are signed with: "${NAME}" from the environment or "${file:path}"', min_length=16
    )
    at: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=10)] = Field(
        list(PERCENT), description="Per cent of a budget"
    )


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
    keys: dict[Annotated[str, AfterValidator(_key_name)], KeyModel] = Field(
        {}, description="Keys by name, each by the hash of its secret; they cannot be changed anywhere else",
        examples=['{bot: {hash: "9f86d0…", limits: {rpm: 60}}}'],
    )  # fmt: skip
    alerts: AlertsModel | None = Field(
        None, description="Who is told when much of a budget is spent",
        examples=['{webhook: "https://ops.example.com/alerts", secret: "${ALERTS_SECRET}"}'],
    )  # fmt: skip
