"""An upstream on a real socket that does what a test tells it: answers, dribbles, lies, cuts off, falls silent.

It writes its own bytes, so that it can send what no HTTP library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header that came once; None if it did not come."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass
class Peer:
    """The gateway's end of one connection, as an answer sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def left(self) -> None:
        """Return once the gateway has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Answer = Callable[[Asked, Peer], Awaitable[None]]


def whole(body: bytes | dict[str, Any], status: int = 200, kind: str = "application/json", **headers: str) -> Answer:
    """A whole answer; `retry_after="3"` becomes a header."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(asked: Asked, peer: Peer) -> None:
        await peer.send(head(status, kind, length=len(data), **headers) + data)

    return answer


def head(
    status: int = 200, kind: str = "text/event-stream", length: int | None = None, close: bool = False, **headers: str
) -> bytes:
    """Status line and headers; without a `length` the body is chunked, or ends with the connection if `close`."""
    lines = [f"HTTP/1.1 {status} Some Reason", f"content-type: {kind}"]
    if length is not None:
        lines.append(f"content-length: {length}")
    elif close:
        lines.append("connection: close")
    else:
        lines.append("transfer-encoding: chunked")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def piece(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def stream(*parts: bytes | float | None, status: int = 200, kind: str = "text/event-stream") -> Answer:
    """A chunked stream: bytes are sent as one chunk each, a number is a pause in seconds.

    None cuts the connection; a stream that ends without None ends as it should.
    """

    async def answer(asked: Asked, peer: Peer) -> None:
        await peer.send(head(status, kind))
        for part in parts:
            if part is None:
                peer.writer.transport.abort()
                return
            if isinstance(part, bytes):
                await peer.send(piece(part))
            else:
                await asyncio.sleep(part)
        await peer.send(END)

    return answer


def raw(*parts: bytes, close: bool = True) -> Answer:
    """Exactly these bytes, each written alone; then the connection is closed, or left silent."""

    async def answer(asked: Asked, peer: Peer) -> None:
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0.01)
        if close:
            peer.writer.close()
        else:
            await peer.left()

    return answer


async def silence(asked: Asked, peer: Peer) -> None:
    """Nothing, until the gateway leaves."""
    await peer.left()


async def hang_up(asked: Asked, peer: Peer) -> None:
    """The connection closed without a word."""
    peer.writer.close()


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """A chat chunk as OpenAI sends it."""
    said = {**fields, **({} if text is None else {"content": text})}
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}
    shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    return event({**shared, "choices": [choice], "usage": None})


def usage_chunk(prompt: int = 9, completion: int = 2) -> bytes:
    shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    return event({**shared, "choices": [], "usage": usage(prompt, completion)})


def usage(prompt: int = 9, completion: int = 2) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A whole chat answer."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(),
        **fields,
    }


DONE = b"data: [DONE]\n\n"
STREAM = (delta("", role="assistant"), delta("Hel"), delta("lo"), delta(finish="stop"), usage_chunk(), DONE)


class Upstream:
    """A server in a thread. `then(*answers)` says what the next requests get, the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self._answers: list[Answer] = [whole(chat())]
        self._open: set[asyncio.StreamWriter] = set()
        self._busy = 0
        self._change = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="upstream")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def then(self, *answers: Answer) -> None:
        """Forget what was asked and answered before, and answer so from now on."""
        self.asked.clear()
        self._answers = list(answers)

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def wait_asked(self, count: int = 1, seconds: float = 10) -> None:
        """Return once `count` requests are here."""
        self._wait(lambda: len(self.asked) >= count, seconds, f"{count} requests")

    def wait_idle(self, seconds: float = 1.0) -> None:
        """Return once no request is being answered: fails when the gateway keeps one open for longer."""
        self._wait(lambda: not self._busy, seconds, "the gateway to leave")

    def _wait(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        with self._change:
            assert self._change.wait_for(true, seconds), f"waited {seconds} s for {what}"

    def _notify(self) -> None:
        with self._change:
            self._change.notify_all()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> None:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20, backlog=2048)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            while not writer.is_closing():
                asked = await _read(reader)
                if asked is None:
                    break
                number = len(self.asked)
                answer = self._answers[min(number, len(self._answers) - 1)]
                self._busy += 1
                self.asked.append(asked)
                self._notify()
                try:
                    await answer(asked, Peer(reader, writer))
                finally:
                    self._busy -= 1
                    self._notify()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._open.discard(writer)
            self._tasks.discard(task)
            self._notify()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        start = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = start.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = int(dict(headers).get("content-length", "0"))
    return Asked(method, path, headers, await reader.readexactly(length))


@contextlib.contextmanager
def running() -> Iterator[Upstream]:
    """An upstream on a port of its own, gone afterwards."""
    upstream = Upstream()
    upstream.start()
    try:
        yield upstream
    finally:
        upstream.stop()


def until(true: Callable[[], Any], seconds: float = 5) -> Any:
    """What `true()` gives once it is something; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := true()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.02)
    return result
