"""What a module of acceptance tests shares: an upstream that does as it is told, and servers that stay up for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartServer
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
