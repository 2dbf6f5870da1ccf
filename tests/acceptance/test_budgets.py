"""Budgets of keys and routes: never overspent, told apart from waiting, remembered through a kill; both counters."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services import redis
from tests.services.gateway import MESSAGES, ask, client, error_of, make_key, usage_of
from tests.services.promptyard import Server

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
CALLERS = 200 if SOAK else 60
# A call of ten tokens each way costs a cent.
PRICES = "prices: {fake/m: {input: 500, output: 500}, wide/m: {input: 500, output: 500, max_output_tokens: 1000}}\n"
ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
  wide: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
  slow: {type: fake, script: [{answer: x, delay: 3, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
  down: {type: fake, script: [{error: {status: 503}}]}
  ours: {type: openai_compatible, base_url: "http://127.0.0.1:9/v1"}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  wide: {deployments: [{provider: wide, model: m}]}
  capped: {deployments: [{provider: fake, model: m}], max_output_tokens: 20}
  slow: {deployments: [{provider: slow, model: m}]}
  shared: {deployments: [{provider: fake, model: m}], limits: {max_budget: 0.25, budget_duration: 1d}}
  falls: {deployments: [{provider: down, model: m}], fallbacks: [shared], unpriced: free}
  unpriced: {deployments: [{provider: ours, model: gpt-4o}]}
  free: {deployments: [{provider: slow, model: other}], unpriced: free}
  embed: {task: embeddings, deployments: [{provider: fake, model: m}]}
"""


@pytest.fixture(scope="module", params=["memory", "redis", "workers"] if SOAK else ["memory", "workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this module's tests with counters in memory, and one of two workers, with them in Redis."""
    settings: dict[str, Any] = {}
    if request.param != "memory":
        settings["redis_url"] = request.getfixturevalue("redis_url")
    if request.param == "workers":
        redis.empty(settings["redis_url"])
        settings["workers"] = 2
    with_prices = tmp_path_factory.mktemp("priced")
    (with_prices / "config").mkdir()
    (with_prices / "config" / "prices.yaml").write_text(PRICES.replace("fake/m", "m"))
    (with_prices / "routes.yaml").write_text(ROUTES)
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers(with_prices / "routes.yaml", **settings)
    finally:
        servers.stop()


async def persistent(server: Server, key: str, callers: int) -> list[httpx.Response]:
    """What `callers` get that ask until they are told that waiting does not help, and wait as they are told."""
    answers: list[httpx.Response] = []
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, timeout=90, limits=limits, headers=headers) as http:

        async def one() -> None:
            while True:
                body = {"model": "chat", "messages": MESSAGES, "max_tokens": 10}
                answer = await http.post("/v1/chat/completions", json=body)
                answers.append(answer)
                if answer.status_code == 200:
                    continue
                if answer.headers.get("x-should-retry") == "false":
                    return
                await asyncio.sleep(int(answer.headers["retry-after"]) * 0.2)

        await asyncio.gather(*(one() for _ in range(callers)))
    return answers


@pytest.mark.soak
async def test_many_callers_never_overspend_and_get_what_was_allowed(server: Server) -> None:
    key = make_key(server, max_budget=1.0, budget_duration="1d")
    answers = await persistent(server, key, CALLERS)
    answered = [answer for answer in answers if answer.status_code == 200]
    assert len(answered) * 0.01 <= 1.0
    # The last calls do not fit: one may cost up to the estimate of its input, two cents here.
    assert len(answered) >= 98
    codes = Counter(error_of(answer)["code"] for answer in answers if answer.status_code != 200)
    assert set(codes) <= {"insufficient_quota", "rate_limit_exceeded"}
    assert codes["insufficient_quota"] == CALLERS
    with server.client() as admin:
        rows = admin.get("/admin/usage", params={"group_by": "key"}).json()["data"]
    assert any(row["cost_usd"] == pytest.approx(len(answered) * 0.01) for row in rows)


def test_a_spent_budget_says_so_and_the_official_client_does_not_try_again(server: Server) -> None:
    key = make_key(server, max_budget=0.03, budget_duration="1mo")
    with client(server, key, max_retries=5) as official:
        official.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=10)
        with pytest.raises(openai.RateLimitError) as refused:
            official.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=10)
    error = error_of(refused.value.response)
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert "This key may spend $0.03 in 1mo (max_budget); $0.01 are spent" in error["message"]
    assert "It begins anew at 20" in error["message"]
    assert int(refused.value.response.headers["retry-after"]) > 0
    record = usage_of(server, refused.value.response)
    assert (record["status"], record["error"], record["cost_usd"]) == (429, "insufficient_quota", 0)
    with server.client() as admin:
        [calls] = [row["calls"] for row in admin.get("/admin/usage?group_by=key_id").json()["data"]
                   if row["key_id"] == record["key_id"]]  # fmt: skip
    assert calls == 2


