"""The audit: a line for every deed, in its transaction; a changed, missing or foreign line is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway import audit
from gateway.database import Database, open_database
from gateway.errors import BadRequest
from gateway.keys import Keys
from gateway.owners import TenantKind
from gateway.store import migrations
from gateway.store.audit import START, AuditStore, Deed
from gateway.store.keys import KeyStore
from gateway.store.tenants import TenantStore
from gateway.tenants import Tenants

Open = Callable[[], Database]
COLUMNS = 'time, "by", action, subject, detail, seal'


@pytest.fixture
def opened(database_url: str) -> Iterator[Open]:
    """Opens the same database again, as another process would."""
    databases: list[Database] = []

    def open_again() -> Database:
        databases.append(open_database(database_url))
        migrations.migrate(databases[-1])
        return databases[-1]

    yield open_again
    for database in databases:
        database.close()


def run(database: Database, statement: str) -> None:
    database.write(lambda connection: connection.exec_driver_sql(statement) and None)


def test_a_line_for_every_deed(opened: Open) -> None:
    database = opened()
    keys, store = Keys(KeyStore(database)), AuditStore(database)
    tenants = Tenants(TenantStore(database), keys.refresh)
    assert audit.verify(store) == (0, START, None)
    team = tenants.create(TenantKind.TEAM, "ops", by="key_a")
    key, secret = keys.create("née", by="key_a", tags=["x"])
    keys.change(key.id, lambda _: {"team": team, "blocked": True}, "key_b")
    with pytest.raises(BadRequest):
        keys.change(key.id, lambda _: {"name": ""}, "key_b")
    _, second = keys.rotate(key.id, 60, "key_b")
    keys.revoke(key.id)
    tenants.change(TenantKind.TEAM, team.id, lambda _: {"name": "dev"}, "key_c")
    store.add(Deed("key_d", "config.reload", "v1", []))
    lines = list(store.lines())
    assert [(one.by, one.action, one.subject) for one in lines] == [
        ("key_a", "team.create", team.id),
        ("key_a", "key.create", key.id),
        ("key_b", "key.update", key.id),
        ("key_b", "key.rotate", key.id),
        ("command line", "key.revoke", key.id),
        ("key_c", "team.update", team.id),
        ("key_d", "config.reload", "v1"),
    ]
    assert set(dataclasses.asdict(key)) >= {"name"}
    assert '"team_id"' in lines[2].detail
    assert '"name"' not in lines[2].detail
    assert lines[5].detail == '{"name": "dev"}'
    text = str(lines)
    assert secret not in text
    assert second not in text
    assert not {digest for digest in KeyStore(database).all() if digest in text}
    assert audit.verify(store) == (7, lines[-1].seal, None)
    assert store.newest(2) == lines[:-3:-1]
    assert store.newest(2, lines[3].id) == lines[2:0:-1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE gateway_audit SET \"by\" = 'key_z' WHERE id = 3",
        "UPDATE gateway_audit SET detail = '{}' WHERE id = 3",
        "UPDATE gateway_audit SET time = time + 1 WHERE id = 3",
        "DELETE FROM gateway_audit WHERE id = 2",
        f"INSERT INTO gateway_audit (id, {COLUMNS}) SELECT 99, {COLUMNS} FROM gateway_audit WHERE id = 3",
    ],
)
def test_what_was_changed_later_is_found(opened: Open, statement: str) -> None:
    database = opened()
    store = AuditStore(database)
    for number in range(5):
        store.add(Deed("key_a", "test", str(number)))
    run(database, statement)
    assert audit.verify(store).broken == (99 if statement.startswith("INSERT") else 3)


def test_a_seal_that_was_kept_tells_what_was_cut_off(opened: Open) -> None:
    database = opened()
    store = AuditStore(database)
    for number in range(3):
        store.add(Deed("key_a", "test", str(number)))
    last = audit.verify(store).last
    assert audit.holds(store, last)
    run(database, "DELETE FROM gateway_audit WHERE id = 3")
    assert audit.verify(store).broken is None
    assert not audit.holds(store, last)
    assert audit.holds(store, START)


def test_processes_at_once_make_one_chain(opened: Open) -> None:
    rings = [Keys(KeyStore(opened())) for _ in range(3)]

    def work(ring: Keys) -> None:
        for _ in range(10):
            key, _ = ring.create("at once")
            ring.change(key.id, lambda _: {"blocked": True})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, rings))
    verdict = audit.verify(AuditStore(opened()))
    assert (verdict.lines, verdict.broken) == (60, None)
