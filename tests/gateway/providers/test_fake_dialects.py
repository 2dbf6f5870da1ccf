"""The fake provider in every dialect: what the official clients' own types accept, broken off piece by piece alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import ValidationError

from gateway.dialects.registry import CONVERSATIONS
from gateway.errors import UpstreamFailed
from gateway.providers.fake import FakeProvider
from gateway.providers.fake_schema import least
from gateway.providers.fake_tasks import TASKS
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

ASKED: Mapping[Task, dict[str, Any]] = {
    Task.CHAT: {"messages": [{"role": "user", "content": "hello my friend"}]},
    Task.MESSAGES: {"messages": [{"role": "user", "content": "hello my friend"}], "max_tokens": 50},
    Task.RESPONSES: {"input": "hello my friend", "include": ["reasoning.encrypted_content"]},
}
WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}}
STEPS: list[Mapping[str, Any]] = [
    {},
    {"chunks": ["One ", "two."]},
    {"answer": "Let me look.", "tool_calls": [WEATHER, {"name": "time"}]},
    {"tool_call": WEATHER},
    {"reasoning": "Let me see.", "answer": "Four."},
    {"reasoning": "Let me see.", "signature": "sealed", "tool_calls": [WEATHER]},
    {"answer": "", "usage": {"prompt_tokens": 9, "cached_tokens": 4, "completion_tokens": 0}},
    {"no_usage": True},
]


def fake(*steps: Mapping[str, Any], **options: Any) -> FakeProvider:
    return FakeProvider(ProviderSpec("fake", "fake", options={"script": list(steps), **options}))


async def ask(step: Mapping[str, Any], task: Task, stream: bool = False, **fields: Any) -> Answer:
    return await fake(step).send(UpstreamRequest(task, "m-1", {**ASKED[task], **fields}, {}, stream, 5.0))


async def received(answer: Answer) -> tuple[bytes, bool]:
    """What came of a stream, and whether it ended by itself."""
    assert answer.chunks is not None
    found = b""
    try:
        async for part in answer.chunks:
            found += part
    except UpstreamFailed:
        return found, False
    return found, True


def chunks(task: Task, raw: bytes) -> list[dict[str, Any]]:
    """The events as the dialect's own decoder reads them, in chat's words."""
    decoder = CONVERSATIONS[task].decoder()
    found: list[dict[str, Any]] = []
    for event in raw.split(b"\n\n"):
        data = event[event.find(b"data: ") + 6 :]
        if event and data != b"[DONE]":
            found += decoder.feed(orjson.loads(data))
    return found


def said(found: list[dict[str, Any]], name: str = "content") -> str:
    deltas = [choice["delta"] for chunk in found for choice in chunk["choices"]]
    return "".join(delta.get(name) or "" for delta in deltas)


@pytest.mark.parametrize("step", STEPS)
async def test_a_message(step: Mapping[str, Any]) -> None:
    message = Message.model_validate_json((await ask(step, Task.MESSAGES)).body, strict=False)
    kinds = [block.type for block in message.content]
    calls = len(step.get("tool_calls", [])) + ("tool_call" in step)
    text = (not calls and step.get("answer") != "") or bool(step.get("answer"))
    assert kinds == ["thinking"] * ("reasoning" in step) + ["text"] * text + ["tool_use"] * calls
    assert message.stop_reason == ("tool_use" if calls else "end_turn")
    if calls:
        assert message.content[kinds.index("tool_use")].input == {"city": "Oslo"}  # type: ignore[union-attr]
    if "reasoning" in step:
        assert message.content[0].thinking == "Let me see."  # type: ignore[union-attr]
        assert message.content[0].signature == step.get("signature", "")  # type: ignore[union-attr]
    if "usage" in step:
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (5, 4)


@pytest.mark.parametrize("step", STEPS)
async def test_a_response(step: Mapping[str, Any]) -> None:
    response = Response.model_validate_json((await ask(step, Task.RESPONSES)).body)
    kinds = [item.type for item in response.output]
    calls = len(step.get("tool_calls", [])) + ("tool_call" in step)
    text = (not calls and step.get("answer") != "") or bool(step.get("answer"))
    assert kinds == ["reasoning"] * ("reasoning" in step) + ["message"] * text + ["function_call"] * calls
    assert response.status == "completed"
    if "signature" in step:
        assert response.output[0].encrypted_content == "sealed"  # type: ignore[union-attr]


async def test_a_chat_completion_thinks_without_a_seal() -> None:
    step = {"reasoning": "Let me see.", "signature": "sealed", "answer": "4", "tool_calls": [WEATHER, WEATHER]}
    found = ChatCompletion.model_validate_json((await ask(step, Task.CHAT)).body)
    message = found.choices[0].message
    assert message.model_extra == {"reasoning_content": "Let me see."}
    assert (message.content, found.choices[0].finish_reason) == ("4", "tool_calls")
    assert message.tool_calls is not None
    assert len({call.id for call in message.tool_calls}) == 2
    assert found.usage is not None
    assert (found.usage.completion_tokens, found.usage.completion_tokens_details.reasoning_tokens) == (6, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("task", CONVERSATIONS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_stream_says_what_the_whole_answer_says(step: Mapping[str, Any], task: Task) -> None:
    whole = CONVERSATIONS[task].answer_to_chat(orjson.loads((await ask(step, task)).body))
    options = {"stream_options": {"include_usage": True}} if task is Task.CHAT else {}
    raw, ended = await received(await ask({**step, "split": 7}, task, stream=True, **options))
    found = chunks(task, raw)
    assert ended
    message = whole["choices"][0]["message"]
    for name in ("content", "reasoning_content"):
        assert said(found, name) == (message.get(name) or "")
    arguments = "".join(
        call["function"].get("arguments", "")
        for chunk in found
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    )
    whole_arguments = "".join(call["function"]["arguments"] for call in message.get("tool_calls", ()))
    assert arguments.replace(" ", "") == whole_arguments.replace(" ", "")
    last = [choice["finish_reason"] for chunk in found for choice in chunk["choices"]][-1]
    assert last == whole["choices"][0]["finish_reason"]
    counted = [chunk["usage"] for chunk in found if chunk.get("usage")]
    assert (counted[-1] if counted else None) == whole.get("usage")


@pytest.mark.parametrize("task", CONVERSATIONS)
@pytest.mark.parametrize(("how", "ends"), [("cut", False), ("truncate", True)])
@pytest.mark.parametrize(("after", "text"), [(0, ""), (1, ""), (2, "One "), (3, "One two."), (9, "One two.")])
async def test_a_piece_is_a_piece_in_every_dialect(task: Task, how: str, ends: bool, after: int, text: str) -> None:
    step = {"reasoning": "Hm.", "chunks": ["One ", "two."], how: after}
    raw, ended = await received(await ask(step, task, stream=True))
    found = chunks(task, raw)
    assert (said(found), ended) == (text, ends)
    assert said(found, "reasoning_content") == ("Hm." if after else "")
    assert not any(choice["finish_reason"] for chunk in found for choice in chunk["choices"])


@pytest.mark.parametrize("task", CONVERSATIONS)
async def test_garbage_is_no_end(task: Task) -> None:
    raw, _ = await received(await ask({"garbage": True}, task, stream=True))
    tally = CONVERSATIONS[task].tally({}, None)
    tally.feed(raw)
    assert tally.written == len("echo: hello my friend")
    with pytest.raises(UpstreamFailed):
        tally.close()
    with pytest.raises(UpstreamFailed, match="JSON"):
        await ask({"garbage": True}, task)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("task", CONVERSATIONS)
@pytest.mark.parametrize(
    ("step", "status", "message"),
    [
        ({"error": {"status": 429, "message": "slow down", "retry_after": 2}}, 429, "slow down"),
        ({"error": {"status": 529}}, 529, "scripted error"),
        ({"html": True}, 503, "Provider 'fake' answered HTTP 503."),
    ],
)
async def test_an_error_has_its_dialects_shape(
    task: Task, stream: bool, step: Mapping[str, Any], status: int, message: str
) -> None:
    answer = await ask(step, task, stream)
    body = orjson.loads(answer.body)
    assert (answer.status, body["error"]["message"], answer.chunks) == (status, message, None)
    assert body.get("type") == ("error" if task is Task.MESSAGES else None)


async def test_a_request_that_cannot_be_read_is_refused_in_its_dialect() -> None:
    answer = await ask({}, Task.MESSAGES, stop_sequences="END")
    assert answer.status == 400
    assert orjson.loads(answer.body)["error"]["type"] == "invalid_request_error"


def test_it_speaks_what_it_is_told_to() -> None:
    asked = [task for task in Task if task not in TASKS]
    speaks = [task for task in asked if fake({}, dialects=["messages", "embeddings"]).speaks(task, "m")]
    assert speaks == [Task.EMBEDDINGS, Task.MESSAGES]
    assert len([task for task in asked if fake({}).speaks(task, "m")]) == 5


FORM = {
    "type": "object",
    "properties": {
        "city": {"$ref": "#/$defs/city"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2},
        "unit": {"enum": ["C", "F"]},
        "sure": {"type": ["boolean", "null"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "more": {"type": "string"},
    },
    "required": ["city", "days", "unit", "sure", "note"],
    "$defs": {"city": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
FILLED = {"city": {"name": "text"}, "days": [1, 1], "unit": "C", "sure": False, "note": "text"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (FORM, FILLED),
        ({}, {}),
        (None, None),
        ({"const": 4}, 4),
        ({"type": "number"}, 0),
        ({"$ref": "#"}, None),
        ({"$ref": "#/nowhere"}, None),
        ({"required": ["a", 3]}, {"a": None}),
    ],
)
def test_the_least_a_schema_takes(schema: Any, value: Any) -> None:
    assert least(schema) == value


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (Task.CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": FORM}}}),
        (Task.MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": FORM}}}),
        (Task.RESPONSES, {"text": {"format": {"type": "json_schema", "name": "x", "schema": FORM}}}),
    ],
)
async def test_who_asks_for_a_form_gets_it_filled(task: Task, fields: dict[str, Any]) -> None:
    whole = CONVERSATIONS[task].answer_to_chat(orjson.loads((await ask({}, task, **fields)).body))
    assert orjson.loads(whole["choices"][0]["message"]["content"]) == FILLED


@pytest.mark.parametrize(
    "step",
    [
        {"signature": "x"},
        {"tool_call": WEATHER, "tool_calls": [WEATHER]},
        {"tool_calls": []},
        {"reasoning": "x", "html": True},
        {"reasoning": "x", "raw": "y"},
        {"tool_calls": [WEATHER], "error": {}},
    ],
)
def test_what_contradicts_itself_is_refused(step: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        fake(step)
