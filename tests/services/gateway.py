"""What a test of the data plane asks a server besides: keys, usage records, what it holds open."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil

from tests.services.promptyard import Server
from tests.services.upstream import until

#: The credential of the upstream that the fixture `gateway` asks.
CREDENTIAL = "sk-the-upstreams-own"
MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


def make_key(server: Server, **fields: Any) -> str:
    """The secret of a new key; `fields` are those of POST /admin/keys."""
    return str(new_key(server, **fields)["key"])


def new_key(server: Server, **fields: Any) -> dict[str, Any]:
    """A new key as POST /admin/keys shows it."""
    with server.client() as admin:
        answer = admin.post("/admin/keys", json={"name": "test", **fields})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


def client(server: Server, key: str | None = None, **options: Any) -> openai.OpenAI:
    """The official client, which does not retry unless told to. Close it: `with`."""
    options = {"max_retries": 0, "timeout": 30.0, **options}
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key or server.admin_key or "dummy", **options)


def async_client(server: Server, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
    """The same, async."""
    options = {"max_retries": 0, "timeout": 60.0, **options}
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key or server.admin_key or "dummy", **options)


def usage_of(server: Server, answer: httpx.Response | str | None) -> dict[str, Any]:
    """The usage record of an answer (or of a request id), once its call is over."""
    request_id = answer.headers["x-request-id"] if isinstance(answer, httpx.Response) else answer
    with server.client() as admin:

        def record() -> dict[str, Any] | None:
            found = admin.get(f"/admin/usage/{request_id}")
            return dict(found.json()) if found.status_code == 200 else None

        return dict(until(record))


def ask(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    """One chat call."""
    return client.post("/v1/chat/completions", json={"model": model, "messages": MESSAGES, **fields})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's shape and nothing else."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"], body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    assert "Traceback" not in body["error"]["message"]
    return dict(body["error"])


def sockets(server: Server) -> int:
    """How many file descriptors the server's process has open."""
    return int(psutil.Process(server.process.pid).num_fds())


PATH = "/v1/chat/completions"
GOOD = json.dumps({"model": "fake", "messages": MESSAGES}).encode()


def post(server: Server, body: bytes, path: str = PATH, **headers: str) -> httpx.Response:
    """A POST of exactly these bytes; `content_type="x"` becomes a header."""
    with server.client() as http:
        named = {"content-type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return http.post(path, content=body, headers=named)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A bare connection to the server."""
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
