"""Teams and organisations: what their keys share, told apart by name, whoever asks first; both counters."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.test_cli import data, printed
from tests.conftest import StartServer
from tests.services.admin import refusal
from tests.services.gateway import ask, error_of, usage_of
from tests.services.promptyard import Server

# A call of ten tokens each way costs a cent.
PRICES = "prices: {m: {input: 500, output: 500}}\n"
ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  other: {deployments: [{provider: fake, model: m}]}
"""


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this module's tests with counters in memory, and one with them in Redis."""
    settings: dict[str, Any] = {}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("redis_url")
    home = tmp_path_factory.mktemp("priced")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers(home / "routes.yaml", **settings)
    finally:
        servers.stop()


@pytest.fixture
def admin(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def made(admin: httpx.Client, what: str, **terms: Any) -> dict[str, Any]:
    answer = admin.post(f"/admin/{what}", json={"name": "of the test", **terms})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def key_of(admin: httpx.Client, team: dict[str, Any], **terms: Any) -> str:
    return str(made(admin, "keys", team_id=team["id"], **terms)["key"])


def call(server: Server, key: str, model: str = "chat", tokens: int = 10) -> httpx.Response:
    with server.client(key) as http:
        return ask(http, model, max_tokens=tokens)


def spent_up(server: Server, key: str) -> dict[str, Any]:
    """What a key is told once all it may spend is spent; what is merely held, Redis may learn a moment later."""
    while (answer := call(server, key)).status_code == 200 or error_of(answer)["code"] == "rate_limit_exceeded":
        time.sleep(0.02)
    error: dict[str, Any] = error_of(answer)
    assert error["code"] == "insufficient_quota"
    return error


def test_the_limits_of_a_team_are_shared_by_its_keys(server: Server, admin: httpx.Client) -> None:
    organisation = made(admin, "organisations", name="acme", rpm=5)
    ops, dev = (made(admin, "teams", name=name, organisation_id=organisation["id"], rpm=3) for name in ("ops", "dev"))
    first, second, third = key_of(admin, ops), key_of(admin, ops), key_of(admin, dev)
    assert [call(server, one).status_code for one in (first, second, first)] == [200, 200, 200]
    refused = call(server, second)
    assert refused.status_code == 429
    assert "Team 'ops' allows 3 requests a minute (rpm); 3 are in use" in error_of(refused)["message"]
    assert call(server, third).headers["x-ratelimit-remaining-requests"] == "1"
    assert call(server, third).status_code == 200
    assert "Organisation 'acme' allows 5 requests a minute (rpm)" in error_of(call(server, third))["message"]


def test_a_budget_is_spent_by_all_keys_of_a_team(server: Server, admin: httpx.Client) -> None:
    organisation = made(admin, "organisations", name="acme", max_budget=0.08)
    ops = made(admin, "teams", name="ops", organisation_id=organisation["id"], max_budget=0.05, budget_duration="1mo")
    dev = made(admin, "teams", name="dev", organisation_id=organisation["id"])
    first, second, third = key_of(admin, ops), key_of(admin, ops, max_budget=1), key_of(admin, dev)
    answers = [call(server, one) for one in (first, second)]
    assert [one.status_code for one in answers] == [200, 200]
    error = spent_up(server, first)
    assert "Team 'ops' may spend $0.05 in 1mo (max_budget)" in error["message"]
    assert "Organisation 'acme' may spend $0.08 in all" in spent_up(server, third)["message"]
    with server.client(first) as http:
        itself = http.get("/admin/keys/self").json()["id"]
    told = admin.get("/admin/explain", params={"model": "chat", "key": itself}).json()
    assert any(rule["rule"] == "team max_budget" for rule in told["rules"]), told["rules"]


async def test_many_keys_never_overspend_what_they_share(server: Server, admin: httpx.Client) -> None:
    organisation = made(admin, "organisations", name="acme", max_budget=0.5)
    teams = [made(admin, "teams", organisation_id=organisation["id"], max_budget=0.4) for _ in range(2)]
    keys = [key_of(admin, team) for team in teams for _ in range(3)]
    spent = 0

    async def caller(http: httpx.AsyncClient, key: str) -> None:
        nonlocal spent
        while True:
            body = {"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 10}
            answer = await http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
            if answer.status_code == 200:
                spent += 1
            elif answer.json()["error"]["code"] == "insufficient_quota":
                return
            else:
                assert answer.status_code == 429
                await asyncio.sleep(0.05)

    async with httpx.AsyncClient(base_url=server.url, timeout=90) as http:
        await asyncio.gather(*(caller(http, key) for key in keys for _ in range(5)))
        sums = await http.get("/admin/usage", params={"group_by": "team"}, headers=server.headers)
    assert 47 <= spent <= 50
    theirs = {row["team"]: row["cost_usd"] for row in sums.json()["data"]}
    assert all(theirs[team["id"]] <= 0.4 for team in teams)
    assert sum(theirs[team["id"]] for team in teams) == pytest.approx(spent / 100)


def test_what_a_team_may_call(server: Server, admin: httpx.Client) -> None:
    organisation = made(admin, "organisations", denied_routes=["oth*"])
    team = made(admin, "teams", organisation_id=organisation["id"])
    secret = key_of(admin, team, routes=["*"])
    assert call(server, secret).status_code == 200
    assert "may not call the model 'other'" in refusal(call(server, secret, "other"), 403)["message"]
    admin.patch(f"/admin/teams/{team['id']}", json={"organisation_id": None, "routes": ["other"]})
    assert call(server, secret, "other").status_code == 200
    assert call(server, secret).status_code == 403


def test_a_blocked_team_takes_its_keys_with_it(server: Server, admin: httpx.Client) -> None:
    organisation = made(admin, "organisations", name="acme")
    team = made(admin, "teams", name="ops", organisation_id=organisation["id"])
    secret = key_of(admin, team)
    for path, what in ((f"teams/{team['id']}", "team 'ops'"), (f"organisations/{organisation['id']}", "organisation")):
        assert admin.patch(f"/admin/{path}", json={"blocked": True}).json()["state"] == "blocked"
        assert what in refusal(call(server, secret), 401)["message"]
        assert admin.patch(f"/admin/{path}", json={"blocked": False}).json()["state"] == "active"
        assert call(server, secret).status_code == 200


def test_what_was_spent_stays_with_the_team_it_was_spent_in(server: Server, admin: httpx.Client) -> None:
    before, after = (made(admin, "teams", max_budget=0.05) for _ in range(2))
    created = made(admin, "keys", team_id=before["id"])
    first = call(server, created["key"])
    admin.patch(f"/admin/keys/{created['id']}", json={"team_id": after["id"]})
    assert call(server, created["key"]).status_code == 200
    assert [key["id"] for key in admin.get("/admin/keys", params={"team_id": after["id"]}).json()["data"]] == [
        created["id"]
    ]
    sums = admin.get("/admin/usage", params={"group_by": "organisation,team"}).json()["data"]
    for team in (before, after):
        (row,) = [one for one in sums if one["team"] == team["id"]]
        assert (row["organisation"], row["calls"], row["cost_usd"]) == ("", 1, 0.01)
    assert usage_of(server, first)["team_id"] == before["id"]


@pytest.mark.parametrize(
    ("what", "said", "param"),
    [
        ("keys", {"team_id": "team_0"}, "team_id"),
        ("teams", {"organisation_id": "org_0"}, "organisation_id"),
        ("teams", {"name": " "}, "name"),
        ("teams", {"routes": [""]}, "routes"),
        ("teams", {"max_budget": 0}, "max_budget"),
        ("organisations", {"organisation_id": "org_0"}, "organisation_id"),
        ("organisations", {"budget_duration": "1d"}, "max_budget"),
    ],
)
def test_what_cannot_be_is_refused_by_field(admin: httpx.Client, what: str, said: dict[str, Any], param: str) -> None:
    assert refusal(admin.post(f"/admin/{what}", json={"name": "x", **said}), 400)["param"] == param


def test_what_is_not_there_is_said_by_its_id(admin: httpx.Client) -> None:
    team = made(admin, "teams")
    for path in ("teams/team_0", "organisations/org_0", f"organisations/{team['id']}"):
        assert refusal(admin.get(f"/admin/{path}"), 404)["param"] == "id"
        assert refusal(admin.patch(f"/admin/{path}", json={}), 404)["param"] == "id"


def test_a_kill_forgets_nothing_that_a_team_spent(start_server: StartServer, tmp_path: Any) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(PRICES)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    server = start_server(tmp_path / "routes.yaml")
    with server.client() as admin:
        team = made(admin, "teams", max_budget=0.05)
        secret = key_of(admin, team)
        assert [call(server, secret).status_code for _ in range(2)] == [200, 200]
    server.kill()
    server.reap()
    server = start_server(tmp_path / "routes.yaml", data=server.data)
    refused = error_of(call(server, secret, tokens=40))  # alone, 0.05 would do for it
    assert (refused["code"], "$0.02 are spent" in refused["message"]) == ("insufficient_quota", True), refused
    assert call(server, secret).status_code == 200


def test_teams_on_the_command_line(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    home, where = server.data.parent, ("--data", str(server.data))
    organisation = data("organisations", "create", "--name", "acme", "--max-budget", "9.5", *where, cwd=home)
    team = data(
        "teams", "create", "--name", "ops", "--organisation", organisation["id"], "--rpm", "9", *where, cwd=home
    )
    assert (team["organisation_id"], team["rpm"], organisation["max_budget"]) == (organisation["id"], 9, 9.5)
    created = data("keys", "create", "--name", "bot", "--team", team["id"], *where, cwd=home)
    assert (created["team_id"], created["organisation_id"]) == (team["id"], organisation["id"])
    assert [one["id"] for one in data("keys", "list", "--team", team["id"], *where, cwd=home)] == [created["id"]]
    assert data("keys", "list", "--team", "team_0", *where, cwd=home) == []
    changed = data("teams", "update", team["id"], "--organisation", "none", "--rpm", "none", *where, cwd=home)
    assert changed == team | {"organisation_id": None, "rpm": None}
    assert data("organisations", "block", organisation["id"], *where, cwd=home)["state"] == "blocked"
    assert data("organisations", "unblock", organisation["id"], *where, cwd=home)["state"] == "active"
    assert team["id"] in printed("teams", "list", *where, cwd=home)
    assert data("organisations", "list", *where, cwd=home) == [organisation]
    assert data("teams", "block", team["id"], *where, cwd=home)["state"] == "blocked"
    deadline = time.monotonic() + 5
    while call(server, created["key"]).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.dumps(created["key"]) not in json.dumps(data("keys", "list", *where, cwd=home))
