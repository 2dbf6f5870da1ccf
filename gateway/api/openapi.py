"""The data plane in `/openapi.json`: it is raw ASGI, so FastAPI cannot know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.api.openapi_schemas import SCHEMAS, TEXT, ref, said

Document = dict[str, Any]


class _Post(NamedTuple):
    """What is POSTed to a path and what comes back: names of schemas (None: bytes)."""

    summary: str
    asks: str
    answers: str | None
    streams: bool = False
    form: bool = False
    error: str = "Error"


_POSTS = {
    "/v1/chat/completions": _Post("Answer a conversation", "ChatRequest", "ChatAnswer", streams=True),
    "/v1/completions": _Post("Continue a text", "CompletionRequest", "CompletionAnswer", streams=True),
    "/v1/embeddings": _Post("Embed texts", "EmbeddingsRequest", "EmbeddingsAnswer"),
    "/v1/messages": _Post(
        "Answer a conversation, as Anthropic's clients ask", "MessagesRequest", "MessagesAnswer", streams=True,
        error="MessagesError",
    ),
    "/v1/messages/count_tokens": _Post(
        "Count the input tokens of a conversation", "CountTokensRequest", "CountTokensAnswer", error="MessagesError"
    ),
    "/v1/responses": _Post(
        "Answer a conversation, as OpenAI's Responses API; nothing is stored", "ResponsesRequest", "ResponsesAnswer",
        streams=True,
    ),
    "/v1/moderations": _Post("Classify texts", "ModerationsRequest", "ModerationsAnswer"),
    "/v1/images/generations": _Post("Make images", "ImagesRequest", "ImagesAnswer", streams=True),
    "/v1/audio/speech": _Post("Speak a text", "SpeechRequest", None),
    "/v1/audio/transcriptions": _Post(
        "Write down speech", "TranscriptionsRequest", "TranscriptionsAnswer", streams=True, form=True
    ),
    "/v1/rerank": _Post("Order documents by how well they answer a query", "RerankRequest", "RerankAnswer"),
    "/gateway/{name}/invocations": _Post(
        "Ask a route, as MLflow's deployments client does", "InvocationRequest", "ChatAnswer", streams=True
    ),
    "/endpoints/{name}/invocations": _Post(
        "The same under the path of MLflow's older clients", "InvocationRequest", "ChatAnswer", streams=True
    ),
}  # fmt: skip
_REFUSALS = {
    "400": "The request cannot be understood or carried out as it stands; `param` names the field",
    "401": "No key, or none that is known",
    "403": "A key that may not do this",
    "404": "No such model",
    "413": "The body is too large",
    "429": "A limit refused: which one, and in `Retry-After` when to come back",
    "502": "The upstream could not be reached or sent what is not an answer",
    "503": "Not now; `Retry-After` says when",
    "504": "The upstream was silent too long",
}
_NULL = {"type": "null"}
#: Statuses a plain GET can have.
_FEW = ("401", "403", "404")
_HEADERS = {
    "x-request-id": "The call's id in `/admin/usage/{request_id}`",
    "x-promptyard-deployment": "Who answered: provider/model",
    "x-promptyard-cost": "What a whole answer cost, in USD; not there where a price is not known",
    "x-promptyard-dropped": "What of the request was left out, where the route says `unsupported: drop`",
    "x-promptyard-cache": "`hit` or `miss`, where the route has a cache",
    "x-promptyard-fault": "What the route's `fault` did to this answer: `error`, `stall`, `cut`, `slow`",
    "server-timing": "Milliseconds: auth, limit, route, upstream, own",
}
_TAGS = [
    {"name": "inference", "description": "The data plane. Bodies pass on whole: fields not listed here too."},
    {"name": "models", "description": "The routes a key may call."},
    {"name": "health", "description": "Needs no key."},
]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send a key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's clients do"},
    "basic": {"type": "http", "scheme": "basic", "description": "The password is a key"},
}


def with_data_plane(document: Mapping[str, Any]) -> Document:
    """`document`, FastAPI's own, put into OpenAPI 3.0, and the data plane before it."""
    document = _in_3_0(document)
    ours: Mapping[str, Any] = document.get("components", {})
    return {
        **document,
        "paths": {**_paths(), **document.get("paths", {})},
        "components": {
            **ours,
            "schemas": {**SCHEMAS, **ours.get("schemas", {})},
            "headers": {name: {"description": text, "schema": TEXT} for name, text in _HEADERS.items()},
            "responses": {
                f"{shape}{status}": {"description": text, "content": _json(shape)}
                for shape in ("Error", "MessagesError")
                for status, text in _REFUSALS.items()
            },
            "securitySchemes": _SCHEMES,
        },
        "security": [{name: []} for name in _SCHEMES],
        "tags": [*_TAGS, *document.get("tags", [])],
    }


