"""Tasks that are no conversation: the official client against the fake, and every byte against a scripted upstream."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import wave
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.tokens import counted
from tests.conftest import StartServer
from tests.services.gateway import CREDENTIAL, client, error_of, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import END, Answer, Asked, Peer, Upstream, event, head, piece, stream, whole

KINDS = ("moderations", "images", "speech", "transcriptions", "rerank")
PATHS = {"images": "images/generations", "speech": "audio/speech", "transcriptions": "audio/transcriptions"}
BODIES: dict[str, dict[str, Any]] = {
    "moderations": {"input": "Say hello to everybody."},
    "images": {"prompt": "Say hello to everybody."},
    "speech": {"input": "Say hello to everybody.", "voice": "alloy", "extra": [1]},
    "rerank": {"query": "Say hello", "documents": [" to everybody", {"text": "."}], "top_n": 1},
}
SOUND = b"RIFF\0\r\n--\xff" * 50


@pytest.fixture(scope="module")
def server(upstream: Upstream, start_servers: StartServer) -> Server:
    """Routes of every kind: `fake-images` asks the fake, `images` this module's upstream. `chat` is the fake's."""
    lines = [
        f"  fake-{kind}: {{task: {kind}, deployments: [{{provider: fake, model: m}}]}}\n"
        f"  {kind}: {{task: {kind}, deployments: [{{provider: up, model: up-{kind}}}], limits: {{concurrency: 1}},"
        f" timeouts: {{first_token: 5, idle: 1}}}}\n"
        for kind in KINDS
    ]
    return start_servers(
        f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}", api_key: "${{UP_KEY}}"}}
  fake: {{type: fake}}
  anthropic: {{type: anthropic, base_url: "{upstream.url}", api_key: "${{UP_KEY}}"}}
  slow: {{type: fake, script: [{{stall: 0}}]}}
routes:
  safe: {{task: speech, deployments: [{{provider: slow, model: m}}], fallbacks: [fake-speech],
          timeouts: {{first_token: 0.2}}}}
  chat: {{deployments: [{{provider: fake, model: gpt-4o}}], limits: {{rpm: 100, tpm: 1}}}}
  kept-transcriptions: {{task: transcriptions, deployments: [{{provider: up, model: m}}], cache: {{ttl: 60}}}}
  kept-speech: {{task: speech, deployments: [{{provider: up, model: m}}], cache: {{ttl: 60}}}}
  claude: {{deployments: [{{provider: anthropic, model: claude-x}}], max_output_tokens: 9}}
{"".join(lines)}""",
        env={"UP_KEY": CREDENTIAL},
    )


@pytest.fixture(scope="module")
def ai(server: Server) -> Iterator[openai.OpenAI]:
    with client(server) as one:
        yield one


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


def post(http: httpx.Client, kind: str, model: str | None = None, **more: Any) -> httpx.Response:
    path = f"/v1/{PATHS.get(kind, kind)}"
    if kind == "transcriptions":
        return http.post(path, data={"model": model or kind, **more}, files={"file": ("a.mp3", SOUND, "audio/mpeg")})
    return http.post(path, json={"model": model or kind, **BODIES[kind], **more})


def test_moderations(ai: openai.OpenAI) -> None:
    answer = ai.moderations.create(model="fake-moderations", input=["one", "two"])
    assert [result.flagged for result in answer.results] == [False, False]


def test_images(ai: openai.OpenAI, server: Server) -> None:
    raw = ai.images.with_raw_response.generate(model="fake-images", prompt="a red house", n=2)
    images = raw.parse().data or []
    assert [base64.b64decode(one.b64_json or "")[:4] for one in images] == [b"\x89PNG"] * 2
    record = usage_of(server, raw.headers["x-request-id"])
    assert (record["task"], record["input_tokens"], record["output_tokens"]) == ("images/generations", 3, 2)


def test_images_as_a_stream(ai: openai.OpenAI) -> None:
    events = ai.images.generate(model="fake-images", prompt="a red house", stream=True)
    assert [one.type for one in events] == ["image_generation.partial_image", "image_generation.completed"]


