"""What tests may ask for: both databases, both kinds of counters, a browser, and the whole product as a process."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page

from tests.services import browser as chromium
from tests.services import postgres, promptyard
from tests.services import redis as redis_service
from tests.services.found import Found, Missing, under_ci
from tests.services.pages import Watch
from tests.services.promptyard import Server
from tests.services.threads import trace_one_at_a_time

ROOT = Path(__file__).parents[1]
FAILED = pytest.StashKey[bool]()

# The model that needs no network, and the provider whose answers a test scripts.
ROUTES = """\
providers:
  local: {type: embedded}
  fake: {type: fake}
routes:
  chat:
    deployments: [{provider: local, model: smollm2}]
  embed:
    task: embeddings
    deployments: [{provider: local, model: smollm2}]
  fake:
    deployments: [{provider: fake, model: fake}]
"""


class StartServer:
    """`start_server(config_text, **options)`; the options are those of `tests.services.promptyard.start`."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self.started: list[Server] = []

    def __call__(self, config: str | Path = ROUTES, **options: Any) -> Server:
        """A running server in a folder of its own. `config` is the text of a routes.yaml, or the path of one."""
        home = self._folder()
        path = config if isinstance(config, Path) else home / "routes.yaml"
        if isinstance(config, str):
            path.write_text(config)
        server = promptyard.start(path, home, **options)
        self.started.append(server)
        return server

    def stop(self) -> None:
        """Stop every server with Ctrl-C, and require of each a clean end."""
        complaints = []
        for server in reversed(self.started):
            try:
                server.stop()
            except AssertionError as error:
                complaints.append(str(error))
            server.reap()
        assert not complaints, "\n".join(complaints)


def required(service: Found | Missing) -> Found:
    """The service, or the end of this test: skipped with the sentence that names the cure, failed where CI=true."""
    if isinstance(service, Found):
        return service
    if under_ci():
        pytest.fail(service.sentence, pytrace=False)
    pytest.skip(service.sentence)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a real PostgreSQL server; ask for `fresh_postgres` unless the server itself is the subject."""
    with postgres.running(required(postgres.locate())) as url:
        yield url


@pytest.fixture
def fresh_postgres(postgres_url: str) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database, dropped after the test."""
    with postgres.new_database(postgres_url, f"test_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real Redis server; ask for `fresh_redis` unless the server itself is the subject."""
    with redis_service.running(required(redis_service.locate())) as url:
        yield url


@pytest.fixture
def fresh_redis(redis_url: str) -> str:
    """The URL of an empty Redis: keys and loaded scripts of earlier tests are gone."""
    redis_service.empty(redis_url)
    return redis_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fresh.db'}"
    url: str = request.getfixturevalue("fresh_postgres")
    return url


@pytest.fixture(params=["memory", "redis"])
def counters_kind(request: pytest.FixtureRequest) -> str:
    """`memory` or `redis`; the test runs once with each."""
    kind: str = request.param
    return kind


@pytest.fixture
def redis_or_none(counters_kind: str, request: pytest.FixtureRequest) -> str | None:
    """None for counters in memory, else the URL of an empty Redis; the test runs once with each."""
    if counters_kind == "memory":
        return None
    url: str = request.getfixturevalue("fresh_redis")
    return url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real headless Chromium, one for each module.

    Playwright's sync API marks an asyncio loop as running in this thread until it is closed, so
    a module with browser tests holds plain `def` tests only. Per module, not per session:
    coroutine tests of the next module find a free thread again.
    """
    with chromium.running(required(chromium.locate()).program) as opened:
        yield opened


@pytest.fixture
def pages(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watch]:
    """Opens pages (`pages.open(url, width=400, color_scheme="dark")`).

    The test fails on an error in the console that it did not announce (`pages.expect(pattern)`)
    and on any request that leaves this machine. A failed test leaves screenshots in its tmp_path.
    """
    watch = Watch(browser)
    try:
        yield watch
        complaints = watch.complaints()
        if complaints or request.node.stash.get(FAILED, False):
            taken = ", ".join(map(str, watch.screenshots(tmp_path)))
            request.node.add_report_section("teardown", "screenshots", taken)
        assert not complaints, "\n".join(complaints)
    finally:
        watch.close()


@pytest.fixture
def page(pages: Watch) -> Page:
    """One page, 1280 by 800, light; see `pages`."""
    return pages.open()


def pytest_configure(config: pytest.Config) -> None:
    """Have Ctrl-C interrupt a worker once: xdist sends it again, and would cut short the fixtures that stop servers.

    And no thread of a test lost to coverage.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)
        raise KeyboardInterrupt

    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, interrupt)
    trace_one_at_a_time()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None]:
    """After Ctrl-C, end what a worker had no time to stop: xdist kills it after ten seconds."""
    started = psutil.Process().children(recursive=True) if exitstatus == pytest.ExitCode.INTERRUPTED else []
    yield
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a module that mixes browser tests and coroutine tests; see `browser`."""
    functions = [item for item in items if isinstance(item, pytest.Function)]
    with_browser = {item.path for item in functions if "browser" in item.fixturenames}
    for item in functions:
        if item.path in with_browser and inspect.iscoroutinefunction(item.function):
            raise pytest.UsageError(f"{item.nodeid}: a coroutine among browser tests; give it a module of its own")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say beside a failed test what its servers logged, and remember the failure for its fixtures."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        servers: list[Server] = []
        for each in getattr(item, "funcargs", {}).values():
            servers += each.started if isinstance(each, StartServer) else [each] if isinstance(each, Server) else []
        logs = {server.url: server.stderr() for server in servers}
        report.sections += [(f"log of {url}", log[-5000:]) for url, log in logs.items()]
    return report


@pytest.fixture(scope="module", autouse=True)
def _environment_of_its_own() -> Iterator[None]:
    """What a module's tests leave in the environment ends with them: MLflow's client keeps its experiment there."""
    before = dict(os.environ)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts the whole product for this test: `start_server(config_text, admin_key=None, database_url=…, lab=True)`."""
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="session")
def _shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    servers = StartServer(lambda: tmp_path_factory.mktemp("shared-server"))
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="session")
def server(_shared_servers: StartServer) -> Server:
    """The shared server: an admin key, SQLite, the lab; routes `chat` and `embed` (embedded model) and `fake`."""
    return _shared_servers(ROUTES, lab=True)


@pytest.fixture(scope="session")
def protected_server(_shared_servers: StartServer) -> Server:
    """The server a stranger gets from `make serve`, without network: no admin key, the default routes.yaml, the lab."""
    return _shared_servers(ROOT / "routes.yaml", admin_key=None, lab=True, shut=True)
