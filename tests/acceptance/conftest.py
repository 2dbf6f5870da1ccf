"""What a module of acceptance tests shares: an upstream that does as it is told, and servers that stay up for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartServer
from tests.services.gateway import CREDENTIAL
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
