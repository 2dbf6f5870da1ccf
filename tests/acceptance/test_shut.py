"""No caller and no library sends anything anywhere but where the routes say, and no key is found in a URL or a log.

The server of this module runs with the network beyond this machine shut: whatever it, litellm or anything else it
imports wants from there is refused and written down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.services import shut as network
from tests.services.gateway import CREDENTIAL, connected, make_key, received
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, running, whole
from tests.services.ways import WAYS, Way, broken, configuration, error_said, good


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Upstream]:
    """Where a caller would have its call, and our credential, sent. Nobody is to ask it anything."""
    with running() as one:
        yield one
    assert one.asked == []


@pytest.fixture(scope="module")
def server(upstream: Upstream, start_servers: StartServer) -> Server:
    """The routes of `ways.configuration`, and `signed` through litellm."""
    config = configuration(upstream.url)
    config["providers"]["litellm"] = {"type": "litellm", "base_url": upstream.url, "api_key": "${UP_KEY}"}
    config["routes"]["signed"] = {"deployments": [{"provider": "litellm", "model": "openai/m"}]}
    return start_servers(json.dumps(config), shut=True, env={"UP_KEY": CREDENTIAL})


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

#: What makes other gateways, and the libraries below them, send a call somewhere else.
ORDERS = (
    "api_base",
    "base_url",
    "host",
    "api_url",
    "url",
    "azure_endpoint",
    "deployment_url",
    "proxy",
    "model_server_url",
)
NESTED = ("extra_body", "litellm_params", "client_options", "config", "metadata")
HEADERS = (
    "host",
    "x-forwarded-host",
    "forwarded",
    "x-api-base",
    "x-base-url",
    "x-portkey-custom-host",
    "x-original-url",
)


@every_way
def test_a_caller_never_sets_a_host(http: httpx.Client, upstream: Upstream, elsewhere: Upstream, way: Way) -> None:
    upstream.then(good)
    orders: dict[str, Any] = dict.fromkeys(ORDERS, elsewhere.url)
    given = {"api_key": "theirs", "mock_response": "gotcha", **orders, **dict.fromkeys(NESTED, orders)}
    headers = dict.fromkeys(HEADERS, f"127.0.0.1:{elsewhere.port}")
    answer = http.request(**way.request(**given), headers=headers)
    assert "gotcha" not in answer.text or answer.status_code == 400
    assert http.request(**way.request(), headers=headers).status_code == 200
    # In a dialect of the upstream's own they are fields it does not know; in another they are refused by name.
    assert len(upstream.asked) == {200: 2, 400: 1}[answer.status_code]
    for asked in upstream.asked:
        assert CREDENTIAL in (asked.header("authorization") or asked.header("x-api-key") or "")
        assert asked.header("host") == f"127.0.0.1:{upstream.port}"
        assert {name for name, _ in asked.headers} & set(HEADERS) == {"host"}
    assert elsewhere.asked == []


def test_a_caller_gives_litellm_no_orders(http: httpx.Client, upstream: Upstream, elsewhere: Upstream) -> None:
    upstream.then(good)
    orders: dict[str, Any] = dict.fromkeys(ORDERS, elsewhere.url)
    given = {"api_key": "theirs", "mock_response": "gotcha", **orders, **dict.fromkeys(NESTED, orders)}
    answer = http.request(**WAYS["chat"].request("signed", **given))
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert upstream.last.header("authorization") == f"Bearer {CREDENTIAL}"
    assert elsewhere.asked == []


@every_way
def test_an_upstream_that_quotes_our_credential_is_not_quoted(
    server: Server, http: httpx.Client, upstream: Upstream, way: Way
) -> None:
    error = {"type": "x", "message": f"Incorrect API key: {CREDENTIAL}.", "param": None, "code": None}
    statuses = (400, 401, 403, 429, 500)
    upstream.then(*(whole({"type": "error", "error": error}, status) for status in statuses))
    answers = [http.request(**way.request()) for _ in statuses]
    assert [answer.status_code for answer in answers] == [400, 502, 502, 429, 500]
    assert "Incorrect API key: ***." in error_said(answers[0]).message
    assert not any(CREDENTIAL in answer.text + str(answer.headers) for answer in answers)
    assert CREDENTIAL not in server.stderr()


@pytest.mark.parametrize("name", ["chat", "chat, of messages", "messages", "messages, of chat", "responses, of chat"])
def test_nor_where_it_quotes_it_in_an_answer_or_amid_a_stream(
    server: Server, http: httpx.Client, upstream: Upstream, name: str
) -> None:
    way = WAYS[name]
    error = {"type": "x", "message": f"Incorrect API key: {CREDENTIAL}.", "param": None, "code": None}
    failed = {"type": "error", "error": error}
    upstream.then(whole(failed), broken(failed))
    whole_one = http.request(**way.request())
    streamed = http.request(**way.request(stream=True))
    assert whole_one.status_code == 502
    for answer in (whole_one, streamed):
        assert "Incorrect API key" in answer.text
        assert CREDENTIAL not in answer.text
    assert CREDENTIAL not in server.stderr()


#: A request's target, and whether it still is the path that needs a key.
TARGETS = {
    "{path}": True,
    "http://{evil}{path}": True,
    "http://localhost{path}": True,
    "{path}?x=/health": True,
    "{path}#/health": True,
    "{path}%3f/health": False,
    "/health/..{path}": False,
    "/health/%2e%2e{path}": False,
    "/version/..{path}": False,
    "/%2e{path}": False,
    "{path};/health": False,
    "//{evil}{path}": False,
}
HOSTS = ("localhost", "localhost/health?", "localhost/version#", "{evil}", "health", "a@localhost/health")


@pytest.mark.parametrize(
    "path", ["/v1/models", "/admin/keys", "/api/2.0/mlflow/experiments/search", "/api/2.0/endpoints/", "/openapi.json"]
)
def test_no_target_and_no_host_stands_in_for_a_key(server: Server, elsewhere: Upstream, path: str) -> None:
    evil = f"127.0.0.1:{elsewhere.port}"
    for target, same in TARGETS.items():
        for host in HOSTS:
            with connected(server) as sock:
                lines = [f"GET {target.format(path=path, evil=evil)} HTTP/1.1", f"host: {host.format(evil=evil)}"]
                sock.sendall(("\r\n".join([*lines, "connection: close"]) + "\r\n\r\n").encode())
                status = int(received(sock).split(b" ", 2)[1])
            assert status in ((401,) if same else (400, 401, 404)), (target, host)


INJECTED = ("sk-py-' OR '1'='1", "' OR 1=1 --", "sk-py-x'; DROP TABLE keys; --", '" OR ""="', "%' OR name LIKE '%")


def test_a_key_is_no_piece_of_sql(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for secret in INJECTED:
            for path in ("/v1/models", "/admin/keys", "/api/2.0/mlflow/experiments/search"):
                assert http.get(path, headers={"authorization": f"Bearer {secret}"}).status_code == 401
    assert "Traceback" not in server.stderr()


def test_a_key_in_a_url_opens_nothing_and_is_written_nowhere(server: Server, upstream: Upstream) -> None:
    upstream.then(good)
    secret = make_key(server, scopes=["inference", "tracking", "admin"])
    names = ("api_key", "api-key", "key", "access_token", "token", "x-api-key", "auth", "authorization")
    pages: list[dict[str, Any]] = [{"method": "GET", "url": path} for path in ("/v1/models", "/admin/keys", "/docs")]
    pages += [{"method": "GET", "url": f"/api/2.0/{path}"} for path in ("endpoints/", "mlflow/experiments/search")]
    with httpx.Client(base_url=server.url) as http:
        for asked in (*(way.request() for way in WAYS.values()), *pages):
            answer = http.request(**asked, params=dict.fromkeys(names, secret))
            assert answer.status_code == 401, asked["url"]
            assert secret not in answer.text + str(answer.headers)
            known = http.request(**asked, params={"key": secret}, headers={"authorization": f"Bearer {secret}"})
            assert known.status_code == 200, asked["url"]
    assert secret not in server.stdout() + server.stderr()
    assert not any(secret in each.path for each in upstream.asked)


def test_nothing_was_wanted_of_the_network(server: Server, tmp_path: Path) -> None:
    """Neither by what was imported, litellm included, nor by the calls of all tests above."""
    assert server.wanted() == ""
    assert "Traceback" not in server.stderr()
    fetch = "import urllib.request; urllib.request.urlopen('http://192.0.2.1/prices.json')"
    shut = {**os.environ, **network.environment(tmp_path)}
    refused = subprocess.run([sys.executable, "-c", fetch], env=shut, capture_output=True, check=False)
    assert b"the network is shut" in refused.stderr
    assert "192.0.2.1" in network.wanted(tmp_path)
