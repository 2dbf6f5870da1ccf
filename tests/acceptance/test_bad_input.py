"""Whatever is thrown at the data plane gets a clear error, and the server goes on with nothing held."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, client, error_of, sockets
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, hang_up, head, raw, until, whole

PATH = "/v1/chat/completions"
GOOD = json.dumps({"model": "fake", "messages": MESSAGES}).encode()


@pytest.fixture(scope="module")
def small(upstream: Upstream, start_servers: StartServer) -> Server:
    """A server that takes bodies of 1 MiB and 1 s; `fake` and `up` answer one call at once, so a leak shows."""
    return start_servers(
        f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
  fake: {{type: fake}}
  broken: {{type: fake, cycle: true, script: [{{garbage: true}}, {{raw: "[]"}}, {{raw: "1"}}, {{html: true}}]}}
routes:
  fake: {{deployments: [{{provider: fake, model: fake}}], limits: {{concurrency: 1, tpm: 1000000}}}}
  up: {{deployments: [{{provider: up, model: m}}], limits: {{concurrency: 1}}}}
  broken: {{deployments: [{{provider: broken, model: m}}], limits: {{concurrency: 1}}}}
  embed: {{task: embeddings, deployments: [{{provider: fake, model: fake}}], limits: {{tpm: 100000000}}}}
""",
        max_body="1MiB",
        body_timeout=1,
    )


