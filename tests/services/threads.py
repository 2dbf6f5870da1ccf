"""Threads of a test, begun one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def started(targets: Iterable[Callable[[], object]]) -> list[threading.Thread]:
    """A running thread for each of `targets`. Join them.

    Each is under way before the next begins: under coverage, two threads that install their trace function at once
    end with "Cannot install a trace function while another trace function is being installed" (CPython 3.11).
    """
    threads = []
    for target in targets:
        begun = threading.Event()

        def run(target: Callable[[], object] = target, begun: threading.Event = begun) -> None:
            begun.set()
            target()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        begun.wait(30)
    return threads
