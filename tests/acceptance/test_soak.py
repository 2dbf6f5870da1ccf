"""Under steady load nothing is lost, doubled, held or left open: seconds of it here, half an hour under `make soak`."""

from __future__ import annotations

import os
import threading
import time

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import Server

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
SECONDS = 1800 if SOAK else 4
CALLERS = 8
ROUTES = """\
providers:
  fake: {type: fake}
routes:
  fake: {deployments: [{provider: fake, model: fake}], limits: {rpm: 1000000000, concurrency: 100}}
"""


def load(server: Server, seconds: float) -> int:
    """How many calls, half of them streams, were answered to eight callers, who rest as long as each call took."""
    until, answered = time.monotonic() + seconds, [0] * CALLERS

    def call(number: int) -> None:
        with server.client() as http:
            while time.monotonic() < until:
                asked = time.monotonic()
                body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": bool(number % 2)}
                answer = http.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
                assert not number % 2 or answer.text.endswith("data: [DONE]\n\n")
                answered[number] += 1
                time.sleep(time.monotonic() - asked)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(answered)


def recorded(http: httpx.Client) -> int:
    total: int = http.get("/admin/usage").json()["total"]["calls"]
    return total


@pytest.mark.soak
@pytest.mark.timeout(SECONDS * 1.1 + 120)
def test_every_call_is_recorded_once_and_nothing_grows(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    process = psutil.Process(server.process.pid)
    warm = load(server, max(1, SECONDS / 10))
    with server.client() as http:
        # Each of SQL's readers keeps up to 2 MB of pages, and a sum over all goes to any of them: all are filled first.
        assert {recorded(http) for _ in range(16)} == {warm}
        files, memory = process.num_fds(), process.memory_info().rss
        answered = load(server, SECONDS)
        assert answered > CALLERS
        assert recorded(http) == warm + answered
        # The callers' connections are closed: a few of the pools may have come, none may have stayed.
        assert process.num_fds() <= files + 5
        # Half an hour is enough to tell growth from a few pools that fill.
        assert process.memory_info().rss <= (memory * 1.03 if SOAK else memory * 1.1 + 8 * 2**20)
