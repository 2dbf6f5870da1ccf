"""Several processes behind one port are one server to whoever uses it: its callers, its admins, MLflow's clients."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.services.gateway import MESSAGES, ask, client, error_of, make_key, new_key
from tests.services.promptyard import Server, environment
from tests.services.upstream import until

ROUTES = """\
providers:
  local: {type: embedded}
  fake: {type: fake}
  slow: {type: fake, cycle: true, script: [{answer: "at last", delay: 4}]}
routes:
  chat: {deployments: [{provider: local, model: smollm2}]}
  fake: {deployments: [{provider: fake, model: m}]}
  slow: {deployments: [{provider: slow, model: m}]}
"""
WORKERS = 2


@pytest.fixture(scope="module")
def server(start_servers: StartServer, redis_url: str) -> Server:
    """One server of two workers for this module's tests."""
    return start_servers(ROUTES, redis_url=redis_url, workers=WORKERS)


def workers_of(server: Server) -> list[psutil.Process]:
    """Its workers that live."""
    return [one for one in server.descendants() if "gateway.server_worker" in one.cmdline()]


def connections(server: Server, count: int, key: str | None = None) -> Iterator[httpx.Client]:
    """Clients that have a connection each: the kernel gives them to one worker or another."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            yield stack.enter_context(server.client(key))


def test_both_answer_and_usage_is_whole_at_once(server: Server) -> None:
    key = make_key(server)
    for http in connections(server, 24, key):
        assert ask(http, "fake").status_code == 200
    with server.client() as admin:
        found = admin.get("/admin/usage", params={"group_by": "route"}).json()
        mine = admin.get("/metrics").text
    assert next(one["calls"] for one in found["data"] if one["route"] == "fake") == 24
    written = [sum(len(file.read_bytes()) for file in server.data.glob(f"journal-{n}/usage-*")) for n in (1, 2)]
    assert min(written) > 0
    assert "promptyard_workers 2.0" in mine
    # Records of workers are heard of when they are brought into SQL.
    assert "promptyard_calls_total{" in mine


def test_one_connection_is_good_for_everything(server: Server) -> None:
    with server.client() as http:
        assert ask(http, "fake").status_code == 200
        assert http.get("/admin/keys").status_code == 200
        assert ask(http, "fake").status_code == 200  # by the process that has the connection now
        made = http.post("/api/2.0/mlflow/experiments/create", json={"name": "of workers"})
        assert made.status_code == 200, made.text
        assert http.get("/nowhere").status_code == 404
        assert http.get("/docs").status_code == 200


def test_every_worker_obeys_a_moved_alias(server: Server) -> None:
    registry, prompt = "/api/2.0/mlflow", {"key": "mlflow.prompt.is_prompt", "value": "true"}
    with server.client() as admin:
        admin.post(f"{registry}/registered-models/create", json={"name": "moving", "tags": [prompt]})
        for number in (1, 2):
            tags = {"mlflow.prompt.text": f"Say {number}.", "_mlflow_prompt_model_config": '{"model_name": "fake"}'}
            own = [prompt, *({"key": key, "value": value} for key, value in tags.items())]
            made = {"name": "moving", "source": "dummy-source", "tags": own}
            assert admin.post(f"{registry}/model-versions/create", json=made).status_code == 200
        for version in ("1", "2"):
            alias = {"name": "moving", "alias": "production", "version": version}
            assert admin.post(f"{registry}/registered-models/alias", json=alias).status_code == 200
            time.sleep(1)
            for http in connections(server, 16):
                answer = http.post("/v1/chat/completions", json={"model": "prompt:moving"})
                assert answer.headers["x-promptyard-prompt"] == f"moving/{version}"


def test_the_official_client_asks_the_model_that_another_process_has(server: Server) -> None:
    server.wait_ready()
    asked: Any = {"model": "chat", "messages": MESSAGES, "max_tokens": 5, "temperature": 0}
    for _ in range(4):
        with client(server) as openai:
            assert openai.chat.completions.create(**asked).choices[0].message.content
            assert len(list(openai.chat.completions.create(**asked, stream=True))) > 2


def test_a_key_that_is_revoked_is_refused_by_all_within_a_second(server: Server) -> None:
    key = new_key(server)
    everybody = connections(server, 8, key["key"])
    clients = [http for http in everybody if ask(http, "fake").status_code == 200]
    assert len(clients) == 8
    with server.client() as admin:
        admin.delete(f"/admin/keys/{key['id']}").raise_for_status()
    time.sleep(1)
    for http in connections(server, 8, key["key"]):
        assert ask(http, "fake").status_code == 401


def test_a_reload_is_served_by_all_when_it_is_answered(server: Server) -> None:
    before = server.config.read_text()
    server.config.write_text(before + "  more: {deployments: [{provider: fake, model: m}]}\n")
    with server.client() as admin:
        admin.post("/admin/reload").raise_for_status()
    assert {ask(http, "more").status_code for http in connections(server, 16)} == {200}
    server.config.write_text(before + "  bad: {nonsense: 1}\n")
    with server.client() as admin:
        assert admin.post("/admin/reload").status_code == 400
    assert {ask(http, "more").status_code for http in connections(server, 16)} == {200}
    server.config.write_text(before)
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: {ask(http, "more").status_code for http in connections(server, 8)} == {404})


def test_a_worker_that_is_killed_takes_nobody_else_with_it(server: Server) -> None:
    bad: list[str] = []
    stop = threading.Event()
    victim = workers_of(server)[0]

    def ask_for_ever() -> None:
        while not stop.is_set():
            try:
                with server.client() as http:
                    answer = ask(http, "fake")
                    if answer.status_code != 200:
                        bad.append(answer.text)
            except httpx.TransportError as error:
                bad.append(repr(error))

    threads = [threading.Thread(target=ask_for_ever) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    victim.kill()
    until(lambda: len(workers_of(server)) == WORKERS and victim.pid not in {one.pid for one in workers_of(server)})
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(30)
    # At most what it was answering when it was killed.
    assert len(bad) <= len(threads), bad
    assert "Worker 1 ended" in server.stderr() or "Worker 2 ended" in server.stderr()
    until(lambda: server.wait_ready()["workers"] == "ready")


def test_without_redis_they_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    command = [sys.executable, "-m", "gateway.cli", "serve", "--workers", "2", "--data", str(tmp_path / "data")]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment({}, "none"), capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "--workers: 2 workers need a Redis" in ended.stderr
    assert "PROMPTYARD_REDIS_URL" in ended.stderr


def test_sigterm_lets_calls_end_and_takes_no_more(start_server: StartServer, fresh_redis: str) -> None:
    server = start_server(ROUTES, redis_url=fresh_redis, workers=WORKERS)
    answers: list[Any] = []

    def slow() -> None:
        with server.client() as http:
            answers.append(ask(http, "slow"))

    threads = [threading.Thread(target=slow) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    with server.client() as early:
        assert ask(early, "fake").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert error_of(ask(early, "fake"))["code"] == "stopping"
        # Also where a worker has nothing to do any more.
        assert {error_of(ask(http, "fake"))["code"] for http in connections(server, 6)} == {"stopping"}
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [200] * 3
    server.process.wait(10)
    assert not server.descendants()
    assert "ERROR" not in server.stderr()


def test_what_another_number_of_workers_left_is_brought_into_the_ledger(
    start_server: StartServer, fresh_redis: str
) -> None:
    first = start_server(ROUTES, redis_url=fresh_redis, workers=WORKERS)
    for http in connections(first, 12):
        assert ask(http, "fake").status_code == 200
    first.kill()
    first.reap()
    second = start_server(ROUTES, data=first.data)
    with second.client() as admin:
        assert admin.get("/admin/usage", params={"group_by": ""}).json()["total"]["calls"] == 12
