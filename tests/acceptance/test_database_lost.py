"""PostgreSQL is killed under load: calls go on, budgets and limits too, and what waited is in it soon after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.test_tenants import PRICES, ROUTES, made
from tests.conftest import StartServer, required
from tests.services import postgres
from tests.services.gateway import MESSAGES
from tests.services.promptyard import Server
from tests.services.upstream import until

#: Seconds that it is away.
AWAY = 30 if os.environ.get("PROMPTYARD_TEST_SOAK") else 3
CALLERS = 4


@pytest.fixture
def database() -> Iterator[postgres.Mortal]:
    with postgres.installed(required(postgres.locate())) as how:
        mortal = postgres.Mortal(*how)
        yield mortal
        mortal.kill()


class Callers:
    """Threads that call until they are told to stop."""

    def __init__(self, server: Server, secret: str) -> None:
        self.answered: list[str] = []
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(server, secret)) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, server: Server, secret: str) -> None:
        body = {"model": "chat", "messages": MESSAGES, "max_tokens": 10}
        with server.client(secret) as http:
            while not self._stop.is_set():
                answer = http.post("/v1/chat/completions", json=body)
                if answer.status_code == 200:
                    self.answered.append(answer.headers["x-request-id"])
                else:
                    self.wrong.append(answer.text)
                time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_calls_go_on_and_nothing_is_lost(start_server: StartServer, database: postgres.Mortal, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(PRICES)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    server = start_server(tmp_path / "routes.yaml", database_url=database.url)
    with server.client() as admin:
        key = made(admin, "keys", max_budget=1000, budget_duration="1mo", rpd=10**6)
        callers = Callers(server, key["key"])
        try:
            until(lambda: len(callers.answered) > 20, 30)
            database.kill()
            before = len(callers.answered)
            time.sleep(AWAY)
            assert len(callers.answered) > before + 20
            refused = admin.get("/admin/usage")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
            database.start()
            time.sleep(1)
        finally:
            callers.stop()
        assert callers.wrong == []

        def caught_up() -> httpx.Response | None:
            sums = admin.get("/admin/usage", params={"group_by": "key_id"})
            return sums if sums.status_code == 200 else None

        found = until(caught_up, 10).json()["data"]
        calls, cost = next((row["calls"], row["cost_usd"]) for row in found if row["key_id"] == key["id"])
        assert (calls, cost) == (len(callers.answered), pytest.approx(len(callers.answered) / 100))
        assert len(set(callers.answered)) == len(callers.answered)
        made(admin, "keys")  # and keys can be made again
