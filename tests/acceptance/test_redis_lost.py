"""Two servers share a Redis that falls silent, and is emptied: no call fails for it, and the books agree soon after."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from tests.acceptance.test_tenants import PRICES, made
from tests.conftest import StartServer
from tests.services import postgres
from tests.services import redis as redis_service
from tests.services.promptyard import Server
from tests.services.upstream import until

# A call of ten tokens each way costs a cent.
ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, delay: 0.05, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
routes:
  chat: {deployments: [{provider: fake, model: m}], limits: {concurrency: 40}}
"""


@pytest.fixture
def servers(
    fresh_redis: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    home = tmp_path_factory.mktemp("priced")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    started = StartServer(lambda: tmp_path_factory.mktemp("server"))
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres.new_database(postgres_url, "test_redis_lost"))
        stack.callback(started.stop)
        shared: dict[str, Any] = {"redis_url": fresh_redis, "database_url": database}
        yield started(home / "routes.yaml", **shared), started(home / "routes.yaml", **shared)


async def load(servers: tuple[Server, Server], secret: str, seconds: float) -> Counter[tuple[int, str]]:
    """How calls of ten callers ended, on both servers."""
    ends: Counter[tuple[int, str]] = Counter()
    deadline = time.monotonic() + seconds
    body = {"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 10}

    async def caller(server: Server) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            while time.monotonic() < deadline:
                answer = await http.post(
                    "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
                )
                code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
                ends[answer.status_code, code] += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(caller(server) for server in servers for _ in range(5)))
    return ends


def test_no_call_fails_and_the_books_agree(servers: tuple[Server, Server], fresh_redis: str) -> None:
    with servers[0].client() as admin, redis.Redis.from_url(fresh_redis) as at_redis:
        key = made(admin, "keys", max_budget=1000, budget_duration="1mo")
        time.sleep(1)  # both servers know it

        async def disturbed() -> Counter[tuple[int, str]]:
            running = asyncio.create_task(load(servers, key["key"], 7))
            await asyncio.sleep(1)
            await asyncio.to_thread(at_redis.client_pause, 1500)
            await asyncio.sleep(2.5)
            await asyncio.to_thread(redis_service.empty, fresh_redis)
            return await running

        ends = asyncio.run(disturbed())
        assert {status for status, _ in ends} <= {200, 429}, ends
        assert {code for _, code in ends} <= {"", "budget_unavailable", "rate_limit_exceeded"}, ends
        assert ends[200, ""] > 50, ends
        (name,) = [one for one in at_redis.keys("*max_budget*") if key["id"].encode() in one]

        def books() -> tuple[int, int, int]:
            used, held = (int(one or 0) for one in at_redis.hmget(name, "used", "held"))
            sums = admin.get("/admin/usage", params={"group_by": "key_id"}).json()["data"]
            cost = next(row["cost_usd"] for row in sums if row["key_id"] == key["id"])
            return used, held, round(cost * 1e9)

        deadline = time.monotonic() + 5
        while (found := books())[0] != found[2] or found[1]:
            assert time.monotonic() < deadline, (found, ends)
            time.sleep(0.1)
        # A place that is free may be kept for the next call for half a second.
        until(lambda: not any(int(at_redis.zcard(one)) for one in at_redis.keys("*concurrency*")))
