"""Many streamed calls at once, read from plain sockets: what a client library would hide (a missing end) is seen."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass

from tests.services.promptyard import Server


@dataclass
class Streamed:
    """One answer. `whole` is whether it ended as a good one does: `[DONE]`, then the end of the HTTP body."""

    status: int
    text: str
    whole: bool
    raw: bytes


async def stream(server: Server, model: str, path: str = "/v1/chat/completions") -> Streamed:
    """The answer of one streamed call on a connection of its own."""
    reader, writer = await opened(server, model, path)
    try:
        return parsed(await reader.read())
    finally:
        writer.close()


async def opened(
    server: Server, model: str, path: str = "/v1/chat/completions", room: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which one streamed call was asked; its answer has not been read.

    `room` is how many bytes of it the machine, and this process, take before they are read.
    """
    body = json.dumps(
        {"model": model, "stream": True, "max_tokens": 100000, "messages": [{"role": "user", "content": "x"}]}
    )
    key = f"authorization: Bearer {server.admin_key}\r\n" if server.admin_key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}connection: close\r\ncontent-type: application/json\r\n"
    sock = socket.socket()
    sock.setblocking(False)
    if room is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=room or 2**16)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    await writer.drain()
    return reader, writer


def parsed(raw: bytes) -> Streamed:
    """What came over the wire, understood: head, chunks, events."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head else 0
    body, ended = b"", b"transfer-encoding: chunked" not in head.lower()
    while rest and not ended:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest, ended = body + rest[:length], rest[length + 2 :], not length
    events = [event.removeprefix(b"data: ") for event in (body or rest).split(b"\n\n") if event]
    done = bool(events) and events[-1] == b"[DONE]"
    documents = [json.loads(event) for event in events if event.startswith(b'{"id"')]
    said = [choice["delta"].get("content") or "" for one in documents for choice in one["choices"]]
    return Streamed(status, "".join(said), done and ended, raw)
