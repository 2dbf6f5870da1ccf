"""Limits a day, of keys, teams and routes: told with the time they end, and remembered through a stop and a kill."""

from __future__ import annotations

import time
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, client, error_of, make_key
from tests.services.promptyard import Server

ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  daily: {deployments: [{provider: fake, model: m}], limits: {rpd: 2, tpd: 1000}}
"""


@pytest.fixture(autouse=True)
def _not_at_midnight() -> None:
    if 86400 - time.time() % 86400 < 60:
        time.sleep(61)


def statuses(server: Server, key: str, model: str, times: int) -> list[int]:
    with server.client(key) as http:
        return [ask(http, model, max_tokens=10).status_code for _ in range(times)]


def test_a_day_outlives_the_server(start_server: StartServer, redis_or_none: str | None) -> None:
    settings: dict[str, Any] = {} if redis_or_none is None else {"redis_url": redis_or_none}
    first = start_server(ROUTES, **settings)
    key, other = make_key(first, rpd=5), make_key(first)
    assert statuses(first, key, "chat", 3) == [200] * 3
    assert statuses(first, other, "daily", 3) == [200, 200, 429]
    first.kill()
    first.reap()
    second = start_server(ROUTES, data=first.data)
    assert statuses(second, key, "chat", 3) == [200, 200, 429]
    assert statuses(second, other, "daily", 1) == [429]


def test_the_refusal_says_when_the_day_ends(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    with client(server, make_key(server, rpd=1)) as ai:
        ai.chat.completions.create(model="chat", messages=MESSAGES)
        with pytest.raises(
            openai.RateLimitError, match=r"This key allows 1 requests a day \(rpd\); 1 are in use"
        ) as no:
            ai.chat.completions.create(model="chat", messages=MESSAGES)
    left = 86400 - time.time() % 86400
    assert float(no.value.response.headers["retry-after"]) == pytest.approx(left, abs=10)
    assert float(no.value.response.headers["x-ratelimit-reset-requests"][:-1]) == pytest.approx(left, abs=10)


def test_tokens_a_day_of_a_team(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    with server.client() as admin:
        team = admin.post("/admin/teams", json={"name": "ops", "tpd": 100}).json()
        keys = [make_key(server, team_id=team["id"]) for _ in range(2)]
        seen: list[httpx.Response] = []
        for number in range(8):
            with server.client(keys[number % 2]) as http:
                seen.append(ask(http, "chat", max_tokens=10))
    passed = sum(one.status_code == 200 for one in seen)
    assert 3 <= passed <= 5
    assert "Team 'ops' allows 100 tokens a day (tpd)" in error_of(seen[-1])["message"]
