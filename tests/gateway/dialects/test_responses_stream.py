"""A stream the Responses dialect writes: every event is OpenAI's, and it says what a whole answer says."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.errors import UpstreamFailed
from tests.gateway.dialects.responses_streams import (
    ASKED,
    COUNTED,
    RESPONSES,
    ROLE,
    STREAMS,
    accumulated,
    call,
    decoded,
    delta,
    encoded,
)

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_every_event_is_one_of_openais_and_each_end_says_the_sum_of_its_pieces(chunks: list[dict[str, Any]]) -> None:
    events = encoded(chunks)
    for event in events:
        EVENTS.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    final = events[-1]["response"]
    said: dict[tuple[Any, ...], str] = {}
    for event in events[2:-1]:
        where = (event["output_index"], event.get("content_index"), event.get("summary_index"))
        item = final["output"][event["output_index"]]
        assert event.get("item_id", item["id"]) == item["id"]
        kind, _, step = event["type"].rpartition(".")
        if step == "delta":
            said[where] = said.get(where, "") + event["delta"]
        elif step == "done" and kind.endswith(("text", "arguments", "refusal", "input")):
            whole = next(event[name] for name in ("text", "arguments", "refusal", "input") if name in event)
            assert whole == said.pop(where, "")
        elif event["type"] == "response.output_item.done":
            assert event["item"] == item
    assert not said


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_a_stream_and_a_whole_answer_say_the_same_there_and_back(chunks: list[dict[str, Any]]) -> None:
    """Chat chunks → events → chat chunks; and the same as one chat completion → answer → chat completion."""
    completion = accumulated(chunks)
    events = encoded(chunks)
    final = events[-1]["response"]
    whole = RESPONSES.answer_from_chat(completion, ASKED)
    Response.model_validate(whole)
    assert whole == final
    assert accumulated(decoded(events)) == RESPONSES.answer_to_chat(final)
    assert RESPONSES.answer_to_chat(final) == {**completion, "id": "chatcmpl-1"}


def test_an_answer_says_of_its_request_what_openais_own_says() -> None:
    final = encoded(STREAMS["text"])[-1]["response"]
    assert {name: final[name] for name in ("id", "model", "status", "store", "usage", "created_at")} == {
        "id": "resp_1",
        "model": "up",
        "status": "completed",
        "store": False,
        "usage": COUNTED,
        "created_at": 1,
    }
    same = ("instructions", "tools", "tool_choice", "metadata", "max_output_tokens", "temperature")
    assert {name: final[name] for name in same} == {name: ASKED[name] for name in same}
    assert final["reasoning"] == {"effort": "low", "summary": None}
    assert final["text"] == {"format": {"type": "text"}, "verbosity": "low"}


@pytest.mark.parametrize(
    ("stream", "status", "reason"),
    [
        ("text", "completed", None),
        ("cut short", "incomplete", "max_output_tokens"),
        ("filtered", "incomplete", "content_filter"),
    ],
)
def test_why_an_answer_ended(stream: str, status: str, reason: str | None) -> None:
    last = encoded(STREAMS[stream])[-1]
    assert (last["type"], last["response"]["status"]) == (f"response.{status}", status)
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
    assert last["response"]["output"][0]["status"] == status


ODD_CALLS: dict[str, list[dict[str, Any]]] = {
    "no index": [call(0, "{}", id_="c1"), call(0, "{}", id_="c2")],
    "one index for all": [call(0, "{}", id_="c1"), call(0, "{}", id_="c2")],
    "its id again on every piece": [
        *(call(0, "{", id_="c1"), call(1, "{", id_="c2"), call(0, "}", id_="c1"), call(1, "}", id_="c2")),
    ],
    "its name late": [
        {"index": 0, "id": "c1", "function": {"arguments": "{"}},
        {"index": 0, "function": {"name": "f", "arguments": "}"}},
        call(1, "{}", id_="c2"),
    ],
}


@pytest.mark.parametrize("name", ODD_CALLS)
def test_calls_of_servers_that_number_them_oddly_are_never_spliced(name: str) -> None:
    pieces = ODD_CALLS[name]
    if name == "no index":
        pieces = [{key: value for key, value in piece.items() if key != "index"} for piece in pieces]
    final = encoded([ROLE, *(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls")])[-1]["response"]
    assert [(item["call_id"], item["arguments"]) for item in final["output"]] == [("c1", "{}"), ("c2", "{}")]


def test_redacted_thoughts_and_text_in_parts_and_reasoning_by_its_other_name() -> None:
    redacted = {"type": "redacted_thinking", "data": "XX"}
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    chunks = [delta(reasoning="hm"), delta(thinking_blocks=[redacted]), delta(content=parts), delta("stop")]
    output = encoded(chunks)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "reasoning", "message"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert output[1]["encrypted_content"] == "redacted_thinking:XX"
    assert output[2]["content"][0]["text"] == "Hi"


def test_what_azure_says_before_the_answer_begins_is_not_its_beginning() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    assert encoded([first, *STREAMS["text"]]) == encoded(STREAMS["text"])


@pytest.mark.parametrize(
    ("id_", "expected"), [("gen/1 ü", "resp_gen1"), ("", "resp_0"), (None, "resp_0"), ("msg_1", "resp_1")]
)
def test_ids_are_such_as_openai_takes_back(id_: str | None, expected: str) -> None:
    assert encoded([{**delta("stop", content="a"), "id": id_}])[-1]["response"]["id"] == expected
    long = encoded([{**delta("stop", content="a"), "id": "x" * 500}])[-1]["response"]["output"][0]["id"]
    assert len(long) <= 64


def test_a_stream_that_says_nothing_is_no_answer() -> None:
    with pytest.raises(UpstreamFailed, match="before it began"):
        RESPONSES.encoder(ASKED).end()
