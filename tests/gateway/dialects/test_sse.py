"""A stream's events pass byte for byte and are read for usage, wherever the network cuts them."""

from __future__ import annotations

import time

import orjson
import pytest

from gateway.dialects.chat import ChatDialect
from gateway.dialects.chat_tally import DONE
from gateway.dialects.chat_tally import ChatTally as Tally
from gateway.errors import UpstreamFailed


def event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields}], "usage": None})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
USAGE = event(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
)
STREAM = delta(role="assistant", content="") + delta(content="Grüße ") + delta(content="🌍") + FINISH + USAGE + DONE


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 10_000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_every_cut_passes_the_same_bytes_and_counts_the_same(size: int, newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    tally = Tally()
    passed = b"".join(tally.feed(chunk) for chunk in cut(stream, size))
    tally.close()
    assert passed == stream
    assert tally.usage is not None
    assert (tally.usage.input, tally.usage.output, tally.usage.cached, tally.usage.reasoning) == (9, 4, 5, 2)
    assert tally.written == len("Grüße 🌍".encode())
    assert (tally.pieces, tally.done, tally.finished) == (2, True, True)


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_the_usage_chunk_we_asked_for_is_taken_out_again(size: int) -> None:
    tally = Tally(hide_usage=True)
    assert b"".join(tally.feed(chunk) for chunk in cut(STREAM, size)) == STREAM.replace(USAGE, b"")
    assert tally.usage is not None


def test_usage_on_a_chunk_with_content_is_not_taken_out() -> None:
    last = event({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}})
    tally = Tally(hide_usage=True)
    assert tally.feed(last) == last
    assert tally.usage is not None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reasoning_content": "hm"}, "hm"),
        ({"refusal": "no"}, "no"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a"'}}]}, 'f{"a"'),
    ],
)
def test_everything_a_model_writes_is_tallied(fields: dict[str, object], text: str) -> None:
    tally = Tally()
    tally.feed(delta(**fields))
    assert (tally.written, tally.pieces) == (len(text), 1)


def test_completions_text_is_tallied() -> None:
    tally = Tally()
    tally.feed(event({"choices": [{"text": "abc"}]}))
    assert tally.written == 3


