"""The whole product as a real process: started from a configuration, asked over HTTP, ended with Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.services import shut as network
from tests.services.process import free_port, stop, wait_until

ADMIN_KEY = "admin-key-of-the-tests"
# What the issue promises: Ctrl-C stops everything, children too, within this many seconds.
ENDS_WITHIN = 5.0
# Every process below a server inherits this variable, so that one whose parent died is found too.
MARK = "TEST_SERVER_MARK"


@dataclass
class Server:
    """A running Promptyard. `admin_key` is None in protected mode; `data` is its data folder."""

    url: str
    port: int
    admin_key: str | None
    data: Path
    process: subprocess.Popen[bytes]
    output: Path
    mark: str
    config: Path
    _stopped: bool = field(default=False, repr=False)

    def stdout(self) -> str:
        """Everything it has printed: the banner."""
        return (self.output / "stdout").read_text(errors="replace")

    def stderr(self) -> str:
        """Everything it has logged."""
        return (self.output / "stderr").read_text(errors="replace")

    def wanted(self) -> str:
        """What it wanted from beyond this machine, where it was started with `shut`."""
        return network.wanted(self.output)

    @property
    def headers(self) -> dict[str, str]:
        """The header that makes a call the admin's; none in protected mode."""
        return {"authorization": f"Bearer {self.admin_key}"} if self.admin_key else {}

    def client(self, key: str | None = None, **options: object) -> httpx.Client:
        """An HTTP client for this server, as the admin unless another `key` is given. Close it: `with`."""
        headers = {"authorization": f"Bearer {key}"} if key else self.headers
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)  # type: ignore[arg-type]

    def wait_ready(self, seconds: float = 90) -> dict[str, object]:
        """What `/health/ready` says once it answers 200 and nothing is loading any more, the lab included."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while time.monotonic() < deadline:
                answer = client.get("/health/ready")
                if answer.status_code == 200 and "loading" not in answer.json().values():
                    return dict(answer.json())
                time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s: {answer.text}\n{self.stderr()}")

    def descendants(self) -> list[psutil.Process]:
        """Every living process this server has started, at any depth."""
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.pid != self.process.pid and process.environ().get(MARK) == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue
        return found

    def stop(self) -> None:
        """Press Ctrl-C and require what the issue promises: a clean end in time, no process left."""
        if self._stopped:
            return
        self._stopped = True
        begun = time.monotonic()
        interrupted = self.process.poll() is None
        stop(self.process, signal.SIGINT, ENDS_WITHIN)
        while (left := self.descendants()) and time.monotonic() - begun < ENDS_WITHIN:
            time.sleep(0.05)
        names = [f"{process.pid} {' '.join(process.cmdline())[:200]}" for process in left]
        self.reap()
        assert not names, f"left behind after Ctrl-C: {names}\n{self.stderr()}"
        code = self.process.returncode
        assert not interrupted or code == 0, f"Ctrl-C ended it with {code} instead of 0\n{self.stderr()}"

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); what it leaves behind is the caller's to judge, then `reap`."""
        self._stopped = True
        self.process.kill()
        self.process.wait()

    def reap(self) -> None:
        """End whatever a killed server left behind, and wait until it is gone."""
        while left := self.descendants():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.02)


def environment(settings: Mapping[str, str], mark: str) -> dict[str, str]:
    """This process's environment without any Promptyard or OpenTelemetry setting of the outer world; `settings`."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PROMPTYARD_", "OTEL_"))}
    # No provider's credential of the developer's own may ever reach a test.
    outer = {name: value for name, value in outer.items() if not name.endswith("_API_KEY")}
    return {**outer, **settings, MARK: mark, "PYTHONUNBUFFERED": "1"}


def start(
    config: Path,
    home: Path,
    *,
    admin_key: str | None = ADMIN_KEY,
    lab: bool = False,
    shut: bool = False,
    host: str = "127.0.0.1",
    data: Path | None = None,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    **settings: object,
) -> Server:
    """A server that answers `/health`. `settings` become `PROMPTYARD_<NAME>`; `home` takes data and output.

    With `shut` there is no network for it beyond this machine, see `Server.wanted`.
    """
    if admin_key is not None:
        settings["admin_key"] = admin_key
    named = {f"PROMPTYARD_{name.upper()}": str(value) for name, value in settings.items()}
    data = data or home / "data"
    env = {**(env or {}), **(network.environment(home) if shut else {})}
    for _ in range(3):
        mark, port = uuid.uuid4().hex, free_port()
        where = ["--config", str(config), "--host", host, "--port", str(port), "--data", str(data)]
        command = [sys.executable, "-m", "gateway.cli", "serve", *where, *([] if lab else ["--no-lab"]), *arguments]
        with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
            # A session of its own: Ctrl-C in the terminal must reach pytest first, which stops us.
            process = subprocess.Popen(
                command,
                env=environment({**named, **env}, mark),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}"
        server = Server(url, port, admin_key, data, process, home, mark, config)
        answered = False
        try:
            answered = wait_until(lambda port=port: answers(port), process, 30)
        finally:
            # Ctrl-C may come while we wait, and nobody else knows of it yet.
            if not answered:
                server.kill()
                server.reap()
        if answered:
            return server
        if "in use" not in server.stderr():
            break
    raise RuntimeError(f"the server did not start:\n{server.stdout()}{server.stderr()}")


def answers(port: int) -> bool:
    """Whether `/health` says OK on `port`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read().strip() == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
