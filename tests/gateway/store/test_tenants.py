"""Teams and organisations in SQL: what went in comes out, with their keys, and a change of theirs is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from gateway.database import Database, open_database
from gateway.owners import Key, Scope, Tenant, TenantKind
from gateway.routes import Budget, Limits
from gateway.store import migrations
from gateway.store.keys import KeyStore
from gateway.store.tenants import TenantStore

BY = "key_0"
ORGANISATION = Tenant("org_1", "Ünï 'x\"", TenantKind.ORGANISATION, created_at=1.5, blocked_at=2.5)
TEAM = Tenant(
    "team_1",
    "ops",
    TenantKind.TEAM,
    ORGANISATION,
    frozenset({"a*"}),
    frozenset({"ab"}),
    Limits(1, 2, 3, Budget(4, "1mo")),
    created_at=1.0,
)
ALONE = Tenant("team_2", "alone", TenantKind.TEAM, created_at=2.0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    migrations.migrate(database)
    yield database
    database.close()


def test_what_went_in_comes_out_oldest_first(database: Database) -> None:
    store = TenantStore(database)
    for one in (ORGANISATION, TEAM, ALONE):
        store.add(one, BY)
    assert list(store.all().values()) == [TEAM, ORGANISATION, ALONE]


def test_a_key_knows_its_team_and_organisation_as_they_are(database: Database) -> None:
    store, keys = TenantStore(database), KeyStore(database)
    store.add(ORGANISATION, BY)
    store.add(TEAM, BY)
    key = Key("key_1", "k", frozenset({Scope.INFERENCE}), team=TEAM, limits=Limits(9))
    keys.add(key, "1", BY)
    before = keys.version()
    assert keys.all() == {"1": key}
    assert store.change(TEAM.id, lambda one: dataclasses.replace(one, organisation=None, name="dev"), BY) is not None
    assert keys.version() > before
    (found,) = keys.all().values()
    assert (found.team, found.organisation_id) == (dataclasses.replace(TEAM, organisation=None, name="dev"), "")
    assert found.limited == (("key:key_1", Limits(9)), ("team:team_1", TEAM.limits))
    assert store.change("team_0", lambda one: one, BY) is None


def test_what_somebody_deleted_by_hand_lets_nobody_in(database: Database) -> None:
    keys = KeyStore(database)
    TenantStore(database).add(TEAM, BY)
    for number, team in enumerate((TEAM, ALONE)):
        keys.add(Key(f"key_{number}", "k", frozenset(), team=team), str(number), BY)
    for key in keys.all().values():
        assert any(tenant.blocked_at is not None for tenant in key.tenants)
