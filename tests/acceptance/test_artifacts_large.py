"""Large artifacts, and many, through the product: constant memory, a limit that holds; in full under `make soak`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import Server

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
SIZE, FILES = (2 * 2**30, 10_000) if SOAK else (96 * 2**20, 200)
#: What one up- or download may cost the server beyond what it holds anyway.
MOST = 48 * 2**20
BLOCK = bytes(range(256)) * 4096
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def server(start_servers: StartServer) -> Server:
    """A server that keeps no artifact larger than the one of this module."""
    server = start_servers(admin_key=None, max_artifact=SIZE)
    server.wait_ready()
    return server


class Watched:
    """The most memory a process held while this is open, beyond what it held before."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.grown = 0

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.grown = max(self.grown, self._process.memory_info().rss - self._before)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_large_artifact_takes_no_memory(server: Server) -> None:
    sent = hashlib.sha256()

    def blocks(size: int) -> Iterator[bytes]:
        for _ in range(size // len(BLOCK)):
            sent.update(BLOCK)
            yield BLOCK

    with server.client() as http, Watched(server.process.pid) as watched:
        http.timeout = httpx.Timeout(600)
        assert http.put(f"{PROXY}/large.bin", content=blocks(SIZE)).status_code == 200
        received = hashlib.sha256()
        with http.stream("GET", f"{PROXY}/large.bin") as down:
            for chunk in down.iter_raw():
                received.update(chunk)
        assert received.digest() == sent.digest()
        refused = http.put(f"{PROXY}/larger.bin", content=blocks(SIZE + len(BLOCK)))
        assert (refused.status_code, refused.json()["error_code"]) == (413, "BAD_REQUEST")
        assert "PROMPTYARD_MAX_ARTIFACT" in refused.json()["message"]
        assert http.get(f"{PROXY}/larger.bin").status_code == 404
        assert http.delete(f"{PROXY}/large.bin").status_code == 200
    assert watched.grown < MOST


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_folder_of_many_artifacts(server: Server) -> None:
    names = [f"{number:05}.txt" for number in range(FILES)]
    with httpx.Client(base_url=server.url, timeout=60) as http:

        def up(name: str) -> int:
            return http.put(f"{PROXY}/many/{name}", content=name.encode()).status_code

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(up, names)) == {200}
        started = time.perf_counter()
        listed = http.get(PROXY, params={"path": "many"}).json()["files"]
        assert time.perf_counter() - started < 2
        assert [file["path"] for file in listed] == names
        assert http.get(f"{PROXY}/many/{names[-1]}").text == names[-1]
        assert http.delete(f"{PROXY}/many").status_code == 200
        assert http.get(PROXY, params={"path": "many"}).json() == {}
