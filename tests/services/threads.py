"""Threads under coverage, begun one after another."""

from __future__ import annotations

import sys
import threading
from typing import Any


def trace_one_at_a_time() -> None:
    """Have new threads install their trace functions one at a time.

    Two at once end with "Cannot install a trace function while another trace function is being installed", which they
    are as soon as some library has an audit hook written in Python (CPython 3.11, filelock): there the threads change.
    """
    threading._sys = _Sys()  # type: ignore[attr-defined]  # what `threading` installs them by


class _Sys:
    """`sys`, as `threading` uses it."""

    def __init__(self) -> None:
        self._installing = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def settrace(self, function: Any) -> None:
        """`sys.settrace`, and what coverage's own function does when it is called first: it installs another."""

        def install(*event: Any) -> Any:
            with self._installing:
                return function(*event)

        with self._installing:
            sys.settrace(install)
