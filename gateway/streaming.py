"""Streams that cannot hang: the first event is awaited before an answer is given, every later chunk on a timer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from gateway.dialects.sse import MAX_EVENT, Tally
from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.lanes import Beside, Chunks, Taker
from gateway.routes import Timeouts
from gateway.timing import current_task
from gateway.trace import Note
from gateway.types import Answer

#: How long an upstream may take to close a stream it has ended, in seconds.
_GRACE = 1.0


async def begun(answer: Answer, tally: Tally, timeouts: Timeouts, deadline: float | None) -> Answer:
    """`answer` once its first event is here and good, so that a stream which fails at once can still be sent elsewhere.

    A fresh `tally` of its dialect tells. Comments that keep a connection open are no event. Raises `UpstreamFailed`
    for a stream that ends or breaks before, or begins with an error. The wait is the caller's to bound. From then on
    silence longer than `timeouts.idle`, or passing `deadline` (loop time), ends the chunks with `UpstreamTimeout`.
    """
    chunks = answer.chunks
    if chunks is None:
        return answer
    try:
        first = await _opening(chunks, tally)
    except BaseException:
        await chunks.aclose()
        raise
    watch = _Watch(timeouts.idle, deadline)
    paced: AsyncGenerator[bytes, None] = _paced(first, chunks, watch)
    if isinstance(chunks, Chunks):
        paced = Beside(paced, _watched(chunks, watch))
    return Answer(answer.status, answer.headers, chunks=paced)


def tallied(chunks: Chunks, tally: Tally, note: Note | None) -> Callable[[Taker], None]:
    """The lane beside `chunks`, for text and nothing else: it is counted once it is taken."""

    def divert(taker: Taker) -> None:
        def take(chunk: bytes) -> bool:
            said = tally.plain(chunk)
            if said is None or not taker(chunk):
                return False
            tally.hear(said)
            if note is not None:
                note.hear(chunk)
            return True

        chunks.divert(take)

    return divert


async def over(tally: Tally, chunks: AsyncGenerator[bytes, None]) -> None:
    """Let an upstream that has said all close: then its connection is used again. One that stays is left.

    Raises `UpstreamFailed` where it did not end well.
    """
    if tally.failed:
        raise tally.failed
    with contextlib.suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(_GRACE):
            async for _ in chunks:
                pass
    await chunks.aclose()


async def _opening(chunks: AsyncGenerator[bytes, None], tally: Tally) -> bytes:
    first = bytearray()
    async for chunk in chunks:
        tally.feed(chunk)
        if tally.failed:
            raise tally.failed
        first += chunk
        if tally.begun:
            return bytes(first)
        if len(first) > MAX_EVENT:
            break
    raise UpstreamFailed("The provider's stream ended before its first event.")


def _watched(chunks: Chunks, watch: _Watch) -> Callable[[Taker], None]:
    """The lane beside `chunks`: what is taken there was no silence either."""

    def divert(taker: Taker) -> None:
        def take(chunk: bytes) -> bool:
            if not taker(chunk):
                return False
            watch.begin()
            return True

        chunks.divert(take)

    return divert


async def _paced(first: bytes, chunks: AsyncGenerator[bytes, None], watch: _Watch) -> AsyncGenerator[bytes, None]:
    watch.start()
    try:
        yield first
        while True:
            watch.begin()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not watch.fired:
                    raise
                watch.task.uncancel()
                raise UpstreamTimeout(watch.reason) from None
            finally:
                watch.end()
            yield chunk
    finally:
        watch.stop()
        await chunks.aclose()


class _Watch:
    """Cancels the task that waits for a chunk when it waits too long.

    `asyncio.timeout` would arm and disarm a timer for each chunk; this one is armed once, and
    looks when it fires whether it fired too early.
    """

    __slots__ = ("_deadline", "_idle", "_loop", "_since", "_timer", "fired", "reason", "task")

    def __init__(self, idle: float, deadline: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._deadline = deadline
        self._since: float | None = None
        self.fired = False
        self.reason = ""

    def start(self) -> None:
        """The task that runs now is the one that will wait."""
        task = current_task()
        if task is None:
            raise RuntimeError("A stream is read inside a task.")
        self.task: asyncio.Task[object] = task
        self._timer = self._loop.call_later(self._next(self._loop.time()), self._look)

    def begin(self) -> None:
        """A wait for a chunk begins."""
        self._since = self._loop.time()

    def end(self) -> None:
        """It is over."""
        self._since = None

    def stop(self) -> None:
        """No more waits."""
        self._timer.cancel()

    def _next(self, now: float) -> float:
        due = (now if self._since is None else self._since) + self._idle
        return (due if self._deadline is None else min(due, self._deadline)) - now

    def _look(self) -> None:
        now = self._loop.time()
        late = self._deadline is not None and now >= self._deadline
        if self._since is not None and (late or now >= self._since + self._idle):
            self.fired = True
            self.reason = (
                "The answer took longer than the route's total timeout."
                if late
                else f"The provider was silent for {self._idle:g} s in the middle of its answer."
            )
            self.task.cancel()
            return
        # Past the deadline with a slow reader: look again soon, the next wait is the last.
        self._timer = self._loop.call_later(max(0.05, self._next(now)), self._look)
