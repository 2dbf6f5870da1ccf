"""Tasks that are no conversation: what they need, the tokens their answers state, and their streams."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.plain import PLAIN
from gateway.dialects.plain_tally import BytesTally, EventsTally, read_tokens
from gateway.dialects.registry import DIALECTS, tally_of
from gateway.errors import BadRequest, UpstreamFailed
from gateway.routes import Task


@pytest.mark.parametrize(
    ("task", "body", "param"),
    [
        (Task.EMBEDDINGS, {"input": 5}, "input"),
        (Task.MODERATIONS, {}, "input"),
        (Task.IMAGES, {"prompt": ["a"]}, "prompt"),
        (Task.SPEECH, {"input": ["a"]}, "input"),
        (Task.TRANSCRIPTIONS, {"file": "a.wav"}, "file"),
        (Task.TRANSCRIPTIONS, {}, "file"),
        (Task.RERANK, {"documents": []}, "query"),
        (Task.RERANK, {"query": "a"}, "documents"),
        (Task.COUNT_TOKENS, {}, "messages"),
    ],
)
def test_what_a_task_needs(task: Task, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        DIALECTS[task].check(body)
    assert refused.value.param == param


@pytest.mark.parametrize("task", [*PLAIN, Task.COUNT_TOKENS])
def test_limits_claim_no_output(task: Task) -> None:
    assert DIALECTS[task].output({"max_tokens": 500, "n": 4}) == (0, 1, "max_tokens")
    assert DIALECTS[task].prepare({"n": 4}, 9, stream=True) == {"n": 4}


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, (7, 0)),
        ({"usage": {"input_tokens": 3, "output_tokens": 1056, "total_tokens": 1059}}, (3, 1056)),
        ({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}}, (14, 45)),
        ({"usage": {"type": "duration", "seconds": 9}}, None),
        ({"usage": {"total_tokens": 815}}, (815, 0)),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 12, "output_tokens": 0}}}, (12, 0)),
        ({"usage": None, "meta": []}, None),
        ({}, None),
    ],
)
def test_the_tokens_an_answer_states(document: dict[str, Any], tokens: tuple[int, int] | None) -> None:
    found = read_tokens(document)
    assert (found and (found.input, found.output)) == tokens


def event(**fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (fields.get("type", "x").encode(), orjson.dumps(fields))


USAGE = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}


@pytest.mark.parametrize(
    "events",
    [
        [event(type="transcript.text.delta", delta="a"), event(type="transcript.text.done", text="a", usage=USAGE)],
        [event(type="speech.audio.delta", audio="UklG"), event(type="speech.audio.done", usage=USAGE)],
        [event(type="image_generation.partial_image", b64_json="a"),
         event(type="image_generation.completed", b64_json="b", usage=USAGE)],
    ],
)  # fmt: skip
def test_streams_of_events(events: list[bytes]) -> None:
    tally = EventsTally()
    assert b"".join(map(tally.feed, events)) + tally.close() == b"".join(events)
    assert tally.finished
    assert tally.usage is not None
    assert (tally.usage.input, tally.usage.output) == (3, 9)
    cut = EventsTally()
    cut.feed(events[0])
    with pytest.raises(UpstreamFailed, match="broke off"):
        cut.close()


@pytest.mark.parametrize("bad", [event(type="error", error={"message": "gone"}), event(error={"message": "gone"})])
def test_an_error_amid_events(bad: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="gone"):
        EventsTally().feed(bad)


@pytest.mark.parametrize(
    ("task", "kind", "reader"),
    [
        (Task.SPEECH, "audio/mpeg", BytesTally),
        (Task.SPEECH, "", BytesTally),
        (Task.SPEECH, "text/event-stream; charset=utf-8", EventsTally),
        (Task.TRANSCRIPTIONS, "Text/Event-Stream", EventsTally),
        (Task.TRANSCRIPTIONS, "application/json", BytesTally),
        (Task.IMAGES, "audio/mpeg", EventsTally),
    ],
)
def test_who_reads_a_stream(task: Task, kind: str, reader: type) -> None:
    assert type(tally_of(task, {}, {"content-type": kind})) is reader


def test_bytes_pass_as_they_come() -> None:
    tally = BytesTally()
    assert tally.feed(b"") == b""
    assert not tally.begun
    assert tally.feed(b"\r\r\n\n\xff") == b"\r\r\n\n\xff"
    assert tally.begun
    assert tally.close() == b""
    assert tally.finished
