"""A route with `cache:` answers again what it has answered, to the same key, at no cost; at once, one call for all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, client, make_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import STREAM, Asked, Peer, Upstream, chat, head, piece, running, stream, whole

STREAMED = b"".join(part for part in STREAM if b'"choices": []' not in part)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    up = "deployments: [{provider: up, model: m}]"
    try:
        yield servers(f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
routes:
  kept: {{{up}, cache: {{ttl: 300}}, limits: {{concurrency: 2}}}}
  ours: {{{up}, cache: {{ttl: 300, shared: true}}}}
  plain: {{{up}}}
""")
    finally:
        servers.stop()


def said(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-promptyard-cache")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_hit_is_byte_equal_and_costs_nothing(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    upstream.then(stream(*STREAM) if streamed else whole(chat()))
    key = make_key(gateway, rpm=3)
    with gateway.client(key) as http:
        answers = [ask(http, "kept", stream=streamed) for _ in range(4)]
    first, second, third, refused = answers
    assert [said(one) for one in answers] == ["miss", "hit", "hit", None]
    assert refused.status_code == 429
    assert len(upstream.asked) == 1
    assert first.content == second.content == third.content
    assert first.content == STREAMED or not streamed
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-promptyard-deployment"] == "up/m"
    assert second.headers["x-ratelimit-remaining-requests"] == "1"
    asked, given = usage_of(gateway, first), usage_of(gateway, second)
    assert (asked["input_tokens"], asked["output_tokens"]) == (9, 2)
    assert (given["status"], given["input_tokens"], given["output_tokens"], given["cost_usd"]) == (200, 0, 0, 0)


def test_keys_share_only_where_the_route_says_so(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    seen = {}
    for name in ("kept", "ours", "plain"):
        for number in range(2):
            with gateway.client(make_key(gateway)) as http:
                seen[name, number] = said(ask(http, name, seed=1))
    assert list(seen.values()) == ["miss", "miss", "miss", "hit", None, None]


def test_the_official_client_opts_out(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat("old")), whole(chat("new")), whole(chat("never kept")))
    with client(gateway) as openai:

        def call(**headers: str) -> str | None:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            done = openai.chat.completions.create(model="kept", messages=MESSAGES, seed=2, extra_headers=named)
            return done.choices[0].message.content

        assert [call(), call(), call(cache_control="no-cache"), call()] == ["old", "old", "new", "new"]
        assert [call(cache_control="no-store"), call()] == ["never kept", "new"]


@pytest.mark.parametrize("streamed", [False, True])
def test_identical_calls_at_once_are_one(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    slow = stream(*STREAM[:2], 0.5, *STREAM[2:]) if streamed else _late
    upstream.then(slow)
    with ThreadPoolExecutor(20) as pool, gateway.client() as http:
        answers = list(pool.map(lambda _: ask(http, "kept", seed=3, stream=streamed), range(20)))
    assert {one.status_code for one in answers} == {200}
    assert len({one.content for one in answers}) == 1
    assert len(upstream.asked) == 1
    assert sorted(str(said(one)) for one in answers) == ["hit"] * 19 + ["miss"]
    assert sum(usage_of(gateway, one)["output_tokens"] for one in answers) == 2


async def _late(asked: Asked, peer: Peer) -> None:
    await asyncio.sleep(0.5)
    await whole(chat())(asked, peer)


async def _endless(asked: Asked, peer: Peer) -> None:
    await peer.send(head() + piece(STREAM[1]))
    leaving = asyncio.create_task(peer.left())
    while not leaving.done():
        await asyncio.wait([leaving], timeout=0.05)
        await peer.send(piece(STREAM[1]))


def test_the_upstream_is_left_when_the_last_leaves(gateway: Server, upstream: Upstream) -> None:
    upstream.then(_endless)
    body = {"model": "kept", "messages": MESSAGES, "stream": True, "seed": 4}
    path = "/v1/chat/completions"
    with gateway.client() as http, gateway.client() as other, http.stream("POST", path, json=body) as first:
        reading = first.iter_raw()
        next(reading)
        with other.stream("POST", path, json=body) as second:
            joining = second.iter_raw()
            next(joining)
        assert usage_of(gateway, second)["status"] == 499
        assert [next(reading) for _ in range(5)]
    upstream.wait_idle(1)
    assert len(upstream.asked) == 1
    left = usage_of(gateway, first)
    assert left["status"] == 499
    assert left["output_tokens"] > 1


def test_what_broke_off_is_asked_again(gateway: Server, upstream: Upstream) -> None:
    upstream.then(stream(*STREAM[:2], None), stream(*STREAM))
    with gateway.client() as http:
        assert b'"error"' in ask(http, "kept", stream=True, seed=5).content
        assert [said(ask(http, "kept", stream=True, seed=5)) for _ in range(2)] == ["miss", "hit"]
