"""Who answers: deployments by weight, the next when one fails, then the fallbacks under their own limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, error_of, make_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Answer, Upstream, chat, hang_up, raw, running, silence, whole


@pytest.fixture(scope="module")
def second() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def servers(upstream: Upstream, second: Upstream, start_servers: StartServer) -> Server:
    """`a` and `b` are upstreams of this module, `nobody` refuses connections; every route takes one call at once."""
    a, b = "{provider: a, model: first}", "{provider: b, model: other, weight: 0.000001}"
    one = "limits: {concurrency: 1}, cooldown: {seconds: 0}"
    return start_servers(f"""\
providers:
  a: {{type: openai_compatible, base_url: "{upstream.url}"}}
  b: {{type: openai_compatible, base_url: "{second.url}"}}
  nobody: {{type: openai_compatible, base_url: "http://127.0.0.1:9/v1"}}
  fake: {{type: fake}}
routes:
  weighed: {{deployments: [{{provider: a, model: m, weight: 80}}, {{provider: b, model: m, weight: 20}}]}}
  resting: {{deployments: [{{provider: a, model: m, weight: 0}}, {{provider: b, model: m}}]}}
  pair: {{deployments: [{{provider: a, model: first, weight: 1000000}}, {b}], {one}, timeouts: {{total: 1}}}}
  chain: {{deployments: [{a}], fallbacks: [middle, last], {one}, timeouts: {{total: 1}}}}
  middle: {{deployments: [{b}], limits: {{concurrency: 1, rpm: 1000}}, timeouts: {{total: 1}}}}
  last: {{deployments: [{{provider: fake, model: fake}}], {one}}}
  full: {{deployments: [{a}], fallbacks: [narrow], cooldown: {{seconds: 0}}}}
  narrow: {{deployments: [{b}], limits: {{rpm: 1}}}}
  big: {{deployments: [{a}], fallbacks: [tiny, last], cooldown: {{seconds: 0}}}}
  tiny: {{deployments: [{b}], limits: {{tpm: 10}}}}
  capped: {{deployments: [{a}], fallbacks: [short], cooldown: {{seconds: 0}}}}
  short: {{deployments: [{b}], max_output_tokens: 7, limits: {{tpm: 1000}}}}
  refused: {{deployments: [{{provider: nobody, model: m}}], {one}}}
  unreached: {{deployments: [{{provider: nobody, model: m}}, {b}], {one}}}
