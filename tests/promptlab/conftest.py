"""A lab, and a server with a lab inside, on both databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.database import open_database
from promptlab.artifacts import Artifacts
from promptlab.lab import Lab
from promptlab.ports import Database
from tests.promptlab.serving import serving
from tests.services import postgres


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database; the test runs once on SQLite and once on PostgreSQL."""
    database = open_database(database_url)
    yield database
    database.close()


@pytest.fixture
def lab(database: Database, tmp_path: Path) -> Lab:
    """A new lab on both databases, with the experiment `Default` in it."""
    return Lab(database, Artifacts(tmp_path / "artifacts"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database that a module's tests share: a new PostgreSQL database for each test takes its time."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('shared')}/lab.db"
        return
    of_server = request.getfixturevalue("postgres_url")
    with postgres.new_database(of_server, f"lab_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(scope="module")
def shared_lab(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that a module's tests share."""
    database = open_database(shared_url)
    yield Lab(database, Artifacts(tmp_path_factory.mktemp("artifacts")))
    database.close()


@pytest.fixture(scope="module")
def server(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that a module's tests share, once on each database."""
    with serving(shared_url, tmp_path_factory.mktemp("artifacts")) as address:
        yield address


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    """A plain HTTP client of that server."""
    with httpx.Client(base_url=server) as client:
        yield client
