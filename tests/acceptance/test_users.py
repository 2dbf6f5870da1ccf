"""End users: each has limits and a budget of its own within a key or a team, and usage tells them apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.acceptance.test_cli import data, run
from tests.acceptance.test_tenants import admin, call, made, server
from tests.services.admin import refusal
from tests.services.gateway import ask, error_of
from tests.services.promptyard import Server

__all__ = ["admin", "server"]  # fixtures


@pytest.fixture
def chat(server: Server, admin: httpx.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's client, with a key whose users may each make two calls a minute."""
    secret = made(admin, "keys", name="of users", user_limits={"rpm": 2})["key"]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0) as client:
        yield client


def say(client: openai.OpenAI, user: str | None) -> None:
    named = {} if user is None else {"user": user}
    client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "a"}], extra_body=named)


def test_each_user_of_a_key_has_the_limit(chat: openai.OpenAI) -> None:
    for user in ("ann@x.org", "bob", None):
        say(chat, user)
        say(chat, user)
    with pytest.raises(openai.RateLimitError, match=r"User 'ann@x.org' of this key has 2 requests a minute \(rpm\)"):
        say(chat, "ann@x.org")
    with pytest.raises(openai.RateLimitError, match="Every call of this key that names no user has 2 requests"):
        say(chat, None)
    say(chat, "carl")
    # The header is above what the body says: an application's own user, where the body is its client's.
    told = chat.with_options(default_headers={"x-promptyard-user": "bob"})
    with pytest.raises(openai.RateLimitError, match="User 'bob'"):
        say(told, "dora")


def test_anthropics_users_are_users_too(server: Server, admin: httpx.Client) -> None:
    secret = made(admin, "keys", user_limits={"rpm": 1})["key"]
    with anthropic.Anthropic(base_url=server.url, api_key=secret, max_retries=0) as client:

        def say(user: str) -> None:
            messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "a"}]
            client.messages.create(model="chat", max_tokens=9, messages=messages, metadata={"user_id": user})

        say("ann")
        say("bob")
        with pytest.raises(anthropic.RateLimitError, match="User 'ann' of this key has 1 requests"):
            say("ann")


def test_a_users_budget_is_of_the_team_and_outlives_its_keys(server: Server, admin: httpx.Client) -> None:
    # A call costs a cent.
    team = made(admin, "teams", name="ops", user_limits={"max_budget": 0.05, "budget_duration": "1mo"})
    keys = [made(admin, "keys", team_id=team["id"])["key"] for _ in range(2)]

    def call(key: str, user: str) -> httpx.Response:
        with server.client(key) as http:
            return ask(http, "chat", max_tokens=10, user=user)

    answered, deadline = 0, time.monotonic() + 30
    while True:
        answer = call(keys[answered % 2], "ann")
        if answer.status_code == 200:
            answered += 1
        elif (refused := error_of(answer))["code"] != "rate_limit_exceeded":
            break
        assert time.monotonic() < deadline
    assert call(keys[0], "bob").status_code == 200
    assert refused["code"] == "insufficient_quota"
    assert "User 'ann' of team 'ops' may spend $0.05 in 1mo (max_budget)" in refused["message"]
    by = admin.get("/admin/usage", params={"group_by": "user,team", "user": "ann"}).json()
    theirs = {row["team"]: row["cost_usd"] for row in by["data"]}
    assert answered > 1
    assert theirs[team["id"]] == pytest.approx(answered / 100)
    rows = admin.get("/admin/usage", params={"group_by": "team,user"}).json()["data"]
    assert {row["user"] for row in rows if row["team"] == team["id"]} == {"ann", "bob"}
    # The same, page by page.
    paged: list[dict[str, Any]] = []
    following: int | None = 0
    while following is not None:
        asked = {"group_by": "team,user", "limit": 1, "offset": following}
        page = admin.get("/admin/usage", params=asked).json()
        paged, following = paged + page["data"], page["next"]
        assert page["total"]["calls"] == sum(row["calls"] for row in rows)
    assert paged == rows


def test_user_limits_are_changed_piece_by_piece_and_taken_away(server: Server, admin: httpx.Client) -> None:
    key = made(admin, "keys", user_limits={"rpm": 1, "max_budget": 5})
    nothing = dict.fromkeys(("rpm", "tpm", "concurrency", "rpd", "tpd", "max_budget", "budget_duration"))
    nothing |= {"window": "sliding"}
    assert key["user_limits"] == nothing | {"rpm": 1, "max_budget": 5.0}

    def change(**terms: object) -> httpx.Response:
        return admin.patch(f"/admin/keys/{key['id']}", json=terms)

    assert change(user_limits={"rpd": 1}).json()["user_limits"] == nothing | {"rpm": 1, "rpd": 1, "max_budget": 5.0}
    assert change(rpm=7).json()["user_limits"]["rpd"] == 1
    assert call(server, key["key"]).status_code == 200
    told = admin.get("/admin/explain", params={"model": "chat", "key": key["id"], "user": "ann"}).json()
    assert {rule["rule"] for rule in told["rules"]} >= {"user rpm", "user rpd", "user max_budget"}
    assert change(user_limits=None).json()["user_limits"] is None
    assert call(server, key["key"]).status_code == 200
    wrong = refusal(change(user_limits={"budget_duration": "1d"}), 400)
    assert (wrong["param"], "max_budget" in wrong["message"]) == ("user_limits.max_budget", True)
    assert refusal(change(user_limits={"rpm": 0}), 400)["param"] == "user_limits.rpm"
    assert refusal(change(user_limits={"rps": 1}), 400)["param"] == "user_limits.rps"


def test_the_command_line_limits_users(tmp_path: Path) -> None:
    limits = "rpm=5, max_budget=0.5,budget_duration=1d"
    team = data("teams", "create", "--name", "t", "--user-limits", limits, cwd=tmp_path)
    assert (team["user_limits"]["rpm"], team["user_limits"]["budget_duration"]) == (5, "1d")
    team = data("teams", "update", team["id"], "--user-limits", "rpm=none", cwd=tmp_path)
    assert (team["user_limits"]["rpm"], team["user_limits"]["max_budget"]) == (None, 0.5)
    assert data("teams", "update", team["id"], "--user-limits", "none", cwd=tmp_path)["user_limits"] is None
    for wrong in ("rps=5", "rpm=x", "rpm", "budget_duration=1d", "max_budget=x"):
        assert "--user-limits" in run("teams", "update", team["id"], "--user-limits", wrong, cwd=tmp_path).stderr
    assert data("usage", "--by", "user", "--user", "ann", cwd=tmp_path) == []
