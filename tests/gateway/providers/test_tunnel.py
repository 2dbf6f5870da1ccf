"""Calls that leave through a proxy: a tunnel for TLS, the whole URL for plain HTTP, and proxies that fail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.providers.transport import Transport
from tests.services.process import free_port
from tests.services.upstream import Answer as Answering
from tests.services.upstream import Asked, Peer, Upstream, raw, running, silence, whole


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()
    await asyncio.sleep(0)


def through(door: Transport, proxy: Upstream, user: str = "") -> Transport:
    return door.through(SecretStr(f"http://{user}127.0.0.1:{proxy.port}"), None)


async def test_plain_http_is_asked_of_the_proxy_by_its_whole_url(door: Transport, upstream: Upstream) -> None:
    upstream.then(whole(b"{}"))
    way = through(door, upstream, "us%40r:p%20w@")
    for _ in range(2):
        url = "http://nowhere.invalid:8000/v1/x?a=b"
        assert (await way.post(url, b"{}", {"authorization": "Bearer k"}, 2, stream=False)).body == b"{}"
    assert upstream.last.path == "http://nowhere.invalid:8000/v1/x?a=b"
    assert upstream.last.header("host") == "nowhere.invalid:8000"
    assert upstream.last.header("authorization") == "Bearer k"
    assert upstream.last.header("proxy-authorization") == "Basic dXNAcjpwIHc="
    assert upstream.connections == 1
    await through(door, upstream).post("http://nowhere.invalid/v1", b"{}", {}, 2, stream=False)
    assert upstream.last.header("proxy-authorization") is None


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_tls_goes_through_a_tunnel(
    door: Transport, upstream: Upstream, signed_by_nobody: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*signed_by_nobody)
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heard.append(await reader.readuntil(b"{}"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def tunnel(asked: Asked, peer: Peer) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        # In two pieces, as a slow proxy would.
        await peer.send(b"HTTP/1.1 200 Connection est")
        await asyncio.sleep(0.02)
        await peer.send(b"ablished\r\nvia: a proxy\r\n\r\n")
        await asyncio.gather(relay(peer.reader, there[1]), relay(there[0], peer.writer))

    upstream.then(tunnel)
    proxy = SecretStr(f"http://u:p@127.0.0.1:{upstream.port}")
    way = door.through(proxy, signed_by_nobody[0])
    for _ in range(2):
        url = f"https://127.0.0.1:{port}/v1/x"
        assert (await way.post(url, b"{}", {"authorization": "Bearer k"}, 2, stream=False)).body == b"{}"
    assert [(asked.method, asked.path) for asked in upstream.asked] == [("CONNECT", f"127.0.0.1:{port}")]
    assert dict(upstream.last.headers) == {"host": f"127.0.0.1:{port}", "proxy-authorization": "Basic dTpw"}
    assert [b"POST /v1/x HTTP/1.1" in one and b"proxy-authorization" not in one for one in heard] == [True, True]
    with pytest.raises(UpstreamFailed, match="TLS"):
        await door.through(proxy, None).post(f"https://127.0.0.1:{port}/v1/x", b"{}", {}, 2, stream=False)
    server.close()


SICK: dict[str, tuple[Answering, str]] = {
    "wants another password": (whole(b"no", 407), "refused its user and password"),
    "cannot reach it": (whole(b"<html>", 502), r"did not connect to the provider \(HTTP 502\)"),
    "hangs up": (raw(b""), "broke off"),
    "hangs up in its head": (raw(b"HTTP/1.1 200 OK\r\nvia"), "broke off"),
    "speaks first": (raw(b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01", close=False), "did not connect"),
    "is no proxy": (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "did not connect to the provider.$"),
    "sends a long head": (raw(b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 20_000] * 5, close=False), "broke off"),
}


@pytest.mark.parametrize("name", SICK)
async def test_a_sick_proxy_is_a_failure_at_once(door: Transport, upstream: Upstream, name: str) -> None:
    scripted, said = SICK[name]
    upstream.then(scripted)
    with pytest.raises(UpstreamFailed, match=said) as caught:
        await through(door, upstream, "u:s3cret@").post("https://nowhere.invalid/", b"{}", {}, 2, stream=False)
    assert type(caught.value) is UpstreamFailed
    assert "s3cret" not in caught.value.message
    await asyncio.to_thread(upstream.wait_idle)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_password_refused_on_plain_http_is_no_answer_for_the_caller(
    door: Transport, upstream: Upstream, stream: bool
) -> None:
    upstream.then(whole(b"who is u:s3cret?", 407))
    with pytest.raises(UpstreamFailed, match="refused its user and password"):
        await through(door, upstream, "u:s3cret@").post("http://nowhere.invalid/", b"{}", {}, 2, stream=stream)
    await asyncio.to_thread(upstream.wait_idle)


async def test_a_silent_proxy_is_late(door: Transport, upstream: Upstream) -> None:
    upstream.then(silence)
    with pytest.raises(UpstreamTimeout, match="The provider's proxy"):
        await through(door, upstream).post("https://nowhere.invalid/", b"{}", {}, 0.3, stream=False)
    await asyncio.to_thread(upstream.wait_idle)


@pytest.mark.parametrize("url", ["http://nowhere.invalid/", "https://nowhere.invalid/"])
async def test_no_proxy_there(door: Transport, url: str) -> None:
    for proxy, said in ((f"http://127.0.0.1:{free_port()}", "refused"), ("http://no.invalid", "not known")):
        way = door.through(SecretStr(proxy), None)
        with pytest.raises(UpstreamFailed, match=f"^The provider's proxy .*{said}"):
            await way.post(url, b"{}", {}, 2, stream=False)
