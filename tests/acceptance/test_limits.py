"""Limits of keys and routes, exact under concurrency, each refusal naming its rule, with memory and Redis alike."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services import redis
from tests.services.gateway import MESSAGES, ask, async_client, client, error_of, make_key, sockets, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, hang_up, silence, until, whole

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
ROUTES = """\
providers:
  up: {{type: openai_compatible, base_url: "{url}"}}
  fake: {{type: fake}}
  slow: {{type: fake, script: [{{answer: slow, delay: 1}}]}}
  large: {{type: fake, script: [{{answer: x, usage: {{prompt_tokens: 300, completion_tokens: 100}}}}]}}
routes:
  free: {{deployments: [{{provider: fake, model: m}}]}}
  fifty: {{deployments: [{{provider: fake, model: m}}], limits: {{rpm: 50}}}}
  shared: {{deployments: [{{provider: fake, model: m}}], limits: {{rpm: 5}}}}
  slow: {{deployments: [{{provider: slow, model: m}}], limits: {{concurrency: 7}}}}
  one: {{deployments: [{{provider: slow, model: m}}], limits: {{concurrency: 1}}}}
  up: {{deployments: [{{provider: up, model: m}}], limits: {{concurrency: 1}}, timeouts: {{total: 2}}}}
  tokens: {{deployments: [{{provider: large, model: m}}], limits: {{tpm: 1000}}}}
  embed: {{task: embeddings, deployments: [{{provider: fake, model: m}}], limits: {{tpm: 500}}}}
"""


@pytest.fixture(scope="module", params=["memory", "redis", "workers"] if SOAK else ["memory", "workers"])
def server(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for this module's tests with counters in memory, and one of two workers, with them in Redis."""
    settings: dict[str, Any] = {}
    if request.param != "memory":
        settings["redis_url"] = request.getfixturevalue("redis_url")
    if request.param == "workers":
        redis.empty(settings["redis_url"])
        settings["workers"] = 2
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers(ROUTES.format(url=upstream.url), **settings)
    finally:
        servers.stop()


async def at_once(server: Server, count: int, model: str, *keys: str, **fields: Any) -> list[httpx.Response]:
    """The answers to `count` calls that begin together, by each of `keys` in turn."""
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(base_url=server.url, timeout=90, limits=limits) as http:

        async def one(number: int) -> httpx.Response:
            headers = {"authorization": f"Bearer {keys[number % len(keys)]}"} if keys else server.headers
            body = {"model": model, "messages": MESSAGES, **fields}
            return await http.post("/v1/chat/completions", json=body, headers=headers)

        return await asyncio.gather(*(one(number) for number in range(count)))


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_200_calls_at_once_against_50_requests_a_minute(server: Server) -> None:
    key = make_key(server, rpm=50)
    answers = await at_once(server, 200, "free", key)
    assert statuses(answers) == {200: 50, 429: 150}
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"50"}
    passed = sorted(int(each.headers["x-ratelimit-remaining-requests"]) for each in answers if each.status_code == 200)
    assert passed == list(range(50))
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 50 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    error = error_of(refused)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "This key allows 50 requests a minute (rpm); 50 are in use" in error["message"]
    record = usage_of(server, refused)
    assert (record["status"], record["error"], record["cost_usd"]) == (429, "rate_limit_exceeded", 0)


async def test_a_routes_limit_is_shared_by_its_callers(server: Server) -> None:
    keys = [make_key(server) for _ in range(4)]
    answers = await at_once(server, 100, "fifty", *keys)
    assert statuses(answers) == {200: 50, 429: 50}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "Route 'fifty' allows 50 requests a minute (rpm)" in error_of(refused)["message"]


