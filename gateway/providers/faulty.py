"""Faults on order: providers that err, stall, break off or drag as a route says, for its users' own tests.

To everything above it the upstream has done it: retries, rests, fallbacks, rescues and timeouts act on it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gateway.dialects import translation
from gateway.dialects.plain_tally import BytesTally
from gateway.dialects.registry import DIALECTS, tally_of
from gateway.errors import UpstreamFailed
from gateway.providers.http import checked
from gateway.routes import CONVERSATIONS, Fault, Route, Task
from gateway.types import Answer, Provider, UpstreamRequest

log = logging.getLogger(__name__)

#: What tells a caller, and whoever reads an error, that nothing is wrong with the upstream.
HEADER = "x-promptyard-fault"
INJECTED = "injected by this route's fault"
_BLANK = re.compile(rb"\n\r?\n")
_WRITTEN = (*CONVERSATIONS, Task.COMPLETIONS)


class Faults:
    """The faults of one route, drawn attempt by attempt: the same seed does the same to the same attempt."""

    def __init__(self, route: Route, fault: Fault) -> None:
        self._route = route.name
        self.fault = fault
        self._attempts = itertools.count(1)

    def next(self) -> Drawn | None:
        """What is wrong with the route's next attempt, if anything is."""
        number, fault = next(self._attempts), self.fault
        # Text seeds alike in every process. All four are drawn, so that changing one rate moves none of the others.
        draw = random.Random(f"{fault.seed}:{number}")  # noqa: S311 - to be repeated, no secret
        rates = {"error": fault.error, "stall": fault.stall, "cut": fault.cut, "slow": fault.slow}
        drawn = [name for name, rate in rates.items() if draw.random() < rate]
        if not drawn:
            return None
        # An answer has one end; up to there it may be slow as well.
        names = tuple(drawn[:1] + drawn[-1:] * (drawn[0] in ("stall", "cut") and drawn[-1] == "slow"))
        log.info("Route '%s', attempt %d: %s, %s", self._route, number, " and ".join(names), INJECTED)
        return Drawn(fault, names)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is wrong with one attempt."""

    fault: Fault
    names: tuple[str, ...]

    @property
    def said(self) -> str:
        """What a timeout says of it, after what it says of the provider."""
        return f", {INJECTED}" if self.names[0] in ("stall", "slow") else ""

    async def send(self, provider: Provider, request: UpstreamRequest) -> Answer:
        """The provider's answer, or what the fault makes of it (`Provider.send`)."""
        if self.names[0] == "error":
            return await checked(self._error(request.task), provider.name, request.task)
        if self.names[0] == "stall" and not self.fault.stall_after:
            await asyncio.Event().wait()
        answer = await provider.send(request)
        if answer.status >= 400:
            return answer
        answer.headers[HEADER] = ", ".join(self.names)
        if answer.chunks is None:
            await self._whole(answer, provider, request.task)
        else:
            answer.chunks = self._stream(answer, answer.chunks, provider, request)
        return answer

    def _error(self, task: Task) -> Answer:
        status, after = self.fault.status, self.fault.retry_after
        kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
        said = {"message": f"HTTP {status}, {INJECTED}.", "type": kind, "param": None, "code": "injected_fault"}
        headers = {"content-type": "application/json", HEADER: "error"}
        if after is not None:
            headers["retry-after"] = f"{after:g}"
        return Answer(status, headers, translation.refused({"error": said}, task, Task.CHAT, status))

    async def _whole(self, answer: Answer, provider: Provider, task: Task) -> None:
        """An answer in one piece is slow by its tokens; one that would break off, or fall silent, never arrives."""
        if "slow" in self.names:
            used = DIALECTS[task].usage(answer.document or {})
            await asyncio.sleep(self.fault.pause * max(1, used.output if used else 1))
        await self._end(provider)

    async def _stream(
        self, answer: Answer, chunks: AsyncGenerator[bytes, None], provider: Provider, request: UpstreamRequest
    ) -> AsyncGenerator[bytes, None]:
        """The events of a stream until the fault is due: after so many that say something, before its end at last.

        In what is not written, as sound, every chunk or event says something.
        """
        ends = {"stall": self.fault.stall_after, "cut": self.fault.cut_after}.get(self.names[0], math.inf)
        tally, said = tally_of(request.task, request.document, answer.headers), 0
        pieces = chunks if isinstance(tally, BytesTally) else _events(chunks)
        async with aclosing(chunks), aclosing(pieces):
            async for piece in pieces:
                before = tally.pieces
                tally.feed(piece)
                says = tally.pieces > before or request.task not in _WRITTEN
                if not ends or tally.finished or tally.done or (says and said >= ends):
                    await self._end(provider)
                if "slow" in self.names and says:
                    await asyncio.sleep(self.fault.pause)
                said += says
                yield piece
            await self._end(provider)

    async def _end(self, provider: Provider) -> None:
        if self.names[0] == "cut":
            raise UpstreamFailed(f"The connection to provider '{provider.name}' broke, {INJECTED}.")
        if self.names[0] == "stall":
            await asyncio.Event().wait()


async def _events(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Each event alone, however they came; at last what is left of one that was cut short."""
    rest = b""
    async for chunk in chunks:
        rest += chunk
        while blank := _BLANK.search(rest):
            yield rest[: blank.end()]
            rest = rest[blank.end() :]
    if rest:
        yield rest
