"""Who may do what in the admin API: every path asked by every role, and what a team's keys never reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from gateway.api.roles import TABLE, Role
from tests.conftest import StartServer
from tests.services.admin import ROUTES, made, refusal, say
from tests.services.promptyard import Server

PATHS = [(method, path) for method, path in TABLE]


@pytest.fixture(scope="module")
def server(start_servers: StartServer) -> Server:
    return start_servers(ROUTES)


@pytest.fixture(scope="module")
def admin(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def team_of(admin: httpx.Client) -> dict[str, Any]:
    organisation = admin.post("/admin/organisations", json={"name": "acme"}).json()
    team: dict[str, Any] = admin.post("/admin/teams", json={"name": "a", "organisation_id": organisation["id"]}).json()
    return team


@pytest.fixture(scope="module")
def teams(admin: httpx.Client) -> tuple[dict[str, Any], dict[str, Any]]:
    return team_of(admin), team_of(admin)


@pytest.fixture(scope="module")
def roles(admin: httpx.Client, teams: tuple[dict[str, Any], dict[str, Any]]) -> Mapping[str, str]:
    """A secret for each role; viewers are of all and of a team."""
    mine = {"team_id": teams[0]["id"]}
    terms: dict[str, dict[str, Any]] = {
        "admin": {"scopes": ["admin"]},
        "team admin": {"scopes": ["admin"], **mine},
        "viewer": {"scopes": ["viewer"]},
        "viewer of a team": {"scopes": ["viewer", "inference"], **mine},
        "caller": {"scopes": ["inference", "tracking"]},
    }
    return {name: made(admin, **one)["key"] for name, one in terms.items()}


def asked(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """An answer that changes nothing: of what is not there, or with a body that says nothing that can be."""
    for name in ("key_id", "team_id", "organisation_id", "request_id"):
        path = path.replace(f"{{{name}}}", "none")
    body = {"grace": -1} if path.endswith("rotate") else {"name": " "} if method in ("POST", "PATCH") else None
    return client.request(method, path, json=body, params={"model": "chat"} if "explain" in path else None)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_path_lets_in_whom_the_table_names(
    server: Server, roles: Mapping[str, str], method: str, path: str
) -> None:
    for name, secret in roles.items():
        with server.client(secret) as client:
            answer = asked(client, method, path)
        if Role(name) in TABLE[method, path]:
            assert answer.status_code not in (401, 403, 500), (name, answer.text)
        else:
            assert "scope" in refusal(answer, 403)["message"], name
    with server.client("sk-py-nobody") as client:
        refusal(asked(client, method, path), 401)


def test_the_table_is_whole(admin: httpx.Client) -> None:
    paths = admin.get("/openapi.json").json()["paths"]
    ours = {path: methods for path, methods in paths.items() if path.startswith(("/admin", "/metrics"))}
    assert {(method.upper(), path) for path, methods in ours.items() for method in methods} == set(TABLE)


def test_a_teams_admin_has_to_do_with_its_team_alone(
    server: Server, admin: httpx.Client, roles: Mapping[str, str], teams: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    ours, theirs = (team["id"] for team in teams)
    other = made(admin, team_id=theirs)
    alone = made(admin)
    with server.client(roles["team admin"]) as client:
        created = made(client, rpm=5)
        assert created["team_id"] == ours
        assert {key["team_id"] for key in client.get("/admin/keys").json()["data"]} == {ours}
        assert [team["id"] for team in client.get("/admin/teams").json()["data"]] == [ours]
        assert len(client.get("/admin/organisations").json()["data"]) == 1
        for body in ({"team_id": theirs}, {"team_id": None}):
            assert refusal(client.post("/admin/keys", json={"name": "x", **body}), 403)["param"] == "team_id"
            assert refusal(client.patch(f"/admin/keys/{created['id']}", json=body), 403)["param"] == "team_id"
        for key, (method, path) in itertools.product(
            (other, alone), (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("DELETE", ""))
        ):
            body = {} if method in ("PATCH", "POST") else None
            answer = client.request(method, f"/admin/keys/{key['id']}{path}", json=body)
            assert (
                refusal(answer, 404)["message"] == f"There is no key '{key['id']}'. `promptyard keys list` shows them."
            )
        assert client.patch(f"/admin/keys/{created['id']}", json={"rpm": 6}).json()["rpm"] == 6
        assert refusal(client.patch(f"/admin/teams/{ours}", json={"rpm": 9}), 403)
        assert refusal(client.get(f"/admin/teams/{theirs}"), 404)["param"] == "id"
        assert refusal(client.get(f"/admin/organisations/{teams[1]['organisation_id']}"), 404)["param"] == "id"
        assert client.get(f"/admin/organisations/{teams[0]['organisation_id']}").status_code == 200
        assert client.delete(f"/admin/keys/{created['id']}").status_code == 200


def test_who_sees_whose_usage(
    server: Server, admin: httpx.Client, roles: Mapping[str, str], teams: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    keys = {team: made(admin, team_id=team)["key"] for team in (teams[0]["id"], teams[1]["id"])}
    calls = {}
    for team, secret in keys.items():
        with server.client(secret) as client:
            calls[team] = say(client).headers["x-request-id"]
    with server.client(roles["caller"]) as client:
        say(client)
        assert client.get("/admin/usage").json()["total"]["calls"] == 1
        assert [client.get(f"/admin/usage/{one}").status_code for one in calls.values()] == [404, 404]
    seen: dict[str, set[str]] = {}
    for name in ("team admin", "viewer of a team", "viewer", "admin"):
        with server.client(roles[name]) as client:
            rows = client.get("/admin/usage", params={"group_by": "team"}).json()["data"]
            seen[name] = {row["team"] for row in rows}
            found = [client.get(f"/admin/usage/{one}").status_code for one in calls.values()]
            assert found == ([200, 404] if "team" in name else [200, 200])
    assert seen["team admin"] == seen["viewer of a team"] == {teams[0]["id"]}
    assert seen["viewer"] == seen["admin"] >= {teams[0]["id"], teams[1]["id"]}
