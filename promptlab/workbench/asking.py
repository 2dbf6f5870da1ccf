"""Up to four routes asked the same thing at once, and what has come back so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from promptlab.client import CallFailed, Finished, Text, Tokens, Visitor
from promptlab.workbench.form import Form

State = Literal["waiting", "streaming", "done", "stopped", "failed"]
_TICK = 0.1
# Each tick redraws everything that has arrived: long answers are drawn less often.
_LONG = 20_000


@dataclass(slots=True)
class Answer:
    """One route's answer while it arrives and after. Times are seconds since the call was made."""

    route: str
    state: State = "waiting"
    pieces: list[str] = field(default_factory=list)
    error: str = ""
    request_id: str | None = None
    started: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    total: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: str = ""
    cost: float | None = None
    settled: bool = False

    @property
    def text(self) -> str:
        """What has arrived."""
        return "".join(self.pieces)

    @property
    def elapsed(self) -> float:
        """The whole time of an ended answer, the time so far of a running one."""
        return time.perf_counter() - self.clock if self.total is None else self.total


class Asking:
    """The calls of one press of *Run*. Leaving `open()` closes every stream that still runs."""

    def __init__(self, form: Form, visitor: Visitor) -> None:
        self.form = form
        self.answers = [Answer(route) for route in form.routes]
        self._visitor = visitor
        self._reading: list[asyncio.Task[None]] = []
        self._all: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Asking]:
        """Ask now; leave when done with the answers."""
        self._reading = [asyncio.create_task(self._read(answer)) for answer in self.answers]
        self._all = asyncio.create_task(self._finish())
        try:
            yield self
        finally:
            self.stop()
            self._all.cancel()
            await asyncio.gather(*self._reading, self._all, return_exceptions=True)

    def stop(self) -> None:
        """Close the streams that still run; what has arrived stays."""
        for task in self._reading:
            task.cancel()

    async def ticks(self) -> AsyncIterator[None]:
        """Ten times a second while anything can still change (less often for long answers), then once more."""
        assert self._all is not None, "ticks() needs open()"  # noqa: S101
        while not self._all.done():
            yield
            length = sum(map(len, (piece for answer in self.answers for piece in answer.pieces)))
            await asyncio.wait({self._all}, timeout=_TICK * (1 + length / _LONG))
        yield

    async def _read(self, answer: Answer) -> None:
        try:
            async with self._visitor.chat(self.form.call(answer.route)) as stream:
                answer.request_id = stream.request_id
                async with aclosing(stream.pieces) as pieces:
                    async for piece in pieces:
                        _take(answer, piece)
            answer.state = "done"
        except CallFailed as error:
            answer.state, answer.error = "failed", str(error)
        except asyncio.CancelledError:
            answer.state = "stopped"
            raise
        finally:
            answer.total = time.perf_counter() - answer.clock

    async def _finish(self) -> None:
        """Wait for every answer and read its cost as soon as it has ended."""
        await asyncio.gather(*(self._settle(*pair) for pair in zip(self._reading, self.answers, strict=True)))

    async def _settle(self, reading: asyncio.Task[None], answer: Answer) -> None:
        await asyncio.wait({reading})
        if answer.request_id is not None:
            try:
                usage = await self._visitor.usage(answer.request_id)
            except CallFailed:
                usage = None
            if usage is not None:
                answer.cost = usage.get("cost_usd") if usage.get("priced", True) else None
                if answer.output_tokens is None:
                    answer.input_tokens, answer.output_tokens = usage.get("input_tokens"), usage.get("output_tokens")
        answer.settled = True


def _take(answer: Answer, piece: Text | Tokens | Finished) -> None:
    match piece:
        case Text(text):
            if answer.first_token is None:
                answer.first_token = time.perf_counter() - answer.clock
                answer.state = "streaming"
            answer.pieces.append(text)
        case Tokens(given, made):
            answer.input_tokens, answer.output_tokens = given, made
        case Finished(reason):
            answer.finish = reason
