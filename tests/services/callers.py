"""The official clients as callers of each dialect, asked alike and answering alike, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import openai
from pydantic import BaseModel

from tests.services.promptyard import Server

#: A tool as each dialect wraps it.
WEATHER: Mapping[str, Any] = {
    "name": "weather",
    "description": "The weather of a city",
    "schema": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "unit": {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
        "$defs": {"city": {"type": "string"}},
    },
}


class Form(BaseModel):
    """What a structured answer is read as."""

    city: str
    days: list[int]
    sure: bool


@dataclass
class Told:
    """What an answer says, whatever the dialect."""

    text: str
    reason: str | None
    tokens: tuple[int, int]
    headers: Mapping[str, str]
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    reasoning: str = ""
    signature: str = ""
    parsed: Form | None = None


class Caller(Protocol):
    """Somebody who asks in one dialect."""

    def ask(
        self, model: str, said: str = "hello my friend", *, stream: bool, form: bool = False, tools: str | None = None
    ) -> Told:
        """The answer to one message. `tools`: how a tool is to be chosen, `auto` or `required`."""

    def send_back(self, model: str, told: Told, results: list[str], *, stream: bool) -> Told:
        """The answer to the results of the calls in `told`."""

    def pieces(self, model: str) -> list[str]:
        """The texts of a stream as they came, until it ends. Raises as the client does."""


def _function() -> dict[str, Any]:
    rest = {name: WEATHER[name] for name in ("name", "description")}
    return {**rest, "parameters": WEATHER["schema"], "strict": True}


class Chat:
    """OpenAI's client on chat completions."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client.chat.completions

    def ask(
        self, model: str, said: str = "hello my friend", *, stream: bool, form: bool = False, tools: str | None = None
    ) -> Told:
        """As `Caller.ask`."""
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": said}]}
        if tools:
            asked |= {"tools": [{"type": "function", "function": _function()}], "tool_choice": tools}
        return self._told(asked | ({"response_format": Form} if form else {}), stream)

    def send_back(self, model: str, told: Told, results: list[str], *, stream: bool) -> Told:
        """As `Caller.send_back`."""
        calls = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for id_, (name, given) in zip(told.ids, told.calls, strict=True)
        ]
        answers = [
            {"role": "tool", "tool_call_id": id_, "content": result}
            for id_, result in zip(told.ids, results, strict=True)
        ]
        spoken = {"role": "assistant", "content": told.text or None, "tool_calls": calls}
        return self._told({"model": model, "messages": [{"role": "user", "content": "?"}, spoken, *answers]}, stream)

    def pieces(self, model: str) -> list[str]:
        """As `Caller.pieces`."""
        messages: Any = [{"role": "user", "content": "count"}]
        found: list[str] = []
        with self._client.create(model=model, messages=messages, stream=True) as events:
            for chunk in events:
                found += [choice.delta.content for choice in chunk.choices if choice.delta.content]
                found += [f"[{choice.finish_reason}]" for choice in chunk.choices if choice.finish_reason]
        return found

    def _told(self, asked: dict[str, Any], stream: bool) -> Told:
        if stream:
            with self._client.stream(**asked, stream_options={"include_usage": True}) as events:
                answer: Any = events.get_final_completion()
                headers = events._response.headers
        else:
            raw = self._client.with_raw_response.parse(**asked)
            answer, headers = raw.parse(), raw.headers
        [choice] = answer.choices
        message, calls = choice.message, choice.message.tool_calls or []
        more = message.model_extra or {}
        blocks = more.get("thinking_blocks") or []
        return Told(
            text=message.content or "",
            reason=choice.finish_reason,
            tokens=(answer.usage.prompt_tokens, answer.usage.completion_tokens),
            headers=headers,
            calls=[(call.function.name, json.loads(call.function.arguments)) for call in calls],
            ids=[call.id for call in calls],
            reasoning=more.get("reasoning_content") or "",
            signature="".join(block.get("signature") or "" for block in blocks),
            parsed=message.parsed,
        )


