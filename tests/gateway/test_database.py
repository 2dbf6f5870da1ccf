"""The door to SQL on both databases: durability in groups, isolation of failures, migrations, secrets."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.database import Database, open_database
from gateway.errors import ConfigError
from promptlab.ports import Migration

metadata = sa.MetaData()
parents = sa.Table(
    "parents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
)
children = sa.Table(
    "children", metadata, sa.Column("parent_id", sa.ForeignKey("parents.id", ondelete="CASCADE"), nullable=False)
)

HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO parents (name) VALUES ('from another process')")
print("held", flush=True)
time.sleep(0.5)
connection.execute("COMMIT")
"""


WRITER = """
import sys
import sqlalchemy as sa
from gateway.database import open_database
from tests.gateway.test_database import add, metadata
database = open_database(sys.argv[1])
database.migrate("family", metadata, [])
for i in range(10_000):
    print(database.write(add(f"n{i}")), flush=True)
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    database.migrate("family", metadata, [])
    yield database
    database.close()


def add(name: str) -> Callable[[sa.Connection], str]:
    return lambda connection: connection.execute(
        sa.insert(parents).values(name=name).returning(parents.c.name)
    ).scalar_one()


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(sa.select(parents.c.name).order_by(parents.c.id)))


def test_a_write_is_seen_by_the_next_read(database: Database) -> None:
    assert database.write(add("a")) == "a"
    assert names(database) == ["a"]


def test_writers_at_once_lose_nothing_and_a_failing_one_fails_alone(database: Database) -> None:
    database.write(add("taken"))
    outcomes: list[str] = []

    def write(name: str) -> None:
        try:
            database.write(add(name))
            outcomes.append("written")
        except sa.exc.IntegrityError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=("taken" if i % 3 == 0 else f"n{i}",)) for i in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count("written"), outcomes.count("refused")) == (40, 20)
    assert len(names(database)) == 41


def test_what_a_failing_writer_did_before_it_failed_is_undone(database: Database) -> None:
    def half(connection: sa.Connection) -> None:
        add("half")(connection)
        raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        database.write(half)
    assert names(database) == []


def test_a_read_sees_one_moment(database: Database) -> None:
    database.write(add("before"))
    with database.read() as connection:
        count = sa.select(sa.func.count()).select_from(parents)
        first = connection.scalar(count)
        database.write(add("meanwhile"))
        assert connection.scalar(count) == first
    assert names(database) == ["before", "meanwhile"]


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        database.write(lambda connection: connection.execute(sa.insert(children).values(parent_id=99)))


def test_like_tells_case_and_ilike_does_not(database: Database) -> None:
    # Beyond ASCII it is PostgreSQL's own locale that says which letters are the same.
    names = ("ÄPFEL", "Äpfel") if database.dialect == "sqlite" else ("APPLES", "Apples")
    for name in names:
        database.write(add(name))
    with database.read() as connection:
        like = connection.scalars(sa.select(parents.c.name).where(parents.c.name.like(f"{names[1][:2]}%"))).all()
        ilike = connection.scalars(sa.select(parents.c.name).where(parents.c.name.ilike(names[1].swapcase()))).all()
    assert (len(like), len(ilike)) == (1, 2)


def test_deadlocked_writers_are_run_again(database: Database) -> None:
    for name in ("a", "b"):
        database.write(add(name))
    both_hold_one = threading.Barrier(2, timeout=10)
    attempts: list[str] = []

    def touch(first: str, second: str) -> None:
        def work(connection: sa.Connection) -> None:
            attempts.append(first)
            connection.execute(sa.update(parents).where(parents.c.name == first).values(name=first))
            # On SQLite they come one after another, so that waiting here would be for ever.
            if database.dialect == "postgresql" and attempts.count(first) == 1:
                both_hold_one.wait()
            connection.execute(sa.update(parents).where(parents.c.name == second).values(name=second))

        database.write(work)

    threads = [threading.Thread(target=touch, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(attempts) == (3 if database.dialect == "postgresql" else 2)


def test_the_folder_of_a_file_is_made(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/folder/of/its/own.db")
    database.migrate("family", metadata, [])
    assert (tmp_path / "folder" / "of" / "its" / "own.db").exists()
    database.close()


def test_what_was_answered_survives_a_kill(database_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, database_url], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as writer:
        assert writer.stdout is not None
        answered = [writer.stdout.readline().strip() for _ in range(50)]
        writer.kill()
        answered += writer.stdout.read().split()
    database = open_database(database_url)
    found = names(database)
    database.close()
    assert answered[:2] == ["n0", "n1"]
    assert found[: len(answered)] == answered


def test_another_process_may_hold_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    database = open_database(f"sqlite:///{path}")
    database.migrate("family", metadata, [])
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        database.write(add("ours"))
    assert names(database) == ["from another process", "ours"]
    database.close()


def test_a_write_inside_a_write_is_refused_not_waited_for(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(RuntimeError, match="wait for itself"):
        database.write(lambda _: database.write(add("never")))
    database.close()
    with pytest.raises(RuntimeError, match="closed"):
        database.write(add("late"))


# ── migrations ───────────────────────────────────────────────────────────────────────────────────


def add_age(operations: Any) -> None:
    operations.add_column("parents", sa.Column("age", sa.Integer))


def longer_names(operations: Any) -> None:
    with operations.batch_alter_table("parents") as batch:
        batch.alter_column("name", type_=sa.Text, existing_type=sa.String, existing_nullable=False)


STEPS = [Migration(2, add_age), Migration(3, longer_names)]


def columns(database: Database) -> list[str]:
    with database.read() as connection:
        return [column["name"] for column in sa.inspect(connection).get_columns("parents")]


def test_old_tables_take_each_step_once_and_keep_their_rows(database_url: str) -> None:
    database = open_database(database_url)
    database.migrate("family", metadata, [])
    database.write(add("kept"))
    database.write(lambda connection: connection.execute(sa.insert(children).values(parent_id=1)))
    for _ in range(2):
        database.migrate("family", metadata, STEPS)
    assert columns(database) == ["id", "name", "age"]
    assert names(database) == ["kept"]
    with database.read() as connection:
        assert connection.scalar(sa.select(children.c.parent_id)) == 1
    database.close()


def test_new_tables_are_born_newest(database_url: str) -> None:
    database = open_database(database_url)
    database.migrate("family", metadata, STEPS)
    database.migrate("family", metadata, STEPS)
    assert columns(database) == ["id", "name"]
    with pytest.raises(ConfigError, match="made by a newer Promptyard"):
        database.migrate("family", metadata, [])
    database.close()


def test_a_step_that_fails_changes_nothing(database: Database) -> None:
    def broken(operations: Any) -> None:
        add_age(operations)
        raise LookupError("no")

    with pytest.raises(LookupError):
        database.migrate("family", metadata, [Migration(2, broken)])
    assert columns(database) == ["id", "name"]
    database.migrate("family", metadata, STEPS)


def test_starting_together_makes_the_tables_once(database_url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        database = open_database(database_url)
        try:
            database.migrate("family", metadata, [])
        except BaseException as error:
            failures.append(error)
        database.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_tables_of_someone_else_are_left_alone(database_url: str) -> None:
    database = open_database(database_url)
    database.write(lambda connection: parents.create(connection))
    with pytest.raises(ConfigError, match="tables that Promptyard did not make"):
        database.migrate("family", metadata, [])
    database.close()


# ── secrets and bad URLs ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me:hush@host/db", "No support for a mysql database"),
        ("sqlite://", "needs a file"),
        ("hush", "cannot be parsed"),
        ("postgresql://me:hush@host:port/db", "cannot be parsed"),
    ],
)
def test_a_url_that_cannot_serve_is_refused_without_repeating_it(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        open_database(url)
    assert "hush" not in str(refused.value)


def test_a_password_is_never_shown() -> None:
    database = open_database("postgresql://me:hush@127.0.0.1:1/db")
    assert "hush" not in repr(database)
    with pytest.raises(sa.exc.OperationalError) as failed:
        database.write(add("x"))
    assert "hush" not in str(failed.value)
    database.close()
