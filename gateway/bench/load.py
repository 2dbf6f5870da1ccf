"""A load generator: keeps N connections busy with one request and checks every answer.

`python -m gateway.bench.load` runs it as a process of its own and prints the result as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

from gateway.bench.standin import TEXT, WORDS

Check = Callable[[int, bytes], str | None]
"""What is wrong with an answer (status, body), or None."""


@dataclass
class Result:
    """What one load run saw. Times are milliseconds but for `seconds`; any entry in `errors` spoils it."""

    answers: int = 0
    chunks: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    p50: float = 0.0
    p99: float = 0.0
    first_p50: float = 0.0
    first_p99: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0


def check_chat(status: int, body: bytes) -> str | None:
    """Holds for any whole answer with status 200."""
    return None if status == 200 else f"status {status}: {body[:120].decode(errors='replace')}"


def check_stream(status: int, body: bytes, done: bool = True) -> str | None:
    """Holds for a stream with all the stand-in's chunks in order and, unless `done` is False, its `[DONE]`."""
    if status != 200:
        return check_chat(status, body)
    events = [event[5:].strip() for event in body.split(b"\n\n") if event.startswith(b"data:")]
    ended = bool(events) and events[-1] == b"[DONE]"
    if ended:
        events.pop()
    try:
        words = [content for event in events if (content := _content(event))]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return "an event is not a chunk"
    if len(words) != len(WORDS):
        return f"{len(words)} chunks"
    if "".join(words) != TEXT:
        return "chunks are changed"
    return "no [DONE]" if done and not ended else None


def check_undone_stream(status: int, body: bytes) -> str | None:
    """`check_stream` for a peer that never sends `[DONE]`."""
    return check_stream(status, body, done=False)


CHECKS: dict[str, Check] = {"chat": check_chat, "stream": check_stream, "undone": check_undone_stream}


def _content(event: bytes) -> str | None:
    choices = orjson.loads(event)["choices"]
    return choices[0]["delta"].get("content") if choices else None


class Load:
    """One run: `connections` callers, each sending `request` again as soon as it is answered."""

    def __init__(self, url: str, request: bytes, check: Check) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.request = request
        self._check = check
        self._errors: Counter[str] = Counter()
        self._times: list[float] = []
        self._firsts: list[float] = []
        self._busy = 0
        self._until = 0.0
        self._over = asyncio.Event()
        self._reconnects: set[asyncio.Task[None]] = set()

    async def run(self, connections: int, seconds: float) -> Result:
        """Send for `seconds`, wait for what is under way, and say what came back."""
        started = time.perf_counter()
        self._until = started + seconds
        self._busy = connections
        await asyncio.gather(*(self.connect() for _ in range(connections)))
        await self._over.wait()
        took = time.perf_counter() - started
        times, firsts = sorted(self._times), sorted(self._firsts)
        chunks = 0 if self._check is check_chat else len(times) * len(WORDS)
        return Result(len(times), chunks, took, dict(self._errors), percentile(times, 50), percentile(times, 99),
                      percentile(firsts, 50), percentile(firsts, 99))  # fmt: skip

    async def connect(self) -> None:
        """Open one connection, which then sends by itself."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: Caller(self), self.host, self.port)
        except OSError as error:
            self._errors[f"connect: {error.strerror}"] += 1
            self.leave()

    def answered(self, status: int, body: bytes, began: float, first: float) -> None:
        """Take note of one whole answer."""
        wrong = self._check(status, body)
        if wrong is not None:
            self._errors[wrong] += 1
            return
        self._times.append((time.perf_counter() - began) * 1000)
        self._firsts.append((first - began) * 1000)

    def more(self) -> bool:
        """Whether another request may start."""
        return time.perf_counter() < self._until

    def broken(self) -> None:
        """Take note of a connection lost before its answer was whole."""
        self._errors["connection lost"] += 1

    def reconnect(self) -> None:
        """Go on with a new connection where the old one was closed after a whole answer."""
        task = asyncio.create_task(self.connect())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    def leave(self) -> None:
        """One caller is finished; the last one ends the run."""
        self._busy -= 1
        if not self._busy:
            self._over.set()


class Caller(asyncio.Protocol):
    """One connection of a `Load`; the `on_…` methods are httptools' callbacks."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._first = 0.0
        self._waiting = True
        self._began = time.perf_counter()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the answer."""
        if not self._first:
            self._first = time.perf_counter()
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Take note of the answer, and ask again."""
        self._waiting = False
        self._load.answered(self._parser.get_status_code(), b"".join(self._parts), self._began, self._first)
        if not self._parser.should_keep_alive():
            self._transport.close()  # the server is about to: connection_lost goes on from here
        elif self._load.more():
            # Not from inside the parser's callback, which a new parser would replace under its feet.
            asyncio.get_running_loop().call_soon(self._send)
        else:
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Go on with another connection, or leave."""
        if self._waiting:
            self._load.broken()
        if self._load.more() and not self._waiting:
            self._load.reconnect()
        else:
            self._load.leave()


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` percent of `ordered` lie; 0 for an empty list."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else 0.0


def request_bytes(url: str, body: bytes, key: str | None) -> bytes:
    """One POST of `body`, as it goes over the wire."""
    parts = urlsplit(url)
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json",
            f"Content-Length: {len(body)}"]  # fmt: skip
    if key:
        head.append(f"Authorization: Bearer {key}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def generate(
    url: str, body: bytes, *, check: str, connections: int, seconds: float, key: str | None = None
) -> Result:
    """The result of keeping `connections` busy with `body` for `seconds`. `check` names one of `CHECKS`."""
    return await Load(url, request_bytes(url, body, key), CHECKS[check]).run(connections, seconds)


def main() -> None:
    """Run once as the arguments say and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True, help="file with the JSON to send")
    parser.add_argument("--check", choices=CHECKS, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--key")
    a = parser.parse_args()
    body = a.body.read_bytes()
    result = uvloop.run(generate(a.url, body, check=a.check, connections=a.connections, seconds=a.seconds, key=a.key))
    sys.stdout.write(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
