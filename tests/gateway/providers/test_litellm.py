"""The litellm provider against what goes over the wire: URL, headers, body, and how errors come back."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx
from pydantic import SecretStr

from gateway.errors import UpstreamFailed, UpstreamTimeout, to_openai
from gateway.providers import litellm as door
from gateway.providers.litellm import LiteLLMProvider
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest
from tests.services.upstream import Asked, Peer, head, running

# litellm loads parts of itself at its first calls, and pydantic warns about their types.
pytestmark = pytest.mark.filterwarnings("ignore")

CREDENTIAL = "credential-of-the-upstream-1234"
CLAUDE = "anthropic/claude-3-5-haiku-20241022"
CLAUDE_URL = "https://api.anthropic.com/v1/messages"
MISTRAL_URL = "https://api.mistral.ai/v1"
MESSAGES = [{"role": "user", "content": "hi"}]
CLAUDE_SAYS = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Hello"}], "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
CLAUDE_STREAMS = [
    {"type": "message_start", "message": {**CLAUDE_SAYS, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo ü"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
MISTRAL_SAYS = {
    "id": "1", "object": "chat.completion", "created": 1, "model": "mistral-small",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
VECTORS = {
    "object": "list", "model": "mistral-embed", "usage": {"prompt_tokens": 1, "total_tokens": 1},
    "data": [{"object": "embedding", "index": 0, "embedding": [1.0, -0.5]}],
}  # fmt: skip
#: Arguments by which litellm is told where to go, with what, and to make answers up.
ORDERS = {
    "api_base": "http://evil.test", "base_url": "http://evil.test", "api_key": "stolen", "headers": {"x-evil": "1"},
    "extra_headers": {"x-evil": "1"}, "custom_llm_provider": "openai", "mock_response": "made up", "num_retries": 3,
    "model_list": [{"model_name": "x"}], "fallbacks": ["openai/x"], "callbacks": ["x"], "api_version": "x",
    "litellm_params": {"api_base": "http://evil.test"}, "extra_query": {"x": "1"}, "drop_params": True,
    "caching": True, "proxy_server_request": {}, "organization": "evil", "azure_ad_token": "x", "client": "x",
}  # fmt: skip


@pytest.fixture
def wire() -> Iterator[respx.MockRouter]:
    with respx.mock() as router:
        yield router


def provider(**spec: Any) -> LiteLLMProvider:
    return LiteLLMProvider(ProviderSpec("up", "litellm", **{"api_key": SecretStr(CREDENTIAL), **spec}))


async def send(
    model: str = CLAUDE, task: Task = Task.CHAT, headers: dict[str, str] | None = None, **body: Any
) -> Answer:
    body = {"model": "route", **body}
    if task is Task.CHAT:
        body = {"messages": MESSAGES, "max_tokens": 5, **body}
    stream = bool(body.get("stream"))
    return await provider().send(UpstreamRequest(task, model, body, headers or {}, stream, 5.0))


def sent(route: respx.Route) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(route.calls.last.request.content)
    return body


async def test_chat_goes_out_in_the_upstreams_dialect(wire: respx.MockRouter) -> None:
    route = wire.post(CLAUDE_URL).respond(json=CLAUDE_SAYS)
    answer = await send(
        temperature=0,
        stop=["."],
        headers={"anthropic-beta": "context-1m-2025-08-07", "accept": "x", "traceparent": "00"},
    )
    assert answer.status == 200
    said = json.loads(answer.body)
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["message"] | {"content": "Hello", "role": "assistant"} == said["choices"][0]["message"]
    assert (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]) == (3, 2)
    request = route.calls.last.request
    assert request.headers["x-api-key"] == CREDENTIAL
    assert "context-1m-2025-08-07" in request.headers["anthropic-beta"]
    assert request.headers["traceparent"] == "00"
    body = sent(route)
    assert body["model"] == "claude-3-5-haiku-20241022"
    assert (body["temperature"], body["stop_sequences"], body["max_tokens"]) == (0, ["."], 5)
    assert "extra_body" not in body


async def test_a_stream_is_openais_events(wire: respx.MockRouter) -> None:
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in CLAUDE_STREAMS)
    wire.post(CLAUDE_URL).respond(text=events, headers={"content-type": "text/event-stream"})
    answer = await send(stream=True, stream_options={"include_usage": True})
    assert answer.chunks is not None
    assert answer.headers["content-type"] == "text/event-stream"
    lines = b"".join([chunk async for chunk in answer.chunks]).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == "Hello ü"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_leaving_a_stream_early_is_quiet(wire: respx.MockRouter) -> None:
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in CLAUDE_STREAMS)
    wire.post(CLAUDE_URL).respond(text=events, headers={"content-type": "text/event-stream"})
    answer = await send(stream=True)
    assert answer.chunks is not None
    assert (await anext(answer.chunks)).startswith(b"data: {")
    await answer.chunks.aclose()
    assert [chunk async for chunk in answer.chunks] == []


async def test_leaving_before_the_first_chunk_leaves_the_upstream() -> None:
    async def silent(asked: Asked, peer: Peer) -> None:
        await peer.send(head())
        await peer.left()

    with running() as upstream:
        upstream.then(silent)
        request = UpstreamRequest(Task.CHAT, "openai/m", {"messages": MESSAGES, "stream": True}, {}, True, 5.0)
        asking = asyncio.create_task(provider(base_url=upstream.url).send(request))
        await asyncio.to_thread(upstream.wait_asked)
        await asyncio.sleep(0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(upstream.wait_idle)


async def test_unknown_fields_reach_the_upstream(wire: respx.MockRouter) -> None:
    route = wire.post(f"{MISTRAL_URL}/chat/completions").respond(json=MISTRAL_SAYS)
    assert (await send("mistral/mistral-small", safe_prompt=True, metadata={"a": "b"})).status == 200
    assert (sent(route)["safe_prompt"], sent(route)["metadata"]) == (True, {"a": "b"})


@pytest.mark.parametrize("name", ORDERS)
async def test_a_caller_cannot_give_litellm_orders(name: str, wire: respx.MockRouter) -> None:
    route = wire.post(f"{MISTRAL_URL}/chat/completions").respond(json=MISTRAL_SAYS)
    answer = await send("mistral/mistral-small", **{name: ORDERS[name]})
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "Hi"
    request = route.calls.last.request
    assert request.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert "x-evil" not in request.headers
    assert not request.url.query
    # litellm itself throws away what would name headers.
    assert name == "headers" or sent(route)[name] == ORDERS[name]


async def test_orders_cannot_pass_as_openai_parameters() -> None:
    litellm = door._load()
    control = set(litellm.types.utils.all_litellm_params)
    signature = set(inspect.signature(litellm.acompletion).parameters)
    for task, names in door.PARAMETERS.items():
        assert not names & (control - {"user", "stream", "prompt"}), task
        assert not names & {"api_base", "base_url", "api_key", "extra_headers", "timeout", "deployment_id", "client"}
    assert door.PARAMETERS[Task.CHAT] <= signature | set(litellm.OPENAI_CHAT_COMPLETION_PARAMS)


async def test_anthropic_takes_its_own_field_and_refuses_others(wire: respx.MockRouter) -> None:
    route = wire.post(CLAUDE_URL).respond(json=CLAUDE_SAYS)
    assert (await send(top_k=7)).status == 200
    assert sent(route)["top_k"] == 7
    for field in ({"api_base": "http://evil.test"}, {"no_such_field": 1}, {"seed": 1}):
        answer = await send(**field)
        assert answer.status == 400
        assert next(iter(field)) in json.loads(answer.body)["error"]["message"]
    assert route.call_count == 1


async def test_gemini_by_its_own_wire(wire: respx.MockRouter) -> None:
    route = wire.post(url__startswith="https://generativelanguage.googleapis.com/").respond(
        json={
            "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 2, "candidatesTokenCount": 1, "totalTokenCount": 3},
        }
    )
    answer = await send("gemini/gemini-2.0-flash")
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "Hi"
    assert route.calls.last.request.url.path.endswith("models/gemini-2.0-flash:generateContent")
    assert sent(route)["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


async def test_completions(wire: respx.MockRouter) -> None:
    wire.post(f"{MISTRAL_URL}/chat/completions").respond(json=MISTRAL_SAYS)
    answer = await send("mistral/mistral-small", Task.COMPLETIONS, prompt="hi", max_tokens=3)
    said = json.loads(answer.body)
    assert (said["object"], said["choices"][0]["text"]) == ("text_completion", "Hi")


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_embeddings_as_floats_or_base64(encoding: str | None, wire: respx.MockRouter) -> None:
    route = wire.post(f"{MISTRAL_URL}/embeddings").respond(json=VECTORS)
    asked = {"encoding_format": encoding} if encoding else {}
    answer = await send("mistral/mistral-embed", Task.EMBEDDINGS, input=["a"], **asked)
    vector = json.loads(answer.body)["data"][0]["embedding"]
    if encoding == "base64":
        vector = list(struct.unpack("<2f", base64.b64decode(vector)))
    assert vector == [1.0, -0.5]
    assert sent(route)["input"] == ["a"]
    assert "encoding_format" not in sent(route)


async def test_base_url_and_headers_of_the_provider(wire: respx.MockRouter) -> None:
    route = wire.post("http://gpu.test:8000/v1/chat/completions").respond(json=MISTRAL_SAYS)
    up = provider(base_url="http://gpu.test:8000/v1", headers={"x-team": SecretStr("blue")})
    body = {"messages": MESSAGES}
    assert (await up.send(UpstreamRequest(Task.CHAT, "openai/qwen", body, {}, False, 5.0))).status == 200
    assert route.calls.last.request.headers["x-team"] == "blue"


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503, 529])
async def test_a_refusal_keeps_its_status_and_message_but_no_secret(status: int, wire: respx.MockRouter) -> None:
    error = {"type": "error", "error": {"type": "x", "message": f"slow down {CREDENTIAL} please"}}
    route = wire.post(CLAUDE_URL).respond(status, json=error, headers={"retry-after": "7"})
    answer = await send()
    said = json.loads(answer.body)["error"]
    assert answer.status == (500 if status == 529 else status)
    assert said["message"] == "slow down *** please"
    assert set(said) == {"message", "type", "param", "code"}
    assert answer.headers["retry-after"] == "7"
    assert route.call_count == 1


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_credential_is_not_the_callers(status: int, wire: respx.MockRouter) -> None:
    wire.post(CLAUDE_URL).respond(status, json={"error": {"message": f"bad key {CREDENTIAL}"}})
    with pytest.raises(UpstreamFailed) as caught:
        await send()
    assert caught.value.code == "upstream_refused_credential"
    assert CREDENTIAL not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (httpx.ConnectError(f"no route {CREDENTIAL}"), UpstreamFailed),
        (httpx.RemoteProtocolError("cut"), UpstreamFailed),
        (httpx.ReadTimeout("slow"), UpstreamTimeout),
        (httpx.ConnectTimeout("slow"), UpstreamTimeout),
    ],
)
async def test_no_answer_is_a_failure(
    failure: Exception, expected: type[UpstreamFailed], wire: respx.MockRouter
) -> None:
    wire.post(CLAUDE_URL).mock(side_effect=failure)
    with pytest.raises(UpstreamFailed) as caught:
        await send()
    assert type(caught.value) is expected
    assert CREDENTIAL not in str(caught.value)
    assert "Traceback" not in str(caught.value)


async def test_an_answer_that_is_none(wire: respx.MockRouter) -> None:
    wire.post(CLAUDE_URL).respond(200, text="<html>busy</html>")
    try:
        answer = await send()
    except UpstreamFailed:
        return
    assert answer.status >= 500


def _shown(failed: UpstreamFailed) -> Answer:
    status, headers, body = to_openai(failed)
    return Answer(status, dict(headers), body)


def _made(kind: type[BaseException]) -> BaseException:
    """An exception of litellm with whatever arguments its class asks for."""
    known = {
        "status_code": 503, "response": httpx.Response(400, request=httpx.Request("POST", "http://up.test")),
        "failures": [], "current_cost": 1.0, "max_budget": 1.0, "request_data": {}, "headers": {}, "body": None,
    }  # fmt: skip
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    named = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    arguments = {p.name: known.get(p.name, f"about {CREDENTIAL}") for p in named}
    if not arguments:
        return kind(f"about {CREDENTIAL}")
    return kind(**arguments)


def _kinds() -> list[type[BaseException]]:
    exceptions = door._load().exceptions
    found = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, Exception) and kind.__module__ == exceptions.__name__]


async def test_every_exception_of_litellm_has_a_counterpart() -> None:
    kinds = _kinds()
    assert len(kinds) >= 25
    up = provider()
    up._litellm = door._load()
    for kind in kinds:
        error = _made(kind)
        assert isinstance(error, Exception)
        try:
            answer = up._refused(error)
        except UpstreamFailed as failed:
            answer = _shown(failed)
        assert 400 <= answer.status < 600, kind
        assert CREDENTIAL.encode() not in answer.body, kind
        assert set(json.loads(answer.body)["error"]) == {"message", "type", "param", "code"}


def test_litellm_is_not_imported_before_its_first_call() -> None:
    code = (
        "import sys, gateway.providers.litellm as door; from gateway.routes import ProviderSpec;"
        "door.LiteLLMProvider(ProviderSpec('up', 'litellm')); sys.exit('litellm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("model", ["us.claude", "bedrock/us.claude"])
def test_a_signed_provider_s_models_need_no_prefix(model: str) -> None:
    signed = LiteLLMProvider(ProviderSpec("p", "bedrock"), "bedrock")
    arguments = signed._arguments(UpstreamRequest(Task.CHAT, model, {"messages": []}, {}, False, 5.0))
    assert arguments["model"] == "bedrock/us.claude"
