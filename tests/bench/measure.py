"""`gateway.bench.measure` with chat asked by `wrk` where that is on PATH: it is lighter than our own generator."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile

from gateway.bench import measure
from gateway.bench.load import Result
from gateway.bench.measure import CHAT_BODY, CHAT_CALLERS, Sample
from gateway.bench.servers import Started

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


def chat(server: Started, standin: Started, seconds: float) -> Sample:
    """Answers a second and their latency with 32 callers (`measure.chat`)."""
    return measure.chat(server, standin, seconds, ask if shutil.which("wrk") else None)


def ask(server: Started, seconds: float) -> Result:
    """What `wrk` saw."""
    return wrk(server.chat_url, json.dumps(CHAT_BODY), server.key, seconds)


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
