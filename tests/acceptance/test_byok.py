"""A caller's own credential goes to the provider of a route that takes one, instead of ours, and is told nowhere."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import StartServer
from tests.services.gateway import CREDENTIAL, ask, error_of, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, whole

THEIRS = "sk-the-callers-own-provider-key"
HEADER = "x-promptyard-provider-key"


@pytest.fixture(scope="module")
def server(start_servers: StartServer, upstream: Upstream) -> Server:
    return start_servers(
        f"""\
providers:
  up: {{type: openai_compatible, base_url: "{upstream.url}", api_key: "${{UP_KEY}}"}}
  anthropic: {{type: anthropic, base_url: "{upstream.url}", api_key: "${{UP_KEY}}"}}
routes:
  theirs: {{deployments: [{{provider: up, model: m}}], byok: true, fallbacks: [ours], cooldown: {{seconds: 0}}}}
  claude: {{deployments: [{{provider: anthropic, model: claude-x}}], byok: true}}
  rests: {{deployments: [{{provider: up, model: m}}], byok: true, cooldown: {{failures: 1, seconds: 60}}}}
  ours: {{deployments: [{{provider: up, model: other}}]}}
""",
        env={"UP_KEY": CREDENTIAL},
    )


def test_theirs_is_sent_and_ours_is_not(server: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    with server.client() as http:
        answer = http.post("/v1/chat/completions", headers={HEADER: THEIRS}, json=asked("theirs"))
        assert answer.status_code == 200
        assert upstream.last.header("authorization") == f"Bearer {THEIRS}"
        assert upstream.last.header(HEADER) is None
        assert CREDENTIAL not in str(upstream.last.headers)
        assert ask(http, "theirs").status_code == 200
        assert upstream.last.header("authorization") == f"Bearer {CREDENTIAL}"
        http.post("/v1/messages", headers={HEADER: THEIRS}, json={**asked("claude"), "max_tokens": 5})
        assert upstream.last.header("x-api-key") == THEIRS
    assert THEIRS not in server.stderr()
    assert THEIRS not in str(usage_of(server, answer))


def asked(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


def test_a_fallback_never_gets_it(server: Server, upstream: Upstream) -> None:
    upstream.then(whole({"error": {"message": "down"}}, 503), whole(chat()))
    with server.client() as http:
        assert http.post("/v1/chat/completions", headers={HEADER: THEIRS}, json=asked("theirs")).status_code == 200
    sent = [one.header("authorization") for one in upstream.asked]
    assert sent == [f"Bearer {THEIRS}", f"Bearer {CREDENTIAL}"]


def test_their_own_fault_is_told_them(server: Server, upstream: Upstream) -> None:
    upstream.then(whole({"error": {"message": f"bad key {THEIRS}", "type": "x", "code": "invalid_api_key"}}, 401))
    with server.client() as http:
        answer = http.post("/v1/chat/completions", headers={HEADER: THEIRS}, json=asked("theirs"))
    assert answer.status_code == 401
    assert len(upstream.asked) == 1


def test_their_rate_limit_puts_nothing_to_rest_that_others_use(server: Server, upstream: Upstream) -> None:
    upstream.then(whole({"error": {"message": "slow down"}}, 429, retry_after="60"), whole(chat()))
    with server.client() as http:
        assert http.post("/v1/chat/completions", headers={HEADER: THEIRS}, json=asked("rests")).status_code == 429
        assert ask(http, "rests").status_code == 200


@pytest.mark.parametrize(("model", "value"), [("ours", THEIRS), ("theirs", "two words"), ("theirs", "x" * 9000)])
def test_what_is_not_taken_is_refused_by_name(server: Server, upstream: Upstream, model: str, value: str) -> None:
    upstream.then(whole(chat()))
    with httpx.Client(base_url=server.url, headers=server.headers) as http:
        answer = http.post("/v1/chat/completions", headers={HEADER: value}, json=asked(model))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == HEADER
    assert value not in answer.text
    assert not upstream.asked
