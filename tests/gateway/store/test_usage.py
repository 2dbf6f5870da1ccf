"""Usage in SQL: filled exactly once, found by its id, summed by any groups within any time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gateway.database import Database, open_database
from gateway.store import migrations
from gateway.store.usage import GROUPS, UsageStore
from gateway.types import UsageFilter, UsageRecord, UsageSum

DAY = 86400.0
RECORD = UsageRecord(
    request_id="req_0",
    time=20_000 * DAY,
    key_id="key_1",
    key_name="né 'O\"Brien' 🔑",
    route="chat",
    deployment="local/smollm2",
    task="chat/completions",
    status=200,
    error=None,
    stream=True,
    input_tokens=10,
    output_tokens=5,
    cached_tokens=3,
    cost=1_000,
    priced=True,
    estimated=False,
    latency=0.25,
    first_token=0.125,
)
EVERYTHING = UsageFilter()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    migrations.migrate(database)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> UsageStore:
    return UsageStore(database)


def record(number: int, **changes: Any) -> UsageRecord:
    return dataclasses.replace(RECORD, request_id=f"req_{number}", **changes)


def fill(store: UsageStore, journal: str, records: Sequence[UsageRecord], segment: int, offset: int) -> None:
    """Fill `store` from records as they stand in a journal."""
    rows = [dataclasses.asdict(one) for one in records]
    store.fill(journal, rows, store.position(journal), (segment, offset))


def test_a_record_comes_back_as_it_was(store: UsageStore) -> None:
    refused = record(1, status=429, error="rate_limit_exceeded", first_token=None, stream=False, priced=False)
    big = record(2, input_tokens=2**40, output_tokens=2**40, cached_tokens=2**40, cost=2**60, estimated=True)
    fill(store, "journal", [RECORD, refused, big], 1, 10)
    for one in (RECORD, refused, big):
        assert store.find(one.request_id) == one
    assert store.find("req_unknown") is None


def test_how_far_a_journal_was_copied(store: UsageStore) -> None:
    assert store.position("a") == (1, 0)
    fill(store, "a", [record(1)], 1, 100)
    fill(store, "b", [record(2)], 7, 2**40)
    fill(store, "a", [], 2, 0)
    assert store.position("a") == (2, 0)
    assert store.position("b") == (7, 2**40)
    assert store.sums([], EVERYTHING)[0].calls == 2


def test_records_and_place_are_one_transaction(store: UsageStore) -> None:
    fill(store, "a", [record(1)], 1, 100)
    unstorable = record(3, status=None)
    with pytest.raises(Exception, match=r"(?i)null"):
        fill(store, "a", [record(2), unstorable], 1, 200)
    assert store.position("a") == (1, 100)
    assert store.find("req_2") is None


CALLS = [
    record(1),
    record(2, time=20_000 * DAY + 1, cost=2_000),
    record(3, time=20_001 * DAY - 0.001, status=502, error="upstream_failed", input_tokens=0, output_tokens=0, cost=0),
    record(4, time=20_001 * DAY, key_id="key_2", key_name="other", deployment="gpu/qwen"),
    record(5, time=20_001 * DAY + 5, key_id="key_3", key_name="other", route="embed", status=499),
    record(6, time=20_003 * DAY, key_id="key_3", key_name="other", route="", deployment="", status=429, cost=0),
]
NAME = RECORD.key_name


def row(calls: int, failed: int, tokens: int, cost: int, **group: Any) -> UsageSum:
    return UsageSum(group, calls, failed, failed, 10 * tokens, 5 * tokens, cost)  # nobody was asked of any of them


SUMS: dict[str, tuple[list[str], UsageFilter, list[UsageSum]]] = {
    "all of it": ([], EVERYTHING, [row(6, 3, 5, 5_000)]),
    "by key": (["key"], EVERYTHING, [row(3, 1, 2, 3_000, key=NAME), row(3, 2, 3, 2_000, key="other")]),
    "two keys of one name": (
        ["key_id"],
        EVERYTHING,
        [row(3, 1, 2, 3_000, key_id="key_1"), row(1, 0, 1, 1_000, key_id="key_2"), row(2, 2, 2, 1_000, key_id="key_3")],
    ),
    "by route": (
        ["route"],
        EVERYTHING,
        [row(1, 1, 1, 0, route=""), row(4, 1, 3, 4_000, route="chat"), row(1, 1, 1, 1_000, route="embed")],
    ),
    "by deployment": (
        ["deployment"],
        EVERYTHING,
        [
            row(1, 1, 1, 0, deployment=""),
            row(1, 0, 1, 1_000, deployment="gpu/qwen"),
            row(4, 2, 3, 4_000, deployment="local/smollm2"),
        ],
    ),
    "by day, midnight being the next": (
        ["day"],
        EVERYTHING,
        [row(3, 1, 2, 3_000, day=20_000), row(2, 1, 2, 2_000, day=20_001), row(1, 1, 1, 0, day=20_003)],
    ),
    "by two": (
        ["day", "key"],
        EVERYTHING,
        [
            row(3, 1, 2, 3_000, day=20_000, key=NAME),
            row(2, 1, 2, 2_000, day=20_001, key="other"),
            row(1, 1, 1, 0, day=20_003, key="other"),
        ],
    ),
    "since is inclusive": ([], UsageFilter(since=20_001 * DAY), [row(3, 2, 3, 2_000)]),
    "until is exclusive": ([], UsageFilter(until=20_001 * DAY), [row(3, 1, 2, 3_000)]),
    "between": (["route"], UsageFilter(20_001 * DAY, 20_001 * DAY + 1), [row(1, 0, 1, 1_000, route="chat")]),
    "one key's": (["key_id"], UsageFilter(key_id="key_2"), [row(1, 0, 1, 1_000, key_id="key_2")]),
    "nobody's": (["key"], UsageFilter(key_id="' OR 1=1 --"), []),
    "nobody's in all": ([], UsageFilter(key_id="nobody"), [row(0, 0, 0, 0)]),
    "an hour that never was": ([], UsageFilter(2e9, 1e9), [row(0, 0, 0, 0)]),
}


@pytest.mark.parametrize(("by", "only", "expected"), SUMS.values(), ids=SUMS)
def test_sums(store: UsageStore, by: list[str], only: UsageFilter, expected: list[UsageSum]) -> None:
    fill(store, "journal", CALLS, 1, 1)
    assert store.sums(by, only) == expected


def test_everything_can_be_grouped_by_everything_at_once(store: UsageStore) -> None:
    fill(store, "journal", CALLS, 1, 1)
    rows = store.sums(GROUPS, EVERYTHING)
    assert sum(row.calls for row in rows) == len(CALLS)
    assert all(set(row.group) == set(GROUPS) for row in rows)


def test_large_sums_are_exact(store: UsageStore) -> None:
    fill(store, "journal", [record(number, cost=2**62 // 2, input_tokens=2**61) for number in range(3)], 1, 1)
    (total,) = store.sums([], EVERYTHING)
    assert total.cost == 3 * (2**62 // 2)
    assert total.input_tokens == 3 * 2**61
