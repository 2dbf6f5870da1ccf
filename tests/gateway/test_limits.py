"""What a call claims of its key's and its route's limits, and what it is told when they refuse."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.counters import MemoryCounters
from gateway.errors import BadRequest, RateLimited
from gateway.limits import Limiter
from gateway.routes import Deployment, Limits, Route, RouteTask, Task
from gateway.types import Key, Request, Scope

TEXT = "The quick brown fox jumps over the lazy dog. " * 20  # 201 tokens


def request(task: Task = Task.CHAT, **body: object) -> Request:
    given = {"model": "r", "messages": [{"role": "user", "content": TEXT}], "input": TEXT, **body}
    given.pop("input" if task is Task.CHAT else "messages")
    return Request("req_1", task, "r", given, False, {})


def key(limits: Limits, name: str = "a") -> Key:
    return Key(name, name, frozenset(Scope), limits=limits)


def route(limits: Limits | None = None, **fields: object) -> Route:
    return Route("r", (Deployment("p", "gpt-4o"),), limits=limits or Limits(), **fields)  # type: ignore[arg-type]


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(MemoryCounters(), lambda _: 10_000)


async def admitted(limiter: Limiter, limits: Limits, **body: object) -> tuple[int, int]:
    """Tokens claimed and left of the key's tpm."""
    call = await limiter.admit(key(limits), route(), request(**body))
    (standing,) = call.grants[0].standings
    return standing.claim.amount, standing.left


async def test_a_caller_with_a_cap_claims_its_input_and_the_cap(limiter: Limiter) -> None:
    claimed, left = await admitted(limiter, Limits(tpm=5000), max_tokens=100, n=3)
    assert 201 + 300 <= claimed < 3 * 201 + 300
    assert left == 5000 - claimed


async def test_the_newer_name_of_the_cap_counts_first(limiter: Limiter) -> None:
    claimed, _ = await admitted(limiter, Limits(tpm=50_000), max_completion_tokens=7, max_tokens=9000)
    assert claimed < 1000


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


async def test_headers_tell_the_tightest_of_each_kind(limiter: Limiter) -> None:
    call = await limiter.admit(key(Limits(rpm=10)), route(Limits(rpm=5, tpm=9000)), request(max_tokens=10))
    said = limits.headers(call.grants)
    assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert said["x-ratelimit-limit-tokens"] == "9000"
    assert said["x-ratelimit-reset-requests"].endswith("s")
    assert limits.headers([]) == {}
