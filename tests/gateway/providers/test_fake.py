"""The fake provider: OpenAI's shapes without a script, and every way a script can go wrong."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

from gateway.errors import UpstreamFailed
from gateway.providers.fake import FakeProvider
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

HELLO = {"messages": [{"role": "user", "content": "hello my friend"}]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def fake(*steps: Mapping[str, Any], cycle: bool = False) -> FakeProvider:
    options: dict[str, Any] = {"script": list(steps), "cycle": cycle} if steps else {}
    return FakeProvider(ProviderSpec("fake", "fake", options=options))


async def ask(
    provider: FakeProvider, body: Mapping[str, Any] = HELLO, task: Task = Task.CHAT, stream: bool = False
) -> Answer:
    return await provider.send(UpstreamRequest(task, "m-1", body, {}, stream, 5.0))


async def chat(*steps: Mapping[str, Any], **body: Any) -> ChatCompletion:
    answer = await ask(fake(*steps), {**HELLO, **body})
    assert answer.status == 200
    return ChatCompletion.model_validate_json(answer.body)


async def received(answer: Answer) -> list[bytes]:
    """The chunks of a stream until it ends or breaks."""
    assert answer.chunks is not None
    found: list[bytes] = []
    try:
        # One by one: a comprehension would lose what came before the break.
        while chunk := await anext(answer.chunks, b""):
            found.append(chunk)
    except UpstreamFailed:
        found.append(b"BROKEN")
    return found


def events(raw: bytes) -> list[Any]:
    """The data of each server-sent event, `[DONE]` as text."""
    data = [event.removeprefix(b"data: ") for event in raw.split(b"\n\n") if event]
    return ["[DONE]" if one == b"[DONE]" else orjson.loads(one) for one in data]


async def test_without_a_script_it_echoes() -> None:
    found = await chat()
    choice = found.choices[0]
    assert (choice.message.content, choice.finish_reason, found.model) == ("echo: hello my friend", "stop", "m-1")
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 4, 7)


async def test_the_same_request_gets_the_same_answer_and_its_own_id() -> None:
    provider = fake()
    first, second = [orjson.loads((await ask(provider)).body) for _ in range(2)]
    assert first.pop("id") != second.pop("id")
    first.pop("created"), second.pop("created")
    assert first == second


@pytest.mark.parametrize(
    ("body", "texts", "reason"),
    [
        ({"n": 2}, ["echo: hello my friend"] * 2, "stop"),
        ({"max_tokens": 2}, ["echo: hello "], "length"),
        ({"max_completion_tokens": 1, "max_tokens": 3}, ["echo: "], "length"),
        ({"max_tokens": 4}, ["echo: hello my friend"], "stop"),
        ({"max_tokens": None, "n": None}, ["echo: hello my friend"], "stop"),
        ({"messages": [{"role": "user", "content": ""}]}, ["echo: "], "stop"),
        ({"messages": [{"role": "assistant", "content": None}]}, ["echo: "], "stop"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
            ["echo: a"],
            "stop",
        ),
        ({"messages": [*HELLO["messages"], {"role": "user", "content": "last"}]}, ["echo: last"], "stop"),
        ({"messages": [{"role": "user", "content": " ".join("w" * 100)}]}, ["echo:" + " w" * 64], "stop"),
        ({"tools": TOOLS}, ["echo: hello my friend"], "stop"),
    ],
)
async def test_what_the_request_asks_for(body: dict[str, Any], texts: list[str], reason: str) -> None:
    found = await chat(**body)
    assert [choice.message.content for choice in found.choices] == texts
    assert {choice.finish_reason for choice in found.choices} == {reason}
    assert [choice.index for choice in found.choices] == list(range(len(texts)))


@pytest.mark.parametrize(
    ("task", "body", "says"),
    [
        (Task.CHAT, {}, "'messages'"),
        (Task.CHAT, {"messages": []}, "'messages'"),
        (Task.CHAT, {"messages": ["hi"]}, "'messages'"),
        (Task.CHAT, {**HELLO, "n": 0}, "'n'"),
        (Task.CHAT, {**HELLO, "max_tokens": "many"}, "'max_tokens'"),
        (Task.CHAT, {**HELLO, "tools": [{}], "tool_choice": "required"}, "'tools'"),
        (Task.COMPLETIONS, {}, "'prompt'"),
        (Task.COMPLETIONS, {"prompt": [1, "a"]}, "'prompt'"),
        (Task.EMBEDDINGS, {"input": []}, "'input'"),
        (Task.EMBEDDINGS, {"input": "a", "dimensions": -1}, "'dimensions'"),
    ],
)
async def test_a_malformed_request_is_a_400_in_openai_s_shape(task: Task, body: dict[str, Any], says: str) -> None:
    answer = await ask(fake(), body, task)
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert says in error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_caller_who_insists_gets_a_tool_call(choice: Any) -> None:
    found = (await chat(tools=TOOLS, tool_choice=choice)).choices[0]
    assert (found.finish_reason, found.message.content) == ("tool_calls", None)
    assert found.message.tool_calls is not None
    call = found.message.tool_calls[0]
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", "{}")


async def test_a_stream_is_its_answer_in_pieces_then_usage_then_done() -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    answer = await ask(fake(), body, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *found, done = events(b"".join(await received(answer)))
    chunks = [ChatCompletionChunk.model_validate(event) for event in found]
    text = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    assert text == ["echo: ", "hello ", "my ", "friend", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 4 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (chunks[-1].choices, done) == ([], "[DONE]")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7
    assert [event["usage"] for event in found[:-1]] == [None] * 5


async def test_usage_is_streamed_only_when_asked_for() -> None:
    found = events(b"".join(await received(await ask(fake(), stream=True))))
    assert not any("usage" in event for event in found[:-1])


async def test_a_streamed_tool_call_puts_its_arguments_together() -> None:
    step = {"tool_call": {"name": "weather", "arguments": {"city": "Oslo"}}}
    *found, _ = events(b"".join(await received(await ask(fake(step), stream=True))))
    chunks = [ChatCompletionChunk.model_validate(event) for event in found]
    calls = chunks[0].choices[0].delta.tool_calls
    assert calls is not None
    assert calls[0].function is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"Oslo"}')
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_an_empty_answer_still_streams_a_role_and_an_end() -> None:
    found = events(b"".join(await received(await ask(fake({"answer": ""}), stream=True))))
    assert [event["choices"][0]["delta"] for event in found[:-1]] == [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("hi", ["echo: hi"]),
        (["a", "b c"], ["echo: a", "echo: b c"]),
        ([1, 2], ["echo: 1 2"]),
        ([[1], [2]], ["echo: 1", "echo: 2"]),
    ],
)
async def test_completions(prompt: Any, texts: list[str]) -> None:
    answer = await ask(fake(), {"prompt": prompt}, Task.COMPLETIONS)
    found = Completion.model_validate_json(answer.body)
    assert [choice.text for choice in found.choices] == texts
    stream = await received(await ask(fake(), {"prompt": prompt}, Task.COMPLETIONS, stream=True))
    joined = [""] * len(texts)
    for event in events(b"".join(stream))[:-1]:
        assert event["object"] == "text_completion"
        joined[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert joined == texts


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone() -> None:
    answer = await ask(fake(), {"input": ["a", "b", "a"], "dimensions": 8}, Task.EMBEDDINGS)
    found = CreateEmbeddingResponse.model_validate_json(answer.body)
    vectors = [one.embedding for one in found.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3)
    assert {len(vector) for vector in vectors} == {8}
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 3)


async def test_embeddings_in_base64_are_the_same_numbers() -> None:
    plain = orjson.loads((await ask(fake(), {"input": "a"}, Task.EMBEDDINGS)).body)["data"][0]["embedding"]
    body = {"input": "a", "encoding_format": "base64"}
    packed = orjson.loads((await ask(fake(), body, Task.EMBEDDINGS)).body)["data"][0]["embedding"]
    assert struct.unpack(f"<{len(plain)}f", base64.b64decode(packed)) == pytest.approx(plain, rel=1e-6)


async def test_a_scripted_embedding_is_given_as_it_is() -> None:
    answer = await ask(fake({"embedding": [0.6, 0.8]}), {"input": ["a", "b"]}, Task.EMBEDDINGS)
    assert [one["embedding"] for one in orjson.loads(answer.body)["data"]] == [[0.6, 0.8], [0.6, 0.8]]


@pytest.mark.parametrize(("cycle", "texts"), [(False, "abbb"), (True, "abab")])
async def test_steps_are_used_in_order(cycle: bool, texts: str) -> None:
    provider = fake({"answer": "a"}, {"answer": "b"}, cycle=cycle)
    found = [orjson.loads((await ask(provider)).body)["choices"][0]["message"]["content"] for _ in texts]
    assert "".join(found) == texts


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        ({}, (3, 4, 0, 0)),
        ({"answer": "one two"}, (3, 2, 0, 0)),
        ({"usage": {"prompt_tokens": 100, "cached_tokens": 60}}, (100, 4, 60, 0)),
        ({"usage": {"completion_tokens": 50, "reasoning_tokens": 20}}, (3, 50, 0, 20)),
    ],
)
async def test_usage(step: dict[str, Any], counts: tuple[int, int, int, int]) -> None:
    usage = (await chat(step)).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    cached, reasoning = usage.prompt_tokens_details.cached_tokens, usage.completion_tokens_details.reasoning_tokens
    assert (usage.prompt_tokens, usage.completion_tokens, cached, reasoning) == counts
    assert usage.total_tokens == counts[0] + counts[1]


async def test_usage_may_be_missing() -> None:
    assert (await chat({"no_usage": True})).usage is None
    body = {**HELLO, "stream_options": {"include_usage": True}}
    found = events(b"".join(await received(await ask(fake({"no_usage": True}), body, stream=True))))
    assert [event["usage"] for event in found[:-1]] == [None] * 5


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_come_before_any_chunk(stream: bool) -> None:
    step = {"error": {"status": 429, "message": "slow down", "type": "requests", "code": "x", "retry_after": 2.5}}
    answer = await ask(fake(step), stream=stream)
    assert (answer.status, answer.headers["retry-after"], answer.chunks) == (429, "2.5", None)
    assert orjson.loads(answer.body) == {
        "error": {"message": "slow down", "type": "requests", "param": None, "code": "x"}
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_html(stream: bool) -> None:
    answer = await ask(fake({"html": True}), stream=stream)
    assert (answer.status, answer.headers["content-type"], answer.chunks) == (503, "application/json", None)
    assert orjson.loads(answer.body)["error"]["message"] == "Provider 'fake' answered HTTP 503."


async def test_garbage_is_half_an_answer() -> None:
    with pytest.raises(UpstreamFailed, match="not with a JSON object"):
        await ask(fake({"garbage": True}))
    last = (await received(await ask(fake({"garbage": True}), stream=True)))[-1]
    assert last.startswith(b"data: ")
    with pytest.raises(orjson.JSONDecodeError):
        events(last)


async def test_raw_is_sent_as_it_stands() -> None:
    raw = '{"ünï": 1 }'
    whole = await ask(fake({"raw": raw, "status": 201, "content_type": "application/x"}))
    assert (whole.status, whole.headers["content-type"], whole.body) == (201, "application/x", raw.encode())
    failed = await ask(fake({"raw": '{"error": 1}', "status": 500}), stream=True)
    assert (failed.status, failed.body, failed.chunks) == (500, b'{"error": 1}', None)
    with pytest.raises(UpstreamFailed, match="text/plain"):
        await ask(fake({"raw": "no", "content_type": "text/plain"}))
    cut = await received(await ask(fake({"raw": "ü!", "split": 1}), stream=True))
    assert cut == [b"\xc3", b"\xbc", b"!"]


PIECES = {"chunks": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("step", "texts", "end"),
    [
        ({**PIECES}, "abc", b"data: [DONE]\n\n"),
        ({**PIECES, "cut": 0}, "", b"BROKEN"),
        ({**PIECES, "cut": 2}, "ab", b"BROKEN"),
        ({**PIECES, "cut": 3}, "abc", b"BROKEN"),
        ({**PIECES, "cut": 9}, "abc", b"BROKEN"),
        ({**PIECES, "truncate": 0}, "", None),
        ({**PIECES, "truncate": 2}, "ab", None),
        ({**PIECES, "truncate": 9}, "abc", None),
        ({**PIECES, "pause": 0.001}, "abc", b"data: [DONE]\n\n"),
        ({**PIECES, "finish_reason": "content_filter"}, "abc", b"data: [DONE]\n\n"),
    ],
)
async def test_how_a_stream_ends(step: dict[str, Any], texts: str, end: bytes | None) -> None:
    found = await received(await ask(fake(step), stream=True))
    if end is not None:
        assert found.pop() == end
    said = [event["choices"][0]["delta"].get("content", "") for event in events(b"".join(found))]
    assert "".join(said) == texts
    if "finish_reason" in step:
        assert events(found[-1])[0]["choices"][0]["finish_reason"] == step["finish_reason"]


@pytest.mark.parametrize("step", [{"cut": 1}, {"truncate": 1}])
async def test_a_whole_answer_that_breaks_off_never_arrives(step: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        await ask(fake(step))


async def test_split_cuts_a_stream_anywhere_and_loses_nothing() -> None:
    step = {"chunks": ["ünï", "cöde"]}
    whole, cut = [await received(await ask(fake(one), stream=True)) for one in (step, {**step, "split": 1})]
    assert {len(part) for part in cut} == {1}
    texts = [
        [event["choices"][0]["delta"] for event in events(b"".join(parts)) if event != "[DONE]"]
        for parts in (whole, cut)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("pieces", [0, 2, 9])
async def test_a_stalled_stream_is_silent_until_it_is_left(pieces: int) -> None:
    answer = await ask(fake({**PIECES, "stall": pieces}), stream=True)
    assert answer.chunks is not None
    for _ in range(min(pieces, 3)):
        await anext(answer.chunks)
    waiting = asyncio.ensure_future(anext(answer.chunks))
    done, _ = await asyncio.wait({waiting}, timeout=0.02)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await answer.chunks.aclose()


async def test_a_stalled_answer_is_silent_until_it_is_left() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(fake({"stall": 0})), 0.02)


async def test_delays_are_kept() -> None:
    began = time.perf_counter()
    answer = await ask(fake({**PIECES, "delay": 0.03, "pause": 0.02}), stream=True)
    assert time.perf_counter() - began >= 0.03
    await received(answer)
    assert time.perf_counter() - began >= 0.03 + 2 * 0.02


async def test_the_caller_s_request_is_left_as_it_was() -> None:
    body = {**HELLO, "n": 2, "tools": TOOLS}
    before = orjson.dumps(body)
    await ask(fake(), body)
    assert orjson.dumps(body) == before


async def test_its_life_has_no_events() -> None:
    provider = fake()
    await provider.start()
    assert (provider.status(), provider.name) == ("ready", "fake")
    await provider.close()
    await provider.close()


@pytest.mark.parametrize("step", [{"answr": "x"}, {"answer": "x", "html": True}, {"delay": -1}, {"answer": 3}])
def test_a_wrong_step_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        fake(step)
