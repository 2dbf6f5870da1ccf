"""A stand-in provider: fixed OpenAI answers as fast as plain Python gives them, so that a proxy is what we measure.

Run as a program it prints the address it listens on and serves until it is ended:
`python -m gateway.bench.standin [--port N] [--tls-port N --tls FILE]` (a key and its certificate).

It reads bodies by `Content-Length` only and never looks at a credential.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from typing import Any, cast

import orjson
import uvloop

WORDS = tuple(f" word{i:03d}" for i in range(100))
TEXT = "".join(WORDS)
#: A request that says this gets the first chunk of its stream, and no more until it leaves.
HOLD = "Hold the line."
STEP = 0.005  # seconds between two chunks of one stream
PHASES = 5  # streams are spread over this many ticks a step, so that they do not all move at once
USAGE = {"prompt_tokens": 25, "completion_tokens": 100, "total_tokens": 125}
CHAT = orjson.dumps(
    {
        "id": "chatcmpl-standin",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "standin-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The stand-in says the same to everyone. " * 4},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
)
VECTOR = [round(i / 16, 4) for i in range(16)]
EMBEDDINGS = orjson.dumps(
    {
        "object": "list",
        "model": "standin-1",
        "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
)


def _event(data: bytes) -> bytes:
    """One server-sent event as one piece of a chunked body."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    shared = {"id": "chatcmpl-standin", "object": "chat.completion.chunk", "created": 1_750_000_000}
    return _event(orjson.dumps({**shared, "model": "standin-1", "choices": choices, **more}))


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


CHUNKS = tuple(_chunk(_choice({"role": "assistant", "content": word} if not i else {"content": word}))
               for i, word in enumerate(WORDS))  # fmt: skip
STOP = _chunk(_choice({}, "stop"))
USAGE_CHUNK = _chunk([], usage=USAGE)
DONE = _event(b"[DONE]") + b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _answer(status: bytes, body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


CHAT_ANSWER = _answer(b"200 OK", CHAT)
EMBEDDINGS_ANSWER = _answer(b"200 OK", EMBEDDINGS)
HEALTH_ANSWER = _answer(b"200 OK", b"OK", b"text/plain")
NOT_FOUND = _answer(b"404 Not Found", b'{"error":{"message":"no such path","type":"invalid_request_error"}}')
NO_LENGTH = _answer(b"411 Length Required", b'{"error":{"message":"send Content-Length"}}')
NO_JSON = _answer(b"400 Bad Request", b'{"error":{"message":"not JSON"}}')


class Counts:
    """What was served, so that a run can prove that its answers came from here."""

    def __init__(self) -> None:
        self.chats = self.streams = self.embeddings = 0


class Pace:
    """One clock for all streams: a timer for each chunk would cost more than the chunk."""

    def __init__(self) -> None:
        self._phases: list[list[Connection]] = [[] for _ in range(PHASES)]
        self._joined = self._tick = self._running = 0
        self._due = 0.0

    def join(self, connection: Connection) -> None:
        """Give `connection` a chunk every `STEP` until it says it has had the last."""
        self._phases[self._joined % PHASES].append(connection)
        self._joined += 1
        self._running += 1
        if self._running == 1:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + STEP / PHASES
            loop.call_at(self._due, self._serve)

    def _serve(self) -> None:
        phase = self._tick % PHASES
        self._tick += 1
        streams = self._phases[phase]
        going = [stream for stream in streams if stream.next_chunk()]
        self._running -= len(streams) - len(going)
        self._phases[phase] = going
        if self._running:
            loop = asyncio.get_running_loop()
            # Never earlier than now: a machine too slow for the pace gets slower streams, not bursts.
            self._due = max(self._due + STEP / PHASES, loop.time())
            loop.call_at(self._due, self._serve)


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests are read one at a time; nobody who calls us pipelines."""

    def __init__(self, pace: Pace, counts: Counts) -> None:
        self._pace = pace
        self._counts = counts
        self._buffer = b""
        self._sent = 0
        self._usage = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody may ask."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer, once the request is whole."""
        self._buffer = data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            length = int(head[at + 17 : stop if stop > 0 else end])
        elif b"\r\ntransfer-encoding:" in head:
            self._write(NO_LENGTH)
            self._transport.close()
            return
        else:
            length = 0
        last = end + 4 + length
        if len(data) < last:
            return
        self._buffer = data[last:]
        self._handle(data[: data.index(b"\r\n")].split(b" ")[1], data[end + 4 : last])
        if b"\r\nconnection: close" in head and not self._sent:
            self._transport.close()

    def _handle(self, path: bytes, body: bytes) -> None:
        if path == b"/v1/chat/completions":
            self._chat(body)
        elif path == b"/v1/embeddings":
            self._counts.embeddings += 1
            self._write(EMBEDDINGS_ANSWER)
        elif path == b"/health":
            self._write(HEALTH_ANSWER)
        elif path == b"/counts":
            self._write(_answer(b"200 OK", orjson.dumps(vars(self._counts))))
        else:
            self._write(NOT_FOUND)

    def _chat(self, body: bytes) -> None:
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            self._write(NO_JSON)
            return
        if not request.get("stream"):
            self._counts.chats += 1
            self._write(CHAT_ANSWER)
            return
        self._counts.streams += 1
        self._sent = 0
        self._usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._write(STREAM_HEAD)
        if HOLD.encode() in body:
            self._write(CHUNKS[0])
            return
        self._pace.join(self)

    def next_chunk(self) -> bool:
        """Send the next chunk of the running stream; False after its last or when the caller is gone."""
        if self._transport.is_closing():
            return False
        self._transport.write(CHUNKS[self._sent])
        self._sent += 1
        if self._sent < len(CHUNKS):
            return True
        self._sent = 0
        self._transport.write(STOP + USAGE_CHUNK + DONE if self._usage else STOP + DONE)
        return False

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


async def serve(port: int = 0, tls: ssl.SSLContext | None = None, counts: Counts | None = None) -> asyncio.Server:
    """A running stand-in on 127.0.0.1; port 0 takes a free one."""
    pace, counts = Pace(), counts or Counts()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(pace, counts), "127.0.0.1", port, backlog=1024, ssl=tls)


async def _main(port: int, tls_port: int, tls: str | None) -> None:
    counts = Counts()
    server = await serve(port, counts=counts)
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls)
        await serve(tls_port, context, counts)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)  # noqa: T201 - for whoever started it
    await ended.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls-port", type=int, default=0)
    parser.add_argument("--tls")
    given = parser.parse_args()
    uvloop.run(_main(given.port, given.tls_port, given.tls))
