"""The official `openai` client, unmodified, against a live server: what it sends arrives, what it expects comes."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import time
from typing import Any

import openai
import pytest

from tests.services.gateway import CREDENTIAL, MESSAGES, ask, async_client, client, make_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import (
    DONE,
    STREAM,
    Upstream,
    chat,
    delta,
    event,
    stream,
    usage,
    usage_chunk,
    whole,
)

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "$defs": {"city": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                "type": "object",
                "properties": {"city": {"$ref": "#/$defs/city"}},
            },
        },
    }
]
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]


def test_chat(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat("Grüß Gott 🌍")))
    with client(gateway) as ai:
        answer = ai.chat.completions.create(model="up", messages=MESSAGES)
    assert answer.choices[0].message.content == "Grüß Gott 🌍"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 11
    record = usage_of(gateway, answer._request_id)
    assert (record["route"], record["deployment"], record["status"]) == ("up", "up/upstream-model", 200)
    assert (record["input_tokens"], record["output_tokens"], record["estimated"]) == (9, 2, False)
    assert (record["key_id"], record["stream"], record["error"]) == ("admin", False, None)
    assert 0 < record["first_token"] <= record["latency"] < 30
    assert abs(record["time"] - time.time()) < 30


async def test_chat_async(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat("Hello")))
    async with async_client(gateway) as ai:
        answer = await ai.chat.completions.create(model="up", messages=MESSAGES)
        assert answer.choices[0].message.content == "Hello"
        upstream.then(stream(*STREAM))
        chunks = [part async for part in await ai.chat.completions.create(model="up", messages=MESSAGES, stream=True)]
    assert "".join(part.choices[0].delta.content or "" for part in chunks) == "Hello"
    assert all(part.choices for part in chunks)


def test_completions(gateway: Server, upstream: Upstream) -> None:
    choice = {"index": 0, "text": " world", "logprobs": None, "finish_reason": "stop"}
    said = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    upstream.then(whole({**said, "usage": usage(3, 1)}), stream(event(said), DONE))
    with client(gateway) as ai:
        answer = ai.completions.create(model="up", prompt="Hello", max_tokens=5)
        assert answer.choices[0].text == " world"
        assert upstream.last.path == "/v1/completions"
        assert upstream.last.json == {"model": "upstream-model", "prompt": "Hello", "max_tokens": 5}
        parts = list(ai.completions.create(model="up", prompt=["Hello"], stream=True))
    assert [part.choices[0].text for part in parts] == [" world"]


def test_embeddings_ask_for_base64_by_default(gateway: Server, upstream: Upstream) -> None:
    vector = [0.5, -0.25, 1.0]
    packed = base64.b64encode(struct.pack("<3f", *vector)).decode()

    def answer(value: Any) -> Any:
        data = [{"object": "embedding", "index": 0, "embedding": value}]
        return whole({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}})

    upstream.then(answer(packed), answer(vector))
    with client(gateway) as ai:
        assert ai.embeddings.create(model="embed", input="a").data[0].embedding == vector
        assert upstream.last.path == "/v1/embeddings"
        assert upstream.last.json == {"model": "upstream-embed", "input": "a", "encoding_format": "base64"}
        listed = ai.embeddings.create(model="embed", input=["a", "b"], encoding_format="float", dimensions=3)
        assert listed.data[0].embedding == vector
        expected = {"input": ["a", "b"], "encoding_format": "float", "dimensions": 3, "model": "upstream-embed"}
        assert upstream.last.json == expected


def test_a_whole_answer_is_byte_equal_and_its_request_json_equal(gateway: Server, upstream: Upstream) -> None:
    body = b'{ "choices":[], "vendor_extra" : {"a": [1.0, 1e3, "\\u00fc"]}, "usage":null,"z":1 }\n'
    upstream.then(whole(body, kind="application/json; charset=utf-8"))
    asked = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "e"}}]}],
        "model": "up",
        "reasoning_effort": "low",
        "vendor": {"deep": [None, True, 0.1, -0.0, 2**63, -(2**63), "ü", ""]},
        "temperature": 0,
        "": "an empty name",
    }
    with gateway.client() as http:
        answer = http.post("/v1/chat/completions", json=asked)
    assert answer.content == body
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert upstream.last.json == {**asked, "model": "upstream-model"}


def test_what_went_up_in_headers(gateway: Server, upstream: Upstream) -> None:
    """Only the allowed ones; the credential is the upstream's own, whatever the caller sent."""
    upstream.then(whole(chat()))
    with gateway.client() as http:
        answer = ask(http, "up")
        assert answer.status_code == 200
        extra = {
            "accept": "application/json",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "x",
            "idempotency-key": "once",
            "traceparent": "00-1-2-03",
        }
        kept_back = {
            "x-api-key": "sk-py-callers",
            "cookie": "a=b",
            "openai-organization": "org",
            "user-agent": "agent",
            "accept-encoding": "gzip",
            "x-team": "theirs",
            "x-forwarded-for": "10.0.0.1",
            "forwarded": "for=10.0.0.1",
            "referer": "http://x",
            "proxy-authorization": "Basic x",
        }
        body = {"model": "up", "messages": MESSAGES}
        assert http.post("/v1/chat/completions", json=body, headers={**extra, **kept_back}).status_code == 200
    sent = dict(upstream.last.headers)
    assert len(sent) == len(upstream.last.headers)
    del sent["host"], sent["content-length"]
    # Made one of the key's own: another key's callers may have chosen the same word.
    once = hashlib.sha256(b"admin\0once").hexdigest()
    assert sent == {
        **extra,
        "idempotency-key": once,
        "authorization": f"Bearer {CREDENTIAL}",
        "x-team": "ours",
        "content-type": "application/json",
        "accept-encoding": "identity",
    }
    seen = str([each.headers for each in upstream.asked]) + str([each.body for each in upstream.asked])
    assert str(gateway.admin_key) not in seen


