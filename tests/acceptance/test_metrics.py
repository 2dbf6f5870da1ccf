"""`/metrics`, read by Prometheus's own parsers: it counts what the usage records count, under few names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from tests.conftest import StartServer
from tests.services.admin import made, refusal
from tests.services.gateway import ask, make_key
from tests.services.promptyard import Server

PRICES = "prices: {m: {input: 500, output: 500}}\n"
ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
  down: {type: fake, script: [{error: {status: 503}}]}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  falls: {deployments: [{provider: down, model: m}], fallbacks: [chat]}
"""


@pytest.fixture(scope="module")
def server(start_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Has answered five calls, two of them streams, and refused two."""
    home = tmp_path_factory.mktemp("priced")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    server = start_servers(home / "routes.yaml")
    server.wait_ready()
    with server.client(make_key(server, rpm=5)) as http:
        for model, stream in (("chat", False), ("chat", True), ("falls", False), ("falls", True), ("chat", False)):
            assert ask(http, model, stream=stream).status_code == 200
        assert ask(http, "chat").status_code == 429
    with server.client("sk-py-nobody") as http:
        assert ask(http, "chat").status_code == 401
    with server.client() as http:
        assert ask(http, "a-name-nobody-has").status_code == 404
    return server


@pytest.fixture
def admin(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(one.name, frozenset(one.labels.items())): one.value for family in parsed(text) for one in family.samples}


def test_it_counts_what_was_called(admin: httpx.Client) -> None:
    answer = admin.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    told = samples(answer.text)

    def value(name: str, **labels: str) -> float | None:
        return told.get((name, frozenset(labels.items())))

    of_chat = {"route": "chat", "task": "chat/completions"}
    assert value("promptyard_calls_total", status="200", **of_chat) == 3
    assert value("promptyard_calls_total", status="429", **of_chat) == 1
    assert value("promptyard_failures_total", route="chat", error="rate_limit_exceeded") == 1
    assert value("promptyard_attempts_total", deployment="fake/m", outcome="answered") == 5
    assert value("promptyard_attempts_total", deployment="down/m", outcome="upstream_error") == 2
    assert value("promptyard_tokens_total", route="chat", kind="input") == 30
    assert value("promptyard_tokens_total", route="falls", kind="output") == 20
    assert value("promptyard_cost_usd_total", route="chat") == pytest.approx(0.03)
    assert value("promptyard_call_seconds_count", route="chat") == 4
    assert value("promptyard_call_seconds_bucket", route="chat", le="+Inf") == 4
    assert value("promptyard_first_token_seconds_count", route="falls") == 2
    assert value("promptyard_running_calls") == 0
    assert value("promptyard_counters_shared") == value("promptyard_ready") == 1
    assert value("process_resident_memory_bytes") is not None
    total = admin.get("/admin/usage").json()["total"]
    calls = sum(count for (name, _), count in told.items() if name == "promptyard_calls_total")
    cost = sum(count for (name, _), count in told.items() if name == "promptyard_cost_usd_total")
    assert (calls, cost) == (total["calls"], pytest.approx(total["cost_usd"]))


def test_labels_are_names_of_the_file_alone(server: Server, admin: httpx.Client) -> None:
    text = admin.get("/metrics").text
    routes = {labels["route"] for _, labels in map(_labelled, samples(text)) if "route" in labels}
    assert routes == {"chat", "falls", ""}
    assert "a-name-nobody-has" not in text
    assert "key_" not in text
    assert (server.admin_key or "?") not in text


def test_openmetrics_for_those_who_ask_for_it(admin: httpx.Client) -> None:
    answer = admin.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "promptyard_calls" in {family.name for family in parsed_openmetrics(answer.text)}


def test_it_is_for_who_sees_all(server: Server, admin: httpx.Client) -> None:
    team = admin.post("/admin/teams", json={"name": "ops"}).json()
    for terms, status in (
        ({"scopes": ["viewer"]}, 200),
        ({"scopes": ["inference", "tracking"]}, 403),
        ({"scopes": ["viewer"], "team_id": team["id"]}, 403),
        ({"scopes": ["admin"], "team_id": team["id"]}, 403),
    ):
        with server.client(made(admin, **terms)["key"]) as client:
            answer = client.get("/metrics")
        assert answer.status_code == status, terms
    with httpx.Client(base_url=server.url) as stranger:
        refusal(stranger.get("/metrics"), 401)


def test_a_redis_that_is_gone_shows(start_server: StartServer) -> None:
    server = start_server(ROUTES, redis_url="redis://127.0.0.1:9/0")
    with server.client(make_key(server, rpm=5)) as http:
        ask(http, "chat")
    with server.client() as admin:
        assert ("promptyard_counters_shared", frozenset()) in samples(admin.get("/metrics").text)
        assert samples(admin.get("/metrics").text)["promptyard_counters_shared", frozenset()] == 0


def _labelled(one: tuple[str, frozenset[tuple[str, str]]]) -> tuple[str, dict[str, Any]]:
    return one[0], dict(one[1])
