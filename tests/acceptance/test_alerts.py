"""Budgets of which much is spent: seen once whoever runs, told to a signed webhook until it listens, soft or hard."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.test_tenants import PRICES, call, made
from tests.conftest import StartServer
from tests.services import postgres
from tests.services.admin import refusal
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, raw, until, whole

KEY = base64.b64encode(b"k" * 24).decode()
SECRET = f"whsec_{KEY}"
# A call costs a cent.
ROUTES = """\
providers:
  fake: {type: fake, script: [{answer: x, usage: {prompt_tokens: 10, completion_tokens: 10}}]}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  limited: {deployments: [{provider: fake, model: m}], limits: {soft_budget: 0.02, budget_duration: 1mo}}
alerts: {webhook: "${HOOK}", secret: "${HOOK_SECRET}", at: [50, 100]}
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Server]:
    """A server on each database, whose webhook is this module's upstream."""
    home = tmp_path_factory.mktemp("alerts")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    settings: dict[str, Any] = {"env": {"HOOK": f"{upstream.url}/hook?channel=ops", "HOOK_SECRET": SECRET}}
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            found = request.getfixturevalue("postgres_url")
            settings["database_url"] = stack.enter_context(postgres.new_database(found, "test_alerts"))
        stack.callback(servers.stop)
        yield servers(home / "routes.yaml", **settings)


@pytest.fixture
def admin(server: Server, upstream: Upstream) -> Iterator[httpx.Client]:
    upstream.then(whole({}, 204))
    with server.client() as client:
        yield client


def told(admin: httpx.Client, owner_id: str, count: int = 1) -> list[dict[str, Any]]:
    """The alerts of one owner, the newest first, once there are so many and each was told."""

    def found() -> list[dict[str, Any]] | None:
        alerts = [one for one in admin.get("/admin/alerts").json()["data"] if one["owner_id"] == owner_id]
        return alerts if len(alerts) >= count and all(one["told_at"] for one in alerts) else None

    return list(until(found, seconds=30))


def spend(server: Server, key: str, calls: int, model: str = "chat") -> None:
    for _ in range(calls):
        assert call(server, key, model).status_code == 200


def test_an_alert_is_signed_and_sent_once(server: Server, admin: httpx.Client, upstream: Upstream) -> None:
    team = made(admin, "teams", name="ops")
    key = made(admin, "keys", name="bot", team_id=team["id"], soft_budget=0.04, budget_duration="1d")
    assert (key["soft_budget"], key["max_budget"], key["budget_duration"]) == (0.04, None, "1d")
    spend(server, key["key"], 2)
    [alert] = told(admin, key["id"])
    wanted = {"owner": "key", "owner_name": "bot", "team_id": team["id"], "soft": True, "percent": 50, "duration": "1d"}
    assert alert.items() >= wanted.items()
    assert (alert["spent_usd"], alert["budget_usd"], alert["error"]) == (0.02, 0.04, None)
    asked = upstream.last
    assert (asked.method, asked.path) == ("POST", "/v1/hook?channel=ops")
    body = asked.json
    assert body["type"] == "budget.spent"
    assert body["data"]["alert_id"] == alert["id"] == asked.header("webhook-id")
    assert body["data"]["message"] == "50 % of the soft budget of key 'bot' is spent: $0.02 of $0.04 in 1d."
    assert body["data"]["window_end"].endswith("T00:00:00Z")
    # As https://www.standardwebhooks.com has it, with nothing of ours.
    stamp = asked.header("webhook-timestamp")
    assert abs(time.time() - int(stamp or 0)) < 60
    signed = f"{asked.header('webhook-id')}.{stamp}.".encode() + asked.body
    digest = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
    assert asked.header("webhook-signature") == f"v1,{digest}"
    # A soft budget refuses nothing; what is below is not told again.
    spend(server, key["key"], 1)
    spend(server, key["key"], 3)
    assert [one["percent"] for one in told(admin, key["id"], 2)] == [100, 50]
    assert len([one for one in upstream.asked if one.json["data"]["owner_id"] == key["id"]]) == 2


def test_teams_and_routes_have_alerts_too(server: Server, admin: httpx.Client) -> None:
    team = made(admin, "teams", name="ops", soft_budget=0.01, max_budget=5)
    key = made(admin, "keys", team_id=team["id"])
    spend(server, key["key"], 1, "limited")
    [of_team] = told(admin, team["id"])
    assert (of_team["owner"], of_team["percent"], of_team["soft"], of_team["duration"]) == ("team", 100, True, None)
    [of_route] = told(admin, "limited")
    assert (of_route["owner"], of_route["percent"], of_route["duration"]) == ("route", 50, "1mo")
    # A viewer of a team sees its alerts and no other's.
    viewer = made(admin, "keys", team_id=team["id"], scopes=["viewer"])["key"]
    with server.client(viewer) as http:
        assert {one["team_id"] for one in http.get("/admin/alerts").json()["data"]} == {team["id"]}


def test_a_webhook_that_does_not_listen_is_told_again(server: Server, admin: httpx.Client, upstream: Upstream) -> None:
    upstream.then(whole({}, 500), whole({}, 204))
    key = made(admin, "keys", name="again", max_budget=0.1)
    spend(server, key["key"], 6)
    [alert] = told(admin, key["id"])
    assert (alert["percent"], alert["soft"]) == (50, False)
    first, second = upstream.asked
    assert first.header("webhook-id") == second.header("webhook-id")
    assert first.body == second.body


def test_what_is_wrong_with_a_webhook_is_said_without_its_address(
    server: Server, admin: httpx.Client, upstream: Upstream
) -> None:
    upstream.then(raw(b"nonsense\r\n\r\n"))
    key = made(admin, "keys", soft_budget=0.01)
    spend(server, key["key"], 1)

    def failed() -> dict[str, Any] | None:
        alerts = [one for one in admin.get("/admin/alerts").json()["data"] if one["owner_id"] == key["id"]]
        return alerts[0] if alerts and alerts[0]["error"] else None

    alert = until(failed, seconds=30)
    assert alert["next_try"] > time.time() - 1
    log = server.stderr()
    assert f"The alerts' webhook did not take {alert['id']}: {alert['error']}" in log
    assert "channel=ops" not in log + admin.get("/admin/config").text
    assert KEY not in log + admin.get("/admin/config").text
    assert admin.get("/admin/config").json()["alerts"] == {"webhook": "***", "secret": "***", "at": [50, 100]}
    upstream.then(whole({}, 204))
    told(admin, key["id"])


def test_soft_budgets_that_cannot_be(admin: httpx.Client) -> None:
    def refused(**terms: object) -> dict[str, Any]:
        return refusal(admin.post("/admin/keys", json={"name": "k", **terms}), 400)

    assert refused(soft_budget=5, max_budget=4)["param"] == "soft_budget"
    assert refused(soft_budget=0)["param"] == "soft_budget"
    assert refused(budget_duration="1d")["param"] == "max_budget"
    assert refused(user_limits={"soft_budget": 5})["param"] == "user_limits.soft_budget"
    key = made(admin, "keys", soft_budget=4, max_budget=5, budget_duration="1d")
    gone = admin.patch(f"/admin/keys/{key['id']}", json={"max_budget": None}).json()
    assert (gone["max_budget"], gone["soft_budget"], gone["budget_duration"]) == (None, 4, "1d")
    gone = admin.patch(f"/admin/keys/{key['id']}", json={"soft_budget": None}).json()
    assert (gone["max_budget"], gone["soft_budget"], gone["budget_duration"]) == (None, None, None)
