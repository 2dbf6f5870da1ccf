"""What is measured, and how: each function takes a running server and returns one round's sample."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.bench.load import Result, request_bytes
from gateway.bench.process import Child, environment, get
from gateway.bench.servers import ADMIN_KEY, ROUTE, TLS_ROUTE, Promptyard, Started
from gateway.bench.standin import HOLD

CHAT_CALLERS = 32
STREAM_CALLERS = 256
MESSAGES = [
    {"role": "system", "content": "You answer questions of customers in two short sentences."},
    {"role": "user", "content": "My parcel was due on Monday and has not come. Where is it, and what can I do now?"},
]
CHAT_BODY = {"model": ROUTE, "messages": MESSAGES, "temperature": 0.2, "max_tokens": 128}
STREAM_BODY = {**CHAT_BODY, "stream": True}
HELD_BODY = {**STREAM_BODY, "messages": [{"role": "user", "content": HOLD}]}
HELD = 1000


@dataclass(frozen=True)
class Sample:
    """One round's values by name (see `report.ROWS`), and what was wrong with them, if anything."""

    values: dict[str, float]
    wrong: str | None = None


def chat(
    server: Started, standin: Started, seconds: float, ask: Callable[[Started, float], Result] | None = None
) -> Sample:
    """Answers a second and their latency with 32 callers, after a warm-up. They `ask`, or our own generator does."""
    ask = ask or _chat
    ask(server, max(1.0, seconds / 4))
    before, used = served(standin, "chats"), server.child.cpu()
    result = ask(server, seconds)
    used = server.child.cpu() - used
    wrong = wrong_with(result, served(standin, "chats") - before)
    values = {"chat": result.rate, "chat p50": result.p50, "chat p99": result.p99}
    if used > 0:
        # Beside answers/s: the one stays true while other work disturbs the machine, the other tells that it did.
        values |= {"chat cpu": result.answers / used, "chat core": 100 * used / result.seconds}
    return Sample(values, wrong)


def streams(server: Started, standin: Started, seconds: float) -> Sample:
    """Chunks for each second of CPU time of the server's whole tree, 256 streams at a time.

    New streams begin for `seconds`; those under way are finished and counted, and so is the CPU time they take.
    """
    body = json.dumps(STREAM_BODY).encode()
    generate(server, body, server.check, STREAM_CALLERS // 4, 0.5)
    before, used = served(standin, "streams"), server.child.cpu()
    result = generate(server, body, server.check, STREAM_CALLERS, seconds)
    used = server.child.cpu() - used
    wrong = wrong_with(result, served(standin, "streams") - before)
    if used <= 0:
        return Sample({}, "no CPU time was seen")
    values = {"streams": result.chunks / used, "streams wall": result.chunks / result.seconds,
              "streams first": result.first_p50, "streams whole": result.p50}  # fmt: skip
    return Sample(values, wrong)


def alone(server: Started, standin: Started, seconds: float) -> Sample:
    """What a single caller waits for an answer, and how much of it the server adds to the stand-in asked directly."""
    body = json.dumps(CHAT_BODY).encode()
    generate(server, body, "chat", 1, 0.5)
    direct, through = (generate(one, body, "chat", 1, seconds / 2) for one in (standin, server))
    values = {"alone": through.p50, "alone added": through.p50 - direct.p50}
    return Sample(values, wrong_with(through, through.answers))


def tls(server: Started, seconds: float) -> Sample:
    """Chat answers for each second of CPU time where the upstream is asked over TLS."""
    body = json.dumps({**CHAT_BODY, "model": TLS_ROUTE}).encode()
    generate(server, body, "chat", CHAT_CALLERS, 0.5)
    used = server.child.cpu()
    result = generate(server, body, "chat", CHAT_CALLERS, seconds)
    used = server.child.cpu() - used
    return Sample({"tls cpu": result.answers / used} if used > 0 else {}, wrong_with(result, result.answers))


def held(server: Started, _standin: Started, _seconds: float) -> Sample:
    """Kilobytes (10^3) of resident memory that each of 1,000 streams takes while it is open and quiet."""
    before = server.child.resident()
    request = request_bytes(server.chat_url, json.dumps(HELD_BODY).encode(), server.key)
    with contextlib.ExitStack() as callers:
        try:
            for _ in range(HELD):
                callers.enter_context(_hold(server.chat_url, request))
        except (OSError, ValueError) as error:
            return Sample({"held": 0.0}, f"a stream could not be held open: {error}")
        took = server.child.resident() - before
    return Sample({"held": took / HELD / 1000})


def _hold(url: str, request: bytes) -> socket.socket:
    """A caller who has read the first chunk of a stream."""
    parts = urlsplit(url)
    caller = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20)
    caller.sendall(request)
    seen = b""
    while b"data:" not in seen:
        more = caller.recv(4096)
        seen += more
        if not more or b" 200 " not in seen[:16]:
            caller.close()
            raise ValueError(seen[:120].decode(errors="replace"))
    return caller


def start(server: Promptyard, folder: Path, standin: str, core: int) -> Sample:
    """Milliseconds from process start to the first answered `/v1/models`: on an empty data folder, then again."""
    server.prepare(folder, standin)
    values = {}
    for name in ("start empty", "start again"):
        with server.launch(folder, core) as child:
            values[name] = until_answered(child)
            # Ended only when all is up: the second start must find what a finished first one leaves.
            server.wait_until_loaded(child)
    return Sample(values)


def until_answered(child: Child) -> float:
    """Milliseconds from the start of our server's process to its first answer."""
    child.wait_for("/v1/models", key=ADMIN_KEY, pause=0.002)
    return (time.perf_counter() - child.began) * 1000


def memory(child: Child, name: str) -> Sample:
    """Megabytes (10^6) resident in our server's processes, without the embedded model's child."""
    return Sample({name: child.resident(Promptyard.is_model) / 1e6})


def _chat(server: Started, seconds: float) -> Result:
    return generate(server, json.dumps(CHAT_BODY).encode(), "chat", CHAT_CALLERS, seconds)


def generate(server: Started, body: bytes, check: str, connections: int, seconds: float) -> Result:
    """What our own generator saw, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(body)
        file.flush()
        command = [sys.executable, "-m", "gateway.bench.load", server.chat_url, "--body", file.name, "--check", check,
                   "--connections", str(connections), "--seconds", str(seconds)]  # fmt: skip
        command += ["--key", server.key] if server.key else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment({}))  # noqa: S603 - our own
    return Result(**json.loads(done.stdout))


def served(standin: Started, kind: str) -> int:
    """How many of a kind the stand-in has answered."""
    return int(get(standin.child.url + "/counts")[kind])


def wrong_with(result: Result, served: int) -> str | None:
    """Why a result is none, or None."""
    if result.errors:
        return ", ".join(f"{count} x {kind}" for kind, count in sorted(result.errors.items()))
    if not result.answers:
        return "no answer"
    if served < result.answers:
        return f"{result.answers} answers, but the stand-in gave {served}"
    return None