def test_speech(ai: openai.OpenAI) -> None:
    answer = ai.audio.speech.create(model="fake-speech", voice="alloy", input="three words long")
    assert answer.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.read())) as sound:
        assert sound.getnframes() == 2400


def test_speech_as_events(ai: openai.OpenAI, server: Server) -> None:
    speak = ai.audio.speech.with_streaming_response.create
    with speak(model="fake-speech", voice="alloy", input="three words long", stream_format="sse") as answer:
        kinds = [line.split('"')[3] for line in answer.iter_lines() if line]
    assert kinds == ["speech.audio.delta", "speech.audio.delta", "speech.audio.done"]
    assert usage_of(server, answer.headers["x-request-id"])["output_tokens"] == 2


def test_transcriptions(ai: openai.OpenAI) -> None:
    listen = ai.audio.transcriptions.create
    assert listen(model="fake-transcriptions", file=("a b.wav", SOUND)).text == "echo: a b.wav"
    said = listen(model="fake-transcriptions", file=("a.wav", SOUND), response_format="text")
    assert said == "echo: a.wav\n"
    events = listen(model="fake-transcriptions", file=("a.wav", SOUND), stream=True)
    assert [one.type for one in events][-1] == "transcript.text.done"


def test_rerank(http: httpx.Client) -> None:
    body = {"query": "red car", "documents": ["a blue sky", {"text": "a red car"}, "red"], "top_n": 2}
    answer = http.post("/v1/rerank", json={"model": "fake-rerank", **body}).json()
    assert answer["results"] == [{"index": 1, "relevance_score": 1.0}, {"index": 2, "relevance_score": 0.5}]


HELLO: Any = [{"role": "user", "content": "Say hello to everybody."}]


def test_tokens_are_counted_by_who_will_bill_them(server: Server, upstream: Upstream) -> None:
    upstream.then(whole({"input_tokens": 14}))
    with anthropic.Anthropic(base_url=server.url, api_key=server.admin_key, max_retries=0) as claude:
        raw = claude.messages.with_raw_response.count_tokens(model="claude", messages=HELLO)
    assert raw.parse().input_tokens == 14
    assert upstream.last.path == "/v1/messages/count_tokens"
    assert upstream.last.json == {"model": "claude-x", "messages": HELLO}
    assert upstream.last.header("anthropic-version") == raw.http_request.headers["anthropic-version"]
    record = usage_of(server, raw.headers["x-request-id"])
    assert (record["deployment"], record["input_tokens"]) == ("anthropic/claude-x", 0)


def test_tokens_are_counted_for_nothing_but_a_request(server: Server) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key=server.admin_key, max_retries=0) as claude:
        raw = claude.messages.with_raw_response.count_tokens(model="chat", system="Be brief.", messages=HELLO)
        assert raw.parse().input_tokens == counted({"system": "Be brief.", "messages": HELLO}, "gpt-4o")
        assert raw.headers["x-ratelimit-remaining-requests"] == "99"
        assert "x-ratelimit-remaining-tokens" not in raw.headers
        with pytest.raises(anthropic.BadRequestError, match="serves images"):
            claude.messages.count_tokens(model="images", messages=HELLO)
        with pytest.raises(anthropic.BadRequestError, match="at least one message"):
            claude.messages.count_tokens(model="chat", messages=[])
    record = usage_of(server, raw.headers["x-request-id"])
    assert (record["task"], record["input_tokens"], record["cost_usd"]) == ("messages/count_tokens", 0, 0)


@pytest.mark.parametrize("kind", BODIES)
def test_json_goes_up_equal_and_the_answer_comes_down_equal(http: httpx.Client, upstream: Upstream, kind: str) -> None:
    said = b'{"id":  "x", "odd": [1,2 ], "usage": {"total_tokens": 5}}'
    upstream.then(whole(said))
    answer = post(http, kind, user="me")
    assert (answer.status_code, answer.content) == (200, said)
    assert upstream.last.path == f"/v1/{PATHS.get(kind, kind)}"
    assert upstream.last.json == {**BODIES[kind], "user": "me", "model": f"up-{kind}"}
    assert upstream.last.header("authorization") == f"Bearer {CREDENTIAL}"


