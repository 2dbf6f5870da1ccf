"""Callers that hardly read cost little and hold up nobody: 200 of them here, 5,000 under `make soak`."""

from __future__ import annotations

import asyncio
import os
import resource

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import Server
from tests.services.streams import opened
from tests.services.upstream import Asked, Peer, Upstream, delta, head, piece

READERS = 5000 if os.environ.get("PROMPTYARD_TEST_SOAK") else 200
#: What one may cost the server, in bytes: what was read of its answer and not yet passed on, and the call itself.
MOST = 512 * 1024


PIECE = piece(delta("x" * 16000))


async def endless(asked: Asked, peer: Peer) -> None:
    """As fast as the gateway takes it, for ever."""
    await peer.send(head())
    while True:
        await peer.send(PIECE)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_slow_readers_cost_little(upstream: Upstream, start_server: StartServer) -> None:
    # Both ends of every connection of ours are in this process, and both of the server's in its own.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    readers = min(READERS, most // 2 - 500)
    server = start_server(
        f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
  fake: {{type: fake}}
routes:
  up: {{deployments: [{{provider: up, model: m}}], timeouts: {{first_token: 300}}}}
  fake: {{deployments: [{{provider: fake, model: m}}]}}
"""
    )
    server.wait_ready()
    upstream.then(endless)
    asyncio.run(measured(server, readers))
    upstream.wait_idle(30)


async def measured(server: Server, readers: int) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def begin() -> None:
        reader, writer = await opened(server, "up", room=4096)
        assert b" 200 " in await reader.readline()
        held.append((reader, writer))

    async def sip() -> None:
        # Whoever reads nothing at all is taken for gone after a minute.
        while True:
            await asyncio.sleep(10)
            for reader, _ in held:
                assert await reader.read(4096)

    sipping = asyncio.create_task(sip())
    for _ in range(readers // 50):
        await asyncio.gather(*(begin() for _ in range(50)))
    # Until nothing moves any more.
    grown, last = process.memory_info().rss, 0
    while grown - last > 0.02 * grown:
        await asyncio.sleep(1)
        last, grown = grown, process.memory_info().rss
    # Others are answered as ever.
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=30) as http:
        asked = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
        assert (await http.post("/v1/chat/completions", json=asked)).status_code == 200
    assert not sipping.done()
    sipping.cancel()
    for _, writer in held:
        writer.transport.abort()
    assert (grown - before) / readers < MOST, f"{(grown - before) // readers} bytes a reader"
