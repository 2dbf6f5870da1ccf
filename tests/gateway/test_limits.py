"""What a call claims of its key's and its route's limits, and what it is told when they refuse."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from gateway import limits, tokens
from gateway.budgets import Budgets
from gateway.counters import MemoryCounters
from gateway.errors import BadRequest, RateLimited
from gateway.limits import Limiter
from gateway.money import Listing
from gateway.owners import Key, Scope
from gateway.routes import Deployment, Limits, Route, RouteTask, Task
from gateway.types import Request
from tests.gateway.conftest import NothingSpent

TEXT = "The quick brown fox jumps over the lazy dog. " * 20  # 201 tokens


def request(task: Task = Task.CHAT, **body: object) -> Request:
    given = {"model": "r", "messages": [{"role": "user", "content": TEXT}], "input": TEXT, **body}
    given.pop("input" if task is Task.CHAT else "messages")
    return Request("req_1", task, "r", given, False, {})


def key(limits: Limits, name: str = "a") -> Key:
    return Key(name, name, frozenset(Scope), limits=limits)


def route(limits: Limits | None = None, **fields: object) -> Route:
    return Route(
        "r",
        (Deployment("p", "gpt-4o", listing=Listing(max_output_tokens=10_000)),),
        limits=limits or Limits(),
        **fields,
    )  # type: ignore[arg-type]


@pytest.fixture
def limiter() -> Limiter:
    counters = MemoryCounters()
    return Limiter(counters, Budgets(counters, NothingSpent()))


async def admitted(limiter: Limiter, limits: Limits, **body: Any) -> tuple[int, int]:
    """Tokens claimed and left of the key's tpm."""
    call = await limiter.admit(key(limits), route(), request(**body))
    (standing,) = call.grants[0].standings
    return standing.claim.amount, standing.left


async def test_a_caller_with_a_cap_claims_its_input_and_the_cap(limiter: Limiter) -> None:
    claimed, left = await admitted(limiter, Limits(tpm=5000), max_tokens=100, n=3)
    assert 201 + 300 <= claimed < 3 * 201 + 300
    assert left == 5000 - claimed


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"max_completion_tokens": 7, "max_tokens": 9000}, 9000),
        ({"max_completion_tokens": 9000, "max_tokens": 7}, 9000),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
        ({"max_tokens": 7, "n": 2, "best_of": None}, 14),
        ({"max_tokens": 7, "n": 2, "best_of": 5}, 35),
        ({"max_tokens": 7, "n": 5, "best_of": 2}, 35),
        ({"max_tokens": None, "n": 2}, 20_000),
    ],
)
async def test_the_largest_answer_that_was_asked_for_is_claimed(
    limiter: Limiter, fields: dict[str, Any], output: int
) -> None:
    claimed, _ = await admitted(limiter, Limits(tpm=50_000), **fields)
    assert output + 201 <= claimed < output + 3 * 201


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("one", 1), (["one"], 1), (["one", "two", "three"], 3), ([1, 2, 3], 1), ([[1], [2, 3]], 2), ([], 1)],
)
async def test_each_prompt_of_completions_has_an_answer(limiter: Limiter, prompt: object, prompts: int) -> None:
    asked = Request("req_1", Task.COMPLETIONS, "r", {"prompt": prompt, "max_tokens": 100, "best_of": 2}, False, {})
    call = await limiter.admit(key(Limits(tpm=5000)), route(), asked)
    assert 200 * prompts <= call.grants[0].standings[0].claim.amount < 200 * prompts + 100


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "best_of"])
@pytest.mark.parametrize("value", [0, -1, 1.0, 1e9, "100", True, [], {}])
def test_what_is_no_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=f"'{name}' must be a whole number above zero") as refused:
        limits.check(Request("req_1", Task.CHAT, "r", {name: value}, False, {}), route())
    assert refused.value.param == name


@pytest.mark.parametrize("fields", [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_tokens": None}, {"n": 3}])
def test_what_a_route_can_answer_is_not_refused(fields: dict[str, Any]) -> None:
    limits.check(request(**fields), route(max_output_tokens=7))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"max_tokens": 8}, "max_tokens"),
        ({"max_completion_tokens": 8}, "max_completion_tokens"),
        ({"max_completion_tokens": 1, "max_tokens": 8}, "max_tokens"),
        ({"max_completion_tokens": 8, "max_tokens": 1}, "max_completion_tokens"),
    ],
)
def test_more_than_a_route_answers_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest, match=f"^{name} is 8, but the model 'r' answers with 7 tokens at most") as refused:
        limits.check(request(**fields), route(max_output_tokens=7))
    assert refused.value.param == name


def test_embeddings_have_no_such_fields() -> None:
    limits.check(request(Task.EMBEDDINGS, max_tokens="x", n=0), route(task=RouteTask.EMBEDDINGS, max_output_tokens=1))


async def test_without_a_cap_it_claims_what_the_model_can_write_as_far_as_it_is_there(limiter: Limiter) -> None:
    claimed, left = await admitted(limiter, Limits(tpm=5000))
    assert claimed > 10_000
    assert left == 0


