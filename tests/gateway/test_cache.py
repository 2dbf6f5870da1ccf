"""An answer is given again only to who asks the same, byte for byte; calls at once share one. On both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import SecretStr

from gateway import cache_redis
from gateway.cache import HEADER, Cache, Digests, Wish
from gateway.cache_redis import RedisStore
from gateway.cache_store import MemoryStore, Store
from gateway.errors import GatewayError, RateLimited, UpstreamFailed
from gateway.owners import Key, Scope
from gateway.routes import CachePolicy, Config, Deployment, Limits, ProviderSpec, Route, Task
from gateway.types import Request
from gateway.usage import LEFT
from tests.gateway.caching import PIECES, POLICY, Source, ask, read, ticks, until, watched


@pytest.fixture
async def store(redis_or_none: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr(cache_redis, "_PATIENCE", 30.0)  # a busy machine is no outage
    made: Store = MemoryStore() if redis_or_none is None else RedisStore(redis_or_none)
    yield made
    await made.close()


@pytest.fixture
async def cache(store: Store) -> AsyncIterator[Cache]:
    async with watched(store) as made:
        yield made


def key(name: str = "a") -> Key:
    return Key(name, name, frozenset({Scope.INFERENCE}))


def config(**changes: Any) -> Config:
    """One route `r`; `changes` are of its fields, or of its provider's with a `provider_` before."""
    mine = {"api_key": SecretStr("old")}
    mine |= {
        name.removeprefix("provider_"): changes.pop(name) for name in list(changes) if name.startswith("provider_")
    }
    route = {"deployments": (Deployment("p", "m"),), "cache": POLICY, **changes}
    provider = ProviderSpec("p", **{"type": "openai_compatible", "base_url": "http://gpu/v1", **mine})
    return Config({"p": provider}, {"r": Route("r", **route)})


BODY = {"model": "r", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


def digest(
    body: dict[str, Any] = BODY, *, of: str = "a", conf: Config | None = None, task: Task = Task.CHAT, **headers: str
) -> str:
    conf = conf or config()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request("req", task, "r", body, body.get("stream") is True, sent)
    return Digests(conf).of(key(of), conf.routes["r"], request)


SHARED = config(cache=CachePolicy(60, shared=True))
STREAM = BODY | {"stream": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (digest(), digest(dict(reversed(BODY.items())))),
        (digest(), digest(BODY | {"messages": [{"content": "hi", "role": "user"}]})),
        (digest(), digest(BODY | {"stream": False, "stream_options": None})),
        (digest(), digest(BODY | {"user": "u-1", "safety_identifier": "s", "prompt_cache_key": "k"})),
        (
            digest(task=Task.MESSAGES),
            digest(BODY | {"metadata": {"user_id": "u-1"}}, task=Task.MESSAGES),
        ),
        (digest(), digest(traceparent="00-1", accept="*/*", idempotency_key="k")),
        (digest(of="a", conf=SHARED), digest(of="b", conf=SHARED)),
        (digest(), digest(conf=config(limits=Limits(rpm=1), fallbacks=("x",), cache=CachePolicy(1)))),
        (digest(), digest(conf=config(provider_api_key=SecretStr("rotated")))),
        (digest(), digest(conf=config(deployments=(Deployment("p", "m", 5.0),)))),
    ],
)
def test_the_same_is_the_same(one: str, other: str) -> None:
    assert one == other