def _in_3_0(value: Any) -> Any:
    """`value` with its schemas as OpenAPI 3.0 says them. Pydantic speaks 3.1, which the bundled Swagger cannot read."""
    if isinstance(value, list):
        return [_in_3_0(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    found = {name: _in_3_0(each) for name, each in value.items()}
    for bound, open_bound in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if type(found.get(open_bound)) in (int, float):
            found |= {bound: found[open_bound], open_bound: True}
    kinds = found.get("anyOf")
    if isinstance(kinds, list) and _NULL in kinds:
        left = [kind for kind in kinds if kind != _NULL]
        found |= {"anyOf": left, "nullable": True}
        if len(left) == 1 and "$ref" not in left[0]:
            del found["anyOf"]
            found = {**left[0], **found}
    return found


def _paths() -> Document:
    paths: Document = {path: {"post": _post(path, one)} for path, one in _POSTS.items()}
    paths["/v1/models"] = {"get": _get("list_models", "models", "List the routes this key may call", "Models")}
    model = _get("get_model", "models", "One route", "Model")
    paths["/v1/models/{id}"] = {"get": model | {"parameters": [_named("id", "A route's name")]}}
    alive = _get("health", "health", "Whether the process answers", None)
    alive["responses"] = {"200": {"description": "`OK`", "content": {"text/plain": {"schema": TEXT}}}}
    ready = _get("ready", "health", "Whether everything a call needs is there", "Ready")
    ready["responses"] = {
        "200": {"description": "It is", "content": _json("Ready")},
        "503": {"description": "Not yet, or something failed", "content": _json("Ready")},
    }
    paths["/health"], paths["/health/ready"] = {"get": alive | {"security": []}}, {"get": ready | {"security": []}}
    return paths


def _post(path: str, one: _Post) -> Document:
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: Document = {"audio/*": binary} if one.answers is None else _json(one.answers)
    if one.streams:
        content["text/event-stream"] = {"schema": said(TEXT, "Events in the same dialect, when `stream` is true")}
    asks = {"multipart/form-data": {"schema": ref(one.asks)}} if one.form else _json(one.asks)
    operation: Document = {
        "operationId": path.strip("/").replace("/", "_").replace("{name}_", ""),
        "tags": ["inference"],
        "summary": one.summary,
        "requestBody": {"required": True, "content": asks},
        "responses": {
            "200": {
                "description": "The answer",
                "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS},
                "content": content,
            },
            **_refusals(one.error, tuple(_REFUSALS)),
        },
    }
    return operation | ({"parameters": [_named("name", "A route's name")]} if "{name}" in path else {})


def _get(name: str, tag: str, summary: str, answers: str | None) -> Document:
    content = {} if answers is None else {"content": _json(answers)}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "The answer", **content}, **_refusals("Error", _FEW)},
    }


def _refusals(shape: str, statuses: tuple[str, ...]) -> Document:
    return {status: {"$ref": f"#/components/responses/{shape}{status}"} for status in statuses}


def _json(schema: str) -> Document:
    return {"application/json": {"schema": ref(schema)}}


def _named(name: str, description: str) -> Document:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": TEXT}