def test_comments_and_other_fields_pass() -> None:
    noise = b": ping\n\nevent: x\nid: 3\ndata: " + orjson.dumps({"choices": []}) + b"\n\n"
    assert Tally().feed(noise) == noise


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (b"data: {half a json\n\n", "not a JSON object"),
        (b"data: [1]\n\n", "not a JSON object"),
        (event({"choices": [1]}), "not a JSON object"),
        (event({"error": {"message": "out of memory"}}), "out of memory"),
        (event({"error": "bad"}), "bad"),
        # OpenRouter says it beside a choice, Mistral and it by a finish reason, older vLLM in an object of its own.
        (event({"error": {"message": "gone"}, "choices": [{"delta": {"content": ""}, "finish_reason": "x"}]}), "gone"),
        (event({"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}), "finish_reason"),
        (event({"object": "error", "message": "no room", "type": "x", "code": 400}), "no room"),
    ],
)
def test_garbage_and_upstream_errors_end_the_stream(chunk: bytes, message: str) -> None:
    with pytest.raises(UpstreamFailed, match=message):
        Tally().feed(chunk)


@pytest.mark.parametrize("stream", [b"", delta(content="Hel"), delta(content="Hel") + b'data: {"cho'])
def test_an_end_before_the_answer_is_complete_is_a_failure(stream: bytes) -> None:
    tally = Tally()
    tally.feed(stream)
    with pytest.raises(UpstreamFailed, match="broke off"):
        tally.close()


def test_a_finished_answer_without_done_is_complete() -> None:
    tally = Tally()
    tally.feed(delta(content="x") + FINISH)
    tally.close()
    assert tally.finished


def test_an_event_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.dialects.sse.MAX_EVENT", 1000)
    tally = Tally()
    tally.feed(b"data: " + b"x" * 990)
    with pytest.raises(UpstreamFailed, match="does not keep to events"):
        tally.feed(b"x" * 10)


def test_a_picture_in_one_event_is_searched_once() -> None:
    """4 MB as TLS brings them: searched and copied anew with each chunk, it took four seconds that others waited."""
    picture = event({"choices": [], "b64_json": "iVBORw0K" * 500_000})
    tally, began = Tally(), time.process_time()
    assert b"".join(tally.feed(chunk) for chunk in cut(picture, 16_384)) == picture
    assert time.process_time() - began < 1


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"])
@pytest.mark.parametrize("finish", [FINISH, b""])
def test_an_end_without_its_blank_line_is_an_end(last: bytes, finish: bytes) -> None:
    tally = Tally()
    stream = delta(content="a") + finish + last
    assert tally.feed(stream) + tally.close() == stream
    assert tally.done


def test_half_an_event_at_the_end_is_not_an_end() -> None:
    tally = Tally()
    tally.feed(delta(content="a") + FINISH + b'data: {"choices"')
    with pytest.raises(UpstreamFailed, match="broke off"):
        tally.close()


@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 - 1])
def test_a_count_that_cannot_be_is_bounded(count: int) -> None:
    tally = Tally()
    tally.feed(event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": -count % 2**63}}))
    assert tally.usage is not None
    assert tally.usage.input == 2**31 - 1


def test_an_error_of_null_is_none() -> None:
    tally = Tally(hide_usage=True)
    stream = event({"choices": [], "error": None}) + FINISH
    assert tally.feed(stream) == stream


ONE = orjson.dumps({"choices": [{"delta": {"content": "a"}}]})
HALF, REST = b'{"choices": [{"delta":', b'{"content": "a"}}]}'


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + ONE + b"\nid: 5\n\n",
        b"data: " + ONE + b"\r\nid: 5\r\n\r\n",
        b"data: " + ONE + b"\n: a comment\n\n",
        b"event: chunk\nretry: 10\nid: 5\ndata: " + ONE + b"\n\n",
        b"data: " + HALF + b"\ndata: " + REST + b"\n\n",
        b"data: " + HALF + b"\r\ndata:" + REST + b"\r\nid: 1\r\n\r\n",
        b"data: " + ONE + b"\n\n: ping\r\n\r\n",
        b": ping\r\n\r\ndata: " + ONE + b"\n\n",
        b"data: " + ONE + b"\r\n\n: ping\n\r\n",
        b"data: " + ONE + b"\n\n\n",
        b"\n\n\ndata: " + ONE + b"\n\n\n\n\r\n",
    ],
)
def test_any_event_stream_passes_and_is_read(stream: bytes, size: int) -> None:
    stream += FINISH + b"id: 6\ndata: [DONE]\n\n\n"
    tally = Tally()
    passed = b"".join(tally.feed(chunk) for chunk in cut(stream, size))
    assert passed + tally.close() == stream
    assert (tally.written, tally.pieces, tally.done) == (1, 1, True)


def test_our_usage_event_is_taken_out_whatever_fields_it_has() -> None:
    tally = Tally(hide_usage=True)
    ours = USAGE.replace(b"\n\n", b"\nid: 9\n\n")
    assert tally.feed(FINISH + ours + DONE) == FINISH + DONE
    assert tally.usage is not None


@pytest.mark.parametrize("size", [1, 10_000])
def test_lines_that_end_in_cr_alone_are_refused_and_not_gathered(size: int) -> None:
    tally, chunks = Tally(), cut(STREAM.replace(b"\n", b"\r"), size)
    with pytest.raises(UpstreamFailed, match="does not keep to events"):
        b"".join(map(tally.feed, chunks))


@pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b'"\\ud83d"', b"1e999", b"9" * 400])
def test_what_only_python_calls_json_passes_and_is_read(odd: bytes) -> None:
    chunk = b'data: {"choices": [{"delta": {"content": "a\\udc00"}, "logprob": ' + odd + b"}]}\n\n"
    tally = Tally()
    assert tally.feed(chunk) == chunk
    assert tally.written == len(b"a\xed\xb0\x80")


@pytest.mark.parametrize("content", [b'[{"text": "\\ud800"}]', b"[" * 500 + b"]" * 500, b"[NaN, " + b"9" * 400 + b"]"])
def test_odd_content_is_counted(content: bytes) -> None:
    chunk = b'data: {"choices": [{"delta": {"content": ' + content + b"}}]}\n\n"
    tally = Tally()
    assert tally.feed(chunk) == chunk
    assert tally.pieces == 1


@pytest.mark.parametrize(
    "said", [b'"\\ud800"', b'{"message": "\\ud800"}', b'{"message": ' + b"[" * 900 + b"]" * 900 + b"}"]
)
def test_any_error_can_be_told(said: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="broke its stream off") as caught:
        Tally().feed(b'data: {"error": ' + said + b"}\n\n")
    assert ChatDialect().broken_off(caught.value).startswith(b"data: {")
    assert len(caught.value.message) < 600
