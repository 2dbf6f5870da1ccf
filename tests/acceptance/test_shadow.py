"""Calls are copied to a second route: its answers, failures and delays reach no caller, its cost no key."""

from __future__ import annotations

from tests.conftest import StartServer
from tests.services.gateway import ask, new_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, silence, until, whole


def served(start_server: StartServer, upstream: Upstream, percent: float) -> Server:
    return start_server(f"""\
providers:
  fake: {{type: fake}}
  up: {{type: openai_compatible, base_url: "{upstream.url}"}}
routes:
  live: {{deployments: [{{provider: fake, model: f}}], shadow: {{route: candidate, percent: {percent}}}}}
  candidate: {{deployments: [{{provider: up, model: m}}], limits: {{concurrency: 50}}}}
""")


def test_a_copy_is_recorded_by_itself_and_its_end_matters_to_nobody(
    start_server: StartServer, upstream: Upstream
) -> None:
    server = served(start_server, upstream, 100)
    upstream.then(whole(chat("from the shadow")), whole({"error": {"message": "no"}}, 500), silence)
    key = new_key(server, routes=["live"], rpm=3)
    with server.client(key["key"]) as http:
        for stream in (False, True, False):
            answer = ask(http, "live", stream=stream)
            assert answer.status_code == 200
            assert "shadow" not in answer.text
        first = usage_of(server, answer)
        assert ask(http, "live").status_code == 429  # the copies took nothing of the key's three
    upstream.wait_asked(3)
    assert upstream.asked[0].json["messages"] == upstream.asked[2].json["messages"]
    assert upstream.asked[0].header("authorization") is None
    assert first["key_id"] == key["id"]
    with server.client() as admin:

        def recorded() -> list[dict[str, object]]:
            rows = admin.get("/admin/usage?group_by=key_id,route").json()["data"]
            return [row for row in rows if row["key_id"] == "shadow"]

        def both() -> bool:
            return sum(int(str(row["calls"])) for row in recorded()) >= 2

        until(both)
        assert {row["route"] for row in recorded()} == {"candidate"}
    assert len(upstream.asked) == 3  # what was refused was not copied


def test_a_share_of_calls_is_copied(start_server: StartServer, upstream: Upstream) -> None:
    server = served(start_server, upstream, 25)
    upstream.then(whole(chat()))
    with server.client() as http:
        for _ in range(200):
            assert ask(http, "live").status_code == 200
    until(lambda: len(upstream.asked) > 10)
    assert 15 < len(upstream.asked) < 95  # 50, give or take six standard deviations
