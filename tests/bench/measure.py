"""What is measured, and how: each function takes a running server and returns one round's sample."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.load import Result, request_bytes
from tests.bench.process import Child, get
from tests.bench.servers import ADMIN_KEY, ROOT, ROUTE, TLS_ROUTE, Promptyard, Started
from tests.bench.standin import HOLD

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

# wrk counts a status above 399 as an error; no server here answers with another one that is not 200.
WRK_SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"answers":%%d,"us":%%d,"p50":%%f,"p99":%%f,"status":%%d,"socket":%%d,"timeout":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write, e.timeout))
end
"""


@dataclass(frozen=True)
class Sample:
    """One round's values by name (see `report.ROWS`), and what was wrong with them, if anything."""

    values: dict[str, float]
    wrong: str | None = None


def chat(server: Started, standin: Started, seconds: float) -> Sample:
    """Answers a second and their latency with 32 callers, after a warm-up."""
    _chat(server, max(1.0, seconds / 4))
    before, used = _served(standin, "chats"), server.child.cpu()
    result = _chat(server, seconds)
    used = server.child.cpu() - used
    wrong = _wrong(result, _served(standin, "chats") - before)
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
    _generate(server, body, server.check, STREAM_CALLERS // 4, 0.5)
    before, used = _served(standin, "streams"), server.child.cpu()
    result = _generate(server, body, server.check, STREAM_CALLERS, seconds)
    used = server.child.cpu() - used
    wrong = _wrong(result, _served(standin, "streams") - before)
    if used <= 0:
        return Sample({}, "no CPU time was seen")
    values = {"streams": result.chunks / used, "streams wall": result.chunks / result.seconds,
              "streams first": result.first_p50, "streams whole": result.p50}  # fmt: skip
    return Sample(values, wrong)


def alone(server: Started, standin: Started, seconds: float) -> Sample:
    """What a single caller waits for an answer, and how much of it the server adds to the stand-in asked directly."""
    body = json.dumps(CHAT_BODY).encode()
    _generate(server, body, "chat", 1, 0.5)
    direct, through = (_generate(one, body, "chat", 1, seconds / 2) for one in (standin, server))
    values = {"alone": through.p50, "alone added": through.p50 - direct.p50}
    return Sample(values, _wrong(through, through.answers))


def tls(server: Started, seconds: float) -> Sample:
    """Chat answers for each second of CPU time where the upstream is asked over TLS."""
    body = json.dumps({**CHAT_BODY, "model": TLS_ROUTE}).encode()
    _generate(server, body, "chat", CHAT_CALLERS, 0.5)
    used = server.child.cpu()
    result = _generate(server, body, "chat", CHAT_CALLERS, seconds)
    used = server.child.cpu() - used
    return Sample({"tls cpu": result.answers / used} if used > 0 else {}, _wrong(result, result.answers))


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
            child.wait_for("/v1/models", key=ADMIN_KEY, pause=0.002)
            values[name] = (time.perf_counter() - child.began) * 1000
            # Ended only when all is up: the second start must find what a finished first one leaves.
            server.wait_until_loaded(child)
    return Sample(values)


def memory(child: Child, name: str) -> Sample:
    """Megabytes (10^6) resident in our server's processes, without the embedded model's child."""
    return Sample({name: child.resident(Promptyard.is_model) / 1e6})


def _chat(server: Started, seconds: float) -> Result:
    if shutil.which("wrk"):
        return wrk(server.chat_url, json.dumps(CHAT_BODY), server.key, seconds)
    return _generate(server, json.dumps(CHAT_BODY).encode(), "chat", CHAT_CALLERS, seconds)


def wrk(url: str, body: str, key: str | None, seconds: float) -> Result:
    """The result of `wrk` with 32 connections."""
    head = f'wrk.headers["Authorization"] = "Bearer {key}"' if key else ""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT % (body, head))
        script.flush()
        command = ["wrk", "-t1", f"-c{CHAT_CALLERS}", f"-d{max(1, round(seconds))}s", "--timeout", "60s",
                   "-s", script.name, url]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    kinds = {"status above 399": "status", "socket error": "socket", "timeout": "timeout"}
    errors = {kind: seen[name] for kind, name in kinds.items() if seen[name]}
    # wrk counts refused requests among its requests.
    answers = seen["answers"] - seen["status"]
    return Result(answers, 0, seen["us"] / 1e6, errors, seen["p50"] / 1000, seen["p99"] / 1000)


def _generate(server: Started, body: bytes, check: str, connections: int, seconds: float) -> Result:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(body)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.load", server.chat_url, "--body", file.name, "--check", check,
                   "--connections", str(connections), "--seconds", str(seconds)]  # fmt: skip
        command += ["--key", server.key] if server.key else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return Result(**json.loads(done.stdout))


def _served(standin: Started, kind: str) -> int:
    return int(get(standin.child.url + "/counts")[kind])


def _wrong(result: Result, served: int) -> str | None:
    if result.errors:
        return ", ".join(f"{count} x {kind}" for kind, count in sorted(result.errors.items()))
    if not result.answers:
        return "no answer"
    if served < result.answers:
        return f"{result.answers} answers, but the stand-in gave {served}"
    return None