def test_anthropics_client_is_told_in_its_own_words(server: Server) -> None:
    key = make_key(server, max_budget=0.005)
    with (
        anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=3) as official,
        pytest.raises(anthropic.BadRequestError, match="can never be let in"),
    ):
        official.messages.create(model="chat", max_tokens=100, messages=MESSAGES)
    key = make_key(server, max_budget=0.04)
    with anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=3) as official:
        official.messages.create(model="chat", max_tokens=20, messages=MESSAGES)
        with pytest.raises(anthropic.RateLimitError) as refused:
            official.messages.create(model="chat", max_tokens=20, messages=MESSAGES)
    assert refused.value.response.json()["error"]["type"] == "rate_limit_error"
    assert "It does not begin anew." in str(refused.value)


def test_what_running_calls_hold_is_worth_waiting_for(server: Server) -> None:
    key = make_key(server, max_budget=0.1)

    async def two() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            headers = {"authorization": f"Bearer {key}"}
            body = {"model": "slow", "messages": MESSAGES, "max_tokens": 120}
            running = asyncio.create_task(http.post("/v1/chat/completions", json=body, headers=headers))
            await asyncio.sleep(1)
            refused = await http.post("/v1/chat/completions", json={**body, "max_tokens": 40}, headers=headers)
            return await running, refused

    answered, refused = asyncio.run(two())
    assert answered.status_code == 200
    error = error_of(refused)
    assert (refused.status_code, error["code"], refused.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
    assert "running calls hold $0.0" in error["message"]
    assert "x-should-retry" not in refused.headers
    with server.client(key) as http:
        assert ask(http, "chat", max_tokens=40).status_code == 200


def test_a_route_is_shared_by_its_callers_and_a_fallback_spends_its_own(server: Server) -> None:
    with server.client(make_key(server)) as one, server.client(make_key(server)) as two:
        spent = 0
        while (answer := ask(one if spent % 2 else two, "falls", max_tokens=10)).status_code == 200:
            spent += 1
            record = usage_of(server, answer)
            assert (record["route"], record["fallback"]) == ("falls", "shared")
        assert 23 <= spent <= 25
        assert error_of(answer)["code"] == "insufficient_quota"
        assert "Route 'shared' may spend $0.25 in 1d" in error_of(answer)["message"]
        assert error_of(ask(one, "shared", max_tokens=10))["code"] == "insufficient_quota"
        assert ask(one, "chat", max_tokens=10).status_code == 200


def test_what_nobody_can_say_the_cost_of_is_refused_under_a_budget(server: Server) -> None:
    with server.client(make_key(server, max_budget=1.0)) as http:
        unbounded = error_of(ask(http, "chat"))
        assert (unbounded["code"], unbounded["param"]) == ("unbounded_cost", "max_tokens")
        said = http.post("/v1/responses", json={"model": "chat", "input": "hello"})
        assert (error_of(said)["code"], error_of(said)["param"]) == ("unbounded_cost", "max_output_tokens")
        assert ask(http, "capped").status_code == 200
        # A model that states its most holds that much of the budget, and gives it back.
        assert ask(http, "wide").status_code == 200
        assert error_of(ask(http, "unpriced", max_tokens=10))["code"] == "unpriced_model"
        assert ask(http, "free", max_tokens=10).status_code == 200
        embedded = http.post("/v1/embeddings", json={"model": "embed", "input": "hello"})
        assert embedded.status_code == 200, embedded.text
    with server.client(make_key(server)) as http:
        assert ask(http, "chat").status_code == 200


def test_failed_calls_cost_nothing(server: Server) -> None:
    with server.client(make_key(server, max_budget=0.03)) as http:
        for _ in range(20):
            assert ask(http, "unpriced", max_tokens=10).status_code == 400
            assert ask(http, "chat", max_tokens=10, n="many").status_code == 400
        assert ask(http, "chat", max_tokens=10).status_code == 200


def test_a_caller_who_leaves_has_paid_for_what_it_took(server: Server) -> None:
    key = make_key(server, max_budget=0.1)
    with server.client(key) as http:
        body = {"model": "slow", "messages": MESSAGES, "max_tokens": 100, "stream": True}
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=body, timeout=0.5)
        # Only the prompt is counted, and the rest of what was held is back.
        for _ in range(50):
            answer = ask(http, "chat", max_tokens=120)
            if answer.status_code == 200:
                break
            assert error_of(answer)["code"] == "rate_limit_exceeded"
        assert answer.status_code == 200


def test_a_kill_forgets_nothing(start_server: StartServer, tmp_path: Any) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(PRICES.replace("fake/m", "m"))
    (tmp_path / "routes.yaml").write_text(ROUTES)
    first = start_server(tmp_path / "routes.yaml")
    key = make_key(first, max_budget=0.1)
    with first.client(key) as http:
        assert [ask(http, "chat", max_tokens=10).status_code for _ in range(8)] == [200] * 8
    first.kill()
    first.reap()
    second = start_server(tmp_path / "routes.yaml", data=first.data)
    with second.client(key) as http:
        refused = error_of(ask(http, "chat", max_tokens=30))
    assert "$0.08 are spent" in refused["message"]
