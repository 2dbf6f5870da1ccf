"""`promptyard serve` as a process: what it says, what it refuses, how it ends, and what it never prints."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.acceptance.test_cli import run
from tests.conftest import ROOT, StartServer
from tests.services import postgres
from tests.services.process import wait_until
from tests.services.promptyard import ENDS_WITHIN, Server, environment

FAKE = """\
providers:
  fake: {type: fake}
  slow: {type: fake, script: [{answer: one two three four five six, pause: 5}]}
routes:
  fake: {deployments: [{provider: fake, model: echo}]}
  slow: {deployments: [{provider: slow, model: echo}]}
"""
ASKED = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "one"}]}


def command_of(banner: str) -> str:
    (line,) = [line.strip() for line in banner.splitlines() if line.strip().startswith("curl ")]
    return line


def pasted(server: Server, **env: str) -> str:
    """What the banner's curl line prints in a shell that was opened beside the server."""
    done = subprocess.run(
        ["/bin/sh", "-c", command_of(server.stdout()).replace("curl ", "curl -sS --max-time 60 ", 1)],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_banner_of_a_stranger(protected_server: Server) -> None:
    url, said = protected_server.url, protected_server.stdout()
    for part in (f"{url}/v1", f"{url}/lab/", f"MLFLOW_TRACKING_URI={url}", f"{url}/docs", str(protected_server.data)):
        assert part in said
    assert "No admin key is set" in said
    assert '"role":"assistant"' in pasted(protected_server).replace(" ", "")


def test_the_banner_with_an_admin_key(start_server: StartServer) -> None:
    server = start_server(FAKE, admin_key="the-admin's-own-key")
    assert "the-admin's-own-key" not in server.stdout()
    assert "No admin key" not in server.stdout()
    assert "Lab       off" in server.stdout()
    assert "Say hello." in pasted(server, PROMPTYARD_ADMIN_KEY="the-admin's-own-key")
    assert "invalid_api_key" in pasted(server)


def test_the_banner_with_an_admin_key_from_a_file(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "the admin's $key"
    file.write_text("from-a-file\n")
    server = start_server(FAKE, admin_key=None, admin_key_file=str(file))
    assert "from-a-file" not in server.stdout()
    assert "Say hello." in pasted(server)


def test_health_needs_no_key_and_its_details_do(start_server: StartServer) -> None:
    server = start_server(FAKE)
    answer = httpx.get(f"{server.url}/health")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "OK", "text/plain; charset=utf-8")
    details = server.wait_ready()
    assert details == {
        "status": "ready",
        "version": details["version"],
        "providers": {"fake": "ready", "slow": "ready"},
        "counters": "memory",
        "control": "ready",
        "tracking": "ready",
        "lab": "off",
    }
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert httpx.get(f"{server.url}/health/ready", headers=headers).json() == {"status": "ready"}


def test_model_and_lab_load_behind_and_say_so(protected_server: Server) -> None:
    details = protected_server.wait_ready()
    assert details["providers"] == {"local": "ready"}
    assert details["lab"] == "ready"
    log = protected_server.stderr()
    assert "The lab is ready" in log
    assert "embedded model local is ready" in log
    assert "Traceback" not in log


def test_a_start_wants_nothing_of_the_network(protected_server: Server) -> None:
    protected_server.wait_ready()
    assert protected_server.wanted() == ""


def test_the_root_leads_somewhere(start_server: StartServer, protected_server: Server) -> None:
    without = httpx.get(f"{start_server(FAKE, admin_key=None).url}/", follow_redirects=True)
    assert (without.status_code, without.url.path) == (200, "/docs")
    with_lab = httpx.get(f"{protected_server.url}/", follow_redirects=True, timeout=60)
    assert (with_lab.status_code, with_lab.url.path[:5]) == (200, "/lab/")


def test_without_the_lab(start_server: StartServer) -> None:
    server = start_server(FAKE, admin_key=None)
    answer = httpx.get(f"{server.url}/lab/")
    assert answer.status_code >= 400
    assert "off" in answer.json()["error"]["message"]


def test_a_caller_cannot_write_lines_of_the_log(start_server: StartServer) -> None:
    server = start_server(FAKE)
    with server.client() as client:
        for face in ("/v1/", "/admin/", "/api/2.0/", "/"):
            assert client.get(f"{face}x%0D%0A12:00:00 ERROR made up%1b%5B31m%C2%85").status_code == 404
    log = server.stderr()
    assert "made up" in log
    assert not [line for line in log.splitlines() if line.startswith("12:00:00 ERROR")]
    assert "\x1b" not in log


@pytest.mark.parametrize("how", ["option", "setting"])
def test_a_free_port_is_chosen_and_told(tmp_path: Path, how: str) -> None:
    (tmp_path / "routes.yaml").write_text(FAKE)
    banner = tmp_path / "stdout"
    options, env = (["--port", "0"], {}) if how == "option" else ([], {"PORT": "0"})
    with serving(tmp_path, *options, until=lambda: "Ctrl-C stops" in banner.read_text(), **env) as process:
        url = command_of(banner.read_text()).split()[1].removesuffix("/v1/chat/completions")
        assert httpx.get(f"{url}/health").text == "OK"
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN) == 0