def test_what_came_down_in_headers(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat(), set_cookie="a=b", x_request_id="theirs", openai_organization="org", server="nginx"))
    with gateway.client() as http:
        answer = ask(http, "up")
    assert answer.headers["x-request-id"].startswith("req_")
    ours = {"x-request-id", "request-id", "x-promptyard-deployment", "server-timing"}
    assert set(answer.headers) == {"content-type", "content-length", "date", *ours}
    assert answer.headers["x-promptyard-deployment"] == "up/upstream-model"


def test_tools_pass_both_ways(gateway: Server, upstream: Upstream) -> None:
    answer = chat(choices=[{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": CALLS}}])
    upstream.then(whole(answer))
    with client(gateway) as ai:
        said = ai.chat.completions.create(model="up", messages=MESSAGES, tools=TOOLS, tool_choice="required")
    assert said.choices[0].message.tool_calls is not None
    assert json.loads(said.choices[0].message.tool_calls[0].function.arguments) == {"city": "Oslo"}  # type: ignore[union-attr]
    sent = upstream.last.json
    assert (sent["tools"], sent["tool_choice"]) == (TOOLS, "required")


def test_streamed_tools(gateway: Server, upstream: Upstream) -> None:
    parts = [
        delta(role="assistant", tool_calls=[{"index": 0, **CALLS[0]}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"more": 1}'}}]),
        delta(finish="tool_calls"),
        DONE,
    ]
    upstream.then(stream(*parts))
    with gateway.client() as http:
        answer = ask(http, "up", stream=True, tools=TOOLS)
    assert answer.content == b"".join(parts)
    record = usage_of(gateway, answer)
    assert record["estimated"]
    assert record["output_tokens"] > 0


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}])
def test_a_stream_without_usage_asked_for_is_byte_equal_but_for_it(
    gateway: Server, upstream: Upstream, options: dict[str, Any] | None
) -> None:
    parts = (b": comment\n\n", delta("", role="assistant", extra={"x": 1}), b"event: odd\ndata: {}\n\n", *STREAM[1:])
    upstream.then(stream(*parts))
    asked = {"stream": True} if options is None else {"stream": True, "stream_options": options}
    with gateway.client() as http:
        answer = ask(http, "up", **asked)
    assert answer.content == b"".join(part for part in parts if part != usage_chunk())
    assert answer.headers["content-type"] == "text/event-stream"
    sent = upstream.last.json
    assert sent.pop("stream_options") == {**(options or {}), "include_usage": True}
    assert sent == {"model": "upstream-model", "messages": MESSAGES, "stream": True}
    record = usage_of(gateway, answer)
    assert (record["input_tokens"], record["output_tokens"], record["estimated"], record["status"]) == (
        9,
        2,
        False,
        200,
    )


def test_a_stream_with_usage_asked_for_is_byte_equal(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM))
    with gateway.client() as http:
        answer = ask(http, "up", stream=True, stream_options={"include_usage": True})
    assert answer.content == b"".join(STREAM)
    with client(gateway) as ai:
        parts = list(
            ai.chat.completions.create(
                model="up", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
        )
    assert parts[-1].usage is not None
    assert parts[-1].usage.total_tokens == 11
    assert parts[-1].choices == []


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"index": 0, "delta": {"content": [{"type": "thinking", "thinking": "hm"}]}}, id="content-parts"),
        pytest.param({"index": 0, "delta": {"tool_calls": [None]}}, id="null-tool"),
        pytest.param({"index": 0, "delta": {"tool_calls": [{"function": None}]}}, id="null-function"),
        pytest.param({"index": 0, "delta": {"content": 5}}, id="number"),
        pytest.param({"index": 0, "delta": None}, id="null-delta"),
        pytest.param({"index": 0, "delta": {"content": "x"}, "finish_reason": "odd"}, id="odd-reason"),
    ],
)
def test_chunks_of_a_shape_we_do_not_know_pass(gateway: Server, upstream: Upstream, choice: Any) -> None:
    parts = (delta("a"), event({"choices": [choice]}), delta(finish="stop"), DONE)
    upstream.then(stream(*parts))
    with gateway.client() as http:
        assert ask(http, "up", stream=True).content == b"".join(parts)


def test_models(gateway: Server) -> None:
    names = ["up", "embed", "other", "org/model:1@x+y"]
    with client(gateway) as ai:
        assert [model.id for model in ai.models.list()] == names
        for name in names:
            assert ai.models.retrieve(name).id == name
        with pytest.raises(openai.NotFoundError, match="up, embed, other"):
            ai.models.retrieve("nope")
    key = make_key(gateway, routes=["other", "not-here"])
    with client(gateway, key) as ai:
        assert [model.id for model in ai.models.list()] == ["other"]
        with pytest.raises(openai.PermissionDeniedError):
            ai.models.retrieve("up")


async def test_models_async(gateway: Server) -> None:
    async with async_client(gateway) as ai:
        assert [model.id async for model in ai.models.list()] == ["up", "embed", "other", "org/model:1@x+y"]
