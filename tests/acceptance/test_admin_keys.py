"""The admin API of keys against a live server, on both databases: from being made to being revoked."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.services.admin import made, refusal, say
from tests.services.promptyard import Server


def test_the_life_of_a_key(admin_server: Server, admin: httpx.Client) -> None:
    created = made(admin, name="life", routes=["chat"], rpm=60, tpm=1000, concurrency=2, max_budget=0.1,
                   budget_duration="1mo", expires_in=3600)  # fmt: skip
    secret = created.pop("key")
    assert created == {
        "id": created["id"],
        "name": "life",
        "team_id": None,
        "organisation_id": None,
        "scopes": ["inference", "tracking"],
        "routes": ["chat"],
        "denied_routes": [],
        "rpm": 60,
        "tpm": 1000,
        "concurrency": 2,
        "rpd": None,
        "window": "sliding",
        "tpd": None,
        "max_budget": 0.1,
        "budget_duration": "1mo",
        "soft_budget": None,
        "user_limits": None,
        "created_at": pytest.approx(time.time(), abs=30),
        "expires_at": pytest.approx(time.time() + 3600, abs=30),
        "revoked_at": None,
        "blocked_at": None,
        "tags": [],
        "metadata": {},
        "state": "active",
    }
    listed = admin.get("/admin/keys")
    assert created in listed.json()["data"]
    assert secret not in listed.text
    with admin_server.client(secret) as its:
        assert say(its).status_code == 200
        assert [one["id"] for one in its.get("/v1/models").json()["data"]] == ["chat"]
        assert "chat" in refusal(say(its, "other"), 403)["message"]
        assert admin.delete(f"/admin/keys/{created['id']}").json() == {"id": created["id"], "revoked": True}
        assert "revoked" in refusal(say(its), 401)["message"]
    assert admin.delete(f"/admin/keys/{created['id']}").status_code == 200
    (row,) = [one for one in admin.get("/admin/keys").json()["data"] if one["id"] == created["id"]]
    assert row["state"] == "revoked"
    assert row["revoked_at"] == pytest.approx(time.time(), abs=30)


def test_a_key_is_changed_in_place(admin_server: Server, admin: httpx.Client) -> None:
    created = made(admin, name="before", routes=["chat"], rpm=60, max_budget=0.3, budget_duration="1d", expires_in=60)
    one = f"/admin/keys/{created['id']}"
    changed = admin.patch(one, json={"name": "after", "routes": ["*"], "denied_routes": ["cha*"], "tags": ["b", "a"]})
    assert changed.status_code == 200
    del created["key"]
    more = {"name": "after", "routes": ["*"], "denied_routes": ["cha*"], "tags": ["a", "b"]}
    assert changed.json() == created | more == admin.get(one).json()
    assert [row["id"] for row in admin.get("/admin/keys", params={"tag": "a"}).json()["data"]] == [created["id"]]
    changed = admin.patch(one, json={"rpm": None, "max_budget": 0.5, "expires_in": None, "metadata": {"owner": "née"}})
    more |= {"rpm": None, "max_budget": 0.5, "expires_at": None, "metadata": {"owner": "née"}}
    assert changed.json() == created | more
    changed = admin.patch(one, json={"max_budget": None})
    assert changed.json() == created | more | {"max_budget": None, "budget_duration": None}
    assert refusal(admin.patch(one, json={"budget_duration": "1d"}), 400)["param"] == "max_budget"
    assert refusal(admin.patch(one, json={"rpm": 0}), 400)["param"] == "rpm"
    assert refusal(admin.patch(one, json={"spend": 0}), 400)["param"] == "spend"
    assert refusal(admin.patch("/admin/keys/key_0", json={"rpm": 1}), 404)["param"] == "id"
    assert refusal(admin.get("/admin/keys/key_0"), 404)["param"] == "id"


def test_patterns_say_what_a_key_may_call(admin_server: Server, admin: httpx.Client) -> None:
    secret = made(admin, name="patterns", routes=["cha*", "o*r"], denied_routes=["o*"])["key"]
    with admin_server.client(secret) as its:
        assert [one["id"] for one in its.get("/v1/models").json()["data"]] == ["chat"]
        assert "may not call" in refusal(say(its, "other"), 403)["message"]
        assert say(its).status_code == 200


def test_a_blocked_key_waits_to_be_let_in_again(admin_server: Server, admin: httpx.Client) -> None:
    created = made(admin, name="blocked")
    one = f"/admin/keys/{created['id']}"
    with admin_server.client(created["key"]) as its:
        first, again = (admin.patch(one, json={"blocked": True}).json() for _ in range(2))
        assert (first["state"], first["blocked_at"]) == ("blocked", again["blocked_at"])
        assert "blocked" in refusal(say(its), 401)["message"]
        assert admin.patch(one, json={"blocked": False}).json()["state"] == "active"
        assert say(its).status_code == 200


def test_a_secret_is_replaced_with_time_to_change_over(admin_server: Server, admin: httpx.Client) -> None:
    created = made(admin, name="rotated")
    one = f"/admin/keys/{created['id']}"
    second = admin.post(f"{one}/rotate", json={"grace": 600.5}).json()
    assert (second["id"], second["expires_at"]) == (created["id"], None)
    assert second["key"] != created["key"]
    for secret in (created["key"], second["key"]):
        with admin_server.client(secret) as its:
            assert its.get("/admin/keys/self").json()["id"] == created["id"]
    assert [row["id"] for row in admin.get("/admin/keys").json()["data"]].count(created["id"]) == 1
    third = admin.post(f"{one}/rotate", json={"grace": 0.1}).json()
    time.sleep(0.2)
    with admin_server.client(second["key"]) as its:
        assert "expired" in refusal(say(its), 401)["message"]
    with admin_server.client(created["key"]) as its:
        assert "not known" in refusal(say(its), 401)["message"]
    fourth = admin.post(f"{one}/rotate", json={}).json()
    for secret, status in ((third["key"], 401), (fourth["key"], 200)):
        with admin_server.client(secret) as its:
            assert say(its).status_code == status
    admin.delete(one)
    assert refusal(admin.post(f"{one}/rotate", json={}), 400)["param"] == "id"
    assert refusal(admin.post("/admin/keys/key_0/rotate", json={}), 404)["param"] == "id"


def test_an_expired_key_is_refused_and_listed_as_such(admin_server: Server, admin: httpx.Client) -> None:
    created = made(admin, expires_in=0.05)
    time.sleep(0.1)
    with admin_server.client(created["key"]) as its:
        assert "expired" in refusal(its.get("/v1/models"), 401)["message"]
    (row,) = [one for one in admin.get("/admin/keys").json()["data"] if one["id"] == created["id"]]
    assert row["state"] == "expired"


def test_what_keys_spent_is_said_where_it_is_asked_for(admin: httpx.Client) -> None:
    keys = [made(admin, name="spend", max_budget=5, budget_duration=duration) for duration in ("1d", "30d", None)]
    free = made(admin, name="spend")
    listed = {one["id"]: one for one in admin.get("/admin/keys", params={"spend": True}).json()["data"]}
    for key in keys:
        told = listed[key["id"]]
        assert told["spent_usd"] == 0
        assert (told["budget_resets_at"] or time.time() + 9e6) > time.time()
    assert listed[keys[2]["id"]]["budget_resets_at"] is None
    assert "spent_usd" not in listed[free["id"]]
    assert "spent_usd" not in admin.get("/admin/keys").json()["data"][-1]
