"""A stream's bytes add up to the answer that they say, in every dialect, however far they came."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects import sse
from gateway.dialects.gathered import gathered
from gateway.dialects.messages import MessagesDialect
from gateway.dialects.translation import Translator
from gateway.routes import Task
from tests.gateway.dialects.messages_scripts import ANSWERS, events
from tests.services.upstream import DONE, delta, event, usage, usage_chunk

MESSAGES = MessagesDialect()


def tool(index: int, **said: Any) -> dict[str, Any]:
    return {"index": index, **({"id": said.pop("id"), "type": "function"} if "id" in said else {}), "function": said}


CALLS = [
    delta(role="assistant", reasoning_content="Hm"),
    delta(reasoning_content=", well."),
    delta(tool_calls=[tool(0, id="call_1", name="look", arguments="")]),
    delta(tool_calls=[tool(0, arguments='{"a"')]),
    delta(tool_calls=[tool(1, id="call_2", name="see", arguments="{}"), tool(0, arguments=": 1}")]),
    delta(finish="tool_calls"),
    usage_chunk(),
    DONE,
]


def test_chunks_of_chat_become_a_completion() -> None:
    answer = gathered(Task.CHAT, b"".join(CALLS), {})
    assert answer is not None
    assert (answer["object"], answer["model"], answer["usage"]) == ("chat.completion", "up", usage())
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm, well.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "see", "arguments": "{}"}},
        ],
    }


def test_several_answers_stay_apart_and_one_that_was_cut_is_told_as_far_as_it_came() -> None:
    two = [
        event({"choices": [{"index": at, "delta": {"content": text}}]}) for at, text in ((1, "b"), (0, "a"), (1, "c"))
    ]
    answer = gathered(Task.CHAT, b"".join(two)[:-5], {})
    assert answer is not None
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["a", "b"]
    assert gathered(Task.CHAT, b": nothing yet\n\n", {}) is None
    assert gathered(Task.CHAT, b"\xff\xfe sound", {}) is None


def test_the_older_completions() -> None:
    parts = [event({"object": "text_completion", "choices": [{"index": 0, "text": text}]}) for text in ("a", "b")]
    assert gathered(Task.COMPLETIONS, b"".join(parts), {}) == {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "ab"}],
    }


@pytest.mark.parametrize("answer", [row for row in ANSWERS if row["stop_reason"] in ("end_turn", "tool_use")])
def test_events_of_messages_become_a_message(answer: dict[str, Any]) -> None:
    raw = b"".join(sse.event(one, one["type"]) for one in events(answer))
    whole = MESSAGES.answer_from_chat(MESSAGES.answer_to_chat(answer), {})
    said = gathered(Task.MESSAGES, raw, {})
    assert said == whole or (not answer["content"] and said is not None and said["content"] == [])


def test_events_of_responses_end_with_the_whole_answer_and_say_it_before() -> None:
    through = Translator({"input": "hey"}, Task.RESPONSES, Task.CHAT)
    parts = [
        through.feed(document)
        for document in sse.documents(b"".join([delta("Hel"), delta("lo"), delta(finish="stop")]))
    ]
    cut = b"".join(parts)
    whole = gathered(Task.RESPONSES, cut + through.end(), {"input": "hey"})
    assert whole is not None
    assert (whole["status"], whole["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    some = gathered(Task.RESPONSES, parts[0], {"input": "hey"})
    assert some is not None
    assert some["output"][0]["content"][0]["text"] == "Hel"


def test_of_images_and_transcriptions_the_last_event_holds_all() -> None:
    done = {"type": "transcript.text.done", "text": "ab"}
    raw = b"".join(event(one) for one in ({"type": "transcript.text.delta", "delta": "a"}, done))
    assert gathered(Task.TRANSCRIPTIONS, raw, {}) == done