@contextmanager
def serving(home: Path, *arguments: str, until: Callable[[], bool], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """`promptyard serve` in a folder, as one types it there, once `until` is true."""
    with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--no-lab", *arguments],
            cwd=home,
            env=environment({f"PROMPTYARD_{name}": value for name, value in env.items()}, "serving"),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        assert wait_until(until, process, 30), (home / "stderr").read_text()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def ended(server: Server, how: signal.Signals) -> None:
    """End a server with a signal: in time, with exit code 0, no process left, no traceback."""
    begun = time.monotonic()
    server.process.send_signal(how)
    try:
        code = server.process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still there after {ENDS_WITHIN} s\n{server.stderr()}")
    while (left := server.descendants()) and time.monotonic() - begun < ENDS_WITHIN:
        time.sleep(0.05)
    assert (code, left) == (0, [])
    assert "Traceback" not in server.stderr()


SIGNALS = pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)


@SIGNALS
def test_it_ends_while_a_stream_runs(start_server: StartServer, how: signal.Signals) -> None:
    server = start_server(FAKE, drain=1)
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
        next(answer.iter_bytes())
        ended(server, how)
    again = start_server(FAKE, data=server.data)
    with again.client() as client:
        total = client.get("/admin/usage").json()["total"]
    assert total["calls"] == 1


@SIGNALS
@pytest.mark.parametrize("after", [0.0, 0.7, 2.0], ids=lambda after: f"{after} s later")
def test_it_ends_while_model_and_lab_load(start_server: StartServer, how: signal.Signals, after: float) -> None:
    server = start_server(ROOT / "routes.yaml", lab=True)
    time.sleep(after)
    ended(server, how)


@SIGNALS
def test_it_ends_when_everything_is_loaded(start_server: StartServer, how: signal.Signals) -> None:
    server = start_server(ROOT / "routes.yaml", lab=True)
    server.wait_ready()
    assert server.descendants(), "the model's child"
    ended(server, how)


@SIGNALS
def test_it_ends_while_it_starts(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "routes.yaml").write_text(FAKE)
    # The folder is made in the middle of the start.
    with serving(tmp_path, "--port", "0", until=(tmp_path / "data").exists) as process:
        process.send_signal(how)
        assert process.wait(ENDS_WITHIN) == 0
    assert "Traceback" not in (tmp_path / "stderr").read_text()


@SIGNALS
def test_it_ends_while_its_database_hangs(postgres_url: str, start_server: StartServer, how: signal.Signals) -> None:
    with postgres.new_database(postgres_url, "test_hangs") as url:
        server = start_server(FAKE, database_url=url)
        server.wait_ready()
        with psycopg.connect(url) as connection:
            tables = "gateway_usage, gateway_journals, gateway_key_changes"
            connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
            with server.client() as client:
                assert client.post("/v1/chat/completions", json={**ASKED, "model": "fake"}).status_code == 200
            ended(server, how)
        again = start_server(FAKE, data=server.data, database_url=url)
        with again.client() as client:
            assert client.get("/admin/usage").json()["total"]["calls"] == 1


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "routes.yaml").write_text(FAKE)
    return tmp_path


def refused(home: Path, *arguments: str, **env: str) -> str:
    """The one sentence of a server that does not start."""
    done = run("serve", "--no-lab", *arguments, cwd=home, **env)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_port_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(home, "--port", port)
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_data_folder_in_use(home: Path, start_server: StartServer) -> None:
    server = start_server(FAKE)
    said = refused(home, "--port", "0", "--data", str(server.data))
    assert str(server.process.pid) in said
    assert str(server.data) in said
    with server.client() as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_public_address_without_an_admin_key(home: Path, host: str) -> None:
    said = refused(home, "--port", "0", "--host", host)
    assert "admin key" in said
    assert "PROMPTYARD_ADMIN_KEY" in said


def test_a_public_address_with_an_admin_key(start_server: StartServer) -> None:
    server = start_server(FAKE, host="0.0.0.0")
    assert f"{server.url}/v1" in server.stdout()  # an address that can be opened, not 0.0.0.0
    # The key alone counts now, whatever the name in the address.
    foreign = {"host": "gateway.example", "origin": "https://elsewhere.example"}
    with server.client() as client:
        assert client.get("/v1/models", headers=foreign).status_code == 200
        assert httpx.get(f"{server.url}/v1/models", headers=foreign).status_code == 401