def test_a_form_goes_up_byte_for_byte_but_for_the_model(http: httpx.Client, upstream: Upstream) -> None:
    upstream.then(whole(b"1\n00:00 --> 00:01\nhello\n", kind="text/plain; charset=utf-8"))
    asked = http.build_request(
        "POST",
        "/v1/audio/transcriptions",
        data={"model": "transcriptions", "response_format": "srt", "timestamp_granularities[]": ["word", "segment"]},
        files={"file": ("größe.mp3", SOUND, "audio/mpeg")},
    )
    raw = asked.read()
    answer = http.send(asked)
    assert (answer.text, answer.headers["content-type"]) == ("1\n00:00 --> 00:01\nhello\n", "text/plain; charset=utf-8")
    assert upstream.last.body == raw.replace(b"\r\n\r\ntranscriptions\r\n", b"\r\n\r\nup-transcriptions\r\n")
    assert upstream.last.header("content-type") == asked.headers["content-type"]


NAMED = {"input_tokens": 14, "output_tokens": 45, "total_tokens": 59}


@pytest.mark.parametrize(
    ("kind", "answer", "tokens"),
    [
        ("moderations", whole({"results": []}), (5, 0, True)),
        ("images", whole({"data": [], "usage": NAMED}), (14, 45, False)),
        ("speech", whole(SOUND, kind="audio/mpeg"), (5, 0, True)),
        ("transcriptions", whole({"text": "a", "usage": {"type": "tokens", **NAMED}}), (14, 45, False)),
        ("transcriptions", whole({"text": "a", "usage": {"type": "duration", "seconds": 9}}), (0, 0, True)),
        ("transcriptions", whole(b"WEBVTT\n", kind="text/vtt"), (0, 0, True)),
        ("rerank", whole({"results": [], "usage": {"total_tokens": 40}}), (40, 0, False)),
        ("rerank", whole({"results": [], "meta": {"billed_units": {"search_units": 1}}}), (5, 0, True)),
    ],
)
def test_what_is_recorded(
    http: httpx.Client, upstream: Upstream, server: Server, kind: str, answer: Answer, tokens: tuple[int, int, bool]
) -> None:
    upstream.then(answer)
    record = usage_of(server, post(http, kind))
    assert (record["input_tokens"], record["output_tokens"], record["estimated"]) == tokens
    assert (record["status"], record["deployment"]) == (200, f"up/up-{kind}")


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("images", event({"type": "image_generation.completed", "usage": NAMED})),
        ("speech", event({"type": "speech.audio.done", "usage": NAMED})),
        ("transcriptions", event({"type": "transcript.text.done", "text": "a", "usage": NAMED})),
    ],
)
def test_events_pass_unchanged(http: httpx.Client, upstream: Upstream, server: Server, kind: str, last: bytes) -> None:
    first = event({"type": "some.partial", "data": "a" * 5000})
    upstream.then(stream(first, last))
    more = {} if kind == "speech" else {"stream": "true" if kind == "transcriptions" else True}
    answer = post(http, kind, **more)
    assert answer.content == first + last
    record = usage_of(server, answer)
    assert (record["input_tokens"], record["output_tokens"], record["stream"]) == (14, 45, True)
    upstream.then(stream(first, None))
    assert b'"error"' in post(http, kind, **more).content


def test_sound_is_passed_on_as_it_arrives(http: httpx.Client, upstream: Upstream) -> None:
    heard = threading.Event()

    async def answer(asked: Asked, peer: Peer) -> None:
        await peer.send(head(kind="audio/mpeg") + piece(b"\xff\xfbone"))
        await asyncio.to_thread(heard.wait, 20)
        await peer.send(piece(b"two") + END)

    upstream.then(answer)
    with http.stream("POST", "/v1/audio/speech", json={"model": "speech", **BODIES["speech"]}) as speech:
        chunks = speech.iter_raw()
        assert next(chunks) == b"\xff\xfbone"
        heard.set()
        assert b"".join(chunks) == b"two"
    assert speech.headers["content-type"] == "audio/mpeg"


