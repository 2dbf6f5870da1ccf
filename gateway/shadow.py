"""Copies of calls to another route, for comparison: the caller's answer is untouched, and its key pays nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from gateway.errors import GatewayError
from gateway.owners import Key
from gateway.plane import Snapshot
from gateway.routes import Route
from gateway.types import Answer, Call, Request

log = logging.getLogger(__name__)

#: Copies under way at once; more are not made. A shadow that hangs must not gather calls without end.
_MOST = 100

Ask = Callable[[Request, Key, Snapshot], Awaitable[tuple[Call, Answer]]]


class Shadows:
    """Makes copies of calls and reads their answers to the end, beside everything else. `ask` is how a call is made."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._running: set[asyncio.Task[None]] = set()

    def cast(self, route: Route, request: Request, snapshot: Snapshot) -> None:
        """A copy of `request`, in as many of a hundred calls as `route` says. Nothing to wait for, nothing raised."""
        shadow = route.shadow
        if shadow is None or random.random() * 100 >= shadow.percent or len(self._running) >= _MOST:  # noqa: S311 - a share
            return
        # Under an id of its own, by which its record is told from the caller's; and never with the caller's credential.
        copy = dataclasses.replace(
            request, id=f"{request.id}-shadow", model=shadow.route, body={**request.body, "model": shadow.route},
            trace=None, credential=None, given={}, marks=dataclasses.replace(request.marks),
        )  # fmt: skip
        # It may outlast the call it copies.
        snapshot.enter()
        task = asyncio.create_task(self._run(copy, Key("shadow", f"shadow of {route.name}", frozenset()), snapshot))
        task.add_done_callback(lambda _: snapshot.leave())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End the copies under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, request: Request, key: Key, snapshot: Snapshot) -> None:
        try:
            _, answer = await self._ask(request, key, snapshot)
            if answer.chunks is not None:
                async with aclosing(answer.chunks) as chunks:
                    async for _ in chunks:
                        pass
        except GatewayError as error:
            log.info("%s: %d %s", request.id, error.status, error.message)
        except Exception:
            log.exception("%s: a fault of ours", request.id)
