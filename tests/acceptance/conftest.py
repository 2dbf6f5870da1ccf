"""What a module of acceptance tests shares: an upstream that does as it is told, and servers that stay up for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import StartServer
from tests.services import postgres
from tests.services.admin import ROUTES
from tests.services.gateway import CREDENTIAL, ask
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, running


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """One upstream for a module; `upstream.then(…)` says what it answers."""
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def start_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """As `start_server`, for servers that stay up for a module."""
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, start_servers: StartServer) -> Server:
    """A server whose routes `up` and `embed` ask this module's upstream; `other` and `org/model:1@x+y` are fakes."""
    config = f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}", api_key: "${{UP_KEY}}", headers: {{x-team: ours}}}}
  fake: {{type: fake}}
routes:
  up:
    deployments: [{{provider: up, model: upstream-model}}]
  embed:
    task: embeddings
    deployments: [{{provider: up, model: upstream-embed}}]
  other:
    deployments: [{{provider: fake, model: fake}}]
  "org/model:1@x+y":
    deployments: [{{provider: fake, model: fake}}]
"""
    return start_servers(config, env={"UP_KEY": CREDENTIAL})


@pytest.fixture(scope="module")
def small(upstream: Upstream, start_servers: StartServer) -> Server:
    """A server that takes bodies of 1 MiB and 1 s; `fake` and `up` answer one call at once, so a leak shows."""
    return start_servers(
        f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
  fake: {{type: fake}}
  broken: {{type: fake, cycle: true, script: [{{garbage: true}}, {{raw: "[]"}}, {{raw: "1"}}, {{html: true}}]}}
routes:
  fake: {{deployments: [{{provider: fake, model: fake}}], limits: {{concurrency: 1, tpm: 1000000}}}}
  up: {{deployments: [{{provider: up, model: m}}], limits: {{concurrency: 1}}}}
  broken: {{deployments: [{{provider: broken, model: m}}], limits: {{concurrency: 1}}}}
  embed: {{task: embeddings, deployments: [{{provider: fake, model: fake}}], limits: {{tpm: 100000000}}}}
""",
        max_body="1MiB",
        body_timeout=1,
    )


@pytest.fixture
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test its server answers, holds nothing, and has met no fault of its own."""
    names = [name for name in ("small", "gateway") if name in request.fixturenames]
    servers = [request.getfixturevalue(name) for name in names]
    before = [len(server.stderr()) for server in servers]
    yield
    for server, seen in zip(servers, before, strict=True):
        with server.client() as http:
            assert {ask(http, model).status_code for model in ("fake", "other")} == {200, 404}
        assert server.process.poll() is None
        log = server.stderr()[seen:]
        assert "Traceback" not in log, log[-3000:]
        assert "a fault of ours" not in log, log[-3000:]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def admin_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, on each database: its sums are ours alone."""
    servers = StartServer(lambda: tmp_path_factory.mktemp("admin"))
    with contextlib.ExitStack() as stack:
        settings = {}
        if request.param == "postgresql":
            found = request.getfixturevalue("postgres_url")
            settings["database_url"] = stack.enter_context(postgres.new_database(found, "test_admin"))
        stack.callback(servers.stop)
        yield servers(ROUTES, **settings)


@pytest.fixture
def admin(admin_server: Server) -> Iterator[httpx.Client]:
    """The admin's own client of it."""
    with admin_server.client() as client:
        yield client
