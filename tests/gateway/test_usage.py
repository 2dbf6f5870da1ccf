"""Every call is settled once, however it ends, with what the provider counted or with a tally of our own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.budgets import Budgets
from gateway.counters import MemoryCounters
from gateway.database import open_database
from gateway.errors import BadRequest, Overloaded, RateLimited, UpstreamFailed, UpstreamTimeout
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.money import Listing, Price, Rates
from gateway.owners import Key, Scope
from gateway.routes import Deployment, Limits, Route, RouteTask, Task
from gateway.store import migrations
from gateway.store.usage import UsageStore
from gateway.types import Answer, Attempt, Call, Request, UsageFilter
from gateway.usage import LEFT, Meter
from tests.services.upstream import DONE, STREAM, chat, delta, usage_chunk

KEY = Key("key_1", "one", frozenset(Scope), limits=Limits(concurrency=1, tpm=100_000))
#: A nano-dollar a token in, ten a token out.
DEPLOYMENT = Deployment("up", "m", listing=Listing(Price(Rates(Decimal("1e-9"), Decimal("1e-8")))))
BODY = {"model": "r", "messages": [{"role": "user", "content": "Say hello to everybody."}]}


class Bench:
    """A meter on a real journal, a real database and real counters."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(f"sqlite:///{folder / 'usage.db'}")
        migrations.migrate(self.database)
        self.journal = Journal(folder / "journal")
        self.ledger = Ledger(self.journal, UsageStore(self.database))
        self.counters = MemoryCounters()
        self.limiter = Limiter(self.counters, Budgets(self.counters, self.ledger))
        now = iter(range(1000))
        self.meter = Meter(self.ledger, self.limiter, lambda: next(now) / 10)

    async def call(self, *, streamed: bool = False, task: Task = Task.CHAT, **body: Any) -> Call:
        kind = RouteTask.EMBEDDINGS if task is Task.EMBEDDINGS else RouteTask.CHAT
        route = Route("r", (DEPLOYMENT,), kind, limits=Limits(concurrency=1))
        call = await self.limiter.admit(KEY, route, Request("req_1", task, "r", {**BODY, **body}, streamed, {}))
        call.attempt = Attempt(DEPLOYMENT, task, asked=True)
        call.started = 0.0
        assert self.counters.running() == 2
        return call

    async def record(self) -> Any:
        """The one record there is; by then nothing may be held."""
        assert self.counters.running() == 0
        record = await self.ledger.find("req_1")
        [total] = await self.ledger.sums([], UsageFilter())
        assert total.calls == 1
        return record


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.ledger.close()
    made.database.close()


async def chunks(*parts: bytes | Exception) -> AsyncGenerator[bytes, None]:
    for part in parts:
        await asyncio.sleep(0)
        if isinstance(part, Exception):
            raise part
        yield part


async def read(answer: Answer, most: int = 1000) -> list[bytes]:
    assert answer.chunks is not None
    found = []
    async for chunk in answer.chunks:
        found.append(chunk)
        if len(found) == most:
            break
    await answer.chunks.aclose()
    return found


async def test_a_whole_answer_costs_what_its_provider_counted(bench: Bench) -> None:
    call = await bench.call()
    answer = Answer(200, {}, orjson.dumps(chat()))
    assert bench.meter.metered(call, answer) is answer
    record = await bench.record()
    assert (record.input_tokens, record.output_tokens, record.cost, record.estimated) == (9, 2, 29, False)
    assert (record.status, record.error, record.route, record.deployment) == (200, None, "r", "up/m")
    bench.meter.close(call, BadRequest("once is enough"))
    assert (await bench.record()).status == 200


@pytest.mark.parametrize(
    "usage",
    [None, {}, [], "many", {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens_details": 5}],
)
async def test_odd_usage_never_fails_a_call(bench: Bench, usage: Any) -> None:
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps({**chat(), "usage": usage})))
    record = await bench.record()
    assert record.status == 200
    assert record.estimated == (not isinstance(usage, dict))


@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 - 1])
async def test_a_count_no_database_holds_does_not_block_the_ledger(bench: Bench, count: int) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps({**chat(), "usage": usage})))
    record = await bench.record()
    assert record.input_tokens == record.output_tokens == record.cached_tokens == 2**31 - 1