@pytest.fixture(autouse=True)
def _goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test its server answers, holds nothing, and has met no fault of its own."""
    names = [name for name in ("small", "gateway") if name in request.fixturenames]
    servers = [request.getfixturevalue(name) for name in names]
    before = [len(server.stderr()) for server in servers]
    yield
    for server, seen in zip(servers, before, strict=True):
        with server.client() as http:
            assert {ask(http, model).status_code for model in ("fake", "other")} == {200, 404}
        assert server.process.poll() is None
        log = server.stderr()[seen:]
        assert "Traceback" not in log, log[-3000:]
        assert "a fault of ours" not in log, log[-3000:]


def post(server: Server, body: bytes, path: str = PATH, **headers: str) -> httpx.Response:
    with server.client() as http:
        named = {"content-type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return http.post(path, content=body, headers=named)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        yield sock


def request(server: Server, body: bytes = GOOD, *lines: str, version: str = "1.1", length: int | None = None) -> bytes:
    """The bytes of one POST."""
    start = [f"POST {PATH} HTTP/{version}", "host: localhost", f"authorization: Bearer {server.admin_key}"]
    start += ["content-type: application/json", f"content-length: {len(body) if length is None else length}", *lines]
    return ("\r\n".join(start) + "\r\n\r\n").encode() + body


def received(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            data += part
    return data


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
    "garbage",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"get / http/1.1\r\n\r\n",
        b"\r\n\r\n\r\nhello\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"GET /v1/m\xc3\xb6dels HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_garbage_on_the_socket_is_a_400(small: Server, garbage: bytes) -> None:
    with connected(small) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = received(sock)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"".join(b"x-%d: %s\r\n" % (n, b"y" * 50) for n in range(5000)) + b"\r\n", id="many headers"),
        pytest.param(b"x: " + b"y" * 300_000 + b"\r\n\r\n", id="one long header, ended"),
        pytest.param(b"x: " + b"y" * 5_000_000, id="one endless header"),
        pytest.param(b"y" * 5_000_000, id="one endless name"),
    ],
)
def test_a_header_flood_is_a_431(small: Server, flood: bytes) -> None:
    with connected(small) as sock:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(flood)
        answer = received(sock)
    # Closing while more arrives may reset the connection before the answer is read.
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer


def test_an_endless_url_is_a_431(small: Server) -> None:
    with connected(small) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"GET /" + b"y" * 5_000_000)
        answer = received(sock)
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer


def test_just_too_many_headers_are_told_so(small: Server) -> None:
    with small.client() as http:
        assert http.get("/v1/models", headers={"x": "y" * 60_000}).status_code == 200
        assert http.get("/v1/models", headers={"x": "y" * 70_000}).status_code == 431


def test_pipelined_requests_are_answered_in_order(small: Server) -> None:
    bodies = [json.dumps({"model": "fake", "messages": [{"role": "user", "content": f"n{n}"}]}) for n in range(5)]
    with connected(small) as sock:
        sock.sendall(b"".join(request(small, body.encode()) for body in bodies[:-1]))
        sock.sendall(request(small, bodies[-1].encode(), "connection: close"))
        answer = received(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    places = [answer.index(f"echo: n{n}".encode()) for n in range(5)]
    assert places == sorted(places)


def test_http_1_0(small: Server) -> None:
    with connected(small) as sock:
        sock.sendall(request(small, version="1.0"))
        answer = received(sock)
    assert b" 200 OK" in answer.splitlines()[0]
    assert b"echo: Say hello." in answer


def test_an_upgrade_nobody_speaks(small: Server) -> None:
    upgrade = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    with connected(small) as sock:
        sock.sendall(request(small, GOOD, *upgrade))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_expect_100_continue(small: Server) -> None:
    with connected(small) as sock:
        sock.sendall(request(small, b"", "expect: 100-continue", length=len(GOOD)))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(GOOD)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


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


NOT_ANSWERS: dict[str, tuple[Any, str]] = {
    "html": (whole(b"<html>hi</html>", kind="text/html"), "text/html"),
    "half a json": (whole(b'{"choices": ['), "JSON object"),
    "a list": (whole(b"[]"), "JSON object"),
    "nothing": (whole(b""), "JSON object"),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"), "JSON object"),
    "binary": (whole(bytes(range(256))), "JSON object"),
    "hangs up": (hang_up, "broke the connection off"),
    "garbage": (raw(b"\x00\x01garbage\r\n\r\n"), "broke the connection off"),
    "half a head": (raw(b"HTTP/1.1 200 OK\r\nconten"), "broke the connection off"),
    "half a body": (raw(head(length=1000, kind="application/json") + b'{"choices": []}'), "broke the connection off"),
    "half a chunk": (raw(head(kind="application/json") + b"ff\r\n{}"), "broke the connection off"),
    "bad chunk": (raw(head(kind="application/json") + b"zz\r\n{}\r\n0\r\n\r\n"), "broke the connection off"),
    "redirect": (whole(b"", 307, location="http://127.0.0.1:1/"), "redirect"),
    "not modified": (whole(b"", 304), ""),
    "status 999": (whole(b'{"error": {"message": "x"}}', 999), "999"),
    "header flood": (raw(head(length=2, kind="application/json", x_flood="y" * 100_000) + b"{}"), ""),
    "compressed all the same": (whole(gzip.compress(b"{}"), content_encoding="gzip"), "JSON object"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", NOT_ANSWERS)
def test_an_upstream_that_does_not_answer_is_a_502(
    small: Server, upstream: Upstream, name: str, streamed: bool
) -> None:
    bad, said = NOT_ANSWERS[name]
    upstream.then(bad)
    with small.client() as http:
        answer = ask(http, "up", stream=streamed)
        assert answer.status_code == 502, answer.text
        error = error_of(answer)
        assert error["type"] == "upstream_error"
        assert streamed or said in error["message"]
        assert str(upstream.port) not in answer.text
        upstream.then(whole(chat()))
        assert ask(http, "up").status_code == 200
    assert len(upstream.asked) == 1


def test_a_fake_that_answers_nonsense_is_told_and_lets_go(small: Server) -> None:
    with small.client() as http:
        assert [ask(http, "broken").status_code for _ in range(8)] == [502, 502, 502, 503] * 2


def test_nothing_is_held_after_a_storm(small: Server, upstream: Upstream) -> None:
    upstream.then(*(bad for bad, _ in NOT_ANSWERS.values()), hang_up)
    before = sockets(small)
    with small.client() as http:
        for _ in range(30):
            ask(http, "up")
            ask(http, "up", stream=True)
            http.post(PATH, content=b"{", headers={"content-type": "application/json"})
    for _ in range(30):
        with connected(small) as sock:
            sock.sendall(b"\x00garbage")
    until(lambda: sockets(small) <= before + 3)
    upstream.then(whole(chat()))
    with small.client() as http:
        assert ask(http, "up").status_code == 200
