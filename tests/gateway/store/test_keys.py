"""Keys in SQL: what went in comes out, and every change is seen by whoever watches the number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from gateway.database import open_database
from gateway.owners import Key, Scope
from gateway.routes import Limits
from gateway.store import migrations
from gateway.store.keys import KeyStore

BY = "key_0"
PLAIN = Key("key_1", "plain", frozenset({Scope.INFERENCE}), created_at=1.5)
FULL = Key(
    "key_2",
    "ünïcödé 🔑 \"'%_\\",
    frozenset(Scope),
    routes=frozenset({"chat", "a,b", 'c"d'}),
    denied=frozenset({"*", 'c"*'}),
    limits=Limits(1, 2**31 - 1, 7),
    created_at=1_800_000_000.123456,
    expires_at=1_900_000_000.654321,
    revoked_at=1_850_000_000.5,
    blocked_at=1_850_000_000.25,
    metadata={"näme": "'\"", "b": ""},
    tags=frozenset({"a,b", "ü"}),
)
NOTHING = Key("key_3", "may call nothing", frozenset({Scope.TRACKING}), routes=frozenset(), created_at=1.0)


@pytest.fixture
def store(database_url: str) -> Iterator[KeyStore]:
    database = open_database(database_url)
    migrations.migrate(database)
    yield KeyStore(database)
    database.close()


def test_what_went_in_comes_out_oldest_first(store: KeyStore) -> None:
    for key in (FULL, PLAIN, NOTHING):
        store.add(key, f"hash of {key.id}", BY)
    assert list(store.all().items()) == [
        ("hash of key_3", NOTHING),
        ("hash of key_1", PLAIN),
        ("hash of key_2", FULL),
    ]


def test_every_change_raises_the_number(store: KeyStore) -> None:
    seen = [store.version()]
    store.add(PLAIN, "1", BY)
    seen.append(store.version())
    store.add(NOTHING, "2", BY)
    seen.append(store.version())
    store.revoke(PLAIN.id, 2.0, BY)
    seen.append(store.version())
    assert seen == [0, 1, 2, 3]


def test_revoked_once_and_alone(store: KeyStore) -> None:
    store.add(PLAIN, "1", BY)
    store.add(NOTHING, "2", BY)
    store.revoke(PLAIN.id, 2.0, BY)
    store.revoke(PLAIN.id, 3.0, BY)
    store.revoke("key_unknown", 4.0, BY)
    assert store.all() == {"1": dataclasses.replace(PLAIN, revoked_at=2.0), "2": NOTHING}


@pytest.mark.parametrize("again", [PLAIN, dataclasses.replace(PLAIN, id="key_9")], ids=["the id", "the hash"])
def test_nothing_is_stored_twice(store: KeyStore, again: Key) -> None:
    store.add(PLAIN, "1", BY)
    with pytest.raises(IntegrityError):
        store.add(again, "1" if again.id != PLAIN.id else "2", BY)
    assert store.all() == {"1": PLAIN}
    assert store.version() == 1


def test_a_change_is_made_to_what_is_there(store: KeyStore) -> None:
    store.add(FULL, "1", BY)
    store.add(PLAIN, "2", BY)
    changed = store.change(FULL.id, lambda key: dataclasses.replace(key, name=key.name + "!"), BY)
    assert changed == dataclasses.replace(FULL, name=FULL.name + "!")
    assert store.all() == {"1": changed, "2": PLAIN}
    assert store.change("key_0", lambda key: key, BY) is None


def test_two_changes_at_once_are_both_made(store: KeyStore, database_url: str) -> None:
    store.add(PLAIN, "1", BY)
    database = open_database(database_url)
    stores = [store, KeyStore(database)]

    def more(which: int) -> None:
        for _ in range(20):
            stores[which].change(PLAIN.id, lambda key: dataclasses.replace(key, name=key.name + "!"), BY)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(more, range(2)))
    database.close()
    assert store.all()["1"].name == PLAIN.name + 40 * "!"


def test_the_secret_before_goes_on_for_its_time(store: KeyStore) -> None:
    store.add(dataclasses.replace(PLAIN, expires_at=500.0), "1", BY)
    store.rotate(PLAIN.id, "2", 100.0, BY)
    assert {one: key.expires_at for one, key in store.all().items()} == {"2": 500.0, "1": 100.0}
    store.rotate(PLAIN.id, "3", 900.0, BY)
    assert {one: key.expires_at for one, key in store.all().items()} == {"3": 500.0, "2": 500.0}
    store.rotate(PLAIN.id, "4", None, BY)
    assert list(store.all()) == ["4"]
