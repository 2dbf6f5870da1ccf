"""Whose request it is, whatever its headers look like, and what a foreign web page cannot do."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.api.access import Access, secret
from gateway.database import open_database
from gateway.errors import Forbidden, InvalidKey
from gateway.keys import ADMIN, ANONYMOUS, Keys
from gateway.owners import Scope
from gateway.store import migrations
from gateway.store.keys import KeyStore

Headers = dict[bytes, bytes]


def basic(pair: bytes) -> bytes:
    return b"Basic " + base64.b64encode(pair)


SECRETS: dict[str, tuple[Headers, str | None]] = {
    "bearer": ({b"authorization": b"Bearer k"}, "k"),
    "the scheme's case does not count": ({b"authorization": b"bEARER k"}, "k"),
    "spaces around it do not either": ({b"authorization": b"Bearer   k  "}, "k"),
    "anthropic's header": ({b"x-api-key": b" k "}, "k"),
    "a basic password": ({b"authorization": basic(b"anybody:k")}, "k"),
    "without a user": ({b"authorization": basic(b":k")}, "k"),
    "with a colon in it": ({b"authorization": basic(b"anybody:k:l")}, "k:l"),
    "authorization comes first": ({b"authorization": b"Bearer k", b"x-api-key": b"other"}, "k"),
    "an empty bearer gives way": ({b"authorization": b"Bearer ", b"x-api-key": b"k"}, "k"),
    "an unknown scheme gives way": ({b"authorization": b"Digest x", b"x-api-key": b"k"}, "k"),
    "nothing": ({}, None),
    "empty": ({b"authorization": b"", b"x-api-key": b""}, None),
    "a scheme alone": ({b"authorization": b"Basic"}, None),
    "basic without a colon": ({b"authorization": basic(b"k")}, None),
    "basic without a password": ({b"authorization": basic(b"anybody:")}, None),
    "basic that is not base64": ({b"authorization": b"Basic !!!"}, None),
    "basic cut short": ({b"authorization": b"Basic a"}, None),
    "basic that is not even ASCII": ({b"authorization": b"Basic \xe9"}, None),
    "basic of bytes that are no text": ({b"authorization": basic(b"\xff:\xff\x00")}, "\xff\x00"),
    "a letter beyond ASCII": ({b"authorization": b"Bearer \xc3\xa9"}, "\xc3\xa9"),
}


@pytest.mark.parametrize(("headers", "expected"), SECRETS.values(), ids=SECRETS)
def test_the_secret_of_a_request(headers: Headers, expected: str | None) -> None:
    assert secret(headers) == expected


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    database = open_database(f"sqlite:///{tmp_path / 'keys.db'}")
    migrations.migrate(database)
    yield KeyStore(database)
    database.close()


def local(**more: bytes) -> Headers:
    return {b"host": b"127.0.0.1:4000", **{name.replace("_", "-").encode(): value for name, value in more.items()}}


OURS = {
    "no port": {b"host": b"localhost"},
    "upper case": {b"host": b"LocalHost:4000"},
    "IPv6": {b"host": b"[::1]:4000"},
    "another address of the loopback": {b"host": b"127.1.2.3:4000"},
    "a page of our own": local(origin=b"http://localhost:4000", sec_fetch_site=b"same-origin"),
    "a page on IPv6": local(origin=b"http://[::1]:4000"),
    "a link on a foreign page": local(sec_fetch_site=b"cross-site", sec_fetch_mode=b"navigate"),
    "typed into the address bar": local(sec_fetch_site=b"none", sec_fetch_mode=b"navigate"),
}
FOREIGN = {
    "no host": {},
    "an empty host": {b"host": b""},
    "a name that was made to point here": {b"host": b"evil.example:4000"},
    "a name that only begins like ours": {b"host": b"localhost.evil.example"},
    "ours as a user": {b"host": b"127.0.0.1@evil.example"},
    "an open bracket": {b"host": b"[::1"},
    "another address": {b"host": b"192.168.0.7:4000"},
    "every address": {b"host": b"0.0.0.0:4000"},
    "a foreign page": local(origin=b"https://evil.example"),
    "a foreign page that begins like ours": local(origin=b"http://127.0.0.1.evil.example"),
    "a page without a name": local(origin=b"null"),
    "an origin that is no address": local(origin=b"http://["),
    "an empty origin": local(origin=b""),
    "an origin beyond ASCII": local(origin=b"http://\xff\xfe"),
    "an image on a foreign page": local(sec_fetch_site=b"cross-site", sec_fetch_mode=b"no-cors"),
    "a foreign form": local(origin=b"https://evil.example", sec_fetch_mode=b"navigate"),
}


@pytest.mark.parametrize("headers", OURS.values(), ids=OURS)
def test_protected_mode_serves_this_machine(store: KeyStore, headers: Headers) -> None:
    assert Access(Keys(store)).key(headers) is ANONYMOUS


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_protected_mode_refuses_others(store: KeyStore, headers: Headers) -> None:
    access = Access(Keys(store))
    with pytest.raises(Forbidden) as refused:
        access.key(headers)
    assert refused.value.code in {"foreign_host", "foreign_origin"}
    with pytest.raises(Forbidden):
        access.check_origin(headers)


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_with_an_admin_key_the_key_alone_counts(store: KeyStore, headers: Headers) -> None:
    access = Access(Keys(store, SecretStr("the admin's")))
    access.check_origin(headers)
    with pytest.raises(InvalidKey):
        access.key(headers)
    assert access.key({**headers, b"x-api-key": b"the admin's"}) is ADMIN


def test_a_key_opens_the_faces_of_its_scopes(store: KeyStore) -> None:
    keys = Keys(store, SecretStr("the admin's"))
    access = Access(keys)
    for scope in Scope:
        key, given = keys.create(scope, scopes=[scope])
        headers = {b"authorization": f"Bearer {given}".encode()}
        assert access.allow(headers, scope).id == key.id
        for other in set(Scope) - {scope}:
            with pytest.raises(Forbidden, match=f"no scope '{other}'; it has: {scope}"):
                access.allow(headers, other)
        assert access.allow({b"x-api-key": b"the admin's"}, scope) is ADMIN
