"""The official client reads what the Responses dialect writes: whole, streamed, parsed, broken off and refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import openai
import orjson
import pytest
from pydantic import BaseModel

from gateway.dialects import sse
from gateway.dialects.responses import ResponsesDialect
from gateway.errors import RateLimited, UpstreamFailed
from tests.gateway.dialects.responses_streams import LAST, ROLE, STREAMS, accumulated, call, decoded, delta, event
from tests.gateway.dialects.test_responses_answer import UPSTREAM
from tests.services import upstream
from tests.services.upstream import Upstream

RESPONSES = ResponsesDialect()


class City(BaseModel):
    """What a tool is called with, and what an answer is parsed as."""

    name: str


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream.running() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as made:
        yield made


def streams(server: Upstream, chunks: list[dict[str, Any]]) -> None:
    """Answer every request with `chunks`, encoded as the answer to it, each event in a piece of its own."""

    async def answer(asked: upstream.Asked, peer: upstream.Peer) -> None:
        encoder = RESPONSES.encoder(asked.json)
        data = [*map(encoder.feed, chunks), encoder.end()]
        await upstream.stream(*(one for one in data if one))(asked, peer)

    server.then(answer)


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_streams_are_read_event_by_event(server: Upstream, client: openai.OpenAI, chunks: list[dict[str, Any]]) -> None:
    streams(server, chunks)
    with client.responses.create(model="fast", input="Hi", stream=True) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    message = accumulated(chunks)["choices"][0]["message"]
    assert last.response.output_text == (message["content"] or "")
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == (
        message["content"] or ""
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydantic warns of what is not of the type it is said to be
        assert last.response.to_dict() == orjson.loads(last.response.to_json(indent=None))


@pytest.mark.parametrize("chunks", [STREAMS[name] for name in STREAMS if name not in ("cut short", "filtered")])
def test_the_streaming_helper_puts_the_answer_together(
    server: Upstream, client: openai.OpenAI, chunks: list[dict[str, Any]]
) -> None:
    streams(server, chunks)
    message = accumulated(chunks)["choices"][0]["message"]
    with client.responses.stream(model="fast", input="Hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == (message["content"] or "")
    calls = [(item.call_id, item.arguments) for item in final.output if item.type == "function_call"]
    functions = [one for one in message.get("tool_calls", ()) if one["type"] == "function"]
    assert calls == [(one["id"], one["function"]["arguments"]) for one in functions]


def test_calls_and_text_are_parsed_into_the_callers_own_types(server: Upstream, client: openai.OpenAI) -> None:
    pieces = [call(0, '{"name": ', id_="c1", name="City"), call(0, '"Rome"}')]
    said = [delta(content='{"name": '), delta(content='"Oslo"}')]
    streams(server, [ROLE, *said, *(delta(tool_calls=[one]) for one in pieces), delta("tool_calls"), LAST])
    tools = [openai.pydantic_function_tool(City)]
    tool = {"type": "function", **tools[0]["function"]}
    with client.responses.stream(model="fast", input="Hi", text_format=City, tools=[tool]) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == City(name="Oslo")
    parsed = [item.parsed_arguments for item in final.output if item.type == "function_call"]
    assert parsed == [{"name": "Rome"}]


def test_a_whole_answer(server: Upstream, client: openai.OpenAI) -> None:
    completion = accumulated(STREAMS["text and calls"])

    async def answer(asked: upstream.Asked, peer: upstream.Peer) -> None:
        RESPONSES.check(asked.json)
        await upstream.whole(RESPONSES.answer_from_chat(completion, asked.json))(asked, peer)

    server.then(answer)
    found = client.responses.create(model="fast", input="Hi", reasoning={"effort": "low"}, metadata={"a": "b"})
    assert (found.output_text, found.status, found.metadata) == ("So", "completed", {"a": "b"})
    assert found.usage is not None
    assert (found.usage.input_tokens_details.cached_tokens, found.usage.total_tokens) == (5, 13)


@pytest.mark.parametrize("name", UPSTREAM)
def test_an_upstreams_stream_is_read_by_the_client_of_chat(server: Upstream, client: openai.OpenAI, name: str) -> None:
    events, final = UPSTREAM[name]
    chunks = decoded([*events, event(f"response.{final['status']}", response=final)])
    server.then(upstream.stream(*map(sse.event, chunks), upstream.DONE))
    with client.chat.completions.stream(model="fast", messages=[{"role": "user", "content": "Hi"}]) as stream:
        snapshot = list(stream) and stream.current_completion_snapshot
    found, expected = snapshot.choices[0].to_dict(), RESPONSES.answer_to_chat(final)["choices"][0]
    message, said = expected["message"], found["message"]
    assert (found["finish_reason"], said["content"]) == (expected["finish_reason"], message["content"] or "")
    assert said.get("reasoning_content") == message.get("reasoning_content")
    assert list(map(called, said.get("tool_calls") or ())) == list(map(called, message.get("tool_calls", ())))
    assert list(filter(None, map(signed, said.get("thinking_blocks", ())))) == [
        (one["thinking"], one["signature"]) for one in message.get("thinking_blocks", ())
    ]


def called(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["id"], one["function"]["name"], one["function"]["arguments"]


def signed(block: dict[str, Any]) -> tuple[str, str] | None:
    return (block["thinking"], block["signature"]) if "signature" in block else None


def read_all(client: openai.OpenAI) -> None:
    list(client.responses.create(model="fast", input="Hi", stream=True))


def read_with_the_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model="fast", input="Hi") as stream:
        stream.get_final_response()


@pytest.mark.parametrize("read", [read_all, read_with_the_helper])
def test_a_stream_that_is_broken_off_raises(
    server: Upstream, client: openai.OpenAI, read: Callable[[openai.OpenAI], None]
) -> None:
    encoder = RESPONSES.encoder({})
    broken = RESPONSES.broken_off(UpstreamFailed("The provider's stream broke off."))
    server.then(upstream.stream(encoder.feed(ROLE), encoder.feed(delta(content="Hel")), broken))
    with pytest.raises(openai.APIError, match=r"stream broke off\.") as raised:
        read(client)
    assert (raised.value.code, raised.value.type) == ("upstream_failed", "upstream_error")
    event = orjson.loads(broken.split(b"data: ")[1])
    flat = {name: event[name] for name in ("type", "code", "param")}
    assert flat == {"type": "error", "code": "upstream_failed", "param": None}


def test_a_refusal_is_one_of_openais(server: Upstream, client: openai.OpenAI) -> None:
    status, headers, body = RESPONSES.refusal(RateLimited("Too fast.", retry_after=3))
    server.then(upstream.whole(body, status=status, retry_after=headers["retry-after"]))
    with pytest.raises(openai.RateLimitError, match="Too fast"):
        client.responses.create(model="fast", input="Hi")
    passed = orjson.loads(body)
    assert RESPONSES.refused_to_chat(passed, status) == RESPONSES.refused_from_chat(passed, status) == passed
