"""The data plane's bodies as OpenAPI 3.0 schemas: the fields the gateway understands. All others pass too."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
ANYTHING: Schema = {"type": "object", "additionalProperties": True}


def said(kind: Schema, description: str, **more: Any) -> Schema:
    """`kind` with a description, and `more` of its keywords."""
    return {**kind, "description": description, **more}


def listed(items: Schema, description: str | None = None, least: int = 0) -> Schema:
    """An array of `items`."""
    found: Schema = {"type": "array", "items": items}
    if least:
        found["minItems"] = least
    return found if description is None else said(found, description)


def either(*kinds: Schema) -> Schema:
    """One of several kinds."""
    return {"anyOf": list(kinds)}


def ref(name: str) -> Schema:
    """A schema of `SCHEMAS` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(*required: str, **properties: Schema) -> Schema:
    """An object; fields beyond `properties` pass."""
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": True}
    return found | ({"required": list(required)} if required else {})


_MODEL = said(TEXT, "A route's name; GET /v1/models lists them", example="chat")
_STREAM = said(TRUTH, "Answer as server-sent events", default=False)
_STOP = said(either(TEXT, listed(TEXT)), "Text at which the answer ends")
_SAMPLING: dict[str, Schema] = {"temperature": NUMBER, "top_p": NUMBER}
_CONTENT = said(either(TEXT, listed(ANYTHING)), "Text, or parts: text, images, tool results …")
_TOOLS = listed(ANYTHING, "Tools the model may call, with any JSON Schema")
_CHOICES = listed(ANYTHING)
_INPUT = said(either(TEXT, listed({})), "Text, several texts, or tokens")


def _call(*required: str, **properties: Schema) -> Schema:
    return thing("model", *required, model=_MODEL, **properties)


_REQUESTS: dict[str, Schema] = {
    "ChatRequest": _call(
        "messages",
        messages=listed(ref("Message"), least=1),
        stream=_STREAM,
        stream_options=thing(include_usage=said(TRUTH, "Send usage in a last chunk")),
        max_completion_tokens=COUNT,
        max_tokens=COUNT,
        n=COUNT,
        stop=_STOP,
        seed={"type": "integer"},
        tools=_TOOLS,
        tool_choice={},
        response_format=said(ANYTHING, "`json_object`, or `json_schema` with a schema"),
        **_SAMPLING,
    ),
    "Message": thing("role", role=said(TEXT, "`system`, `user`, `assistant` or `tool`"), content=_CONTENT),
    "CompletionRequest": _call(
        "prompt", prompt=_INPUT, stream=_STREAM, max_tokens=COUNT, n=COUNT, stop=_STOP, **_SAMPLING
    ),
    "EmbeddingsRequest": _call("input", input=_INPUT, dimensions=COUNT, encoding_format=TEXT),
    "MessagesRequest": _call(
        "messages",
        "max_tokens",
        messages=listed(ref("Message"), least=1),
        max_tokens=COUNT,
        system=_CONTENT,
        stream=_STREAM,
        stop_sequences=listed(TEXT),
        tools=_TOOLS,
        tool_choice={},
        thinking=ANYTHING,
        top_k=COUNT,
        **_SAMPLING,
    ),
    "CountTokensRequest": _call("messages", messages=listed(ref("Message"), least=1), system=_CONTENT, tools=_TOOLS),
    "ResponsesRequest": _call(
        "input",
        input=said(either(TEXT, listed(ANYTHING)), "Text, or items"),
        instructions=TEXT,
        stream=_STREAM,
        max_output_tokens=COUNT,
        tools=_TOOLS,
        tool_choice={},
        text=said(ANYTHING, "`format`: how the answer is structured"),
        reasoning=ANYTHING,
        **_SAMPLING,
    ),
    "ModerationsRequest": _call("input", input=said(either(TEXT, listed({})), "Text, or parts")),
    "ImagesRequest": _call(
        "prompt", prompt=TEXT, n=COUNT, size=TEXT, quality=TEXT, response_format=TEXT, stream=_STREAM
    ),
    "SpeechRequest": _call("input", input=TEXT, voice={}, response_format=TEXT, speed=NUMBER),
    "TranscriptionsRequest": _call(
        "file",
        file={"type": "string", "format": "binary"},
        language=TEXT,
        prompt=TEXT,
        response_format=TEXT,
        stream=_STREAM,
        temperature=NUMBER,
    ),
    "RerankRequest": _call("query", "documents", query=TEXT, documents=listed({}), top_n=COUNT),
    "InvocationRequest": said(
        thing(messages=listed(ref("Message")), prompt=_INPUT, input=_INPUT, stream=_STREAM),
        "As the route's task has it: `messages`, `prompt` or `input`. The path names the model",
    ),
}