@pytest.mark.parametrize(
    "other",
    [
        digest(of="b"),
        digest(BODY | {"temperature": 0.5}),
        digest(BODY | {"unknown": 1}),
        digest(BODY | {"messages": [{"role": "user", "content": "hi "}]}),
        digest(STREAM),
        digest(task=Task.COMPLETIONS),
        digest(BODY | {"metadata": {"user_id": "u-1"}}),
        digest(anthropic_version="2023-06-01"),
        digest(anthropic_beta="x"),
        digest(conf=SHARED),
        digest(conf=config(max_output_tokens=5)),
        digest(conf=config(deployments=(Deployment("p", "m2"),))),
        digest(conf=config(deployments=(Deployment("p", "m"), Deployment("p", "m2")))),
        digest(conf=config(provider_base_url="http://other/v1")),
        digest(conf=config(provider_options=MappingProxyType({"script": [{"answer": "new"}]}))),
    ],
)
def test_another_is_another(other: str) -> None:
    assert other != digest()


def test_who_wants_usage_in_a_stream_gets_a_stream_of_its_own() -> None:
    assert digest(STREAM) != digest(STREAM | {"stream_options": {"include_usage": True}})


@pytest.mark.parametrize(
    ("said", "wish"),
    [
        ("", Wish.SHARED),
        ("max-age=60", Wish.SHARED),
        ("no-cache", Wish.FRESH),
        ("max-age=0, No-Cache", Wish.FRESH),
        ('no-cache="x"', Wish.FRESH),
        ("no-store", Wish.UNKEPT),
        ("no-cache,no-store", Wish.UNKEPT),
        ("no-cached", Wish.SHARED),
    ],
)
def test_cache_control(said: str, wish: Wish) -> None:
    assert Wish.of(said) is wish


async def test_a_stream_is_replayed_piece_by_piece(cache: Cache) -> None:
    upstream = Source()
    assert await ask(cache, upstream) == ("miss", b"".join(PIECES))
    for _ in range(2):
        answer, hit = await cache.share(POLICY, "d", upstream.start, Wish.SHARED)
        assert (answer.status, hit) == (200, True)
        # What was of its moment is not repeated.
        told = {"content-type": "text/event-stream", "x-promptyard-deployment": "p/m", HEADER: "hit"}
        assert answer.headers == told
        assert await read(answer) == PIECES
    assert upstream.asked == 1
    assert await ask(cache, upstream, digest="another") == ("miss", b"".join(PIECES))


async def test_a_whole_answer_is_given_again(cache: Cache) -> None:
    upstream = Source(body=b'{"a":\n1}\n')
    assert await ask(cache, upstream) == ("miss", b'{"a":\n1}\n')
    assert await ask(cache, upstream) == ("hit", b'{"a":\n1}\n')
    assert upstream.asked == 1


@pytest.mark.parametrize(
    "upstream",
    [
        lambda: Source(good=False),
        lambda: Source(good=False, body=b"{}"),
        lambda: Source(status=429, body=b"{}"),
        lambda: Source(status=206, body=b"{}"),
        lambda: Source(body=b"x" * 2000),
        lambda: Source(*[b"x" * 100] * 20),
    ],
    ids=["cut", "not ours", "refused", "part", "large", "long"],
)
async def test_what_is_not_good_is_not_given_again(cache: Cache, upstream: Callable[[], Source]) -> None:
    bad = upstream()
    policy = CachePolicy(60, max_bytes=1024)
    assert [word for word, _ in [await ask(cache, bad, policy) for _ in range(2)]] == ["miss", "miss"]
    assert await ask(cache, Source(body=b"good"), policy) == ("miss", b"good")


async def test_no_cache_asks_anew_and_is_kept(cache: Cache) -> None:
    await ask(cache, Source(body=b"old"))
    assert await ask(cache, Source(body=b"new"), wish=Wish.FRESH) == ("miss", b"new")
    assert await ask(cache, Source(body=b"never")) == ("hit", b"new")


async def test_no_store_asks_anew_and_is_not_kept(cache: Cache) -> None:
    assert await ask(cache, Source(body=b"private"), wish=Wish.UNKEPT) == ("miss", b"private")
    await ask(cache, Source(body=b"old"))
    assert await ask(cache, Source(body=b"private"), wish=Wish.UNKEPT) == ("miss", b"private")
    assert await ask(cache, Source()) == ("hit", b"old")