async def test_near_the_limit_tokens_are_counted_exactly(limiter: Limiter) -> None:
    claimed, left = await admitted(limiter, Limits(tpm=330), max_tokens=50)
    assert 251 <= claimed <= 330
    assert left == 330 - claimed


async def test_a_call_larger_than_the_limit_is_told_so(limiter: Limiter) -> None:
    with pytest.raises(BadRequest, match=r"this key allows 300 tokens a minute \(tpm\): it can never be let in"):
        await limiter.admit(key(Limits(tpm=300)), route(), request(max_tokens=250))
    assert (await admitted(limiter, Limits(tpm=300), max_tokens=1))[1] > 0


async def test_embeddings_claim_no_output(limiter: Limiter) -> None:
    embed = route(Limits(tpm=450), task=RouteTask.EMBEDDINGS)
    call = await limiter.admit(key(Limits()), embed, request(Task.EMBEDDINGS))
    assert call.grants[0].standings[0].claim.amount < 3 * 201


@pytest.mark.parametrize(
    ("of_key", "of_route", "message"),
    [
        (Limits(rpm=1), Limits(), r"This key allows 1 requests a minute \(rpm\); 1 are in use\. Try again in 61 s\."),
        (Limits(), Limits(rpm=1), r"Route 'r' allows 1 requests a minute \(rpm\)"),
        (Limits(concurrency=1), Limits(), r"This key allows 1 calls at once \(concurrency\).*Try again in 1 s"),
        (Limits(), Limits(concurrency=1), r"Route 'r' allows 1 calls at once"),
        (Limits(rpd=1), Limits(), r"This key allows 1 requests a day \(rpd\); 1 are in use\. Try again in \d+ s\."),
        (Limits(), Limits(tpd=500), r"Route 'r' allows 500 tokens a day \(tpd\); \d+ are in use, this call needs"),
        (Limits(), Limits(tpm=500), r"Route 'r' allows 500 tokens a minute \(tpm\); \d+ are in use, this call needs"),
    ],
)
async def test_each_refusal_names_its_rule(limiter: Limiter, of_key: Limits, of_route: Limits, message: str) -> None:
    await limiter.admit(key(of_key), route(of_route), request(max_tokens=10))
    with pytest.raises(RateLimited, match=message) as refused:
        await limiter.admit(key(of_key), route(of_route), request(max_tokens=10))
    assert refused.value.retry_after is not None


async def test_a_fallback_leaves_the_first_routes_limits_and_keeps_the_keys(limiter: Limiter) -> None:
    holder = key(Limits(concurrency=1, tpm=5000))
    first, second = route(Limits(concurrency=1, tpm=500)), Route("s", (), limits=Limits(concurrency=1))
    call = await limiter.admit(holder, first, request(max_tokens=10))
    await limiter.move(call, second)
    other = await limiter.admit(key(Limits(), "b"), first, request(max_tokens=10))
    limiter.settle(other, 0)
    with pytest.raises(RateLimited, match="Route 's' allows 1 calls"):
        await limiter.admit(key(Limits(), "b"), second, request())
    with pytest.raises(RateLimited, match="This key"):
        await limiter.admit(holder, first, request(max_tokens=10))
    limiter.settle(call, 40)
    again = await limiter.admit(holder, second, request(max_tokens=10))
    said = limits.headers(again.grants)
    assert int(said["x-ratelimit-remaining-tokens"]) < 5000 - 40 - 210


async def test_a_limit_a_day_ends_with_the_day(limiter: Limiter) -> None:
    holder, left = key(Limits(rpm=50, rpd=2, tpd=5000)), 86400 - time.time() % 86400
    call = await limiter.admit(holder, route(), request(max_tokens=10))
    said = limits.headers(call.grants)
    assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-remaining-requests"]) == ("2", "1")
    for word in ("requests", "tokens"):
        assert float(said[f"x-ratelimit-reset-{word}"].rstrip("s")) == pytest.approx(left, abs=5)
    limiter.settle(call, 40)
    said = limits.headers((await limiter.admit(holder, route(), request(max_tokens=10))).grants)
    assert 4000 < int(said["x-ratelimit-remaining-tokens"]) <= 5000 - 40 - 10  # 3978, were it not corrected
    with pytest.raises(RateLimited) as refused:
        await limiter.admit(holder, route(), request(max_tokens=10))
    assert refused.value.retry_after == pytest.approx(left, abs=5)
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_fallback_leaves_the_first_routes_day(limiter: Limiter) -> None:
    first, second = route(Limits(tpd=500)), Route("s", (), limits=Limits(rpd=1, tpd=900))
    call = await limiter.admit(key(Limits()), first, request(max_tokens=10))
    await limiter.move(call, second)
    limiter.settle(await limiter.admit(key(Limits()), first, request(max_tokens=10)), 0)
    assert limits.headers(call.grants)["x-ratelimit-limit-tokens"] == "900"
    with pytest.raises(RateLimited, match="Route 's' allows 1 requests a day"):
        await limiter.admit(key(Limits()), second, request(max_tokens=10))


