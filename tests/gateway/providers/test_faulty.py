"""Faults on order: drawn alike each time, and to all above them as if the upstream had done it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.providers.fake import FakeProvider
from gateway.providers.faulty import HEADER, Drawn, Faults
from gateway.routes import Cooldown, Deployment, Fault, Limits, ProviderSpec, Retries, Route, Task, Timeouts
from gateway.types import Answer, UpstreamRequest
from tests.gateway.providers.test_fake_dialects import ASKED, chunks, received, said
from tests.gateway.test_fallback import Bench, Recorder, journalled  # noqa: F401 - a fixture
from tests.gateway.test_rescue import finishes, streamed
from tests.gateway.test_rescue import said as told

TASKS = list(ASKED)
WORDS = {"chunks": ["One ", "two, ", "three."], "reasoning": None}


def drawn(fault: Fault) -> Drawn:
    one = Faults(Route("r", ()), fault).next()
    assert one is not None
    return one


async def ask(fault: Fault, task: Task = Task.CHAT, stream: bool = True, step: Mapping[str, Any] = WORDS) -> Answer:
    provider = FakeProvider(ProviderSpec("up", "fake", options={"script": [step]}))
    return await drawn(fault).send(provider, UpstreamRequest(task, "m", ASKED.get(task, {}), {}, stream, 5.0))


def names(fault: Fault, attempts: int) -> list[tuple[str, ...]]:
    faults = Faults(Route("r", ()), fault)
    return [one.names if (one := faults.next()) else () for _ in range(attempts)]


def test_the_same_seed_has_the_same_faults_at_the_same_attempts() -> None:
    fault = Fault(seed=7, error=0.2, stall=0.05, cut=0.1, slow=0.5)
    found = names(fault, 1000)
    assert found == names(fault, 1000)
    assert found != names(Fault(seed=8, error=0.2, stall=0.05, cut=0.1, slow=0.5), 1000)
    counted = Counter(name for one in found for name in one)
    assert 160 <= counted["error"] <= 240
    assert 20 <= counted["stall"] <= 65
    assert 50 <= counted["cut"] <= 110
    assert {one for one in found if len(one) > 1} == {("stall", "slow"), ("cut", "slow")}


def test_a_rate_that_changes_moves_no_other_fault() -> None:
    few, many = names(Fault(seed=1, error=0.1, cut=0.3), 200), names(Fault(seed=1, error=0.4, cut=0.3), 200)
    assert all(after in (before, ("error",)) for before, after in zip(few, many, strict=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("task", TASKS)
async def test_an_error_is_told_in_the_dialect_and_marked(task: Task, stream: bool) -> None:
    answer = await ask(Fault(error=1, status=429, retry_after=1.5), task, stream)
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, answer.headers["retry-after"], answer.headers[HEADER]) == (429, "1.5", "error")
    assert error["message"] == "HTTP 429, injected by this route's fault."
    assert error["code"] == "injected_fault"
    with pytest.raises(UpstreamFailed, match="credential"):
        await ask(Fault(error=1, status=401), task, stream)


@pytest.mark.parametrize(("after", "size"), [(0, 0), (1, 4096), (9, 4844)])
async def test_a_cut_amid_sound_comes_after_so_many_chunks(after: int, size: int) -> None:
    request = UpstreamRequest(Task.SPEECH, "m", {"input": "three words long"}, {}, True, 5.0)
    answer = await drawn(Fault(cut=1, cut_after=after)).send(FakeProvider(ProviderSpec("up", "fake")), request)
    raw, ended = await received(answer)
    assert (len(raw), ended) == (size, False)


@pytest.mark.parametrize("split", [None, 7])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("after", "text"), [(0, ""), (1, "One "), (3, "One two, three."), (9, "One two, three.")])
async def test_a_cut_comes_after_so_many_pieces_and_before_the_end(
    task: Task, after: int, text: str, split: int | None
) -> None:
    answer = await ask(Fault(cut=1, cut_after=after), task, step={**WORDS, "split": split})
    assert answer.headers[HEADER] == "cut"
    raw, ended = await received(answer)
    found = chunks(task, raw)
    assert (said(found), ended, bool(raw)) == (text, False, bool(after))
    assert not any(choice["finish_reason"] for chunk in found for choice in chunk["choices"])


@pytest.mark.parametrize("task", TASKS)
async def test_a_stall_is_silence_after_so_many_pieces(task: Task) -> None:
    answer = await ask(Fault(stall=1, stall_after=2), task)
    assert answer.chunks is not None
    raw = b""
    while said(chunks(task, raw)) != "One two, ":
        raw += await asyncio.wait_for(anext(answer.chunks), 5)
    waiting = asyncio.ensure_future(anext(answer.chunks))
    done, _ = await asyncio.wait({waiting}, timeout=0.02)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await answer.chunks.aclose()


@pytest.mark.parametrize("fault", [Fault(cut=1, cut_after=3), Fault(cut=1)])
async def test_a_whole_answer_that_is_cut_never_arrives(fault: Fault) -> None:
    with pytest.raises(UpstreamFailed, match="injected by this route's fault"):
        await ask(fault, stream=False)


@pytest.mark.parametrize("task", TASKS)
async def test_slow_tokens_are_slow_and_whole(task: Task) -> None:
    loop = asyncio.get_running_loop()
    for stream in (False, True):
        began = loop.time()
        answer = await ask(Fault(slow=1, pause=0.02), task, stream)
        if stream:
            raw, ended = await received(answer)
            assert (said(chunks(task, raw)), ended) == ("One two, three.", True)
        assert loop.time() - began >= 0.06
        assert answer.headers[HEADER] == "slow"


@pytest.mark.parametrize(("after", "chunks"), [(0, 0), (1, 1), (2, 2), (9, 4)])
async def test_sound_breaks_off_too(after: int, chunks: int) -> None:
    provider = FakeProvider(ProviderSpec("up", "fake"))
    asked = UpstreamRequest(Task.SPEECH, "m", {"input": "one two three four five six seven eight"}, {}, True, 5.0)
    whole, ended = await received(await provider.send(asked))
    assert ended
    assert 3 * 4096 < len(whole) <= 4 * 4096
    cut, ended = await received(await drawn(Fault(cut=1, cut_after=after)).send(provider, asked))
    assert (cut, ended) == (whole[: chunks * 4096], False)


async def test_who_has_tokens_counted_reads_anthropics_error() -> None:
    answer = await ask(Fault(error=1, status=429), Task.COUNT_TOKENS, stream=False)
    assert orjson.loads(answer.body)["type"] == "error"


async def test_what_the_upstream_refuses_is_left_as_it_is() -> None:
    answer = await ask(Fault(cut=1, slow=1), step={"error": {"status": 400, "message": "no"}})
    assert (answer.status, HEADER in answer.headers) == (400, False)


def bench(fault: Fault, *providers: Recorder, **fields: Any) -> Bench:
    fields = {"limits": Limits(), "timeouts": Timeouts(idle=0.1, first_token=0.1, total=0.1), **fields}
    deployments = tuple(Deployment(one.name, "m") for one in providers)
    route = Route("first", deployments, strategy="priority", fault=fault, **fields)  # type: ignore[arg-type]  # as text
    return Bench([route], list(providers))


async def test_retries_act_on_it() -> None:
    fault = next(one for seed in range(99) if names(one := Fault(seed, error=0.5, status=429), 2) == [("error",), ()])
    asked = Recorder("a", {"answer": "at last"})
    made = bench(fault, asked, retries=Retries(1, backoff=0.01))
    assert await made.said(await made.admit()) == "at last"
    assert len(asked.asked) == 1


async def test_deployments_rest_for_it() -> None:
    made = bench(Fault(error=1), Recorder("a"), Recorder("b"), cooldown=Cooldown(1, 30))
    assert (await made.send(await made.admit())).status == 503
    assert [bool(made.router.health.of(Deployment(name, "m")).rests()) for name in "ab"] == [True, True]


@pytest.mark.parametrize("streamed", [False, True])
async def test_timeouts_act_on_it_and_say_why(streamed: bool) -> None:
    made = bench(Fault(stall=1), Recorder("a"))
    with pytest.raises(UpstreamTimeout, match=r"within 0.1 s, injected by this route's fault\.$"):
        await made.send(await made.admit(streamed=streamed))


async def test_rescues_act_on_it() -> None:
    fault = next(one for seed in range(99) if names(one := Fault(seed, cut=0.5, cut_after=2), 2) == [("cut",), ()])
    made = bench(fault, Recorder("a", WORDS), Recorder("b", WORDS), rescue=True)
    events = await streamed(made)
    assert told(events) == "One two, three."
    assert finishes(events) == ["stop"]