async def test_an_entry_that_is_not_understood_is_a_miss(cache: Cache, store: Store) -> None:
    for entry in (b"", b"\n", b"[]\nx", b"[2,{},null]\nx", b"no line"):
        await store.put("d", entry, 60)
        assert await ask(cache, Source(body=b"new"), CachePolicy(60, max_bytes=1)) == ("miss", b"new")


async def test_an_answer_lives_for_its_time(cache: Cache, store: Store) -> None:
    await ask(cache, Source(body=b"old"), CachePolicy(0.03))
    await asyncio.sleep(0.05)
    assert await ask(cache, Source(body=b"new")) == ("miss", b"new")
    assert await ask(cache, Source()) == ("hit", b"new")


async def test_of_100_at_once_one_asks(cache: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    asked = [asyncio.create_task(ask(cache, upstream)) for _ in range(100)]
    await until(lambda: upstream.asked > 0)
    upstream.go.set()
    answers = await asyncio.gather(*asked)
    assert upstream.asked == 1
    assert sorted(word for word, _ in answers) == ["hit"] * 99 + ["miss"]
    assert {body for _, body in answers} == {b"".join(PIECES)}


async def test_the_last_to_leave_before_the_answer_begins_cancels_it(cache: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    asked = [asyncio.create_task(ask(cache, upstream)) for _ in range(3)]
    await until(lambda: upstream.asked > 0)
    for task in asked[:2]:
        task.cancel(LEFT)
    await ticks()
    assert upstream.ends == []
    asked[2].cancel(LEFT)
    await ticks()
    assert upstream.ends == [LEFT]
    assert all(task.cancelled() for task in asked)
    upstream.go.set()
    assert (await ask(cache, upstream))[0] == "miss"


async def test_a_call_goes_on_for_the_others_when_who_asked_leaves(cache: Cache) -> None:
    upstream = Source()
    upstream.go.clear()
    first = asyncio.create_task(ask(cache, upstream))
    second = asyncio.create_task(ask(cache, upstream))
    await until(lambda: upstream.asked > 0)
    first.cancel(LEFT)
    await ticks()
    upstream.go.set()
    assert await second == ("hit", b"".join(PIECES))
    assert (upstream.asked, upstream.ends) == (1, ["ended"])
    assert (await ask(cache, upstream))[0] == "hit"


async def test_an_answer_read_to_its_end_is_kept_though_its_reader_does_not_wait_for_the_rest(cache: Cache) -> None:
    upstream = Source()
    upstream.gate(len(PIECES))
    answer, _ = await cache.share(POLICY, "d", upstream.start, Wish.SHARED)
    assert answer.chunks is not None
    assert [await anext(answer.chunks) for _ in PIECES] == PIECES
    await answer.chunks.aclose()
    await until(lambda: not cache._flights._tasks)
    assert upstream.ends == [LEFT]
    assert await ask(cache, upstream) == ("hit", b"".join(PIECES))


@pytest.mark.parametrize("error", [UpstreamFailed("gone"), RateLimited("full", retry_after=3), ValueError("ours")])
async def test_a_failure_is_everybody_s_and_nobody_s_afterwards(cache: Cache, error: Exception) -> None:
    upstream = Source()
    upstream.go.clear()
    upstream.fails = [error]
    asked = [asyncio.create_task(ask(cache, upstream)) for _ in range(10)]
    await until(lambda: upstream.asked > 0)
    upstream.go.set()
    failed = await asyncio.gather(*asked, return_exceptions=True)
    assert {(type(one), str(one)) for one in failed} == {(type(error), str(error))}
    if isinstance(error, GatewayError):
        assert len({id(one) for one in failed}) == 10
        assert {getattr(one, "retry_after", 0) for one in failed} == {error.retry_after}
    assert upstream.asked == 1
    assert (await ask(cache, upstream))[0] == "miss"
