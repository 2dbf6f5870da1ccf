"""One run of everything there is to measure of our own server."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.bench import measure
from gateway.bench.measure import Sample
from gateway.bench.process import two_cores
from gateway.bench.report import DIRECT, OURS, Figures
from gateway.bench.servers import Promptyard, Started, start_standin

#: How it is measured, for whoever reads the figures.
SAID = "The server alone on one core; stand-in and load on another. Other work on this machine makes it look slower."

_LOADS: Mapping[str, Callable[[Started, Started, float], Sample]] = {
    "chat": measure.chat,
    "alone": measure.alone,
    "streams": measure.streams,
    "held": measure.held,
}


def measured(folder: Path, seconds: float, say: Callable[[str], None]) -> Figures:
    """Figures of our server and of the stand-in asked directly; `say` hears what is under way.

    Raises `Unavailable` where this machine cannot tell.
    """
    core, load_core = two_cores()
    # What is not the server under test stays off its core. Both inherit the room for a thousand callers.
    os.sched_setaffinity(0, {load_core})
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    figures, server = Figures(), Promptyard(model=False)
    standin = start_standin(folder / "standin", load_core)
    with standin.child:
        say("the stand-in, direct")
        for name in ("chat", "streams"):
            figures.add(DIRECT, _LOADS[name](standin, standin, min(3.0, seconds)))
        say("start")
        home = folder / "promptyard"
        server.prepare(home, standin.child.url)
        with server.launch(home, core) as child:
            figures.add(OURS, Sample({"start empty": measure.until_answered(child)}))
            server.wait_until_loaded(child)
        with server.launch(home, core) as child:
            figures.add(OURS, Sample({"start again": measure.until_answered(child)}))
            server.wait_until_loaded(child)
            started = Started(child, server.create_key(home))
            figures.add(OURS, measure.memory(child, "memory"))
            for name, load in _LOADS.items():
                say(name)
                figures.add(OURS, load(started, standin, seconds))
            figures.add(OURS, measure.memory(child, "memory after"))
    return figures
