"""Alerts are there once, taken by one process, and due until somebody was told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from gateway.database import Database, open_database
from gateway.store import migrations
from gateway.store.alerts import AlertStore
from gateway.types import Alert

ALERT = Alert(
    "alert_1", 10.0, "key:k", "k", "team_1", False, 50, 5, 10, "1d", 0, 86400, next_try=10.0
)  # fmt: skip


@pytest.fixture
def store(database_url: str) -> Iterator[AlertStore]:
    database: Database = open_database(database_url)
    migrations.migrate(database)
    yield AlertStore(database)
    database.close()


def test_as_much_of_a_budget_is_noted_once(store: AlertStore) -> None:
    assert store.add(ALERT)
    for same in ({}, {"percent": 20}, {"name": "another"}):
        assert not store.add(dataclasses.replace(ALERT, id="alert_2", **same))  # type: ignore[arg-type]  # of several types
    others = ({"percent": 80}, {"soft": True}, {"window_start": 86400}, {"budget": 20}, {"scope": "key:l"})
    for number, other in enumerate(others):
        assert store.add(dataclasses.replace(ALERT, id=f"alert_3{number}", time=20.0 + number, **other))  # type: ignore[arg-type]  # of several types
    assert [one.id for one in store.newest(2)] == ["alert_34", "alert_33"]
    assert store.newest(9, "team_2") == []
    assert store.newest(9)[-1] == ALERT


def test_an_alert_is_due_until_somebody_was_told(store: AlertStore) -> None:
    store.add(ALERT)
    store.add(dataclasses.replace(ALERT, id="alert_2", percent=80, next_try=None))
    assert store.due(9.0) == []
    [due] = store.due(10.0)
    assert store.take(due, 70.0)
    assert not store.take(due, 70.0)  # another process
    assert store.due(11.0) == []
    store.failed(due.id, "no" * 200, 20.0)
    [again] = store.due(20.0)
    assert (again.tries, again.error, again.told_at) == (1, "no" * 100, None)
    store.told(due.id, 21.0)
    assert store.due(1e9) == []
    told = next(one for one in store.newest(9) if one.id == due.id)
    assert (told.tries, told.error, told.told_at, told.next_try) == (2, None, 21.0, None)
    store.failed(due.id, "given up", None)
    assert store.due(1e9) == []
