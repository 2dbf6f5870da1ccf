"""Providers of OpenAI's dialect: where a call goes, with what, and what of an answer a client can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import orjson
import pytest
from pydantic import SecretStr

from gateway.errors import UpstreamFailed
from gateway.providers.openai import OpenAIProvider, checked
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


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("slash", ["", "/", "//"])
async def test_where_a_call_goes(transport: Transport, upstream: Upstream, task: Task, slash: str) -> None:
    upstream.then(whole(chat()))
    provider = OpenAIProvider(ProviderSpec("p", "openai", upstream.url + slash), transport)
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
    spec = ProviderSpec("p", "openai", upstream.url, SecretStr("first"), headers)
    await OpenAIProvider(spec, transport).send(request(x_team="theirs", accept="a/b"))
    sent = dict(upstream.last.headers)
    assert (sent["authorization"], sent["api-key"], sent["x-team"]) == ("Bearer first", "second", "ours")
    assert sent["accept"] == "a/b"
    assert "first" not in repr(spec)


async def test_a_stream_is_passed_as_it_comes(transport: Transport, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM))
    answer = await OpenAIProvider(ProviderSpec("p", "openai", upstream.url), transport).send(request(streamed=True))
    assert answer.chunks is not None
    assert b"".join([chunk async for chunk in answer.chunks]) == b"".join(STREAM)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("status", [200, 201])
async def test_a_json_object_passes_whatever_it_is_called(status: int) -> None:
    answer = Answer(status, {"content-type": "text/plain"}, b'{"a": 1}')
    assert await checked(answer, "p") is answer
    assert answer.document == {"a": 1}


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503, 599])
async def test_an_error_in_openais_shape_passes_untouched(status: int) -> None:
    answer = Answer(status, JSON, b'{"error": {"message": "no"}, "more": 1}')
    assert await checked(answer, "p") is answer


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b"null", b'{"detail": "no"}', b'{"message": "no"}'])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_any_other_error_is_told_in_openais(status: int, body: bytes) -> None:
    answer = await checked(Answer(status, {"content-type": "text/html", "retry-after": "3"}, body), "p")
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, answer.headers) == (status, {**JSON, "retry-after": "3"})
    assert error["message"] == f"Provider 'p' answered HTTP {status}" + (": no" if b"no" in body else ".")


@pytest.mark.parametrize("status", [100, 199, 204, 301, 302, 304, 307, 401, 403, 600, 999])
async def test_what_is_no_answer_is_a_failure(status: int) -> None:
    with pytest.raises(UpstreamFailed, match="Provider 'p'") as caught:
        await checked(Answer(status, {}, b"" if status != 401 else b'{"error": "sk-secret"}'), "p")
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
    assert await checked(answer, "p") is answer


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
        await checked(Answer(status, {"content-type": kind}, chunks=chunks), "p")
    assert chunks.closed


@pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b'"\\ud83d"', b"9" * 400])
async def test_what_only_python_calls_json_passes_and_is_read(odd: bytes) -> None:
    answer = Answer(200, JSON, b'{"x": ' + odd + b', "usage": {"prompt_tokens": 3}}')
    assert await checked(answer, "p") is answer
    assert answer.document is not None
    assert answer.document["usage"] == {"prompt_tokens": 3}


@pytest.mark.parametrize("said", [b'"\\ud800"', b"NaN", b"[" * 900 + b"]" * 900])
async def test_any_other_error_can_be_told(said: bytes) -> None:
    answer = await checked(Answer(500, JSON, b'{"detail": ' + said + b"}"), "p")
    assert orjson.loads(answer.body)["error"]["message"].startswith("Provider 'p' answered HTTP 500: ")
