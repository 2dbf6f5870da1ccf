"""Without an admin key the server is for this machine alone: no key needed, ours honoured, other web sites refused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import StartServer
from tests.services.gateway import GOOD, MESSAGES, PATH, ask, client, connected, error_of, received, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import until


@pytest.fixture(scope="module")
def protected(start_servers: StartServer) -> Server:
    """A server without an admin key."""
    return start_servers(
        """\
providers:
  fake: {type: fake}
routes:
  fake: {deployments: [{provider: fake, model: fake}]}
  other: {deployments: [{provider: fake, model: fake}]}
""",
        admin_key=None,
    )


def command(server: Server, *arguments: str) -> Any:
    """What `promptyard keys` prints, run beside the server."""
    program = [sys.executable, "-m", "gateway.cli", "keys", *arguments, "--data", str(server.data), "--json"]
    return json.loads(subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout)


@pytest.mark.parametrize("secret", ["dummy", "sk-proj-something", "x", "sk-py"])
def test_no_key_is_needed_and_a_dummy_is_ignored(protected: Server, secret: str) -> None:
    with client(protected, secret) as ai:
        answer = ai.chat.completions.create(model="fake", messages=MESSAGES)
        assert [model.id for model in ai.models.list()] == ["fake", "other"]
    assert usage_of(protected, answer._request_id)["key_id"] == "anonymous"
    with httpx.Client(base_url=protected.url) as bare:
        assert ask(bare, "fake").status_code == 200


def test_an_unknown_key_of_ours_is_refused(protected: Server) -> None:
    with client(protected, "sk-py-unknown") as ai, pytest.raises(openai.AuthenticationError):
        ai.chat.completions.create(model="fake", messages=MESSAGES)


def test_a_known_key_is_honoured_with_its_limits_until_it_is_revoked(protected: Server) -> None:
    key = command(protected, "create", "--name", "made beside", "--routes", "fake", "--rpm", "2")
    with client(protected, key["key"]) as ai:
        answer = until(lambda: _chat_or_none(ai), 5)
        assert usage_of(protected, answer._request_id)["key_name"] == "made beside"
        with pytest.raises(openai.PermissionDeniedError):
            ai.chat.completions.create(model="other", messages=MESSAGES)
        ai.chat.completions.create(model="fake", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError):
            ai.chat.completions.create(model="fake", messages=MESSAGES)
        command(protected, "revoke", key["id"])

        def revoked() -> bool:
            try:
                return not ai.models.list()
            except openai.AuthenticationError as error:
                return "revoked" in str(error)

        until(revoked, 5)


def _chat_or_none(ai: openai.OpenAI) -> Any:
    """A change made by the command line arrives within a second."""
    try:
        return ai.chat.completions.create(model="fake", messages=MESSAGES)
    except openai.AuthenticationError:
        return None


HOME = ["localhost", "localhost:{port}", "127.0.0.1:{port}", "127.0.0.1", "[::1]:{port}", "LOCALHOST:{port}"]
FOREIGN = [
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1:{port}.evil.example",
    "10.0.0.1",
    "0.0.0.0",
    "[::2]",
    "",
]


def get(server: Server, *headers: str, path: str = "/v1/models") -> int:
    """The status of a GET with exactly these headers."""
    lines = [f"GET {path} HTTP/1.1", "connection: close", *headers]
    with connected(server) as sock:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(received(sock).split(b" ", 2)[1])


PATHS = ["/v1/models", "/v1/nothing", "/api/2.0/mlflow/experiments/search?max_results=1", "/admin/keys", "/version"]


@pytest.mark.parametrize("host", HOME)
def test_our_own_hosts(protected: Server, host: str) -> None:
    assert get(protected, f"host: {host.format(port=protected.port)}") == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_is_refused_everywhere(protected: Server, host: str, path: str) -> None:
    assert get(protected, f"host: {host.format(port=protected.port)}", path=path) == 403


def test_a_missing_host_is_refused(protected: Server) -> None:
    assert get(protected) == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["origin: http://localhost:{port}"], 200),
        (["origin: http://localhost:3000"], 200),
        (["origin: http://127.0.0.1"], 200),
        (["origin: https://evil.example"], 403),
        (["origin: http://localhost.evil.example"], 403),
        (["origin: http://localhost@evil.example"], 403),
        (["origin: null"], 403),
        (["origin: "], 403),
        (["origin: http://["], 403),
        (["origin: \xff"], 403),
        (["sec-fetch-site: cross-site", "sec-fetch-mode: no-cors"], 403),
        (["sec-fetch-site: cross-site", "sec-fetch-mode: navigate"], 200),
        (["sec-fetch-site: same-origin"], 200),
        (["sec-fetch-site: none"], 200),
    ],
)
def test_other_web_sites_are_refused(protected: Server, headers: list[str], status: int) -> None:
    host = f"host: localhost:{protected.port}"
    assert get(protected, host, *(line.format(port=protected.port) for line in headers)) == status


def test_a_refusal_says_why(protected: Server) -> None:
    with httpx.Client(base_url=protected.url) as http:
        foreign = http.get("/v1/models", headers={"host": "evil.example"})
        assert error_of(foreign)["code"] == "foreign_host"
        assert "PROMPTYARD_ADMIN_KEY" in error_of(foreign)["message"]
        cross = http.get("/v1/models", headers={"origin": "https://evil.example"})
        assert error_of(cross)["code"] == "foreign_origin"
        assert "access-control-allow-origin" not in cross.headers
        # A form of another page may send text without asking first: it is not taken for JSON.
        form = http.post(PATH, content=GOOD, headers={"content-type": "text/plain"})
        assert form.status_code == 415
        untyped = http.post(PATH, content=GOOD, headers={"origin": f"http://localhost:{protected.port}"})
        assert untyped.status_code == 400
        assert http.post(PATH, content=GOOD).status_code == 200
    assert "Traceback" not in protected.stderr()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_address_without_an_admin_key_is_refused(start_server: StartServer, host: str) -> None:
    with pytest.raises(RuntimeError, match="PROMPTYARD_ADMIN_KEY"):
        start_server(admin_key=None, host=host)
