"""Streams between Anthropic's Messages and chat: the same as the whole answer, however they are cut and mixed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.dialects.messages import MessagesDialect
from gateway.dialects.messages_tally import MessagesTally
from gateway.errors import UpstreamFailed
from gateway.money import Tokens
from tests.gateway.dialects.messages_scripts import (
    ANSWERS,
    CACHED,
    HIDDEN,
    events,
    joined,
    message,
    plain,
    received,
    sent,
    text,
    thinking,
    use,
)

MESSAGES = MessagesDialect()
Document = dict[str, Any]


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_stream_adds_up_to_the_whole_answer(answer: Document, size: int) -> None:
    chunks = decoded(events(answer, size))
    assert joined(chunks) == plain(MESSAGES.answer_to_chat(answer))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [bool(chunk["choices"]) for chunk in chunks[-2:]] == [True, False]


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("answer", [row for row in ANSWERS if row["stop_reason"] in ("end_turn", "max_tokens", "refusal", "tool_use")])  # fmt: skip  # noqa: E501
def test_through_chat_and_back_a_stream_says_the_same(answer: Document, size: int) -> None:
    said = heard(encoded(decoded(events(answer, size))))
    whole = MESSAGES.answer_from_chat(MESSAGES.answer_to_chat(answer), {})
    if [block["type"] for block in answer["content"]] == ["text", "text"]:
        whole["content"] = [text("ab")]
    assert said["content"] == whole["content"]
    assert {name: said[name] for name in ("id", "model", "stop_reason")} == {
        name: whole[name] for name in ("id", "model", "stop_reason")
    }
    assert said["usage"].items() <= whole["usage"].items()


def decoded(script: Iterable[Document]) -> list[Document]:
    decoder = MESSAGES.decoder()
    return [chunk for one in script for chunk in decoder.feed(one)]


def encoded(chunks: Iterable[Document], body: Document | None = None) -> bytes:
    encoder = MESSAGES.encoder(body or {})
    return b"".join([encoder.feed(one) for one in chunks]) + encoder.end()


def heard(written: bytes) -> Document:
    """The message that a stream adds up to; fails where its blocks are not one after the other."""
    said: Document = {}
    open_block = None
    for one in received(written):
        match one["type"]:
            case "message_start":
                said = one["message"]
            case "content_block_start":
                assert (open_block, one["index"]) == (None, len(said["content"]))
                open_block = one["index"]
                said["content"].append({**one["content_block"], "json": ""})
            case "content_block_delta":
                assert one["index"] == open_block
                _add(said["content"][-1], one["delta"])
            case "content_block_stop":
                assert one["index"] == open_block
                open_block = None
                block = said["content"][-1]
                given = block.pop("json")
                if block["type"] == "tool_use":
                    block["input"] = json.loads(given) if given else {}
            case "message_delta":
                assert open_block is None
                said |= one["delta"] | {"usage": one["usage"]}
    assert received(written)[-1] == {"type": "message_stop"}
    return said


def _add(block: Document, delta: Document) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]


def chunk(finish: str | None = None, usage: Document | None = None, **delta: Any) -> Document:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "up", "choices": [choice], **({"usage": usage} if usage else {})}


def call(index: int | None, arguments: str | None = None, name: str | None = None, identity: str | None = None) -> Any:
    function = {"name": name, "arguments": arguments}
    given = {"index": index, "id": identity, "function": {key: value for key, value in function.items() if value is not None}}  # fmt: skip  # noqa: E501
    return chunk(tool_calls=[{key: value for key, value in given.items() if value is not None}])


USED = {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 4,
                                                    "prompt_tokens_details": {"cached_tokens": 10}}}  # fmt: skip
MIXED: list[tuple[list[Document], list[Document], str]] = [
    ([chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo")], [text("Hello")], "end_turn"),
    ([chunk(content="Hi"), chunk(finish="length")], [text("Hi")], "max_tokens"),
    ([chunk(refusal="No."), chunk(finish="stop")], [text("No.")], "refusal"),
    (
        [chunk(reasoning_content="H"), chunk(reasoning="m"), chunk(content="So.")],
        [thinking("Hm", ""), text("So.")],
        "end_turn",
    ),
    (
        [chunk(content="See"), call(0, "", "f", "a"), call(0, '{"x"'), call(0, ":1}"), call(1, '{"y":2}', "g", "b")],
        [text("See"), use("a", "f", x=1), use("b", "g", y=2)],
        "tool_use",
    ),
    (  # two calls, mixed
        [call(0, '{"x"', "f", "a"), call(1, '{"y"', "g", "b"), call(0, ":1}"), call(1, ":2}"), chunk(content="!")],
        [use("a", "f", x=1), use("b", "g", y=2), text("!")],
        "tool_use",
    ),
    (  # names first, arguments later, the second first
        [call(0, "", "f", "a"), call(1, "", "g", "b"), call(1, '{"y":2}'), call(0, '{"x":{}'), call(0, "}")],
        [use("a", "f", x={}), use("b", "g", y=2)],
        "tool_use",
    ),
    (  # no arguments at all, and text between
        [call(0, None, "f", "a"), chunk(content="a"), call(1, "{}", "g", "b"), chunk(content="b")],
        [use("a", "f"), text("a"), use("b", "g"), text("b")],
        "tool_use",
    ),
    (  # numbers that say nothing
        [call(0, '{"x":1}', "f", "a"), call(0, '{"y":2}', "g", "b"), call(None, "{}", "h", "c")],
        [use("a", "f", x=1), use("b", "g", y=2), use("c", "h")],
        "tool_use",
    ),
    (  # no ids
        [call(0, '{"x":1}', "f"), call(1, '{"y":2}', "g")],
        [use("toolu_msg_chatcmpl-1_0", "f", x=1), use("toolu_msg_chatcmpl-1_1", "g", y=2)],
        "tool_use",
    ),
    ([call(0, '{"x":', "f", "a"), chunk(finish="length")], [], "max_tokens"),
    (
        [
            chunk(thinking_blocks=[{"type": "thinking", "thinking": "One."}], reasoning_content="One."),
            chunk(thinking_blocks=[{"type": "thinking", "signature": "s1"}]),
            chunk(thinking_blocks=[{"type": "thinking", "thinking": "Two.", "signature": "s2"}, HIDDEN]),
            chunk(content="So."),
        ],
        [thinking("One.", "s1"), thinking("Two.", "s2"), HIDDEN, text("So.")],
        "end_turn",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("chunks", "content", "reason"), MIXED)
def test_blocks_come_one_after_the_other(chunks: list[Document], content: list[Document], reason: str) -> None:
    written = encoded([*chunks, USED])
    if content:
        said = heard(written)
        assert (said["id"], said["content"], said["stop_reason"]) == ("msg_chatcmpl-1", content, reason)
    usage = received(written)[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (20, 10, 4)


def test_every_text_goes_out_with_its_chunk() -> None:
    encoder = MESSAGES.encoder({})
    for said in ("a", "b", "c"):
        assert received(encoder.feed(chunk(content=said)))[-1]["delta"]["text"] == said
    for arguments in ("{", '"a":', "1"):
        assert received(encoder.feed(call(0, arguments, "f", "x")))[-1]["delta"]["partial_json"] == arguments


def test_declined_thinking_is_not_streamed() -> None:
    written = encoded([chunk(reasoning_content="Hm."), chunk(content="So.")], {"thinking": {"type": "disabled"}})
    assert heard(written)["content"] == [text("So.")]


def test_a_stop_sequence_is_named_where_the_server_names_it() -> None:
    last = chunk(finish="stop")
    last["choices"][0]["stop_reason"] = "END"
    said = heard(encoded([chunk(content="x"), last], {"stop_sequences": ["END"]}))
    assert (said["stop_reason"], said["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    "chunks",
    [
        [{"choices": "x"}],
        [{"choices": ["x"]}],
        [{"choices": [{"delta": "x"}]}],
        [chunk(content=7)],
        [chunk(tool_calls="x")],
        [chunk(tool_calls=["x"])],
        [chunk(tool_calls=[{"index": 0, "function": "x"}])],
        [chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": 7}}])],
        [chunk(thinking_blocks=[7])],
        [call(0, "{}")],
        [call(0, "[1]", "f", "a")],
        [call(0, '{"x":', "f", "a")],
        [call(0, '{"x":1}', "f", "a"), call(1, "{}", "g", "b"), call(0, "more")],
    ],
)
def test_what_is_no_chat_stream_is_the_upstreams_failure(chunks: list[Document]) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be translated"):
        encoded(chunks)


START = {"type": "message_start", "message": message()}


@pytest.mark.parametrize(
    "script",
    [
        [{"type": "content_block_stop", "index": 0}],
        [START, START],
        [{"type": "message_start", "message": "x"}],
        [{"type": "message_start", "message": {}}],
        [START, {"type": "content_block_start", "index": 0}],
        [START, {"type": "content_block_start", "index": [], "content_block": use("a", "f")}],
        [START, {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "a"}}],
        [START, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}],
        [START, {"type": "message_delta"}],
        [START, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
    ],
)
def test_what_is_no_stream_of_anthropics_is_the_upstreams_failure(script: list[Document]) -> None:
    with pytest.raises(UpstreamFailed, match=r"cannot be translated|Overloaded"):
        decoded(script)


def test_what_is_new_in_a_stream_says_nothing() -> None:
    decoder = MESSAGES.decoder()
    script = [
        {"type": "something_new"},
        START,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": "s"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert [len(list(decoder.feed(one))) for one in script] == [0, 1, 0, 0, 0, 0]


def test_random_streams_of_calls_are_never_spliced() -> None:
    dice = random.Random(7)
    for _ in range(200):
        whole = [use(f"c{at}", "f", n="x" * dice.randrange(9), o={"a": at}) for at in range(dice.randrange(1, 4))]
        scripts = [pieces_of(block, at, dice) for at, block in enumerate(whole)]
        chunks = []
        for at in range(len(scripts)):  # calls begin in order, and then go on as they like
            chunks.append(scripts[at].pop(0))
            while any(scripts[: at + 1]) and dice.random() < 0.6:
                chunks.append(dice.choice([one for one in scripts[: at + 1] if one]).pop(0))
        while any(scripts):
            chunks.append(dice.choice([one for one in scripts if one]).pop(0))
        assert heard(encoded(chunks))["content"] == whole


def pieces_of(block: Document, index: int, dice: random.Random) -> list[Document]:
    given = json.dumps(block["input"])
    at = sorted(dice.sample(range(1, len(given)), 3))
    cut = [given[begin:end] for begin, end in zip([0, *at], [*at, len(given)], strict=True)]
    return [call(index, "", block["name"], block["id"]), *[call(index, part) for part in cut]]


# --- the tally of a native stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_native_stream_passes_byte_for_byte_and_is_counted(answer: Document, size: int) -> None:
    wire = sent(events(answer))
    tally = MessagesTally()
    assert b"".join(tally.feed(wire[at : at + size]) for at in range(0, len(wire), size)) == wire
    assert (tally.begun, tally.finished, tally.done, tally.close()) == (True, True, True, b"")
    assert tally.usage == MESSAGES.usage(answer)
    said = [block.get(name, "") for block in answer["content"] for name in ("text", "thinking", "name")]
    assert tally.written >= len("".join(said).encode())


def test_a_native_stream_that_breaks_off_has_its_input_and_its_text() -> None:
    script = list(events(message(text("Hello"), usage=CACHED)))[:-3]
    tally = MessagesTally()
    tally.feed(sent(script))
    with pytest.raises(UpstreamFailed, match="broke off"):
        tally.close()
    assert tally.usage == Tokens(input=3210, output=2, cached=3000, reasoning=20, written=200)
    assert (tally.written, tally.pieces) == (5, 2)


def test_an_error_in_a_native_stream_is_the_upstreams() -> None:
    tally = MessagesTally()
    wire = sent([{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}])
    with pytest.raises(UpstreamFailed, match="Overloaded"):
        tally.feed(wire)
    assert not tally.begun