async def test_embeddings_without_usage_have_no_output(bench: Bench) -> None:
    call = await bench.call(task=Task.EMBEDDINGS, input="a b c")
    bench.meter.metered(call, Answer(200, {}, orjson.dumps({"data": [{"embedding": [0.5] * 1000}]})))
    record = await bench.record()
    assert (record.output_tokens, record.estimated) == (0, True)
    assert 0 < record.input_tokens < 200


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_an_upstreams_error_costs_nothing(bench: Bench, status: int) -> None:
    bench.meter.metered(await bench.call(), Answer(status, {}, b'{"error": {}}'))
    record = await bench.record()
    assert (record.status, record.error) == (status, "upstream_error")
    assert (record.input_tokens, record.output_tokens, record.cost) == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "status", "code", "read"),
    [
        (UpstreamFailed("x"), 502, "upstream_failed", False),
        (UpstreamTimeout("x"), 504, "upstream_timeout", False),
        (asyncio.CancelledError(LEFT), 499, "client_closed_request", True),
        (asyncio.CancelledError(), 503, "overloaded", True),  # not the caller: this process stops
        (KeyError("a bug of ours"), 500, "internal_error", False),
    ],
)
async def test_a_call_without_an_answer(bench: Bench, error: BaseException, status: int, code: str, read: bool) -> None:
    call = await bench.call()
    for _ in range(2):
        bench.meter.close(call, error)
    record = await bench.record()
    assert (record.status, record.error, record.output_tokens) == (status, code, 0)
    assert (record.input_tokens > 0) == read


async def test_a_stream_is_in_the_ledger_before_its_end_goes_out(bench: Bench) -> None:
    answer = bench.meter.metered(await bench.call(streamed=True), Answer(200, {}, chunks=chunks(*STREAM)))
    assert answer.chunks is not None
    async for chunk in answer.chunks:
        if chunk == DONE:
            assert bench.counters.running() == 0
    record = await bench.record()
    assert (record.input_tokens, record.output_tokens, record.estimated, record.status) == (9, 2, False, 200)


@pytest.mark.parametrize("asked", [True, False])
async def test_the_usage_chunk_is_for_who_asked(bench: Bench, asked: bool) -> None:
    call = await bench.call(streamed=True, stream_options={"include_usage": asked})
    passed = await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*STREAM))))
    assert (usage_chunk() in passed) == asked
    assert passed == [part for part in STREAM if asked or part != usage_chunk()]


@pytest.mark.parametrize(
    ("parts", "status", "output"),
    [
        (STREAM[:3], 502, 2),
        ((*STREAM[:3], UpstreamFailed("cut")), 502, 2),
        ((*STREAM[:3], UpstreamTimeout("stalled")), 504, 2),
        ((*STREAM[:2], b"data: {\n\n", *STREAM[2:]), 502, 1),
        ((STREAM[0] + STREAM[1] + b"data: {\n\n",), 502, 1),
        ((delta("x" * 400),), 502, 100),
        ((delta("日本語" * 4),), 502, 9),
    ],
)
async def test_a_broken_stream_counts_what_went_out(
    bench: Bench, parts: tuple[bytes | Exception, ...], status: int, output: int
) -> None:
    call = await bench.call(streamed=True)
    passed = await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*parts))))
    assert passed[-1].startswith(b'data: {"error":')
    assert DONE not in passed
    record = await bench.record()
    assert (record.status, record.output_tokens, record.estimated) == (status, output, True)
    assert record.input_tokens > 0


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_that_falls_silent_after_its_model_has_finished_is_whole(bench: Bench, usage: bool) -> None:
    end = UpstreamTimeout("stalled")
    parts = STREAM[:5] if usage else STREAM[:4]
    call = await bench.call(streamed=True, stream_options={"include_usage": True})
    passed = await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*parts, end))))
    assert b"".join(passed) == b"".join(parts)
    record = await bench.record()
    assert (record.status, record.error, record.output_tokens, record.estimated) == (200, None, 2, not usage)


@pytest.mark.parametrize(("parts", "answers"), [(STREAM[:4], 2), ((*STREAM[:4], b'data: {"usa'), 1)])
async def test_but_not_where_more_was_to_come(bench: Bench, parts: tuple[bytes, ...], answers: int) -> None:
    call = await bench.call(streamed=True)
    call.request.output = (None, answers)
    passed = await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*parts, UpstreamTimeout("stalled")))))
    assert passed[-1].startswith(b'data: {"error":')
    assert (await bench.record()).status == 504


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_a_stream_that_is_left_counts_what_went_out(bench: Bench, most: int) -> None:
    call = await bench.call(streamed=True)
    assert len(await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*STREAM))), most)) == most
    record = await bench.record()
    assert (record.status, record.error, record.output_tokens) == (499, "client_closed_request", most - 1)


async def test_a_fault_of_ours_in_a_stream_settles_too(bench: Bench) -> None:
    call = await bench.call(streamed=True)
    answer = bench.meter.metered(call, Answer(200, {}, chunks=chunks(*STREAM[:2], KeyError("a bug of ours"))))
    with pytest.raises(KeyError):
        await read(answer)
    assert (await bench.record()).status == 500