""")


@pytest.fixture
def http(servers: Server, upstream: Upstream, second: Upstream) -> Iterator[httpx.Client]:
    upstream.then(whole(chat("from a")))
    second.then(whole(chat("from b")))
    with servers.client() as client:
        yield client
        upstream.then(whole(chat("from a")))
        second.then(whole(chat("from b")))
        for route in ("pair", "chain", "middle", "last", "unreached"):
            assert ask(client, route).status_code == 200, "something is still held"
    assert "Traceback" not in servers.stderr()


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def error(status: int, **headers: str) -> Answer:
    return whole(
        {"error": {"message": f"upstream says {status}", "type": "x", "param": None, "code": None}}, status, **headers
    )


async def test_weights_are_shares(servers: Server, upstream: Upstream, second: Upstream) -> None:
    upstream.then(whole(chat("from a")))
    second.then(whole(chat("from b")))
    shares: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=servers.url, headers=servers.headers, timeout=60) as client:

        async def some() -> None:
            for _ in range(100):
                answer = await client.post("/v1/chat/completions", json={"model": "weighed", "messages": MESSAGES})
                shares[said(answer)] += 1

        await asyncio.gather(*(some() for _ in range(10)))
    # Six standard deviations of 1,000 draws at 0.2 are 76.
    assert 124 < shares["from b"] < 276
    assert shares["from a"] + shares["from b"] == 1000


def test_a_deployment_of_weight_zero_rests(http: httpx.Client) -> None:
    assert {said(ask(http, "resting")) for _ in range(50)} == {"from b"}


ELSEWHERE: dict[str, Answer] = {
    "500": error(500),
    "502": error(502),
    "503": whole(b"<html>503</html>", 503, kind="text/html"),
    "529": error(529),
    "429": error(429, retry_after="9"),
    "408": error(408),
    "409": error(409),
    "401": error(401),
    "402": error(402),
    "403": error(403),
    "html": whole(b"<html>hi</html>", kind="text/html"),
    "half a json": whole(b'{"choices": ['),
    "hangs up": hang_up,
    "garbage": raw(b"\x00\x01\r\n\r\n"),
    "silent": silence,
    "redirect": whole(b"", 307, location="http://127.0.0.1:1/"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_failed_goes_to_the_next_deployment(
    http: httpx.Client, upstream: Upstream, second: Upstream, name: str, streamed: bool
) -> None:
    upstream.then(ELSEWHERE[name])
    second.then(error(418))  # not a failure: an answer that nobody else would change
    answer = ask(http, "pair", stream=streamed)
    assert answer.json()["error"]["message"] == "upstream says 418"
    assert answer.headers["x-promptyard-deployment"] == "b/other"
    assert (len(upstream.asked), len(second.asked)) == (1, 1)
    assert (upstream.last.json["model"], second.last.json["model"]) == ("first", "other")
    assert {**upstream.last.json, "model": ""} == {**second.last.json, "model": ""}


@pytest.mark.parametrize("status", [400, 404, 410, 413, 415, 418, 422, 451])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_callers_own_fault_is_sent_nowhere_else(
    http: httpx.Client, upstream: Upstream, second: Upstream, status: int, streamed: bool
) -> None:
    upstream.then(error(status))
    for route in ("pair", "chain"):
        answer = ask(http, route, stream=streamed)
        assert (answer.status_code, error_of(answer)["message"]) == (status, f"upstream says {status}")
    assert (len(upstream.asked), len(second.asked)) == (2, 0)


def test_a_refused_connection_goes_on_at_once(http: httpx.Client, second: Upstream) -> None:
    begun = time.monotonic()
    for _ in range(4):
        assert said(ask(http, "unreached")) == "from b"
    assert time.monotonic() - begun < 2
    answer = ask(http, "refused")
    assert answer.status_code == 502
    assert "could not be reached" in error_of(answer)["message"]
    assert ":9" not in answer.text


@pytest.mark.parametrize("name", ["500", "429", "hangs up", "silent"])
def test_then_to_the_fallbacks_in_order(
    servers: Server, http: httpx.Client, upstream: Upstream, second: Upstream, name: str
) -> None:
    upstream.then(ELSEWHERE[name])
    answer = ask(http, "chain")
    assert said(answer) == "from b"
    assert answer.headers["x-promptyard-deployment"] == "b/other"
    assert answer.headers["x-ratelimit-limit-requests"] == "1000"
    record = usage_of(servers, answer)
    assert (record["deployment"], record["status"], record["input_tokens"]) == ("b/other", 200, 9)
    second.then(ELSEWHERE[name])
    answer = ask(http, "chain")
    assert said(answer) == "echo: Say hello."
    assert usage_of(servers, answer)["deployment"] == "fake/fake"


def test_a_fallback_needs_no_permission_of_the_key(servers: Server, http: httpx.Client, upstream: Upstream) -> None:
    upstream.then(error(500))
    with servers.client(make_key(servers, routes=["chain"])) as limited:
        assert said(ask(limited, "chain")) == "from b"
        assert ask(limited, "middle").status_code == 403


def test_when_everything_failed_the_last_failure_is_told(
    servers: Server, http: httpx.Client, upstream: Upstream, second: Upstream
) -> None:
    upstream.then(error(500))
    second.then(error(429, retry_after="11"))
    answer = ask(http, "pair")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "11")
    assert error_of(answer)["message"] == "upstream says 429"
    record = usage_of(servers, answer)
    assert (record["status"], record["deployment"]) == (429, "b/other")
    assert (record["input_tokens"], record["cost_usd"]) == (0, 0)
    second.then(silence)
    assert ask(http, "pair").status_code == 504
    assert "Traceback" not in servers.stderr()


def test_a_fallback_claims_its_own_routes_limits(http: httpx.Client, upstream: Upstream, second: Upstream) -> None:
    upstream.then(error(503))
    assert said(ask(http, "full")) == "from b"
    answer = ask(http, "full")
    assert (answer.status_code, error_of(answer)["message"]) == (503, "upstream says 503")
    direct = ask(http, "narrow")
    assert direct.status_code == 429
    assert "route 'narrow' allows 1 requests" in error_of(direct)["message"].lower()
    assert len(second.asked) == 1


def test_a_fallback_too_small_for_the_call_is_passed_over(
    http: httpx.Client, upstream: Upstream, second: Upstream
) -> None:
    upstream.then(error(503))
    assert said(ask(http, "big", max_tokens=100)) == "echo: Say hello."
    assert not second.asked


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("asked", "sent"), [(None, 7), (5, 5), (9, 7), (10**6, 7)])
def test_a_fallbacks_cap_holds(
    http: httpx.Client, upstream: Upstream, second: Upstream, name: str, asked: int | None, sent: int
) -> None:
    upstream.then(error(503))
    fields: dict[str, Any] = {} if asked is None else {name: asked}
    assert said(ask(http, "capped", **fields)) == "from b"
    assert [upstream.last.json.get(name)] == [asked]
    caps = {key: value for key, value in second.last.json.items() if key.startswith("max_")}
    assert caps == {"max_tokens" if asked is None else name: sent}
    if asked is not None and asked > 7:
        assert ask(http, "short", **fields).status_code == 400


async def test_a_storm_of_failures_leaves_nothing_held(servers: Server, upstream: Upstream, second: Upstream) -> None:
    upstream.then(*ELSEWHERE.values())
    second.then(error(500), hang_up)
    async with httpx.AsyncClient(base_url=servers.url, headers=servers.headers, timeout=60) as client:

        async def one(number: int) -> int:
            body = {"model": ("pair", "chain")[number % 2], "messages": MESSAGES, "stream": number % 3 == 0}
            return (await client.post("/v1/chat/completions", json=body)).status_code

        statuses = Counter(await asyncio.gather(*(one(number) for number in range(100))))
    assert set(statuses) <= {200, 429, 500, 502, 504}
    upstream.then(whole(chat("from a")))
    second.then(whole(chat("from b")))
    with servers.client() as http:
        for route in ("pair", "chain", "middle", "last"):
            assert ask(http, route).status_code == 200
