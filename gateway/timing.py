"""Bounds on waiting, cheap enough to put around every await of the data plane, and what an upstream asks to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any


def retry_after(said: str | None, most: float) -> float | None:
    """Seconds a `Retry-After` header asks to be left alone for, of which `most` are believed; None where it says none.

    A number, or a date: one that is past is no wait, 0.
    """
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, OverflowError):  # the second for years and offsets of twenty digits
            return None
    return min(max(seconds, 0.0), most) if seconds == seconds else None


class _Here(threading.local):
    """The event loop that this thread ran last."""

    loop: asyncio.AbstractEventLoop | None = None


_here = _Here()


def current_task() -> asyncio.Task[Any] | None:
    """`asyncio.current_task()` without its question which loop runs: up to Python 3.11 that is a system call."""
    loop = _here.loop
    # A loop that does not run has no task; another of this thread cannot run beside it.
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        _here.loop = asyncio.get_running_loop()
        task = asyncio.current_task(_here.loop)
    return task


class Within:
    """`with Within(seconds): await …` raises `TimeoutError` when the await takes longer.

    `asyncio.timeout` does the same at three times the cost; two of them stand on the way of every call.
    """

    __slots__ = ("_cancelling", "_fired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        task = current_task()
        if task is None:
            raise RuntimeError("Only a task can be bounded.")
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._fired = False
        self._timer = task.get_loop().call_later(self._seconds, self._fire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Cancelled by us and by nobody else: then it is ours to turn into a timeout.
        if self._fired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()
