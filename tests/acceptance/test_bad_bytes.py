"""Whatever bytes arrive on a connection, the server answers as HTTP can, and goes on."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from tests.services.gateway import (
    GOOD,
    connected,
    received,
    request,
)
from tests.services.promptyard import Server

pytestmark = pytest.mark.usefixtures("goes_on")


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
