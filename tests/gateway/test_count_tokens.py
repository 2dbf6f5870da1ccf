"""Who counts a conversation's tokens: the provider of the deployment asked first, where it can, or we ourselves."""

from __future__ import annotations

import orjson

from gateway import tokens
from gateway.cache import Cache
from gateway.cache_store import MemoryStore
from gateway.plane import Snapshot
from gateway.proxy import Proxy
from gateway.routes import Config, Deployment, Task
from gateway.types import Answer, Call, Request, UsageFilter
from tests.gateway.test_fallback import BODY, KEY, Bench, Recorder, journalled, route  # noqa: F401 - a fixture

SAID = '{"input_tokens": 12, "more": true}'


class Counting(Recorder):
    """A provider that counts, as Anthropic does."""

    def speaks(self, task: Task, model: str) -> bool:
        return task is Task.COUNT_TOKENS


async def asked(bench: Bench) -> tuple[Call, Answer]:
    headers = {"anthropic-version": "2023-06-01"}
    request = Request("req_1", Task.COUNT_TOKENS, "first", BODY, False, headers)
    proxy = Proxy(bench.limiter, bench.meter, Cache(MemoryStore()))
    snapshot = Snapshot(Config({}, {}), "1", {}, bench.router, lambda _: None)
    call, answer = await proxy.answer(request, KEY, snapshot)
    record = await bench.ledger.find("req_1")
    assert record is not None
    assert (record.status, record.input_tokens, record.output_tokens, record.cost) == (200, 0, 0, 0)
    assert bench.counters.running() == 0
    [total] = await bench.ledger.sums([], UsageFilter())
    assert total.calls == 1
    return call, answer


async def test_a_provider_that_counts_is_asked() -> None:
    broken, up = Counting("broken", {"error": {"status": 500}}), Counting("up", {"raw": SAID})
    other = Recorder("other")
    bench = Bench(
        [route("first", "broken", "up", "other", strategy="priority", max_output_tokens=7)], [broken, up, other]
    )
    call, answer = await asked(bench)
    assert answer.body == SAID.encode()
    [request] = up.asked
    assert (request.task, request.body) == (Task.COUNT_TOKENS, BODY)
    assert request.headers == {"anthropic-version": "2023-06-01"}
    assert (call.attempt and call.attempt.deployment.provider, len(broken.asked)) == ("up", 1)


async def test_others_are_counted_for() -> None:
    other, up = Recorder("other"), Counting("up", {"raw": SAID})
    bench = Bench([route("first", "other", "up", strategy="priority")], [other, up])
    _, answer = await asked(bench)
    assert orjson.loads(answer.body) == {"input_tokens": tokens.counted(BODY, "other-model")}
    assert not other.asked
    assert not up.asked


async def test_a_very_long_text_is_estimated() -> None:
    bench = Bench([route("first", "other")], [Recorder("other")])
    body = {"messages": [{"role": "user", "content": "hello " * 400_000}]}
    request = Request("req_1", Task.COUNT_TOKENS, "first", body, False, {})
    assert await bench.limiter.count(request, Deployment("other", "m").model) == tokens.likely(body)
