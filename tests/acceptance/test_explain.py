"""`plan` and `explain`, as commands and over HTTP: what a file would change, what would become of a call and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_cli import data, printed, run
from tests.conftest import StartServer
from tests.services.promptyard import ADMIN_KEY, Server

BEFORE = """\
providers:
  fake: {type: fake}
  busy: {type: fake, script: [{error: {status: 429, message: later, retry_after: 600}}]}
routes:
  fast:
    strategy: priority
    deployments: [{provider: busy, model: m}, {provider: fake, model: m, concurrency: 4}]
    fallbacks: [spare]
  spare: {deployments: [{provider: fake, model: spare}], limits: {rpm: 7}}
  paid: {deployments: [{provider: fake, model: m}], limits: {max_budget: 2.5, budget_duration: 1d}}
  tight: {deployments: [{provider: fake, model: m}], limits: {rpm: 2}}
  sticky: {sticky: x-session, deployments: [{provider: fake, model: a}, {provider: fake, model: b, weight: 3}]}
  down: {deployments: [{provider: busy, model: n}], fallbacks: [spare], cooldown: {failures: 1, seconds: 60}}
  embed: {task: embeddings, deployments: [{provider: fake, model: e}]}
"""


@pytest.fixture(scope="module")
def server(start_servers: StartServer) -> Server:
    server = start_servers(BEFORE)
    server.wait_ready()
    with server.client() as http:
        for name, routes in (("alice", ["fast", "tight"]), ("bob", ["embed"]), ("carol", None)):
            http.post("/admin/keys", json={"name": name, "routes": routes, "rpm": 5}).raise_for_status()
        for model in ("fast", "down", "tight"):
            ask(http, model)
    return server


def ask(http: httpx.Client, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    return http.post("/v1/chat/completions", json=body).status_code


def explained(server: Server, **asked: str) -> dict[str, Any]:
    with server.client() as http:
        answer = http.get("/admin/explain", params=asked)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


def rules(told: dict[str, Any]) -> dict[str, tuple[bool | None, str]]:
    return {rule["rule"]: (rule["passes"], rule["says"]) for rule in told["rules"]}


CASES: dict[str, tuple[dict[str, str], str | None, dict[str, tuple[bool, str]]]] = {
    "the first rests": (
        {"model": "fast"},
        "fake/m",
        {"cooldown": (False, "1 of 2 deployments are at rest."), "strategy": (True, "priority: in the file's order.")},
    ),
    "all rest": ({"model": "down"}, "fake/spare", {"cooldown": (False, "1 of 1 deployments are at rest.")}),
    "no such route": ({"model": "fats"}, None, {"route": (False, "The model 'fats' does not exist here.")}),
    "a key that may not": (
        {"model": "spare", "key": "alice"},
        None,
        {"key": (False, "This key may not call the model 'spare'. This key may call: fast, tight.")},
    ),
    "another task": (
        {"model": "embed", "task": "messages"},
        None,
        {"task": (False, "It serves embeddings, not messages.")},
    ),
    "limits as they stand": (
        {"model": "tight", "key": "carol"},
        "fake/m",
        {"route rpm": (True, "1 of 2 in use."), "key rpm": (True, "0 of 5 in use.")},
    ),
    "a budget nobody asked of": (
        {"model": "paid"},
        "fake/m",
        {"route max_budget": (None, "$2.5 in 1d; nobody has asked for any of it since the start.")},
    ),
}


@pytest.mark.parametrize(("asked", "answers", "said"), CASES.values(), ids=CASES)
def test_what_would_become_of_a_call(
    server: Server, asked: dict[str, str], answers: str | None, said: dict[str, tuple[bool, str]]
) -> None:
    told = explained(server, **asked)
    found = rules(told)
    assert told["answers"] == answers
    for rule, (passes, says) in said.items():
        if rule == "cooldown" and answers == "fake/m":
            passes = True
        assert found[rule][0] is passes
        assert found[rule][1].startswith(says)


def test_each_deployment_says_why(server: Server) -> None:
    told = explained(server, model="fast")
    first, second = told["deployments"]
    assert (first["deployment"], first["asked"]) == ("busy/m", None)
    assert first["says"].startswith("at rest after failures, for ")
    assert (second["deployment"], second["asked"]) == ("fake/m", 2)
    assert second["says"] == "number 2 in the file; 0 of 4 calls at once; asked in chat/completions"
    [spare] = told["fallbacks"]
    assert spare == {
        "route": "spare",
        "says": "when every deployment has failed, within its own limits (rpm 7): fake/spare",
    }


def test_who_is_sticky_is_asked_of_the_same_deployment(server: Server) -> None:
    told = [explained(server, model="sticky", user="session-1", key="carol")["answers"] for _ in range(3)]
    assert len(set(told)) == 1
    with server.client() as http:
        key = http.post("/admin/keys", json={"name": "dave"}).json()
    told = explained(server, model="sticky", user="session-1", key=key["id"])["answers"]
    with server.client(key["key"]) as http:
        body = {"model": "sticky", "messages": [{"role": "user", "content": "x"}]}
        answer = http.post("/v1/chat/completions", json=body, headers={"x-session": "session-1"})
    assert answer.headers["x-promptyard-deployment"] == told


def test_nothing_is_taken(server: Server) -> None:
    told = [rules(explained(server, model="spare"))["route rpm"] for _ in range(5)]
    assert told == [(True, "1 of 7 in use.")] * 5  # the one that `down` fell back to


def test_the_command_asks_the_server(server: Server, tmp_path: Path) -> None:
    asked = ["explain", "--model", "tight", "--key", "carol"]
    env = {"PORT": str(server.port), "ADMIN_KEY": ADMIN_KEY}
    told = data(*asked, cwd=tmp_path, **env)
    assert told["live"] is True
    assert told == explained(server, model="tight", key="carol")
    said = printed(*asked, cwd=tmp_path, **env)
    assert "as the running server stands" in said
    assert "1 of 2 in use." in said
    assert said.splitlines()[-1] == "fake/m would be asked first."
    refused = run(*asked, cwd=tmp_path, PORT=env["PORT"])
    assert refused.returncode == 1
    assert "refuses to explain: You didn't provide a key." in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_the_file_is_explained(server: Server, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(BEFORE)
    told = data("explain", "--model", "tight", cwd=tmp_path, PORT="1")
    assert told["live"] is False
    assert rules(told)["route rpm"] == (None, "2; how much of it is in use only the server knows.")
    assert [path.name for path in tmp_path.iterdir()] == ["routes.yaml"]
    by_file = ["explain", "--model", "spare", "--key", "alice", "--config", "routes.yaml", "--data", server.data]
    assert printed(*by_file, cwd=tmp_path).splitlines()[-1] == "Refused by: key."


def test_a_plan_says_what_would_change_and_for_whom(server: Server, tmp_path: Path) -> None:
    after = BEFORE.replace("rpm: 2", "rpm: 3").replace("  embed:", "  vectors:").replace("model: spare", "model: other")
    (tmp_path / "new.yaml").write_text(after)
    asked = ["plan", "new.yaml", "--config", server.config, "--data", server.data]
    done = run(*asked, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    told = json.loads(done.stdout)
    assert [(one["kind"], one["name"], one["change"]) for one in told["changes"]] == [
        ("route", "spare", "changed"),
        ("route", "tight", "changed"),
        ("route", "embed", "removed"),
        ("route", "vectors", "added"),
    ]
    assert {one["name"]: one["routes"] for one in told["keys"]}["alice"] == ["tight"]
    assert {one["name"]: one["routes"] for one in told["keys"]}["bob"] == ["embed"]
    said = run(*asked, cwd=tmp_path).stdout
    assert "~ route 'tight'\n    limits.rpm: 2 → 3\n" in said
    assert "(alice): tight\n" in said
    same = run("plan", server.config, "--config", server.config, cwd=tmp_path)
    assert (same.returncode, same.stdout) == (0, "Nothing would change.\n")
    (tmp_path / "new.yaml").write_text(after.replace("rpm: 3", "rpm: three"))
    bad = run(*asked, "--json", cwd=tmp_path)
    assert (bad.returncode, json.loads(bad.stdout)["problems"][0]["key"]) == (1, "routes.tight.limits.rpm")
