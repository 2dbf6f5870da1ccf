"""The server fixtures start the whole product, keep the outer world out of it, and hold it to a clean end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.services import promptyard
from tests.services.process import wait_until
from tests.services.promptyard import MARK, Server, environment

FAKE = """\
providers:
  fake: {type: fake}
routes:
  fake:
    deployments: [{provider: fake, model: fake}]
"""


def test_a_server_of_ones_own(start_server: StartServer) -> None:
    server = start_server(FAKE)
    with server.client() as client:
        assert client.get("/health").text == "OK"
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["fake"]
    with httpx.Client(base_url=server.url) as stranger:
        assert stranger.get("/v1/models").status_code == 401
    assert server.data.is_dir()
    server.stop()
    assert server.process.returncode == 0
    with pytest.raises(httpx.ConnectError), server.client() as client:
        client.get("/health")


def test_two_servers_at_once_without_a_key(start_server: StartServer) -> None:
    first, second = (start_server(FAKE, admin_key=None) for _ in range(2))
    assert first.port != second.port
    assert first.data != second.data
    for server in (first, second):
        assert server.headers == {}
        with server.client() as client:
            assert client.get("/v1/models").status_code == 200


def test_a_server_that_cannot_start_says_why(start_server: StartServer) -> None:
    with pytest.raises(RuntimeError, match="rotues"):
        start_server("rotues: {}\n")


def test_a_killed_server_is_started_again_on_its_data(start_server: StartServer) -> None:
    server = start_server(FAKE)
    server.kill()
    assert server.process.returncode == -signal.SIGKILL
    again = start_server(FAKE, data=server.data)
    assert again.data == server.data


def test_the_outer_worlds_settings_and_credentials_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTYARD_ADMIN_KEY", "of the developer")
    monkeypatch.setenv("OPENAI_API_KEY", "of the developer")
    inner = environment({"PROMPTYARD_LOG_LEVEL": "debug"}, "mark")
    assert [name for name in inner if name.startswith("PROMPTYARD_")] == ["PROMPTYARD_LOG_LEVEL"]
    assert "OPENAI_API_KEY" not in inner
    assert inner["PATH"] == os.environ["PATH"]


def stand_in(code: str, tmp_path: Path) -> Server:
    """A `Server` around any program, once that has made its file `ready`, to see what `stop` makes of it."""
    for name in ("stdout", "stderr"):
        (tmp_path / name).touch()
    program = [sys.executable, "-c", f"import signal, subprocess, time, pathlib\n{code}", tmp_path]
    process = subprocess.Popen(program, cwd=tmp_path, env={**os.environ, MARK: tmp_path.name})
    assert wait_until((tmp_path / "ready").exists, process, 20)
    return Server("", 0, None, tmp_path, process, tmp_path, tmp_path.name, tmp_path)


WAIT = "pathlib.Path('ready').touch(); time.sleep(60)\n"
ENDS = {
    "a bad end": (WAIT, "ended it with"),
    "no end": (f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{WAIT}", "ended it with -9"),
    "a child left behind": (
        f"subprocess.Popen(['sleep', '60'], start_new_session=True)\ntry: {WAIT}except KeyboardInterrupt: pass",
        "left behind after Ctrl-C: .*sleep 60",
    ),
}


@pytest.mark.parametrize(("code", "complaint"), ENDS.values(), ids=ENDS)
def test_an_end_that_is_not_clean_is_noticed(
    code: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promptyard, "ENDS_WITHIN", 1.0)
    server = stand_in(code, tmp_path)
    with pytest.raises(AssertionError, match=complaint):
        server.stop()
    assert server.descendants() == []
