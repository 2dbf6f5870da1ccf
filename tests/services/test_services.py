"""The services are real, empty when promised, and come from their wheels where the machine has none."""

import asyncio
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from tests.conftest import required
from tests.services import postgres, redis
from tests.services.found import Found, Missing
from tests.services.process import free_port


def tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


@pytest.mark.parametrize("_again", range(2))
def test_every_test_gets_an_empty_postgres_database(fresh_postgres: str, _again: int) -> None:
    assert tables(fresh_postgres) == []
    with psycopg.connect(fresh_postgres) as connection:
        connection.execute("CREATE TABLE mine (id int)")
    assert tables(fresh_postgres) == ["mine"]


@pytest.mark.parametrize("_again", range(2))
def test_every_test_gets_an_empty_redis(fresh_redis: str, _again: int) -> None:
    with redis_client.Redis.from_url(fresh_redis) as client:
        assert client.dbsize() == 0
        client.set("mine", "1")


def test_a_database_is_dropped_though_somebody_is_still_connected(postgres_url: str) -> None:
    with postgres.new_database(postgres_url, "left_open") as url:
        connection = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_both_databases_and_both_counters_are_offered(database_url: str, redis_or_none: str | None) -> None:
    assert database_url.startswith(("sqlite:///", "postgresql://"))
    assert redis_or_none is None or redis_or_none.startswith("redis://127.0.0.1:")


def test_the_wheel_of_postgres_serves_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres, "FOLDERS", ())
    found = required(postgres.locate())
    assert "wheel" in found.origin
    with postgres.running(found) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)


def test_a_redis_that_does_not_run_is_no_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("not a program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis, "services_home", lambda: tmp_path / "nothing")
    missing = redis.locate()
    assert isinstance(missing, Missing)
    assert "redis" in missing.brings


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_service_fails_under_ci_and_is_skipped_elsewhere(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"Redis is missing: gone\. This brings it: brew"):
        required(Missing("Redis", "gone", "brew install redis"))


def test_a_found_service_is_handed_on() -> None:
    found = Found("Redis", "/usr/bin/redis-server", "7.0", "on PATH")
    assert required(found) is found


async def test_a_coroutine_finds_no_loop_left_by_the_browser_of_an_earlier_module() -> None:
    await asyncio.sleep(0)


def test_free_ports_can_be_listened_on() -> None:
    assert 1024 <= free_port() < 65536


def test_the_lock_names_one_file_by_hash() -> None:
    lines = [line for line in redis.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    assert "==" in lines[0]
    assert " --hash=sha256:" in lines[0]
