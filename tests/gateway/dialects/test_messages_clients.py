"""The real clients read what we translate, and what they send is understood: over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from gateway.dialects.dialect import Losses
from gateway.dialects.messages import MessagesDialect
from gateway.dialects.sse import event
from gateway.errors import UpstreamFailed
from tests.gateway.dialects.messages_scripts import ANSWERS, events, joined, message, plain, text
from tests.gateway.dialects.test_messages_answer import CONTENTS
from tests.gateway.dialects.test_messages_request import longhand
from tests.gateway.dialects.test_messages_stream import MIXED, USED, chunk, decoded
from tests.services.upstream import DONE, Upstream, running, stream, whole

MESSAGES = MessagesDialect()
Document = dict[str, Any]
ASK: list[Any] = [{"role": "user", "content": "?"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def client(upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=upstream.url.removesuffix("/v1"), api_key="k", max_retries=0) as one:
        yield one


@pytest.mark.parametrize(("chunks", "content", "reason"), MIXED)
def test_the_real_client_reads_the_stream(
    upstream: Upstream, client: anthropic.Anthropic, chunks: list[Document], content: list[Document], reason: str
) -> None:
    encoder = MESSAGES.encoder({})
    written = [encoder.feed(one) for one in [*chunks, USED]] + [encoder.end()]
    upstream.then(stream(*[part for part in written if part]))
    with client.messages.stream(model="m", max_tokens=9, messages=ASK) as answer:
        kinds = [one.type for one in answer]
        final = answer.get_final_message()
    assert kinds[-1] == "message_stop"
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == (reason, 20, 4)
    if content:
        assert [block.to_dict() for block in final.content] == content


def test_the_real_client_reads_an_error_in_the_middle(upstream: Upstream, client: anthropic.Anthropic) -> None:
    encoder = MESSAGES.encoder({})
    written = [encoder.feed(chunk(content="Hi")), MESSAGES.broken_off(UpstreamFailed("It broke."))]
    upstream.then(stream(*written))
    with client.messages.stream(model="m", max_tokens=9, messages=ASK) as answer:
        texts = answer.text_stream
        assert next(texts) == "Hi"
        with pytest.raises(anthropic.APIStatusError, match=r"It broke\."):
            next(texts)


@pytest.mark.parametrize(("answer", "content", "reason"), CONTENTS)
def test_the_real_client_reads_a_whole_answer(
    upstream: Upstream, client: anthropic.Anthropic, answer: Document, content: list[Document], reason: str
) -> None:
    upstream.then(whole(MESSAGES.answer_from_chat(answer, {"stop_sequences": ["END"]})))
    got = client.messages.create(model="m", max_tokens=9, messages=ASK)
    assert ([block.to_dict() for block in got.content], got.stop_reason) == (content, reason)


class Place(pydantic.BaseModel):
    """What the model has to answer."""

    name: str
    kind: str | None = None


def test_what_the_real_client_sends_is_understood(upstream: Upstream, client: anthropic.Anthropic) -> None:
    upstream.then(whole(message(text('{"name": "Ulm"}'))))
    got = client.messages.parse(model="m", max_tokens=9, messages=ASK, output_format=Place)
    assert got.parsed_output == Place(name="Ulm")
    said = MESSAGES.to_chat(upstream.last.json, Losses())
    wanted = said["response_format"]["json_schema"]
    assert (wanted["schema"]["properties"]["name"]["type"], wanted["strict"]) == ("string", False)

    # A conversation goes on with the client's own objects.
    history = [*ASK, got.to_param(), {"role": "user", "content": "And?"}]
    client.messages.create(model="m", max_tokens=9, messages=history)
    assert MESSAGES.to_chat(upstream.last.json, Losses())["messages"][1] == {
        "role": "assistant",
        "content": '{"name": "Ulm"}',
    }


@pytest.fixture(scope="module")
def chat_client(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=upstream.url, api_key="k", max_retries=0) as one:
        yield one


@pytest.mark.parametrize("answer", ANSWERS)
def test_openais_client_reads_anthropics_stream(
    upstream: Upstream, chat_client: openai.OpenAI, answer: Document
) -> None:
    upstream.then(stream(*[event(one) for one in decoded(events(answer))], DONE))
    got = [one.to_dict() for one in chat_client.chat.completions.create(model="m", messages=ASK, stream=True)]
    assert joined(got) == plain(MESSAGES.answer_to_chat(answer))


# Its helper raises for answers that were cut short.
@pytest.mark.parametrize("answer", [one for one in ANSWERS if one["stop_reason"] in ("end_turn", "tool_use")])
def test_openais_helper_adds_up_anthropics_stream(
    upstream: Upstream, chat_client: openai.OpenAI, answer: Document
) -> None:
    upstream.then(stream(*[event(one) for one in decoded(events(answer))], DONE))
    with chat_client.chat.completions.stream(model="m", messages=ASK) as helper:
        said = helper.get_final_completion().choices[0].message.to_dict()
    # What it adds up can be sent back.
    [_, back] = MESSAGES.from_chat({"messages": [*ASK, said]}, Losses())["messages"] if answer["content"] else [0, None]
    assert back is None or longhand({"messages": [back]})["messages"][0]["content"] == answer_blocks(answer)


def answer_blocks(answer: Document) -> list[Document]:
    """The content of `answer` as chat can hold it: one text."""
    texts = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    thoughts = [block for block in answer["content"] if "thinking" in block["type"]]
    uses = [block for block in answer["content"] if block["type"] == "tool_use"]
    return [*thoughts, *([text(texts)] if texts else []), *uses]


def test_ids_that_differ_only_in_what_anthropic_does_not_allow_stay_two() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ("a.b", "a_b")]
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("a.b", "a_b")]
    body = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}, *results]}
    _, assistant, answers = MESSAGES.from_chat({"model": "claude-sonnet-4-5", **body}, Losses())["messages"]
    ids = [part["id"] for part in assistant["content"]]
    assert len(set(ids)) == 2
    assert [part["tool_use_id"] for part in answers["content"]] == ids
