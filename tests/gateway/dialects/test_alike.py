"""Events that are known without being parsed: whatever a stream holds, it is told as if each event had been."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from gateway.dialects.chat_tally import ChatTally
from gateway.dialects.sse import Tally
from gateway.errors import UpstreamFailed

TEXTS = [" word", "a", "Grüße", "🌍", "", 'say "no"', "back\\slash", "line\nline", "\x7f", "},{", " "]
ODD = [
    b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}',
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    b'data: {"choices":[{"delta":{"content":"x"}},{"delta":{"content":"y"}}]}',
    b'data: {"choices":[{"delta":{"content":"x","content":"y"}}]}',
    b'data: {"content":"x","choices":[{"delta":{"content":  "x"}}]}',
    b'data: {"choices":[{"delta":{"reasoning":"\\"content\\":\\"x\\"","content":"z"}}]}',
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"content\\":\\"x\\"}"}}]}}]}',
    b'data: {"choices":[{"text":"older"}]}',
    b'data: {"choices":[{"delta":{"content":"x"}}],"n":NaN}',
    b"event: e\ndata: " + b'{"choices":[{"delta":{"content":"x"}}]}',
    b": a comment",
    b"data: [DONE]",
    b'data: {"choices":[{"delta":{"content":"\xff"}}]}',
    b'data: {"choices":[{"delta":{"content":"x"}}]',
    b'data: {"error":{"message":"broken"}}',
]


def chunk(text: str, rng: random.Random, shape: int) -> bytes:
    """One event as a provider of some `shape` writes it."""
    document: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    if shape == 1:
        document |= {"usage": None, "obfuscation": "x" * rng.randrange(1, 9)}
    separators = (", ", ": ") if shape == 2 else (",", ":")
    return b"data: " + json.dumps(document, ensure_ascii=shape == 2, separators=separators).encode()


def told(tally: Tally, chunks: list[bytes], *, lane: bool) -> tuple[Any, ...]:
    """All a tally says of `chunks`, and what it passed on. With a `lane` as they are taken there."""
    passed, error = b"", ""
    try:
        for one in chunks:
            said = tally.plain(one) if lane else None
            if said is not None:
                tally.hear(said)
                passed += one
            else:
                passed += tally.feed(one)
            if tally.failed:
                raise tally.failed
        passed += tally.close()
    except UpstreamFailed as failed:
        error = str(failed)
    return passed, error, tally.written, tally.pieces, tally.usage, tally.begun, tally.finished, tally.done


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("lane", [False, True])
def test_it_is_told_as_if_each_event_were_parsed(seed: int, lane: bool) -> None:
    rng = random.Random(seed)
    shape, blank = rng.randrange(3), rng.choice([b"\n\n", b"\r\n\r\n"])
    odd = rng.choice([0.0, 0.1])
    events = [
        (rng.choice(ODD) if rng.random() < odd else chunk(rng.choice(TEXTS), rng, shape)) + blank for _ in range(40)
    ]
    chunks = []
    while events:
        several, events = events[: (n := rng.choice([1, 1, 1, 2, 5]))], events[n:]
        data = b"".join(several)
        at = rng.randrange(len(data)) if rng.random() < 0.1 else len(data)
        chunks += [part for part in (data[:at], data[at:]) if part]
    parsed = ChatTally(hide_usage=True)
    parsed._looks = 0
    assert told(ChatTally(hide_usage=True), chunks, lane=lane) == told(parsed, chunks, lane=False)


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_most_chunks_of_an_answer_are_known(shape: int) -> None:
    rng, tally = random.Random(1), ChatTally()
    tally.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n')
    tally.feed(chunk("One", rng, shape) + b"\n\n")
    for text in ["two", " three", "four "]:
        said = tally.plain(chunk(text, rng, shape) + b"\n\n")
        assert said == (1, len(text))
    several = b"".join(chunk(text, rng, shape) + b"\n\n" for text in "abc")
    assert tally.plain(several) == (3, 3)
    assert tally.plain(several + b"data: [DONE]\n\n") is None


@pytest.mark.parametrize("event", ODD, ids=range(len(ODD)))
def test_a_text_where_it_is_not_the_answer_s_is_never_taken_for_it(event: bytes) -> None:
    other = event.replace(b'"x"', b'"other"').replace(b'"z"', b'"other"') + b"\n\n"
    tally, parsed = ChatTally(), ChatTally()
    parsed._looks = 0
    assert told(tally, [event + b"\n\n", other], lane=True) == told(parsed, [event + b"\n\n", other], lane=False)
