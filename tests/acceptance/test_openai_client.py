"""The official `openai` client, unmodified, against a live server: what it sends arrives, what it expects comes."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any

import openai
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, async_client, client, error_of, make_key, new_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import (
    DONE,
    STREAM,
    Upstream,
    chat,
    delta,
    event,
    stream,
    until,
    usage,
    usage_chunk,
    whole,
)

CREDENTIAL = "sk-the-upstreams-own"
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


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, start_servers: StartServer) -> Server:
    """Routes `up` and `embed` ask the upstream of this module; `other` is a fake."""
    config = f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}", api_key: "${{UP_KEY}}", headers: {{x-team: ours}}}}
  fake: {{type: fake}}
routes:
  up:
    deployments: [{{provider: up, model: upstream-model}}]
  embed:
    task: embeddings
    deployments: [{{provider: up, model: upstream-embed}}]
  other:
    deployments: [{{provider: fake, model: fake}}]
  "org/model:1@x+y":
    deployments: [{{provider: fake, model: fake}}]
"""
    return start_servers(config, env={"UP_KEY": CREDENTIAL})


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
    assert sent == {
        **extra,
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
    assert set(answer.headers) == {"content-type", "content-length", "date", "x-request-id", "x-promptyard-deployment"}
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


@pytest.mark.parametrize("secret", ["sk-py-unknown", "nonsense", "Bearer", "ü"])
def test_an_unknown_key_is_an_authentication_error(gateway: Server, secret: str) -> None:
    with gateway.client() as http:
        answer = http.get("/v1/models", headers={b"authorization": f"Bearer {secret}".encode()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"]
        assert error_of(answer)["code"] == "invalid_api_key"
        assert secret not in answer.text
    if secret.isascii():
        with client(gateway, secret) as ai, pytest.raises(openai.AuthenticationError) as caught:
            ai.chat.completions.create(model="up", messages=MESSAGES)
        assert caught.value.request_id in gateway.stderr()


def test_no_key_at_all(gateway: Server) -> None:
    with gateway.client() as http:
        del http.headers["authorization"]
        answer = ask(http, "up")
    assert answer.status_code == 401
    assert "x-api-key" in error_of(answer)["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_every_way_to_send_a_key(gateway: Server) -> None:
    secret = make_key(gateway)
    basic = base64.b64encode(f"whoever:{secret}".encode()).decode()
    with gateway.client() as http:
        del http.headers["authorization"]
        for headers in (
            {"authorization": f"Bearer {secret}"},
            {"authorization": f"bearer  {secret}"},
            {"x-api-key": secret},
            {"authorization": f"Basic {basic}"},
        ):
            assert http.get("/v1/models", headers=headers).status_code == 200, headers
        assert http.get(f"/v1/models?api_key={secret}").status_code == 401
        assert http.get("/v1/models", headers={"authorization": secret}).status_code == 401


def test_a_revoked_key_and_an_expired_one(gateway: Server) -> None:
    revoked, short = new_key(gateway), make_key(gateway, expires_in=0.5)
    with client(gateway, revoked["key"]) as ai:
        assert ai.models.list().data
        with gateway.client() as admin:
            assert admin.delete(f"/admin/keys/{revoked['id']}").status_code == 200
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            ai.models.list()

    def expired() -> bool:
        with client(gateway, short) as ai:
            try:
                return not ai.models.list()
            except openai.AuthenticationError as error:
                return "expired" in str(error)

    until(expired)


def test_what_a_key_may_not_do_is_a_permission_error(gateway: Server) -> None:
    with (
        client(gateway, make_key(gateway, routes=["other"])) as ai,
        pytest.raises(openai.PermissionDeniedError, match=r"may not call the model 'up'.*other") as caught,
    ):
        ai.chat.completions.create(model="up", messages=MESSAGES)
    record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["error"], record["input_tokens"]) == (403, "permission_denied", 0)
    with (
        client(gateway, make_key(gateway, scopes=["tracking"])) as ai,
        pytest.raises(openai.PermissionDeniedError, match="no scope 'inference'"),
    ):
        ai.chat.completions.create(model="up", messages=MESSAGES)


def test_an_unknown_model_names_those_that_can_be_called(gateway: Server) -> None:
    with client(gateway, make_key(gateway, routes=["other", "embed"])) as ai:
        with pytest.raises(openai.NotFoundError, match=r"'gpt-5' does not exist here.*embed, other\.") as caught:
            ai.chat.completions.create(model="gpt-5", messages=MESSAGES)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["error"]) == (404, "model_not_found")
    with client(gateway, make_key(gateway, routes=[])) as ai:
        assert ai.models.list().data == []
        with pytest.raises(openai.NotFoundError, match="no model this key may call"):
            ai.chat.completions.create(model="gpt-5", messages=MESSAGES)


def test_a_bad_request_is_a_bad_request_error(gateway: Server) -> None:
    with client(gateway) as ai:
        with pytest.raises(openai.BadRequestError, match="messages"):
            ai.chat.completions.create(model="up", messages=[])
        with pytest.raises(openai.BadRequestError, match="serves embeddings"):
            ai.chat.completions.create(model="embed", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="serves chat"):
            ai.embeddings.create(model="up", input="x")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_bad_request_passes_with_its_body(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    body = b'{"error": {"message": "too long by 3", "type": "invalid_request_error", "param": "messages", "code": "c"}}'
    upstream.then(whole(body, 400))
    with gateway.client() as http:
        answer = ask(http, "up", stream=streamed)
    assert (answer.status_code, answer.content) == (400, body)
    with client(gateway) as ai, pytest.raises(openai.BadRequestError, match="too long by 3") as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["input_tokens"], record["cost_usd"]) == (400, 0, 0)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_429_keeps_its_retry_after(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    body = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None}}
    upstream.then(whole(body, 429, retry_after="7"))
    with client(gateway) as ai, pytest.raises(openai.RateLimitError, match="slow down") as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (b'{"detail": "model is asleep"}', "HTTP 422: model is asleep"),
        (b"<html>422</html>", "HTTP 422."),
        (b"", "HTTP 422."),
        (b"[]", "HTTP 422."),
    ],
)
def test_an_error_in_another_shape_is_told_in_openais(
    gateway: Server, upstream: Upstream, detail: bytes, said: str
) -> None:
    upstream.then(whole(detail, 422))
    with client(gateway) as ai, pytest.raises(openai.UnprocessableEntityError, match=said) as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES)
    error_of(caught.value.response)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstream_that_refuses_our_credential_is_a_502_that_leaks_nothing(
    gateway: Server, upstream: Upstream, status: int, streamed: bool
) -> None:
    upstream.then(whole({"error": {"message": f"Incorrect API key provided: {CREDENTIAL}"}}, status))
    with client(gateway) as ai, pytest.raises(openai.InternalServerError) as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_refused_credential"
    assert CREDENTIAL not in caught.value.response.text + gateway.stderr()


def test_every_answer_has_a_request_id_that_log_and_record_know(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    with gateway.client() as http:
        answers = {
            200: ask(http, "up"),
            404: ask(http, "nope"),
            400: ask(http, "up", messages=5),
            405: http.get("/v1/chat/completions"),
            415: http.post("/v1/chat/completions", content=b"x", headers={"content-type": "text/plain"}),
        }
        unknown = http.post("/v1/nothing/here", json={})
        assert unknown.status_code == 404
        listing = http.get("/v1/models")
    ids = set()
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        ids.add(answer.headers["x-request-id"])
    ids |= {unknown.headers["x-request-id"], listing.headers["x-request-id"]}
    assert len(ids) == 7
    for answer in (*answers.values(), unknown):
        assert gateway.stderr().count(answer.headers["x-request-id"]) == 1
    for status in (200, 404):
        assert usage_of(gateway, answers[status])["request_id"] == answers[status].headers["x-request-id"]
    assert "Traceback" not in gateway.stderr()
