"""What a kill cut short is settled at the next start, once, at the most it may have cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway import journal as journal_module
from gateway.database import Database, open_database
from gateway.errors import ConfigError
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.server import open_gateway_database, settle_workers
from gateway.server_workers import journal_of
from gateway.settings import Settings
from gateway.store import migrations
from gateway.store.usage import UsageStore
from gateway.types import UsageFilter, UsageRecord

DOLLAR = 10**9


class Lives:
    """A ledger that is killed and started again, over one journal and one database."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database
        self._journal: Journal | None = None
        self.ledger = self.start()

    def start(self) -> Ledger:
        self._journal = Journal(self.folder)
        return Ledger(self._journal, UsageStore(self._database))

    def kill(self) -> None:
        """What the kernel does for a killed process: its files are closed, and nothing else is written."""
        assert self._journal is not None
        self._journal.close()

    def again(self) -> int:
        """Kill it, start anew; how many attempts were found cut short."""
        self.kill()
        self.ledger = self.start()
        return self.ledger.recover()

    def begin(self, call: str, attempt: int = 1, **fields: Any) -> None:
        begun = {"request_id": call, "attempt": attempt, "time": 100.0, "key_id": "k", "key_name": "key", "route": "r",
                 "deployment": "p/m", "task": "chat/completions", "stream": False, "input_tokens": 7,
                 "cost": 2 * DOLLAR, "fallback": None}  # fmt: skip
        self.ledger.begin(tuple({**begun, **fields}.values()))

    def settle(self, call: str, attempt: int = 1, cost: int = DOLLAR, **fields: Any) -> None:
        self.ledger.add(
            UsageRecord(call, 100.0, "k", "key", "r", "p/m", "chat/completions", 200, cost=cost, attempt=attempt,
                        **fields)
        )  # fmt: skip

    async def sums(self) -> tuple[int, int, int]:
        """Calls, failed ones and dollars."""
        [total] = await self.ledger.sums([], UsageFilter())
        return total.calls, total.failed, total.cost // DOLLAR


@pytest.fixture
def lives(tmp_path: Path, database_url: str) -> Iterator[Lives]:
    database = open_database(database_url)
    migrations.migrate(database)
    made = Lives(tmp_path / "journal", database)
    yield made
    made.kill()
    database.close()


async def test_what_was_begun_and_not_settled_is_recorded_at_the_most_it_may_cost(lives: Lives) -> None:
    lives.begin("req_1")
    lives.begin("req_2", fallback="other")
    lives.settle("req_1")
    assert lives.again() == 1
    found = await lives.ledger.find("req_2")
    assert found is not None
    assert (found.cost, found.input_tokens, found.estimated, found.fallback) == (2 * DOLLAR, 7, True, "other")
    assert (found.status, found.error, found.final, found.attempt) == (500, "interrupted", True, 1)
    assert await lives.sums() == (2, 1, 3)


async def test_another_kill_finds_nothing_to_do(lives: Lives) -> None:
    lives.begin("req_1")
    assert [lives.again() for _ in range(3)] == [1, 0, 0]
    assert await lives.sums() == (1, 1, 2)
    assert lives.again() == 0
    assert await lives.sums() == (1, 1, 2)


@pytest.mark.parametrize("filled", [True, False])
async def test_it_is_found_wherever_sql_was(lives: Lives, filled: bool) -> None:
    lives.begin("req_1")
    lives.begin("req_2")
    lives.settle("req_2")
    if filled:
        await lives.ledger.flush()
    lives.begin("req_3")
    lives.settle("req_3")
    if filled:
        await lives.ledger.flush()
    assert lives.again() == 1
    assert await lives.sums() == (3, 1, 4)


