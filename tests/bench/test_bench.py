"""The bench measures what it says: reduced runs of each part, counts only, no bars and no peers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from gateway.bench import load, measure, standin
from gateway.bench.measure import Sample
from gateway.bench.process import Child, Unavailable, get, two_cores
from gateway.bench.report import OURS, RIVAL, ROWS, Figures, Spread
from gateway.bench.servers import Started, start_standin
from tests.bench.measure import wrk
from tests.bench.report import BARS, Run
from tests.bench.servers import ROOT

CHAT = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
STREAM = orjson.dumps({"model": "m", "messages": [], "stream": True})
PATH = "/v1/chat/completions"
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pinning to a core needs Linux")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A stand-in provider in this process."""
    server = await standin.serve()
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# ---------------------------------------------------------------------------------------- the stand-in


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "holds"),
    [
        ("POST", PATH, CHAT, 200, b'"completion_tokens":100'),
        ("POST", "/v1/embeddings", b"{}", 200, b'"embedding":[0.0,'),
        ("GET", "/health", b"", 200, b"OK"),
        ("POST", PATH, b"{", 400, b"not JSON"),
        ("GET", "/v1/nothing", b"", 404, b"no such path"),
    ],
)
async def test_the_standin_answers(url: str, method: str, path: str, body: bytes, status: int, holds: bytes) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for _ in range(2):  # the second on the same connection
            answer = await client.request(method, path, content=body)
            assert (answer.status_code, holds in answer.content) == (status, True)


@pytest.mark.parametrize("usage", [False, True])
async def test_the_standin_streams_every_chunk_and_usage_when_asked(url: str, usage: bool) -> None:
    body = {"stream": True, "stream_options": {"include_usage": usage}}
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(PATH, json=body)
    events = answer.text.split("\n\n")
    assert answer.headers["content-type"] == "text/event-stream"
    assert load.check_stream(answer.status_code, answer.content) is None
    assert sum("word" in event for event in events) == 100
    assert ('"total_tokens":125' in events[-3]) is usage
    assert events[-2:] == ["data: [DONE]", ""]


