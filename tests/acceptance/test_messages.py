"""Anthropic's own client, unmodified, on any route; and OpenAI's on one that only speaks Anthropic's dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.conftest import StartServer
from tests.services.gateway import CREDENTIAL, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, delta, stream, usage_chunk, whole

HELLO: Any = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "$defs": {"city": {"type": "string"}},
    },
}


@pytest.fixture(scope="module")
def claude(gateway: Server) -> Iterator[anthropic.Anthropic]:
    """Anthropic's client, with one of our keys."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.admin_key, max_retries=0, timeout=30) as client:
        yield client


def test_a_message_by_a_model_that_speaks_chat(
    claude: anthropic.Anthropic, upstream: Upstream, gateway: Server
) -> None:
    upstream.then(whole(chat()))
    raw = claude.messages.with_raw_response.create(
        model="up", max_tokens=50, system="Be brief.", messages=HELLO, stop_sequences=["END"]
    )
    message = raw.parse()
    assert (message.content[0].text, message.stop_reason) == ("Hello", "end_turn")  # type: ignore[union-attr]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 2)
    assert upstream.last.path == "/v1/chat/completions"
    sent = upstream.last.json
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, HELLO[0]]
    assert sent["model"] == "upstream-model"
    assert sent["stop"] == ["END"]
    assert upstream.last.header("anthropic-version") is None
    assert upstream.last.header("authorization") == f"Bearer {CREDENTIAL}"
    record = usage_of(gateway, raw.headers["x-request-id"])
    assert (record["task"], record["input_tokens"], record["output_tokens"]) == ("messages", 9, 2)


def test_a_streamed_message_with_a_tool(claude: anthropic.Anthropic, upstream: Upstream, gateway: Server) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty": "Oslo"}'}}
    upstream.then(
        stream(
            delta("Let me", role="assistant"), delta(" look."), delta(tool_calls=[call]), delta(tool_calls=[rest]),
            delta(finish="tool_calls"), usage_chunk(12, 7), b"data: [DONE]\n\n",
        )
    )  # fmt: skip
    with claude.messages.stream(model="up", max_tokens=50, messages=HELLO, tools=[WEATHER]) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
        request_id = events.response.headers["x-request-id"]
    assert text == "Let me look."
    assert message.stop_reason == "tool_use"
    assert message.content[1].input == {"city": "Oslo"}  # type: ignore[union-attr]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 7)
    [tool] = upstream.last.json["tools"]
    assert tool["function"]["parameters"] == WEATHER["input_schema"]
    record = usage_of(gateway, request_id)
    assert (record["input_tokens"], record["output_tokens"], record["status"]) == (12, 7, 200)


def test_its_client_lists_the_routes(claude: anthropic.Anthropic) -> None:
    listed = list(claude.models.list())
    assert "up" in [model.id for model in listed]
    assert claude.models.retrieve("up").display_name == "up"


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"extra_body": {"top_k": 5}}, 400, "top_k"),
        ({"model": "nobody"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages"),
    ],
)
def test_refusals_have_anthropics_shape(
    claude: anthropic.Anthropic, fields: dict[str, Any], status: int, said: str
) -> None:
    asked: dict[str, Any] = {"model": "up", "max_tokens": 5, "messages": HELLO, **fields}
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.messages.create(**asked)
    assert refused.value.status_code == status
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert said in body["error"]["message"]


def test_what_is_not_here_has_anthropics_shape_too(claude: anthropic.Anthropic) -> None:
    for ask in (lambda: claude.models.retrieve("nobody"), lambda: claude.messages.batches.retrieve("one")):
        with pytest.raises(anthropic.NotFoundError) as refused:
            ask()
        body: Any = refused.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


def test_an_upstreams_error_has_anthropics_shape_too(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    error = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit"}}
    upstream.then(whole(error, status=429, retry_after="3"))
    with pytest.raises(anthropic.RateLimitError, match="slow down") as refused:
        claude.messages.create(model="up", max_tokens=5, messages=HELLO)
    assert refused.value.response.headers["retry-after"] == "3"


def test_a_stream_that_breaks_is_an_error_and_no_end(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.then(stream(delta("Hel", role="assistant"), None))
    with (
        pytest.raises(anthropic.APIStatusError, match="broke"),
        claude.messages.stream(model="up", max_tokens=5, messages=HELLO) as events,
    ):
        for _ in events:
            pass


def test_what_is_dropped_is_named(start_server: StartServer, upstream: Upstream) -> None:
    server = start_server(f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
routes:
  up: {{deployments: [{{provider: up, model: m}}], unsupported: drop, cache: {{ttl: 60}}}}
""")
    upstream.then(whole(chat("Hi")))
    text = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    more = {"top_k": 3}
    marked: Any = [{"role": "user", "content": [text]}]
    with anthropic.Anthropic(base_url=server.url, api_key=server.admin_key, max_retries=0) as client:
        ask = client.messages.with_raw_response.create
        asked, again = [ask(model="up", max_tokens=5, messages=marked, extra_body=more) for _ in range(2)]
        odd = ask(model="up", max_tokens=5, messages=HELLO, extra_body={"a\r\nb": 1, "\x7fé" * 50: 1})
    assert again.headers["x-promptyard-cache"] == "hit"
    for one in (asked, again):
        assert set(one.headers["x-promptyard-dropped"].split(", ")) == {"top_k", "cache_control"}
    assert "cache_control" not in upstream.asked[0].body.decode()
    assert odd.headers["x-promptyard-dropped"].split(", ") == [r"a\r\nb", (r"\x7f\xe9" * 50)[:100]]