async def test_counting_tokens_and_cache_hits_are_requests_of_the_day(limiter: Limiter) -> None:
    holder = key(Limits(rpd=2, tpd=10, concurrency=1))
    await limiter.admit(holder, route(), request(Task.COUNT_TOKENS))
    await limiter.admit_hit(holder, route(), request(), 0.0)
    with pytest.raises(RateLimited, match="This key allows 2 requests a day"):
        await limiter.admit_hit(holder, route(), request(), 0.0)


async def test_after_a_fallback_headers_tell_of_the_route_that_answers(limiter: Limiter) -> None:
    first, second = route(Limits(rpm=3, tpm=500)), Route("s", (), limits=Limits(rpm=7))
    call = await limiter.admit(key(Limits(rpm=50, tpm=90_000)), first, request(max_tokens=10))
    await limiter.move(call, second)
    said = limits.headers(call.grants)
    assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-limit-tokens"]) == ("7", "90000")


class Counting:
    """Which threads counted tokens, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[str] = []
        self._counted = tokens.counted
        monkeypatch.setattr(tokens, "counted", self)

    def __call__(self, body: Mapping[str, Any], model: str) -> int:
        self.threads.append(threading.current_thread().name)
        return self._counted(body, model)


async def test_tokens_are_counted_on_one_thread_of_their_own(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    asked = [limiter.admit(key(Limits(tpm=330), f"{one}"), route(), request(max_tokens=50)) for one in range(8)]
    assert len(await asyncio.gather(*asked)) == 8
    assert len(counting.threads) == 8
    assert len(set(counting.threads)) == 1
    assert "asyncio" not in counting.threads[0]


@pytest.mark.parametrize(
    ("text", "tpm"),
    [
        ("word " * 250_000, 300_000),  # more than is ever counted
        ("word " * 20_000, 700),  # no text of that length has so few tokens
        (" " * 120_000, 900),
    ],
)
async def test_what_cannot_help_is_not_counted(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, text: str, tpm: int
) -> None:
    counting = Counting(monkeypatch)
    asked = Request("req_1", Task.CHAT, "r", {"messages": [{"role": "user", "content": text}]}, False, {})
    with pytest.raises(BadRequest, match="never be let in"):
        await limiter.admit(key(Limits(tpm=tpm)), route(), asked)
    assert not counting.threads


async def test_headers_tell_the_tightest_of_each_kind(limiter: Limiter) -> None:
    call = await limiter.admit(key(Limits(rpm=10)), route(Limits(rpm=5, tpm=9000)), request(max_tokens=10))
    said = limits.headers(call.grants)
    assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert said["x-ratelimit-limit-tokens"] == "9000"
    assert said["x-ratelimit-reset-requests"].endswith("s")
    assert limits.headers([]) == {}


async def test_fixed_minutes_are_the_clocks(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_059.0  # a second before a full minute
    monkeypatch.setattr(limits.time, "time", lambda: now)
    holder = key(Limits(rpm=2, tpm=1000, concurrency=5, fixed=True))
    calls = [await limiter.admit(holder, route(), request(max_tokens=10)) for _ in range(2)]
    told = limits.headers(calls[1].grants)
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert told["x-ratelimit-reset-requests"] == told["x-ratelimit-reset-tokens"] == "1.000s"
    with pytest.raises(
        RateLimited, match=r"This key allows 2 requests a minute \(rpm\); 2 are in use. Try again in 1 s"
    ):
        await limiter.admit(holder, route(), request(max_tokens=10))
    now += 1
    call = await limiter.admit(holder, route(), request(max_tokens=10))
    assert limits.headers(call.grants)["x-ratelimit-reset-requests"] == "60.000s"
    # What the minute before used is settled in that minute; calls at once have no minute.
    for one in calls:
        limiter.settle(one, 900)
    before = int(limits.headers(call.grants)["x-ratelimit-remaining-tokens"])
    last = await limiter.admit(holder, route(), request(max_tokens=10))
    assert before - int(limits.headers(last.grants)["x-ratelimit-remaining-tokens"]) < 600
    with pytest.raises(RateLimited):
        await limiter.admit(holder, route(), request(max_tokens=10))


async def test_a_fallback_gives_back_the_fixed_minute_of_the_route_it_leaves(limiter: Limiter) -> None:
    first = route(Limits(tpm=1000, fixed=True))
    call = await limiter.admit(key(Limits()), first, request(max_tokens=10))
    await limiter.move(call, Route("other", first.deployments))
    again = await limiter.admit(key(Limits()), first, request(max_tokens=10))
    (standing,) = again.grants[0].standings
    assert standing.left == 1000 - standing.claim.amount


async def test_fixed_minutes_of_users_say_whose_they_are(limiter: Limiter) -> None:
    holder = Key("a", "a", frozenset(Scope), user_limits=Limits(rpm=1, fixed=True))
    asked = request(max_tokens=10)
    asked.user = "12@x"
    await limiter.admit(holder, route(), asked)
    with pytest.raises(RateLimited, match="User '12@x' of this key has 1 requests a minute"):
        await limiter.admit(holder, route(), asked)
