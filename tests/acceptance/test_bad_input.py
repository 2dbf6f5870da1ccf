"""Whatever body is thrown at the data plane gets a clear error, and the server goes on with nothing held."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.services.gateway import (
    GOOD,
    PATH,
    ask,
    client,
    connected,
    error_of,
    post,
    received,
    request,
    sockets,
)
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, until, whole

pytestmark = pytest.mark.usefixtures("goes_on")

DEEP = 100_000
BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "JSON"),
    "half": (b'{"model": "fake", "messages": [', "JSON"),
    "binary": (bytes(range(256)), "JSON"),
    "bom": (b"\xef\xbb\xbf" + GOOD, "JSON"),
    "utf16": (GOOD.decode().encode("utf-16"), "JSON"),
    "latin-1": (b'{"model": "fake", "messages": [{"role": "user", "content": "\xfc"}]}', "JSON"),
    "lone surrogate": (GOOD.replace(b"Say", b"\\ud800"), "JSON"),
    "raw surrogate": (GOOD.replace(b"Say", b"\xed\xa0\x80"), "JSON"),
    "nan": (GOOD[:-1] + b', "temperature": NaN}', "JSON"),
    "infinity": (GOOD[:-1] + b', "temperature": 1e999}', "JSON"),
    "list": (b"[]", "object"),
    "string": (b'"model"', "object"),
    "null": (b"null", "object"),
    "two documents": (GOOD + GOOD, "JSON"),
    "control letter": (GOOD.replace(b"Say", b"\x01"), "JSON"),
    "deep lists": (b'{"model": "fake", "messages": ' + b"[" * DEEP + b"]" * DEEP + b"}", ""),
    "deep objects": (GOOD[:-1] + b', "x": ' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1), ""),
    "300 deep": (GOOD[:-1] + b', "x": ' + b"[" * 300 + b"]" * 300 + b"}", "nested"),
    "300 deep with a long number": (GOOD[:-1] + b', "y": %d, "x": %b}' % (2**62, b"[" * 300 + b"]" * 300), "nested"),
    "model twice": (b'{"model": "fake",' + GOOD[1:], "'model' twice"),
    "model twice, once escaped": (b'{"\\u006dodel": "fake",' + GOOD[1:], "'model' twice"),
    "huge integer": (GOOD[:-1] + b', "seed": 18446744073709551616}', "64 bits"),
    "long integer": (GOOD[:-1] + b', "seed": ' + b"9" * 200 + b"}", "64 bits"),
    "endless integer": (GOOD[:-1] + b', "seed": ' + b"9" * 10_000 + b"}", "number"),
    "negative integer": (GOOD[:-1] + b', "seed": -9223372036854775809}', "64 bits"),
    "no model": (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
    "model of a number": (GOOD.replace(b'"fake"', b"5"), "model"),
    "empty model": (GOOD.replace(b'"fake"', b'""'), "model"),
    "no messages": (b'{"model": "fake"}', "messages"),
    "messages of text": (b'{"model": "fake", "messages": "hi"}', "messages"),
    "messages of nulls": (b'{"model": "fake", "messages": [null]}', "messages[0]"),
    "message without role": (b'{"model": "fake", "messages": [{"content": "x"}]}', "messages[0]"),
    "stream of text": (GOOD[:-1] + b', "stream": "yes"}', "stream"),
    "stream of a number": (GOOD[:-1] + b', "stream": 1}', "stream"),
    "stream options of text": (GOOD[:-1] + b', "stream": true, "stream_options": "all"}', "stream_options"),
    "n of text": (GOOD[:-1] + b', "n": "two"}', "n"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(small: Server, name: str) -> None:
    body, said = BODIES[name]
    answer = post(small, body)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["type"] == "invalid_request_error"
    assert said in f"{error['message']} {error['param']}"
    assert len(answer.content) < 1000
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": {"type": ["text"]}}],
        [{"role": "user", "content": [{"type": {"a": 1}, "text": "x"}, None, 5, [], "x"]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": 5}]}],
        [{"role": "user", "content": "x", "tool_calls": 7}],
        [{"role": "\u0000", "content": "\u0000\uffff"}],
    ],
)
@pytest.mark.parametrize(
    "fields", [{}, {"stream": True}, {"n": 10**18}, {"max_tokens": "5"}, {"tools": "x"}, {"n": True}]
)
def test_odd_messages_never_fail_us(small: Server, messages: Any, fields: Any) -> None:
    answer = post(small, json.dumps({"model": "fake", "messages": messages, **fields}).encode())
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("given", [[[]], [None], [{}], [1, "x"], [[1, 2], [3]], "", [], 5, None, {"a": 1}])
def test_odd_embedding_inputs_never_fail_us(small: Server, given: Any) -> None:
    answer = post(small, json.dumps({"model": "embed", "input": given}).encode(), "/v1/embeddings")
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 200 or error_of(answer)


def test_an_endless_model_name_is_not_echoed(small: Server) -> None:
    answer = post(small, GOOD.replace(b'"fake"', b'"' + b"x" * 900_000 + b'"'))
    assert answer.status_code == 404
    assert len(answer.content) < 2000
    with small.client() as http:
        assert len(http.get("/v1/" + "y" * 30_000).content) < 2000
    assert "x" * 1000 not in small.stderr()
    assert "y" * 1000 not in small.stderr()


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_another_content_type_is_a_415(small: Server, kind: str) -> None:
    assert error_of(post(small, GOOD, content_type=kind))["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"])
def test_json_by_another_name_is_json(small: Server, kind: str) -> None:
    assert post(small, GOOD, content_type=kind).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "x"])
def test_a_compressed_body_is_a_415(small: Server, encoding: str) -> None:
    answer = post(small, gzip.compress(GOOD), content_encoding=encoding)
    assert answer.status_code == 415
    assert "uncompressed" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", PATH, 405, "POST"),
        ("PUT", "/v1/embeddings", 405, "POST"),
        ("OPTIONS", PATH, 405, "POST"),
        ("POST", "/v1/models", 405, "GET"),
        ("DELETE", "/v1/models/fake", 405, "GET"),
        ("HEAD", "/v1/models", 405, "GET"),
        ("POST", "/v1/chat/completions/", 404, None),
        ("POST", "/v1/Chat/completions", 404, None),
        ("POST", "/v1//chat/completions", 404, None),
        ("GET", "/v1/", 404, None),
        ("GET", "/v1/files", 404, None),
    ],
)
def test_other_methods_and_paths(small: Server, method: str, path: str, status: int, allowed: str | None) -> None:
    with small.client() as http:
        answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get("allow") == allowed
    assert answer.headers["x-request-id"]
    assert method == "HEAD" or error_of(answer)


@pytest.mark.parametrize("told", [True, False], ids=["length told", "chunked"])
@pytest.mark.parametrize("size", [2**20 + 1, 100 * 2**20])
def test_a_body_over_the_limit_is_a_413(small: Server, told: bool, size: int) -> None:
    piece = b" " * 2**16

    def body() -> Iterator[bytes]:
        left = size
        while left:
            yield piece[:left]
            left -= len(piece[:left])

    headers = {"content-type": "application/json", **({"content-length": str(size)} if told else {})}
    with small.client() as http:
        answer = http.post(PATH, content=body(), headers=headers)
        assert answer.status_code == 413
        assert "1 MiB" in error_of(answer)["message"]
        assert "PROMPTYARD_MAX_BODY" in error_of(answer)["message"]
        assert ask(http, "fake").status_code == 200


def test_the_official_client_sees_413(small: Server) -> None:
    messages: Any = [{"role": "user", "content": "x" * 10 * 2**20}]
    with client(small) as ai, pytest.raises(openai.APIStatusError) as caught:
        ai.chat.completions.create(model="fake", messages=messages)
    assert caught.value.status_code == 413


def test_a_body_of_just_the_limit_passes(small: Server) -> None:
    body = GOOD[:-1] + b', "pad": "' + b"x" * (2**20 - len(GOOD) - 11) + b'"}'
    assert len(body) == 2**20
    assert post(small, body).status_code == 200
    assert post(small, body + b" ").status_code == 413


def test_100_mb_against_the_default_limit(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    body = json.dumps({"model": "up", "messages": [{"role": "user", "content": "x" * 100_000_000}]}).encode()
    answer = post(gateway, body)
    assert (answer.status_code, "64 MiB" in answer.text) == (413, True)
    del body
    allowed = json.dumps({"model": "up", "messages": [{"role": "user", "content": "x" * 20_000_000}]}).encode()
    assert post(gateway, allowed).status_code == 200
    assert len(upstream.last.body) > 20_000_000


def test_a_body_that_never_ends_is_a_408(small: Server) -> None:
    with connected(small) as sock:
        sock.sendall(request(small, b'{"model"', length=1000))
        answer = received(sock)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    assert b"x-request-id: req_" in answer


def test_a_body_that_dribbles_is_a_408(small: Server) -> None:
    begun = time.monotonic()
    with connected(small) as sock:
        sock.sendall(request(small, b"", length=1000))
        stopped = threading.Event()

        def dribble() -> None:
            with contextlib.suppress(OSError):
                while not stopped.wait(0.1):
                    sock.send(b" ")

        thread = threading.Thread(target=dribble)
        thread.start()
        answer = received(sock)
        stopped.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 10


def test_callers_who_leave_in_the_middle_of_their_body(small: Server) -> None:
    before = sockets(small)
    for _ in range(20):
        with connected(small) as sock:
            sock.sendall(request(small, b'{"model"', length=1000))
    until(lambda: sockets(small) <= before + 3)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"Basic \xff\xfe", 401),
        (b"Basic !!!", 401),
        (b"Basic", 401),
        (b"Bearer \xc3\xbc", 401),
        (b"", 401),
        (b"Digest username=x", 401),
    ],
)
def test_odd_credentials_are_401(small: Server, value: bytes, status: int) -> None:
    with small.client() as http:
        for origin in (b"http://[", b"\xff", b"null"):
            answer = http.get("/v1/models", headers={b"authorization": value, b"origin": origin})
            assert answer.status_code == status
