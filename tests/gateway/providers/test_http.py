"""Providers over HTTP: where a call goes, with what, whose credential, and what of an answer a client can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace

import orjson
import pytest
from pydantic import SecretStr

from gateway.errors import UpstreamFailed
from gateway.providers import rows
from gateway.providers.http import HttpProvider, checked, join
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest
from tests.services.upstream import STREAM, Upstream, chat, running, stream, whole

BODY = {"model": "theirs", "messages": [{"role": "user", "content": "ü"}], "x": [1, {"y": None}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()
    await asyncio.sleep(0)


def request(task: Task = Task.CHAT, *, streamed: bool = False, **headers: str) -> UpstreamRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamRequest(task, "org/model:1", BODY, named, streamed, 5.0)


def made(spec: ProviderSpec, transport: Transport) -> HttpProvider:
    row = rows.find(spec.type)
    assert row is not None
    return HttpProvider(row, spec, transport)


@pytest.mark.parametrize("task", [Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS])
@pytest.mark.parametrize("slash", ["", "/", "//"])
async def test_where_a_call_goes(transport: Transport, upstream: Upstream, task: Task, slash: str) -> None:
    upstream.then(whole(chat()))
    provider = made(ProviderSpec("p", "openai_compatible", upstream.url + slash), transport)
    answer = await provider.send(request(task))
    assert upstream.last.path == f"/v1/{task.value}"
    assert upstream.last.json == {**BODY, "model": "org/model:1"}
    assert list(upstream.last.json) == list(BODY)
    assert BODY["model"] == "theirs"
    assert (answer.status, orjson.loads(answer.body)) == (200, chat())
    assert answer.document == chat()
    assert upstream.last.header("authorization") is None
    assert upstream.last.header("content-type") == "application/json"


async def test_credential_and_headers_of_the_operator_win(transport: Transport, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    headers = {"x-team": SecretStr("ours"), "api-key": SecretStr("second")}
    spec = ProviderSpec("p", "openai_compatible", upstream.url, SecretStr("first"), headers)
    await made(spec, transport).send(request(x_team="theirs", accept="a/b"))
    sent = dict(upstream.last.headers)
    assert (sent["authorization"], sent["api-key"], sent["x-team"]) == ("Bearer first", "second", "ours")
    assert sent["accept"] == "a/b"
    assert "first" not in repr(spec)


async def test_a_stream_is_passed_as_it_comes(transport: Transport, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM))
    answer = await made(ProviderSpec("p", "openai_compatible", upstream.url), transport).send(request(streamed=True))
    assert answer.chunks is not None
    assert b"".join([chunk async for chunk in answer.chunks]) == b"".join(STREAM)


async def test_a_caller_s_credential_goes_in_place_of_ours(transport: Transport, upstream: Upstream) -> None:
    upstream.then(whole({}))
    headers = {"x-team": SecretStr("ours"), "X-Api-Key": SecretStr("second"), "Cookie": SecretStr("third")}
    spec = ProviderSpec("p", "anthropic", upstream.url, SecretStr("first"), headers)
    own = replace(request(Task.MESSAGES), credential=SecretStr("theirs"))
    up = made(spec, transport)
    await up.send(own)
    sent = dict(upstream.last.headers)
    assert (sent["x-api-key"], sent["x-team"], "cookie" in sent) == ("theirs", "ours", False)
    assert not {"first", "second", "third"} & set(sent.values())
    await up.send(request(Task.MESSAGES))
    assert dict(upstream.last.headers)["x-api-key"] == "first"


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("task", [Task.CHAT, Task.MESSAGES])
async def test_a_caller_s_bad_credential_is_the_caller_s_to_mend(
    transport: Transport, upstream: Upstream, status: int, task: Task
) -> None:
    upstream.then(whole({"error": {"message": "bad key: theirs"}}, status))
    up = made(ProviderSpec("p", "groq", upstream.url, api_keys=(SecretStr("a"), SecretStr("b"))), transport)
    answer = await up.send(replace(request(task), credential=SecretStr("theirs")))
    document = orjson.loads(answer.body)
    assert (answer.status, document["error"]["code"]) == (status, "upstream_refused_credential")
    assert document.get("type") == ("error" if task is Task.MESSAGES else None)
    assert b"theirs" not in answer.body
    assert len(upstream.asked) == 1


async def test_bytes_go_up_as_they_are(transport: Transport, upstream: Upstream) -> None:
    upstream.then(whole(b"1\n00:00:00,000 --> 00:00:01,000\nHi\n", kind="text/plain"))
    kind = 'multipart/form-data; boundary="x"'
    form = UpstreamRequest(Task.TRANSCRIPTIONS, "m", b"--x\r\n\xff--x--", {}, False, 5.0, content_type=kind)
    answer = await made(ProviderSpec("p", "openai", upstream.url), transport).send(form)
    assert (upstream.last.body, upstream.last.header("content-type")) == (b"--x\r\n\xff--x--", kind)
    assert (answer.body[:1], answer.headers, answer.document) == (b"1", {"content-type": "text/plain"}, None)
    assert form.document == {}


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h/v1", "rerank", "http://h/v1/rerank"),
        ("http://h", "rerank", "http://h/rerank"),
        ("http://h/compatibility/v1", "../../v2/rerank", "http://h/v2/rerank"),
        ("http://h:1/our/compatibility/v1", "../../v2/rerank", "http://h:1/our/v2/rerank"),
        ("http://[::1]:1/v1", "../../v2/rerank", "http://[::1]:1/v2/rerank"),
        ("http://h", "../x", "http://h/x"),
    ],
)
def test_a_path_climbs_out_of_the_base(base: str, path: str, url: str) -> None:
    assert join(base, path) == url


@pytest.mark.parametrize("task", [Task.SPEECH, Task.TRANSCRIPTIONS])
async def test_audio_and_text_pass_as_answers_and_as_streams(task: Task) -> None:
    audio = Answer(200, {"content-type": "audio/mpeg"}, b"\xff\xfb")
    assert await checked(audio, "p", task) is audio
    assert audio.document is None
    streamed = Answer(200, {"content-type": "audio/mpeg"}, chunks=Chunks())
    assert await checked(streamed, "p", task) is streamed
    with pytest.raises(UpstreamFailed, match="not with a JSON object"):
        await checked(Answer(200, {"content-type": "audio/mpeg"}, b""), "p", task)


async def test_an_error_told_anew_is_one_for_anthropic_s_clients_too() -> None:
    answer = await checked(Answer(529, {"content-type": "text/html"}, b"<html>"), "p", Task.MESSAGES)
    document = orjson.loads(answer.body)
    assert (document["type"], document["error"]["message"]) == ("error", "Provider 'p' answered HTTP 529.")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "said",
    [
        b'{"error": {"message": "gone", "code": 502}}',
        b'{"error": {"message": "gone", "code": 502}, "choices": [{"message": {"content": ""}}]}',
        b'{"choices": [{"message": {"content": "Hel"}, "finish_reason": "error", "error": {"message": "gone"}}]}',
        b'{"object": "error", "message": "gone"}',
        b'{"type": "error", "error": {"message": "gone"}}',
    ],
)
@pytest.mark.parametrize("task", [Task.CHAT, Task.MESSAGES, Task.EMBEDDINGS])
async def test_an_error_that_says_200_is_a_failure(said: bytes, task: Task) -> None:
    with pytest.raises(UpstreamFailed, match=r"an error as if it were an answer: .*gone"):
        await checked(Answer(200, {"content-type": "application/json"}, said), "p", task)


async def test_a_failed_response_is_an_answer_in_its_dialect() -> None:
    failed = Answer(200, {"content-type": "application/json"}, b'{"status": "failed", "error": {"message": "gone"}}')
    assert await checked(failed, "p", Task.RESPONSES) is failed


@pytest.mark.parametrize("status", [200, 201])
async def test_a_json_object_passes_whatever_it_is_called(status: int) -> None:
    answer = Answer(status, {"content-type": "text/plain"}, b'{"a": 1}')
    assert await checked(answer, "p", Task.CHAT) is answer
    assert answer.document == {"a": 1}


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503, 599])
async def test_an_error_in_openais_shape_passes_untouched(status: int) -> None:
    answer = Answer(status, JSON, b'{"error": {"message": "no"}, "more": 1}')
    assert await checked(answer, "p", Task.CHAT) is answer


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b"null", b'{"detail": "no"}', b'{"message": "no"}'])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_any_other_error_is_told_in_openais(status: int, body: bytes) -> None:
    answer = await checked(Answer(status, {"content-type": "text/html", "retry-after": "3"}, body), "p", Task.CHAT)
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, answer.headers) == (status, {**JSON, "retry-after": "3"})
    assert error["message"] == f"Provider 'p' answered HTTP {status}" + (": no" if b"no" in body else ".")


@pytest.mark.parametrize("status", [100, 199, 204, 301, 302, 304, 307, 401, 402, 403, 600, 999])
async def test_what_is_no_answer_is_a_failure(status: int) -> None:
    with pytest.raises(UpstreamFailed, match="Provider 'p'") as caught:
        await checked(Answer(status, {}, b"" if status != 401 else b'{"error": "sk-secret"}'), "p", Task.CHAT)
    assert "sk-secret" not in caught.value.message


class Chunks(AsyncGenerator[bytes, None]):
    """A stream that nobody may begin, and that knows whether it was let go."""

    closed = False

    async def asend(self, value: None) -> bytes:
        raise AssertionError("nobody may wait for this")

    async def athrow(self, *error: object) -> bytes:
        self.closed = True
        raise StopAsyncIteration


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=UTF-8", "TEXT/EVENT-STREAM ;x=y"])
async def test_a_stream_is_known_however_its_type_is_spelled(kind: str) -> None:
    answer = Answer(200, {"content-type": kind}, chunks=Chunks())
    assert await checked(answer, "p", Task.CHAT) is answer


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (301, "text/event-stream", "redirect"),
        (304, "", "redirect"),
        (199, "text/event-stream", "status 199"),
        (200, "text/event-streams", "not with events"),
        (200, "application/json", "application/json, not with events"),
    ],
)
async def test_a_stream_that_is_none_is_let_go(status: int, kind: str, said: str) -> None:
    chunks = Chunks()
    with pytest.raises(UpstreamFailed, match=said):
        await checked(Answer(status, {"content-type": kind}, chunks=chunks), "p", Task.CHAT)
    assert chunks.closed


@pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b'"\\ud83d"', b"9" * 400])
async def test_what_only_python_calls_json_passes_and_is_read(odd: bytes) -> None:
    answer = Answer(200, JSON, b'{"x": ' + odd + b', "usage": {"prompt_tokens": 3}}')
    assert await checked(answer, "p", Task.CHAT) is answer
    assert answer.document is not None
    assert answer.document["usage"] == {"prompt_tokens": 3}


@pytest.mark.parametrize("said", [b'"\\ud800"', b"NaN", b"[" * 900 + b"]" * 900])
async def test_any_other_error_can_be_told(said: bytes) -> None:
    answer = await checked(Answer(500, JSON, b'{"detail": ' + said + b"}"), "p", Task.CHAT)
    assert orjson.loads(answer.body)["error"]["message"].startswith("Provider 'p' answered HTTP 500: ")