def test_a_kept_transcription_is_of_the_same_file(http: httpx.Client, upstream: Upstream) -> None:
    def said(sound: bytes) -> tuple[str, str]:
        form = {"model": (None, "kept-transcriptions"), "file": ("a.mp3", sound, "audio/mpeg")}
        answer = http.post("/v1/audio/transcriptions", files=form)
        return answer.text, answer.headers["x-promptyard-cache"]

    upstream.then(whole(b"one\n", kind="text/plain"), whole(b"two\n", kind="text/plain"))
    assert [said(b"1"), said(b"2"), said(b"1")] == [("one\n", "miss"), ("two\n", "miss"), ("one\n", "hit")]


def test_kept_sound(http: httpx.Client, upstream: Upstream) -> None:
    upstream.then(stream(b"\xff\xfb", None, kind="audio/mpeg"), stream(b"\xff", b"\xfb", kind="audio/mpeg"))
    with pytest.raises(httpx.RemoteProtocolError):
        post(http, "speech", "kept-speech")
    kept = [post(http, "speech", "kept-speech") for _ in range(2)]
    assert [one.headers["x-promptyard-cache"] for one in kept] == ["miss", "hit"]
    assert [(one.content, one.headers["content-type"]) for one in kept] == [(b"\xff\xfb", "audio/mpeg")] * 2


async def _falls_silent(asked: Asked, peer: Peer) -> None:
    await peer.send(head(kind="audio/mpeg") + piece(b"\xff\xfbone"))
    await peer.left()


@pytest.mark.parametrize(
    ("answer", "status"), [(stream(b"\xff\xfbone", None, kind="audio/mpeg"), 502), (_falls_silent, 504)]
)
def test_sound_that_breaks_off_does_not_end_well(
    http: httpx.Client, upstream: Upstream, server: Server, answer: Answer, status: int
) -> None:
    upstream.then(answer)
    with http.stream("POST", "/v1/audio/speech", json={"model": "speech", **BODIES["speech"]}) as speech:
        chunks = speech.iter_raw()
        assert next(chunks) == b"\xff\xfbone"
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
    assert usage_of(server, speech)["status"] == status
    upstream.then(whole(SOUND, kind="audio/mpeg"))
    assert post(http, "speech").content == SOUND  # its place is free again


def test_a_caller_who_leaves_amid_sound(http: httpx.Client, upstream: Upstream, server: Server) -> None:
    upstream.then(_falls_silent)
    with http.stream("POST", "/v1/audio/speech", json={"model": "speech", **BODIES["speech"]}) as speech:
        next(speech.iter_raw())
    upstream.wait_idle()
    assert usage_of(server, speech)["status"] == 499


def test_silence_before_the_first_sound_goes_elsewhere(http: httpx.Client) -> None:
    answer = post(http, "speech", "safe")
    assert (answer.status_code, answer.headers["x-promptyard-deployment"]) == (200, "fake/m")


def test_an_upstreams_error_is_kept(http: httpx.Client, upstream: Upstream) -> None:
    error = {"error": {"message": "no such voice", "type": "invalid_request_error", "param": "voice", "code": None}}
    upstream.then(whole(error, status=400))
    for kind in ("speech", "transcriptions"):
        answer = post(http, kind)
        assert (answer.status_code, answer.json()) == (400, error)


@pytest.mark.parametrize(
    ("asked", "status", "said", "param"),
    [
        ({"json": {"model": "transcriptions"}}, 415, "multipart/form-data", None),
        ({"data": {"model": "transcriptions"}}, 415, "multipart/form-data", None),
        ({"files": {"model": (None, "transcriptions")}}, 400, "a `filename`", "file"),
        ({"files": {"file": ("a", SOUND)}}, 400, "Name a model", "model"),
        ({"files": {"model": (None, "transcriptions"), "file": (None, "a")}}, 400, "must be a file", "file"),
        ({"data": {"model": "transcriptions", "stream": "yes"}, "files": {"file": ("a", b"")}}, 400, "true", "stream"),
        ({"data": {"model": "speech"}, "files": {"file": ("a", b"")}}, 400, "serves speech", "model"),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "ends", None),
    ],
)
def test_what_is_no_transcription(
    http: httpx.Client, asked: dict[str, Any], status: int, said: str, param: str | None
) -> None:
    answer = http.post("/v1/audio/transcriptions", **asked)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert said in error["message"]