async def test_the_standin_reads_a_request_that_arrives_in_pieces(url: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    request = load.request_bytes(url + PATH, CHAT, "key")
    for at in range(0, len(request), 50):
        writer.write(request[at : at + 50])
        await writer.drain()
        await asyncio.sleep(0.001)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await writer.wait_closed()


async def test_the_standin_holds_a_stream_that_asks_for_it(url: str) -> None:
    body = orjson.dumps({"stream": True, "messages": [{"role": "user", "content": standin.HOLD}]})
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(load.request_bytes(url + PATH, body, None))
    assert b"word000" in await reader.readuntil(b"\n\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.1)
    writer.close()
    await writer.wait_closed()


async def test_the_standin_goes_on_when_a_stream_s_caller_leaves(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", PATH, content=STREAM) as answer:
            await anext(answer.aiter_bytes())
        assert load.check_stream(200, (await client.post(PATH, content=STREAM)).content) is None


# ------------------------------------------------------------------------------------ the load generator


@pytest.mark.parametrize(("body", "check", "kind"), [(CHAT, "chat", "chats"), (STREAM, "stream", "streams")])
async def test_the_generator_counts_what_the_standin_served(url: str, body: bytes, check: str, kind: str) -> None:
    result = await load.generate(url + PATH, body, check=check, connections=4, seconds=0.7)
    async with httpx.AsyncClient(base_url=url) as client:
        served = (await client.get("/counts")).json()[kind]
    assert result.errors == {}
    assert result.answers == served >= 4
    assert result.chunks == (100 * served if check == "stream" else 0)
    assert 0 < result.first_p50 <= result.p50 <= result.p99


WHOLE = b"".join(b"data: " + line.split(b"data: ")[1] for line in (
    *(chunk.rpartition(b"\r\n")[0] for chunk in standin.CHUNKS), b"data: [DONE]\n\n"))  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "wrong"),
    [
        (200, WHOLE, None),
        (503, WHOLE, "status 503"),
        (200, b"", "0 chunks"),
        (200, WHOLE.partition(b" word099")[0], "an event is not a chunk"),
        (200, WHOLE.replace(b'"content":" word050"', b'"content":""'), "99 chunks"),
        (200, WHOLE.replace(b"word007", b"word006"), "chunks are changed"),
        (200, WHOLE.removesuffix(b"data: [DONE]\n\n"), "no [DONE]"),
        (200, b'data: {"error": {"message": "cut"}}\n\n' + WHOLE, "an event is not a chunk"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(status: int, body: bytes, wrong: str | None) -> None:
    found = load.check_stream(status, body)
    assert found is None if wrong is None else found is not None and found.startswith(wrong)


def test_a_peer_that_never_says_done_is_not_asked_for_it() -> None:
    assert load.check_undone_stream(200, WHOLE.removesuffix(b"data: [DONE]\n\n")) is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 429 Slow Down\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", "status 429: no"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "connection lost"),
        (b"", "connection lost"),
        (b"garbage\r\n\r\n", "connection lost"),
    ],
)
async def test_the_generator_reports_what_is_not_an_answer(answer: bytes, error: str) -> None:
    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(bad, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await load.generate(f"http://127.0.0.1:{port}/", CHAT, check="chat", connections=2, seconds=0.2)
    assert result.answers == 0
    assert set(result.errors) == {error}


async def test_the_generator_reports_that_nobody_listens() -> None:
    result = await load.generate("http://127.0.0.1:9/", CHAT, check="chat", connections=3, seconds=0.2)
    assert (result.answers, sum(result.errors.values())) == (0, 3)


# ------------------------------------------------------------------------------------------- processes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
FAMILY = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {BURN!r}])
child = subprocess.Popen([sys.executable, "-c", {BURN!r} + "held = b'x' * 80_000_000; print('up'); time.sleep(99)",
                          "the-model"], stdout=subprocess.PIPE)
child.stdout.read(2)
print("up", flush=True)
time.sleep(99)
"""


@linux
def test_a_child_is_pinned_accounted_with_its_children_and_ended(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    log = tmp_path / "log"
    with Child([sys.executable, "-uc", FAMILY], core=core, log=log, env={}, cwd=tmp_path) as child:
        deadline = time.monotonic() + 60
        while "up" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        family = child.tree()
        assert [os.sched_getaffinity(process.pid) for process in family] == [{core}, {core}]
        assert child.cpu() >= 0.58  # one child that has ended, one that lives; a clock tick is 10 ms
        assert child.resident() - child.resident(lambda command: "the-model" in command) > 80_000_000
    assert not any(process.is_running() for process in family)


@linux
def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such option')"]
    core, log, nobody = min(os.sched_getaffinity(0)), tmp_path / "log", "http://127.0.0.1:9"
    with (
        Child(command, core=core, log=log, env={}, cwd=tmp_path, url=nobody) as child,
        pytest.raises(Unavailable, match="ended with 1: no such option"),
    ):
        child.wait_for("/health")


@linux
def test_chat_and_streams_are_measured_on_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STREAM_CALLERS", 8)
    with start_standin(tmp_path, min(os.sched_getaffinity(0))).child as child:
        server = Started(child, "key")
        chat, streams = measure.chat(server, server, 1), measure.streams(server, server, 0.5)
    assert (chat.wrong, streams.wrong) == (None, None)
    assert all(value > 0 for value in (*chat.values.values(), *streams.values.values()))


@linux
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not on PATH: apt install wrk")
def test_wrk_counts_what_the_standin_served(tmp_path: Path) -> None:
    with start_standin(tmp_path, min(os.sched_getaffinity(0))).child as child:
        result = wrk(child.url + PATH, CHAT.decode(), None, 1)
        served = get(child.url + "/counts")["chats"]
        refused = wrk(child.url + "/nowhere", CHAT.decode(), None, 1)
    assert result.errors == {}
    assert result.answers <= served <= result.answers + 2 * measure.CHAT_CALLERS  # those under way when it stopped
    assert refused.answers == 0
    assert refused.errors["status above 399"] > 0


# --------------------------------------------------------------------------------------------- report


def figures(ours: list[float], theirs: list[float], wrong: str | None = None) -> Figures:
    """A run of chat alone."""
    made = Figures()
    for mine, his in zip(ours, theirs, strict=True):
        made.add(OURS, Sample({"chat": mine}, wrong))
        made.add(RIVAL, Sample({"chat": his}))
    return made


@pytest.mark.parametrize(
    ("ours", "theirs", "wrong", "met", "says"),
    [
        ([500, 1500, 1000], [100, 200, 150], None, True, "| 6.67 (5.00 to 7.50) | met |"),
        ([499.0], [100.0], None, False, "| 4.99 | **not met** |"),
        ([900.0], [100.0], "3 x status 429", None, "| not measured |"),
    ],
)
def test_a_bar_is_judged_by_the_median_of_the_rounds_ratios(
    ours: list[float], theirs: list[float], wrong: str | None, met: bool | None, says: str
) -> None:
    made = figures(ours, theirs, wrong)
    run = Run(made, len(ours), ("chat",), "bench", "wrk.", {OURS: "1", RIVAL: "2"}, load=0.0)
    assert BARS[0].met(made) is met
    assert run.failed() is (met is not True)
    page = run.as_markdown()
    assert says in page
    assert ("invalid: 3 x status 429" in page) is (wrong is not None)
    assert json.loads(json.dumps(run.as_json()))["bars"][0]["met"] is met


def test_a_peer_that_is_missing_is_named_with_the_reason() -> None:
    made = Figures()
    made.add(OURS, Sample({"chat": 5.0}))
    run = Run(made, 1, ("chat",), "bench", "wrk.", {OURS: "1"}, missing={RIVAL: "pip could not install it"})
    assert "- mlflow: pip could not install it" in run.as_markdown()
    assert made.ratio("chat") is None


@pytest.mark.parametrize(
    ("load_before", "share", "disturbed"), [(0.1, 97.0, False), (0.9, 97.0, True), (0.1, 60.0, True)]
)
def test_figures_of_a_disturbed_machine_say_so(load_before: float, share: float, disturbed: bool) -> None:
    made = figures([300.0], [100.0])
    made.add(RIVAL, Sample({"chat core": share}))
    run = Run(made, 1, ("chat",), "bench", "wrk.", {OURS: "1", RIVAL: "2"}, load=load_before)
    assert ("Other work was running" in run.as_markdown()) is disturbed
    assert run.as_json()["disturbed"] is disturbed


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


# -------------------------------------------------------------------------------------------- the whole


def has_two_cores() -> bool:
    """Whether a whole run is possible here."""
    try:
        return bool(two_cores())
    except Unavailable:
        return False


whole = pytest.mark.skipif(not has_two_cores(), reason="a run needs Linux and two cores")
BENCH = [sys.executable, "-m", "tests.bench", "--rounds", "1", "--seconds", "1", "--peers", "none"]


@whole
def test_promptyard_bench_measures_this_machine() -> None:
    command = [sys.executable, "-m", "gateway.cli", "bench", "--seconds", "0.5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert [figure for figure in figures if figure["invalid"] or figure["median"] <= 0] == []
    ours = {figure["what"] for figure in figures if figure["server"] == OURS}
    assert ours == set(ROWS) - {"tls cpu", "machinery", "machinery redis"}


@whole
def test_a_run_without_peers_measures_our_server(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [*BENCH, "--only", "chat,tls", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=110)
    assert out.exists(), done.stderr
    found = json.loads(out.read_text())
    ours = {figure["what"]: figure for figure in found["figures"] if figure["server"] == OURS}
    assert found["missing"] == {}, done.stderr
    assert {figure["invalid"] for figure in ours.values()} == {None}
    assert {"chat", "tls cpu"} <= set(ours)
    assert all(figure["median"] > 0 for figure in ours.values())


@whole
def test_a_server_ends_when_its_bench_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from gateway.bench.servers import start_standin\n"
        "child = start_standin(Path(sys.argv[1]), min(os.sched_getaffinity(0))).child\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(int(done.stdout))


@whole
def test_ctrl_c_ends_every_process_of_a_run(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        run = subprocess.Popen(BENCH, stdout=subprocess.DEVNULL, stderr=err, cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 60
    while "round 1" not in (tmp_path / "err").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    assert len(family) >= 2  # the stand-in, and our server or what prepares it
    assert not any(process.is_running() for process in family)
