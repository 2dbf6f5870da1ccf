"""Killed under load at random moments, a server's ledger is never less than its provider's bill, nor much more."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, make_key
from tests.services.promptyard import Server
from tests.services.upstream import Asked, Peer, Upstream, chat, until, usage, whole

#: Kills: a few in every run, fifty in `make soak`.
KILLS = 50 if os.environ.get("PROMPTYARD_TEST_SOAK") else 2
CALLERS = 8
# Ten tokens each way, a tenth of a cent each: two cents a call.
PRICES = "prices: {up/m: {input: 1000, output: 1000}}\n"
ROUTES = """\
providers:
  up: {{type: openai_compatible, base_url: "{url}"}}
routes:
  chat: {{deployments: [{{provider: up, model: m}}]}}
"""
COST = 0.02


class Bill:
    """What the provider saw: each call it answered costs as much."""

    def __init__(self) -> None:
        self.calls = 0
        self._draw = random.Random(7)

    async def answer(self, asked: Asked, peer: Peer) -> None:
        self.calls += 1
        await whole(chat("x", usage=usage(10, 10)))(asked, peer)

    def when(self) -> float:
        """Seconds until the next kill, once calls are answered."""
        return self._draw.uniform(0, 0.5)


def under_load(server: Server, key: str, bill: Bill, *, settings: object) -> list[str]:
    """Ids of the calls that were answered until the server was killed. `settings`: those of one with workers."""
    answered: list[str] = []
    workers: list[psutil.Process] = []

    def ask() -> None:
        with server.client(key) as http:
            while True:
                try:
                    body = {"model": "chat", "messages": MESSAGES, "max_tokens": 10}
                    answer = http.post("/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                if answer.status_code == 503 and workers:
                    return  # of a worker that lived a moment longer
                if answer.status_code == 429 and settings:
                    time.sleep(float(answer.headers["retry-after"]))  # what the kill before left held is looked at
                    continue
                assert answer.status_code == 200, answer.text
                answered.append(answer.headers["x-request-id"])

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 10, 30)
    time.sleep(bill.when())
    workers += [one for one in server.descendants() if "gateway.server_worker" in one.cmdline()]
    for one in (*workers, server):
        one.kill()
    for thread in threads:
        thread.join(30)
    server.reap()
    return answered


@pytest.mark.soak
@pytest.mark.timeout(3600 if KILLS > 2 else 120)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_ledger_is_never_less_than_the_bill(
    start_server: StartServer, upstream: Upstream, tmp_path: Path, request: pytest.FixtureRequest, workers: int
) -> None:
    settings = {"redis_url": request.getfixturevalue("fresh_redis"), "workers": 2} if workers > 1 else {}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(PRICES)
    config = tmp_path / "routes.yaml"
    config.write_text(ROUTES.format(url=upstream.url))
    bill = Bill()
    upstream.then(bill.answer)
    server = start_server(config, **settings)
    key = make_key(server, max_budget=10_000)
    answered: set[str] = set()
    for _ in range(KILLS):
        answered |= set(under_load(server, key, bill, settings=settings))
        server = start_server(config, data=server.data, **settings)
        with server.client() as admin:
            total = admin.get("/admin/usage", params={"group_by": ""}).json()["total"]
            # Every answered call is there at its price; of what was cut short, the most it may have cost.
            orphans = [line for line in log_of(server) if "interrupted" in line]
            assert len(orphans) <= CALLERS
            for request_id in random.sample(sorted(answered), min(5, len(answered))):
                record = admin.get(f"/admin/usage/{request_id}").json()
                assert (record["status"], record["cost_usd"], record["estimated"]) == (200, COST, False)
        assert total["calls"] >= len(answered)
        assert bill.calls * COST - 1e-9 <= total["cost_usd"]
    lines = total["calls"] - total["failed"]
    assert 20 < len(answered) <= lines <= bill.calls
    assert total["cost_usd"] - bill.calls * COST <= total["failed"] * 0.1


def log_of(server: Server) -> list[str]:
    """What the server has logged since it started."""
    return server.stderr().splitlines()