async def test_a_refused_call_is_recorded_and_holds_nothing(bench: Bench) -> None:
    bench.meter.refuse(Request("req_1", Task.CHAT, "nope", BODY, False, {}), KEY, None, BadRequest("no", code="wrong"))
    record = await bench.record()
    assert (record.status, record.error, record.route, record.cost) == (400, "wrong", "", 0)


async def answered(bench: Bench, call: Call) -> None:
    """Give `call` a good answer, and read it."""
    if call.request.stream:
        await read(bench.meter.metered(call, Answer(200, {}, chunks=chunks(*STREAM))))
    else:
        bench.meter.metered(call, Answer(200, {}, orjson.dumps(chat())))


async def test_without_a_journal_no_answer_is_given_and_nothing_is_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for streamed in (False, True):
            call = await bench.call(streamed=streamed)
            with pytest.raises(Overloaded, match="journal"):
                await answered(bench, call)
            assert bench.counters.running() == 0


async def test_records_wait_for_sql_and_are_never_written_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger._store, "fill", _away)
        for _ in range(3):
            with pytest.raises(Overloaded, match="database does not answer"):
                await bench.ledger.flush()
    for _ in range(3):
        await bench.ledger.flush()
    assert (await bench.record()).status == 200


@pytest.mark.parametrize("damage", [b"not json", b"{}", b"[]", b'{"request_id": "req_0"}'])
async def test_a_damaged_line_is_passed_over_and_told_of(
    bench: Bench, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bench.journal.append(damage)
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
    assert (await bench.record()).status == 200
    assert "damaged" in caplog.text


async def test_a_cleared_journal_is_read_from_its_new_beginning(bench: Bench) -> None:
    for _ in range(3):
        bench.journal.append(b"x" * 1000)
    await bench.ledger.flush()
    os.ftruncate(bench.journal._file, 0)
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
    assert (await bench.record()).status == 200


def _away(*_arguments: object) -> None:
    raise OSError("SQL is away")


async def test_two_fills_at_once_copy_each_line_once(bench: Bench) -> None:
    for _ in range(3):
        bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
    slow, stored = threading.Event(), bench.ledger._store.fill

    def fill(*arguments: Any) -> None:
        slow.wait(5)
        stored(*arguments)

    bench.ledger._store.fill = fill  # type: ignore[method-assign]
    first = asyncio.create_task(bench.ledger.flush())
    await asyncio.sleep(0.05)
    first.cancel()  # as a stop does; its thread goes on
    second = asyncio.create_task(bench.ledger.flush())
    await asyncio.sleep(0.05)
    slow.set()
    await second
    [total] = await bench.ledger.sums([], UsageFilter())
    assert total.calls == 3


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(bench: Bench) -> None:
    bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
    stored = bench.ledger._store.fill

    def fill(*arguments: Any) -> None:
        stored(*arguments)
        raise ConnectionError("after the commit")

    bench.ledger._store.fill = fill  # type: ignore[method-assign]
    with pytest.raises(Overloaded):
        await bench.ledger.flush()
    bench.ledger._store.fill = stored  # type: ignore[method-assign]
    assert (await bench.record()).status == 200


async def test_without_sql_the_log_goes_on_and_says_each_call_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.ledger._store.position = _away  # type: ignore[method-assign]
    running = asyncio.create_task(bench.ledger.run())
    with caplog.at_level("INFO"):
        for _ in range(3):
            bench.meter.metered(await bench.call(), Answer(200, {}, orjson.dumps(chat())))
            await asyncio.sleep(0.15)
    running.cancel()
    assert caplog.text.count("req_1") == 3


async def test_what_an_older_version_did_not_write_has_its_default(bench: Bench) -> None:
    old = {"request_id": "req_1", "time": 1.0, "key_id": "k", "key_name": "k", "route": "r", "deployment": "d"}
    bench.journal.append(orjson.dumps({**old, "task": "t", "status": 200, "of_a_newer_one": 1}))
    assert (await bench.record()).first_token is None


async def test_a_refusal_stays_one_when_it_cannot_be_recorded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.journal, "append", full)
    request = Request("req_1", Task.CHAT, "r", BODY, False, {})
    bench.meter.refuse(request, KEY, None, RateLimited("no"))
    monkeypatch.undo()
    assert await bench.ledger.find("req_1") is None


async def test_a_log_that_cannot_keep_up_says_so_and_loses_no_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.ledger._UNTOLD", 2)
    for _ in range(5):
        bench.meter.close(await bench.call(), BadRequest("no"))
    [total] = await bench.ledger.sums([], UsageFilter())
    assert total.calls == 5
    with caplog.at_level("INFO"):
        bench.ledger._tend()
    lines = [one for one in caplog.records if one.name == "gateway.calls"]
    assert [one.getMessage().count("req_1") for one in lines] == [2]
    assert "3 calls have no line here" in caplog.text
