"""Sums over days and parts of days are those of the lines, whatever is asked; and the check finds what is not."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pyarrow import parquet

from gateway.database import Database, open_database
from gateway.store import migrations
from gateway.store.usage import COLUMNS, GROUPS, UsageStore
from gateway.types import Rule, UsageFilter, UsageRecord
from tests.acceptance.test_cli import run
from tests.gateway.store.test_tables import older
from tests.gateway.store.test_usage import fill, record

DAY = 86400


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    migrations.migrate(database)
    yield database
    database.close()


def records(count: int, draw: random.Random) -> list[UsageRecord]:
    """Lines of six days, some at the very edges of them."""
    return [
        record(
            number,
            time=draw.choice([draw.uniform(0, 6 * DAY), draw.randrange(7) * DAY, draw.randrange(1, 6) * DAY - 0.001]),
            key_id=draw.choice(["key_1", "key_2"]),
            key_name=draw.choice(["one", "two"]),
            team_id=draw.choice(["", "team_1", "team_2"]),
            organisation_id=draw.choice(["", "org_1"]),
            route=draw.choice(["chat", "other", ""]),
            fallback=draw.choice([None, None, "other"]),
            deployment=draw.choice(["a/m", "b/m"]),
            status=draw.choice([200, 200, 429, 502]),
            cost=draw.randrange(10**12),
            final=draw.random() < 0.8,
            attempt=draw.randrange(3),
            end_user=draw.choice(["", "ann@x.org", "bob's: 50%/"]),
        )
        for number in range(count)
    ]


def test_any_sum_is_that_of_the_lines(database: Database) -> None:
    store, draw = UsageStore(database), random.Random(11)
    lines = records(400, draw)
    for page in range(8):
        fill(store, "a", lines[50 * page : 50 * page + 50], 1, page + 1)
    for _ in range(60):
        edges = sorted(draw.choice([draw.uniform(0, 6 * DAY), draw.randrange(7) * DAY]) for _ in range(2))
        only = UsageFilter(
            draw.choice([None, edges[0]]),
            draw.choice([None, edges[1]]),
            draw.choice([None, "key_1"]),
            end_user=draw.choice([None, None, "", "ann@x.org"]),
        )
        by = draw.sample([*GROUPS], draw.randrange(4))
        wanted: dict[tuple[str | int, ...], list[int]] = defaultdict(lambda: [0] * 6)
        for one in lines:
            before = only.since is not None and one.time < only.since
            after = only.until is not None and one.time >= only.until
            mine = only.key_id in (None, one.key_id) and only.end_user in (None, one.end_user)
            if before or after or not mine:
                continue
            facts = {
                "key": one.key_name,
                "team": one.team_id,
                "organisation": one.organisation_id,
                "user": one.end_user,
                "day": int(one.time // DAY),
                **vars(one),
            }
            total = wanted[tuple(facts[name] for name in by)]
            failed = one.final and one.status >= 400
            used = (one.input_tokens, one.output_tokens, one.cost)
            added = (one.final, failed, failed and not one.attempt, *used)
            total[:] = [sum(pair) for pair in zip(total, added, strict=True)]
        found = {
            tuple(one.group[name] for name in by): [
                one.calls, one.failed, one.refused, one.input_tokens, one.output_tokens, one.cost,
            ]
            for one in store.sums(by, only)
        }  # fmt: skip
        assert found == (wanted or ({(): [0] * 6} if not by else {}))
        for whose, mine in (("key:key_1", lambda one: one.key_id == "key_1"),
                            ("team:team_1", lambda one: one.team_id == "team_1"),
                            ("organisation:org_1", lambda one: one.organisation_id == "org_1"),
                            ("user:key:key_1/", lambda one: one.key_id == "key_1" and not one.end_user),
                            ("user:team:team_1/bob's: 50%/",
                             lambda one: one.team_id == "team_1" and one.end_user == "bob's: 50%/"),
                            ("route:other", lambda one: (one.fallback or one.route) == "other")):  # fmt: skip
            theirs = [one for one in lines if mine(one) and edges[0] <= one.time < edges[1]]
            told = {rule: store.used(rule, whose, edges[0], edges[1]) for rule in (Rule.BUDGET, Rule.RPD, Rule.TPD)}
            assert told == {
                Rule.BUDGET: sum(one.cost for one in theirs),
                Rule.RPD: sum(one.final and not (one.status >= 400 and not one.attempt) for one in theirs),
                Rule.TPD: sum(one.input_tokens + one.output_tokens for one in theirs),
            }
    assert store.check() == []


def test_lines_of_an_older_version_are_summed_once(database: Database) -> None:
    store = UsageStore(database)
    fill(store, "a", records(100, random.Random(3)), 1, 1)
    before = store.sums(["key", "day"], UsageFilter())
    older(database, 3)
    migrations.migrate(database)
    assert store.sums(["key", "day"], UsageFilter()) == before
    fill(store, "a", [record(1000)], 1, 2)
    assert store.check() == []


def test_books_that_do_not_add_up_are_told(database: Database) -> None:
    store = UsageStore(database)
    fill(store, "a", [record(1, attempt=1), record(2, attempt=1)], 1, 1)
    fill(store, "a", [record(2, attempt=1)], 1, 2)
    assert store.check() == ["attempt 1 of req_2 has 2 lines"]
    wrong = sa.text("UPDATE gateway_usage_days SET cost = cost + 1")
    database.write(lambda connection: connection.execute(wrong))
    [said, _] = store.check()
    assert said.startswith(
        "day 20000, key key_1, route chat, deployment local/smollm2: cost is 3001, its lines come to"
    )


def test_the_command_line_checks_and_exports(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = open_database(f"sqlite:///{tmp_path}/data/gateway.db")
    migrations.migrate(database)
    fill(UsageStore(database), "a", [record(1, attempt=1), record(2, error='a, "b"\nc')], 1, 1)
    done = run("ledger", "check", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 lines: all adds up.\n")
    exported = run("ledger", "export", cwd=tmp_path).stdout
    first, second = csv.DictReader(io.StringIO(exported))
    assert tuple(first) == COLUMNS
    assert (first["request_id"], first["cost_nano_usd"], second["error"]) == ("req_1", "1000", 'a, "b"\nc')
    run("ledger", "export", "--output", "lines.csv", "--since", "2030-01-01", cwd=tmp_path)
    assert (tmp_path / "lines.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert run("ledger", "export", "--parquet", "--output", "lines.parquet", cwd=tmp_path).returncode == 0
    lines = parquet.read_table(tmp_path / "lines.parquet").to_pylist()
    sent = [record(1, attempt=1), record(2, error='a, "b"\nc')]
    assert lines == [{name: vars(one)[name.removesuffix("_nano_usd")] for name in COLUMNS} for one in sent]
    assert "name it with --output" in run("ledger", "export", "--parquet", cwd=tmp_path).stderr
    database.write(lambda connection: connection.exec_driver_sql("DELETE FROM gateway_usage_days"))
    database.close()
    done = run("ledger", "check", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["lines"] == 2
    assert len(json.loads(done.stdout)["differences"]) == 4
    assert "--since" in run("ledger", "export", "--since", "yesterday", cwd=tmp_path).stderr