def test_a_refused_call_takes_nothing(server: Server) -> None:
    small, other = make_key(server, rpm=2), make_key(server)
    with server.client(small) as one, server.client(other) as two:
        assert [ask(one, "shared").status_code for _ in range(6)] == [200, 200, 429, 429, 429, 429]
        assert [ask(two, "shared").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert "Route 'shared'" in error_of(ask(two, "shared"))["message"]
    # Nor does one refused by its route take its key's requests.
    with server.client(make_key(server, rpm=1)) as three:
        assert ask(three, "shared").status_code == 429
        assert ask(three, "free").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/free"])
def test_what_is_no_call_is_not_counted(server: Server, path: str) -> None:
    with server.client(make_key(server, rpm=1)) as http:
        assert {http.get(path).status_code for _ in range(5)} == {200}
        assert ask(http, "nope").status_code == 404
        assert ask(http, "free", messages=[]).status_code == 400
        assert ask(http, "free").status_code == 200
        assert ask(http, "free").status_code == 429


async def test_calls_at_once(server: Server) -> None:
    answers = await at_once(server, 50, "slow")
    assert statuses(answers) == {200: 7, 429: 43}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "Route 'slow' allows 7 calls at once (concurrency); 7 are in use" in error_of(refused)["message"]
    assert refused.headers["retry-after"] == "1"
    key = make_key(server, concurrency=3)
    answers = await at_once(server, 20, "free", key, stream=True)
    assert 3 <= statuses(answers)[200] <= 20
    answers = await at_once(server, 20, "slow", key)
    assert statuses(answers) == {200: 3, 429: 17}
    assert (
        "This key allows 3 calls at once"
        in error_of(next(each for each in answers if each.status_code == 429))["message"]
    )


async def test_clients_that_wait_as_told_all_get_through(server: Server) -> None:
    async with async_client(server, max_retries=10) as ai:
        answers = await asyncio.gather(*(ai.chat.completions.create(model="one", messages=MESSAGES) for _ in range(3)))
    assert [answer.choices[0].message.content for answer in answers] == ["slow"] * 3


def test_the_official_client_raises_with_all_it_needs(server: Server) -> None:
    with client(server, make_key(server, rpm=1)) as ai:
        ai.chat.completions.create(model="free", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError, match=r"requests a minute \(rpm\)") as caught:
            ai.chat.completions.create(model="free", messages=MESSAGES)
    headers = caught.value.response.headers
    assert headers["x-request-id"] == caught.value.request_id
    assert int(headers["retry-after"]) > 50
    assert 50 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) < 61


def test_tokens_a_minute(server: Server) -> None:
    with server.client() as http:
        first = ask(http, "tokens", max_tokens=500)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "1000"
        # 400 were used, as the upstream counted: 600 are left, whatever had been held.
        refused = ask(http, "tokens", max_tokens=600)
        assert refused.status_code == 429
        error = error_of(refused)["message"]
        assert "Route 'tokens' allows 1000 tokens a minute (tpm); 400 are in use" in error
        assert refused.headers["x-ratelimit-remaining-tokens"] == "600"
        assert int(refused.headers["retry-after"]) > 50
        assert ask(http, "tokens", max_tokens=500).status_code == 200
        assert "800 are in use" in error_of(ask(http, "tokens", max_tokens=500))["message"]
        never = ask(http, "tokens", max_tokens=1000)
        assert never.status_code == 400
        assert "never be let in" in error_of(never)["message"]


async def test_tokens_are_never_given_twice(server: Server) -> None:
    """Each call holds 100 of the answer and a little for its prompt until it is over; together never more than 1000."""
    key = make_key(server, tpm=1000)
    answers = await at_once(server, 40, "slow", key, max_tokens=100)
    passed = statuses(answers)[200]
    assert 3 <= passed <= 7
    assert all("tpm" in error_of(each)["message"] or "slow" in each.text for each in answers if each.status_code != 200)


def test_a_call_that_does_not_say_how_long_is_let_in_beside_others(server: Server) -> None:
    with server.client(make_key(server, tpm=300)) as http:
        assert ask(http, "free").status_code == 200
        assert ask(http, "free").status_code == 200


def test_tokens_of_embeddings(server: Server) -> None:
    with server.client() as http:
        for _ in range(2):
            answer = http.post("/v1/embeddings", json={"model": "embed", "input": "word " * 50})
            assert answer.status_code == 200
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 500
        large = http.post("/v1/embeddings", json={"model": "embed", "input": "word " * 5000})
        assert large.status_code == 400
        assert "never be let in" in error_of(large)["message"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_storm_of_failures_holds_nothing(server: Server, upstream: Upstream, streamed: bool) -> None:
    upstream.then(hang_up, whole(b"<html>", 503), whole(b"{"), hang_up, silence, whole(chat()))
    before = sockets(server)
    for _ in range(3):
        answers = await at_once(server, 20, "up", stream=streamed)
        assert set(statuses(answers)) <= {200, 429, 502, 503, 504}
    upstream.then(whole(chat()))
    with server.client() as http:
        until(lambda: ask(http, "up").status_code == 200)
    until(lambda: sockets(server) <= before + 5, 10)


async def test_callers_who_leave_give_back_what_they_held(server: Server, upstream: Upstream) -> None:
    upstream.then(silence)
    key = make_key(server, concurrency=1, tpm=2000)
    for _ in range(5):
        async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {key}"}) as http:
            body = {"model": "up", "messages": MESSAGES, "max_tokens": 1000}
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body, timeout=0.3)
            # It is noticed within a moment; who comes before that is told to come again.
            await asyncio.sleep(0.2)
    upstream.then(whole(chat()))
    with server.client(key) as again:
        until(lambda: ask(again, "up", max_tokens=1000).status_code == 200)
