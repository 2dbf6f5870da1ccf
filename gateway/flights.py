"""Identical calls in flight share one upstream call: all read its answer from the start, each at its own pace."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from gateway.errors import GatewayError, Overloaded
from gateway.types import Answer
from gateway.usage import LEFT

#: Whether an answer that has ended may be given again. Asked once all of it has come.
Good = Callable[[], bool]
#: Asks upstream on behalf of one caller, whose call it is from then on: admitted, measured, settled there.
Start = Callable[[], Awaitable[tuple[Answer, Good]]]

#: What all flights together may hold for those who come late or read slowly.
HELD = 64 * 2**20
#: How far the slowest reader of a flight may be behind once that is used up.
_LEAST = 64 * 2**10
#: Pieces at hand are read in bursts of so many, then others have their turn.
BURST = 64


class Shelf(Protocol):
    """Where one flight looks for its answer before it asks upstream, and leaves it afterwards."""

    async def find(self) -> Callable[[], Answer] | None:
        """What makes the kept answer, once for each who waits. None: it has to be asked for."""

    async def keep(self, headers: Mapping[str, str], pieces: Sequence[bytes], *, stream: bool) -> None:
        """Keep a good answer (status 200) for the next."""


class Flights:
    """The calls of this process that may be shared, by digest."""

    def __init__(self) -> None:
        self._open: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Bytes of answers that flights hold now.
        self.held = 0

    async def join(
        self, digest: str, start: Start, shelf: Shelf, most: int, *, alone: bool, turns: bool
    ) -> tuple[Answer, bool]:
        """The answer to all who ask for `digest` now, and whether it is another's: kept, or asked for by one of them.

        The first to come asks upstream, by its own `start`. When the last has left, that is cancelled. What fails,
        fails for all; where they are of several keys (`turns`), a refusal of the one who asked (4xx) is its own, and
        the next asks. A flight of more than `most` bytes is closed to late comers and not kept. `alone`: nobody joins.
        """
        flight = None if alone else self._open.get(digest)
        if flight is None:
            flight = _Flight(self, digest, shelf, most, turns=turns)
            if not alone:
                self._open[digest] = flight
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._tasks.discard)
        return await flight.join(start)

    def room(self, most: int) -> int:
        """How many bytes the slowest reader of a flight may be behind now."""
        return most if self.held <= HELD else min(most, _LEAST)

    def forget(self, digest: str, flight: _Flight) -> None:
        """Let nobody join `flight` any more."""
        if self._open.get(digest) is flight:
            del self._open[digest]

    async def close(self) -> None:
        """End all of them; who still waits is told that the server stops."""
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


class _Flight:
    """One upstream call in a task of its own, what has come of its answer, and who waits for it."""

    def __init__(self, flights: Flights, digest: str, shelf: Shelf, most: int, *, turns: bool) -> None:
        self._flights = flights
        self._digest = digest
        self._shelf = shelf
        self._most = most
        self._turns = turns
        self._waiting: dict[_Reader, None] = {}  # in the order they came
        self._leader: _Reader | None = None
        self._answer: Answer | None = None
        #: The stream so far; without its first `_passed` pieces, once it has grown too long to be kept.
        self._pieces: list[bytes] = []
        self._passed = 0
        self._held = 0
        self._keeps = True
        self._came = asyncio.Event()
        self._read = asyncio.Event()
        self._done = False
        self.ended = False
        self.error: Exception | None = None
        self.task = asyncio.create_task(self._run())

    async def join(self, start: Start) -> tuple[Answer, bool]:
        """The answer, once it has begun, and whether somebody else asked for it."""
        reader = _Reader(self, start)
        self._waiting[reader] = None
        if self._answer is not None:
            return self._served(reader, self._answer)
        try:
            return await reader.answered
        except BaseException as error:
            if reader.answered.done() and not reader.answered.cancelled():
                reader.answered.exception()  # it was seen, also where its caller left at the same moment
            self.leave(reader, error)
            raise

    def take(self, reader: _Reader) -> bytes | None:
        """The next piece for `reader`, None where it has yet to come."""
        at = reader.at - self._passed
        if at >= len(self._pieces):
            return None
        piece = self._pieces[at]
        reader.at += 1
        self._read.set()
        return piece

    async def more(self) -> None:
        """Return once another piece, or the end, has come."""
        await self._came.wait()

    def leave(self, reader: _Reader, error: BaseException | None = None) -> None:
        """`reader` wants no more. The last to leave before the end cancels the call, as `error` cancelled it."""
        if reader not in self._waiting:
            return
        del self._waiting[reader]
        if self._waiting:
            return
        if self._done:
            self._release()
        elif not self.ended:
            self._flights.forget(self._digest, self)
            self.task.cancel(*(error.args if isinstance(error, asyncio.CancelledError) else (LEFT,)))

    async def _run(self) -> None:
        try:
            kept = await self._shelf.find()
            if kept is None:
                await self._fly()
            else:
                self._tell_all(lambda _: (kept(), True))
                self._waiting.clear()
        except asyncio.CancelledError:
            self._fail(Overloaded("The server is stopping."))
            raise
        except Exception as error:
            self._fail(error)
        finally:
            self._flights.forget(self._digest, self)
            self._done = self.ended = True
            self._wake()
            if not self._waiting:
                self._release()

    async def _fly(self) -> None:
        answer, good = await self._asked()
        self._answer = answer
        self._tell_all(lambda reader: self._served(reader, answer))
        if answer.chunks is None:
            self.ended = True
            if answer.status == 200 and len(answer.body) <= self._most and good():
                await self._shelf.keep(answer.headers, [answer.body], stream=False)
            return
        try:
            async with aclosing(answer.chunks) as chunks:
                async for piece in chunks:
                    self._append(piece)
                    await self._room()
        except asyncio.CancelledError:
            # Many a client leaves when it has read the end, before the connection is closed: that answer is good.
            if not good():
                raise
        self.ended = True
        self._wake()
        if self._keeps and answer.status == 200 and good():
            await self._shelf.keep(answer.headers, self._pieces, stream=True)

    async def _asked(self) -> tuple[Answer, Good]:
        while True:
            self._leader = leader = next(iter(self._waiting))
            try:
                return await leader.start()
            except GatewayError as error:
                alone = not self._waiting.keys() - {leader}
                if alone or not self._turns or error.status >= 500:
                    raise
                self._waiting.pop(leader, None)
                leader.fail(error)

    def _served(self, reader: _Reader, answer: Answer) -> tuple[Answer, bool]:
        other = reader is not self._leader
        headers = dict(answer.headers)
        if answer.chunks is not None:
            return Answer(answer.status, headers, chunks=reader), other
        self._waiting.pop(reader, None)
        return Answer(answer.status, headers, answer.body, document=answer.document), other

    def _tell_all(self, served: Callable[[_Reader], tuple[Answer, bool]]) -> None:
        for reader in list(self._waiting):
            if not reader.answered.done():
                reader.answered.set_result(served(reader))

    def _fail(self, error: Exception) -> None:
        self.error = error
        if self._answer is None:
            for reader in self._waiting:
                reader.fail(error)
            self._waiting.clear()

    def _append(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._hold(len(piece))
        if self._keeps and (self._held > self._most or self._flights.held > HELD):
            self._keeps = False
            self._flights.forget(self._digest, self)
        self._wake()

    async def _room(self) -> None:
        """Let the slowest read on while too much is held for it. No longer than until another has read it all."""
        while not self._keeps:
            self._pass()
            most = self._flights.room(self._most)
            if self._held <= most:
                return
            if any(reader.at == self._passed + len(self._pieces) for reader in self._waiting):
                self._leave_behind(most)
                return
            self._read.clear()
            await self._read.wait()

    def _leave_behind(self, most: int) -> None:
        """Part with those who are more than `most` bytes behind: nobody waits for the slowest of them."""
        first, size = self._passed + len(self._pieces), 0
        for piece in reversed(self._pieces):
            size += len(piece)
            if size > most:
                break
            first -= 1
        for reader in [reader for reader in self._waiting if reader.at < first]:
            reader.behind = True
            del self._waiting[reader]
        self._pass()

    def _pass(self) -> None:
        """Let go of the pieces that all have read."""
        slowest = min((reader.at for reader in self._waiting), default=self._passed)
        read = slowest - self._passed
        if read:
            self._hold(-sum(map(len, self._pieces[:read])))
            del self._pieces[:read]
            self._passed = slowest

    def _hold(self, size: int) -> None:
        self._held += size
        self._flights.held += size

    def _release(self) -> None:
        self._hold(-self._held)
        self._pieces = []

    def _wake(self) -> None:
        self._came.set()
        self._came = asyncio.Event()


class _Reader(AsyncGenerator[bytes, None]):
    """One who waits for a flight, and the stream it reads.

    Not a generator function: one that was never begun would not notice that it is closed.
    """

    def __init__(self, flight: _Flight, start: Start) -> None:
        self.start = start
        self.answered: asyncio.Future[tuple[Answer, bool]] = asyncio.get_running_loop().create_future()
        self.at = 0
        #: Too slow for the others, and left behind.
        self.behind = False
        self._flight = flight
        self._closed = False

    def fail(self, error: Exception) -> None:
        """Answer with `error`, an object of its own: each who raises it adds where it was raised."""
        if not self.answered.done():
            self.answered.set_exception(copy.copy(error) if isinstance(error, GatewayError) else error)

    async def asend(self, value: None) -> bytes:
        """The next piece. What ends the flight badly is raised once all that came before has been read."""
        try:
            return await self._next()
        except BaseException as error:
            self._leave(error)
            raise

    async def athrow(self, typ: Any, val: object = None, tb: Any = None, /) -> bytes:
        """Leave, and raise what was thrown."""
        self._leave(None)
        raise typ if val is None else val  # type: ignore[misc]  # as a generator raises what it was thrown

    async def aclose(self) -> None:
        """Leave."""
        self._leave(None)

    async def _next(self) -> bytes:
        flight = self._flight
        while not self._closed:
            if self.behind:
                raise Overloaded("This stream was read too slowly to be shared with others.", code="read_too_slowly")
            piece = flight.take(self)
            if piece is not None:
                if self.at % BURST == 0:
                    await asyncio.sleep(0)
                return piece
            if flight.error is not None:
                raise copy.copy(flight.error) if isinstance(flight.error, GatewayError) else flight.error
            if flight.ended:
                break
            await flight.more()
        raise StopAsyncIteration

    def _leave(self, error: BaseException | None) -> None:
        self._closed = True
        self._flight.leave(self, error)