class Messages:
    """Anthropic's client."""

    def __init__(self, client: anthropic.Anthropic) -> None:
        self._client = client.messages

    def ask(
        self, model: str, said: str = "hello my friend", *, stream: bool, form: bool = False, tools: str | None = None
    ) -> Told:
        """As `Caller.ask`."""
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": said}]}
        if tools:
            tool = {**{name: WEATHER[name] for name in ("name", "description")}, "input_schema": WEATHER["schema"]}
            asked |= {"tools": [tool], "tool_choice": {"type": {"required": "any"}.get(tools, tools)}}
        return self._told(asked | ({"output_format": Form} if form else {}), stream)

    def send_back(self, model: str, told: Told, results: list[str], *, stream: bool) -> Told:
        """As `Caller.send_back`."""
        calls = [
            {"type": "tool_use", "id": id_, "name": name, "input": given}
            for id_, (name, given) in zip(told.ids, told.calls, strict=True)
        ]
        answers = [
            {"type": "tool_result", "tool_use_id": id_, "content": result}
            for id_, result in zip(told.ids, results, strict=True)
        ]
        thought = {"type": "thinking", "thinking": told.reasoning, "signature": told.signature}
        spoken = [*([thought] if told.signature else []), *calls]
        turns = [("user", "?"), ("assistant", spoken), ("user", answers)]
        return self._told(
            {"model": model, "messages": [{"role": role, "content": content} for role, content in turns]}, stream
        )

    def pieces(self, model: str) -> list[str]:
        """As `Caller.pieces`."""
        messages: Any = [{"role": "user", "content": "count"}]
        found: list[str] = []
        with self._client.create(model=model, messages=messages, max_tokens=50, stream=True) as events:
            for event in events:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    found.append(event.delta.text)
                if event.type == "message_delta":
                    found.append(f"[{event.delta.stop_reason}]")
        return found

    def _told(self, asked: dict[str, Any], stream: bool) -> Told:
        asked = {"max_tokens": 500, **asked}
        if stream:
            with self._client.stream(**asked) as events:
                answer: Any = events.get_final_message()
                headers = events.response.headers
        else:
            answer = self._client.parse(**asked) if "output_format" in asked else self._client.create(**asked)
            headers = {}
        calls = [block for block in answer.content if block.type == "tool_use"]
        thoughts = [block for block in answer.content if block.type == "thinking"]
        return Told(
            text="".join(block.text for block in answer.content if block.type == "text"),
            reason=answer.stop_reason,
            tokens=(answer.usage.input_tokens, answer.usage.output_tokens),
            headers=headers,
            calls=[(block.name, block.input) for block in calls],
            ids=[block.id for block in calls],
            reasoning="".join(block.thinking for block in thoughts),
            signature="".join(block.signature for block in thoughts),
            parsed=answer.parsed_output if "output_format" in asked else None,
        )


class Responses:
    """OpenAI's client on Responses."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client.responses

    def ask(
        self, model: str, said: str = "hello my friend", *, stream: bool, form: bool = False, tools: str | None = None
    ) -> Told:
        """As `Caller.ask`."""
        asked: dict[str, Any] = {"model": model, "input": said, "include": ["reasoning.encrypted_content"]}
        if tools:
            asked |= {"tools": [{"type": "function", **_function()}], "tool_choice": tools}
        return self._told(asked | ({"text_format": Form} if form else {}), stream)

    def send_back(self, model: str, told: Told, results: list[str], *, stream: bool) -> Told:
        """As `Caller.send_back`."""
        calls = [
            {"type": "function_call", "call_id": id_, "name": name, "arguments": json.dumps(given)}
            for id_, (name, given) in zip(told.ids, told.calls, strict=True)
        ]
        answers = [
            {"type": "function_call_output", "call_id": id_, "output": result}
            for id_, result in zip(told.ids, results, strict=True)
        ]
        return self._told({"model": model, "input": [{"role": "user", "content": "?"}, *calls, *answers]}, stream)

    def pieces(self, model: str) -> list[str]:
        """As `Caller.pieces`."""
        found: list[str] = []
        with self._client.create(model=model, input="count", stream=True) as events:
            for event in events:
                if event.type == "response.output_text.delta":
                    found.append(event.delta)
                if event.type in ("response.completed", "response.incomplete"):
                    found.append(f"[{event.response.status}]")
        return found

    def _told(self, asked: dict[str, Any], stream: bool) -> Told:
        if stream:
            with self._client.stream(**asked) as events:
                answer: Any = events.get_final_response()
                headers = events._response.headers
        else:
            raw = self._client.with_raw_response.parse(**asked)
            answer, headers = raw.parse(), raw.headers
        calls = [item for item in answer.output if item.type == "function_call"]
        thoughts = [item for item in answer.output if item.type == "reasoning"]
        return Told(
            text=answer.output_text,
            reason=answer.status,
            tokens=(answer.usage.input_tokens, answer.usage.output_tokens),
            headers=headers,
            calls=[(item.name, json.loads(item.arguments)) for item in calls],
            ids=[item.call_id for item in calls],
            reasoning="".join(part.text for item in thoughts for part in [*(item.content or []), *item.summary]),
            signature="".join(item.encrypted_content or "" for item in thoughts),
            parsed=answer.output_parsed,
        )


@contextmanager
def calling(server: Server) -> Iterator[dict[str, Caller]]:
    """A caller of each dialect, by its name, who does not try again."""
    key = server.admin_key or "none"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=30) as ours,
        anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=30) as theirs,
    ):
        yield {"chat": Chat(ours), "messages": Messages(theirs), "responses": Responses(ours)}