async def test_segments_with_an_open_attempt_are_kept(
    lives: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SEGMENT_SIZE", 2000)
    folder = tmp_path / "journal"
    lives.begin("req_long")
    for number in range(50):
        lives.begin(f"req_{number}")
        lives.settle(f"req_{number}")
    await lives.ledger.flush()
    await lives.ledger.flush()
    assert len(list(folder.glob("usage-*"))) > 5
    lives.settle("req_long")
    lives.begin("req_last")
    await lives.ledger.flush()
    await lives.ledger.flush()
    assert len(list(folder.glob("usage-*"))) <= 2
    assert lives.again() == 1
    assert await lives.sums() == (52, 1, 53)


class Busy(UsageStore):
    """One in whose time calls go on."""

    lives: Lives
    fills = 0

    def fill(self, *given: Any) -> None:
        Busy.fills += 1
        super().fill(*given)
        if Busy.fills < 50:
            self.lives.settle(f"req_after_{Busy.fills}")


async def test_a_copy_to_sql_ends_where_the_journal_ended_when_it_began(lives: Lives, database_url: str) -> None:
    database = open_database(database_url)
    store = Busy(database)
    store.lives, Busy.fills = lives, 0
    lives.kill()
    journal = Journal(lives.folder)
    lives.ledger = Ledger(journal, store)
    lives.settle("req_1")
    await lives.ledger.flush()
    assert Busy.fills == 1
    assert (await lives.sums())[0] == 2
    journal.close()
    database.close()
    lives.ledger = lives.start()


async def test_attempts_of_one_call_are_one_call(lives: Lives) -> None:
    lives.begin("req_1")
    lives.settle("req_1", 1, final=False)
    lives.begin("req_1", 2)
    lives.begin("req_1", 3)
    assert lives.again() == 2
    assert await lives.sums() == (1, 1, 5)


async def test_a_torn_beginning_was_never_asked(lives: Lives, tmp_path: Path) -> None:
    lives.begin("req_1")
    lives.settle("req_1")
    lives.begin("req_2")
    lives.kill()
    [segment] = (tmp_path / "journal").glob("usage-*")
    segment.write_bytes(segment.read_bytes()[:-20])
    lives.ledger = lives.start()
    assert lives.ledger.recover() == 0
    assert await lives.sums() == (1, 0, 1)


async def test_damaged_lines_are_passed_over(lives: Lives, tmp_path: Path) -> None:
    lives.begin("req_1")
    lives.kill()
    [segment] = (tmp_path / "journal").glob("usage-*")
    with segment.open("ab") as file:
        file.write(b'["begun",\n["begun","req_2"]\n["begun","req_3",1]\nnothing\n')
    lives.ledger = lives.start()
    assert lives.ledger.recover() == 1
    assert await lives.sums() == (1, 1, 2)


@pytest.fixture
def two_workers(tmp_path: Path, database_url: str) -> Iterator[tuple[Settings, Database]]:
    settings = Settings(data=tmp_path, database_url=SecretStr(database_url), workers=2)
    database = open_gateway_database(settings)
    yield settings, database
    database.close()


@pytest.mark.parametrize("before", [2, 4])
async def test_what_a_kill_cut_short_of_workers_is_settled_before_any_of_them_answers(
    two_workers: tuple[Settings, Database], before: int
) -> None:
    settings, database = two_workers
    former = [Lives(journal_of(settings, number), database) for number in range(1, before + 1)]
    for number, one in enumerate(former):
        one.begin(f"req_{number}")
        one.kill()
    for _ in range(2):  # a second start finds nothing more
        settle_workers(settings, database)
        own = Lives(settings.data / "journal", database)
        assert await own.sums() == (before, before, 2 * before)
        own.kill()


def test_the_journal_of_a_worker_that_is_not_gone_yet_is_left_to_the_next(
    two_workers: tuple[Settings, Database],
) -> None:
    settings, database = two_workers
    held, foreign = Lives(journal_of(settings, 2), database), Lives(journal_of(settings, 9), database)
    with pytest.raises(ConfigError, match="already serves"):
        settle_workers(settings, database)
    foreign.kill()
    held.begin("req_1")
    settle_workers(settings, database)
    assert held.again() == 1
    held.kill()
