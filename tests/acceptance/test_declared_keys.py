"""Keys that routes.yaml declares by their hash: in force with the file, limited, recorded, and changed nowhere else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance.test_cli import data, printed, run
from tests.conftest import StartServer
from tests.services.admin import refusal
from tests.services.gateway import ask, error_of, usage_of
from tests.services.upstream import until

ROUTES = """\
providers:
  fake: {type: fake}
routes:
  chat: {deployments: [{provider: fake, model: m}]}
  other: {deployments: [{provider: fake, model: m}]}
"""
SECRET = "a secret of our own, as a vault made it"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_declared_key_is_in_force_with_its_file(start_server: StartServer, tmp_path: Path) -> None:
    made = data("keys", "declare", "bot", cwd=tmp_path)
    assert made["hash"] == digest(made["key"])
    bot = f"  bot: {{hash: {made['hash']}, routes: [ch*], limits: {{rpm: 2}}, user_limits: {{rpm: 1}}, tags: [ci]}}\n"
    server = start_server(f"{ROUTES}keys:\n{bot}  own: {{hash: {digest(SECRET)}}}\n")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["chat"]
    with server.client(made["key"]) as http:
        answer = ask(http, "chat", user="ann")
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        record = usage_of(server, answer)
        assert (record["key_id"], record["key_name"], record["end_user"]) == ("file-bot", "bot", "ann")
        assert "User 'ann' of this key has 1 requests" in error_of(ask(http, "chat", user="ann"))["message"]
        assert ask(http, "other").status_code == 403
    with server.client(SECRET) as http:
        assert ask(http, "other").status_code == 200
    with server.client() as admin:
        listed = admin.get("/admin/keys").json()["data"]
        assert [(one["id"], one["rpm"], one["tags"], one["state"]) for one in listed] == [
            ("file-bot", 2, ["ci"], "active"),
            ("file-own", None, [], "active"),
        ]
        shown = admin.get("/admin/config").text
        assert made["hash"] not in shown
        assert json.loads(shown)["keys"]["bot"]["limits"]["rpm"] == 2
        for answer in (
            admin.patch("/admin/keys/file-bot", json={"rpm": 5}),
            admin.post("/admin/keys/file-bot/rotate", json={}),
            admin.delete("/admin/keys/file-bot"),
        ):
            assert "is declared in routes.yaml: change it there" in refusal(answer, 400)["message"]
        told = admin.get("/admin/explain", params={"model": "chat", "key": "file-bot"}).json()
        assert any(rule["rule"] == "key rpm" for rule in told["rules"])
    # Another file: one is gone, one has another limit.
    planned = tmp_path / "new.yaml"
    planned.write_text(f"{ROUTES}keys: {{own: {{hash: {digest(SECRET)}, limits: {{rpm: 1}}}}}}\n")
    server.config.write_text(planned.read_text())

    def reloaded() -> bool:
        with server.client(made["key"]) as http:
            return ask(http, "chat").status_code == 401

    until(reloaded, seconds=20)
    with server.client(SECRET) as http:
        assert ask(http, "chat").headers["x-ratelimit-limit-requests"] == "1"
    assert "key 'bot' removed" in server.stderr()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("{bot: {hash: x}}", "keys.bot.hash: "),
        ("{bot: {hash: HASH, limits: {rps: 1}}}", "keys.bot.limits.rps: unknown key"),
        ("{bot: {hash: HASH, user_limits: {soft_budget: 1}}}", "keys.bot.user_limits: soft_budget is not there for"),
        ("{bot: {hash: HASH}, two: {hash: HASH}}", "keys.two.hash: is that of 'bot'. Two keys cannot have one secret."),
        ("{'a b': {hash: HASH}}", "cannot be a key's name here"),
        ("{bot: {key: sk-py-x}}", "keys.bot.hash: is missing"),
    ],
)
def test_what_cannot_be_declared(tmp_path: Path, keys: str, said: str) -> None:
    (tmp_path / "routes.yaml").write_text(f"{ROUTES}keys: {keys.replace('HASH', digest(SECRET))}\n")
    done = run("check", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr + done.stdout


def test_a_declaration_is_made_to_be_pasted(tmp_path: Path) -> None:
    secret = printed("keys", "declare", "bot", cwd=tmp_path).strip()
    assert secret.startswith("sk-py-")
    made: dict[str, Any] = data("keys", "declare", "bot", cwd=tmp_path)
    (tmp_path / "routes.yaml").write_text(f"{ROUTES}keys:\n  bot: {{hash: {made['hash']}, limits: {{rpm: 60}}}}\n")
    assert "routes.yaml" in printed("check", cwd=tmp_path)