_ANSWERS: dict[str, Schema] = {
    "ChatAnswer": thing(id=TEXT, object=TEXT, created=COUNT, model=TEXT, choices=_CHOICES, usage=ref("Usage")),
    "CompletionAnswer": thing(id=TEXT, object=TEXT, created=COUNT, model=TEXT, choices=_CHOICES, usage=ref("Usage")),
    "Usage": thing(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT),
    "EmbeddingsAnswer": thing(
        object=TEXT,
        model=TEXT,
        data=listed(thing(index=COUNT, embedding=said(either(listed(NUMBER), TEXT), "Numbers, or base64"))),
        usage=ref("Usage"),
    ),
    "MessagesAnswer": thing(
        id=TEXT,
        type=TEXT,
        role=TEXT,
        model=TEXT,
        content=listed(ANYTHING),
        stop_reason=said(TEXT, "Why it ended", nullable=True),
        usage=thing(input_tokens=COUNT, output_tokens=COUNT),
    ),
    "CountTokensAnswer": thing("input_tokens", input_tokens=COUNT),
    "ResponsesAnswer": thing(
        id=TEXT,
        object=TEXT,
        status=TEXT,
        model=TEXT,
        output=listed(ANYTHING),
        usage=thing(input_tokens=COUNT, output_tokens=COUNT, total_tokens=COUNT),
    ),
    "ModerationsAnswer": thing(id=TEXT, model=TEXT, results=listed(ANYTHING)),
    "ImagesAnswer": thing(created=COUNT, data=listed(thing(url=TEXT, b64_json=TEXT))),
    "TranscriptionsAnswer": thing(text=TEXT),
    "RerankAnswer": thing(id=TEXT, results=listed(thing(index=COUNT, relevance_score=NUMBER))),
    "Model": thing(
        "id",
        "object",
        id=TEXT,
        object=TEXT,
        created=COUNT,
        owned_by=TEXT,
        task=said(TEXT, "What the route is for"),
        pricing=said(
            thing(input=NUMBER, output=NUMBER, most_input=NUMBER, most_output=NUMBER),
            "USD a million tokens, at the cheapest and the dearest deployment; null where the price of one is unknown",
            nullable=True,
        ),
        max_output_tokens=said(COUNT, "The most tokens of an answer, where something says", nullable=True),
    ),
    "Models": thing("object", "data", object=TEXT, data=listed(ref("Model"))),
    "Ready": thing("status", status=said(TEXT, "`ready`, `loading` or `failed`; callers with a key see each part")),
}

_ERRORS: dict[str, Schema] = {
    "Error": thing(
        "error",
        error=thing(
            "message",
            "type",
            message=said(TEXT, "What is wrong and what to do"),
            type=TEXT,
            param=said(TEXT, "The field it is about", nullable=True),
            code=said(TEXT, "For programs", nullable=True),
        ),
    ),
    "MessagesError": thing(
        "type", "error", type=said(TEXT, "`error`"), error=thing("type", "message", type=TEXT, message=TEXT)
    ),
}

#: Every schema of the data plane by its name.
SCHEMAS: dict[str, Schema] = {**_REQUESTS, **_ANSWERS, **_ERRORS}