REFUSED = {
    "no such address": (["--host", "no.such.host.invalid"], {}, "--host: 'no.such.host.invalid' is not an address"),
    "an address of another machine": (["--host", "192.0.2.1"], {"ADMIN_KEY": "k"}, "cannot be listened on"),
    "a port beyond": (["--port", "65536"], {}, "--port: must be at most 65535, not 65536"),
    "a negative port": (["--port", "-1"], {}, "--port: must be at least 0, not -1"),
    "no such file": (["--config", "nope.yaml"], {}, "nope.yaml: no such file"),
    "a folder as file": (["--config", "."], {}, ".: cannot be read"),
    "an unknown setting": ([], {"PROT": "1"}, "PROMPTYARD_PROT: is not a setting. Did you mean 'PROMPTYARD_PORT'?"),
    "an empty admin key": ([], {"ADMIN_KEY": ""}, "PROMPTYARD_ADMIN_KEY: must be printable ASCII"),
    "no such key file": ([], {"ADMIN_KEY_FILE": "nope"}, "PROMPTYARD_ADMIN_KEY_FILE: cannot read 'nope'"),
}


@pytest.mark.parametrize(("arguments", "env", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served(home: Path, arguments: list[str], env: dict[str, str], sentence: str) -> None:
    assert sentence in refused(home, *arguments, **env)
    assert not (home / "data").exists() or "--host" in arguments


SECRETS = {"UP_KEY": "credential-of-the-upstream", "HEADER": "header-for-the-upstream"}
LEAKY = """\
providers:
  up: {type: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: "${UP_KEY}", headers: {x-team: "${HEADER}"}}
  filed: {type: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: "${file:secret.txt}"}
routes:
  up: {deployments: [{provider: up, model: m}]}
  filed: {deployments: [{provider: filed, model: m}]}
"""


@pytest.fixture
def fresh_password(fresh_postgres: str) -> str:
    """The URL of an empty database with a password in it; the server trusts everybody, so any will do."""
    return fresh_postgres.replace("postgres@", "postgres:password-of-the-database@")


def test_no_secret_is_ever_shown(home: Path, start_server: StartServer, fresh_password: str) -> None:
    (home / "routes.yaml").write_text(LEAKY)
    (home / "secret.txt").write_text("credential-from-a-file\n")
    admin = "key-of-the-admin"
    server = start_server(
        home / "routes.yaml", admin_key=admin, database_url=fresh_password, env=SECRETS, log_level="debug"
    )
    shown = []
    with server.client() as client:
        key = client.post("/admin/keys", json={"name": "one"}).json()["key"]
        for model in ("up", "filed"):
            for stream in (False, True):
                asked = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
                answer = client.post("/v1/chat/completions", json=asked)
                assert answer.status_code == 502
                shown.append(answer)
        paths = ["/health/ready", "/admin/keys", "/admin/usage", "/v1/models", "/openapi.json", "/docs", "/nope"]
        shown += [client.get(path) for path in (*paths, "/api/2.0/mlflow/experiments/search")]
    with server.client(key) as client:
        shown.append(client.get("/admin/keys"))
    # The database goes away under the server: everything that needs it fails.
    postgres_of = fresh_password.rpartition("/")[0].replace(":password-of-the-database", "")
    drop(f"{postgres_of}/postgres", fresh_password.rpartition("/")[2])
    with server.client() as client:
        for path in ("/admin/keys", "/admin/usage", "/admin/usage/req_1"):
            answer = client.get(path)
            assert answer.status_code >= 500
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            shown.append(answer)
        shown.append(client.post("/api/2.0/mlflow/experiments/create", json={"name": "x"}))
        assert client.get("/v1/models").status_code == 200
    checked = run("check", cwd=home, ADMIN_KEY=admin, DATABASE_URL=fresh_password)
    assert "UP_KEY" in checked.stderr
    server.stop()
    texts = [f"{answer.headers}{answer.text}" for answer in shown]
    texts += [server.stdout(), server.stderr(), checked.stdout, checked.stderr]
    secrets = [*SECRETS.values(), "credential-from-a-file", "password-of-the-database", admin, key]
    assert [secret for secret in secrets for text in texts if secret in text] == []
    files = [path for path in server.data.rglob("*") if path.is_file()]
    assert [path for path in files for secret in secrets if secret.encode() in path.read_bytes()] == []


def drop(server: str, name: str) -> None:
    """Drop a database, whoever is connected."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
