"""Several credentials: in turn, the next one at once, and rests that grow. The clock is the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from gateway.errors import UpstreamFailed
from gateway.providers import rows
from gateway.providers.credentials import Credentials
from gateway.providers.http import HttpProvider
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest
from tests.services.upstream import Asked, Peer, Upstream, chat, hang_up, running, whole


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def three(clock: Clock) -> Credentials:
    return Credentials("p", [SecretStr("a"), SecretStr("b"), SecretStr("c")], lambda _: {}, clock)


def labels(credentials: Credentials) -> list[str]:
    return [one.label for one in credentials.turn()]


def test_they_take_turns(clock: Clock) -> None:
    credentials = three(clock)
    assert [labels(credentials)[0] for _ in range(4)] == ["#1", "#2", "#3", "#1"]
    assert labels(credentials) == ["#2", "#3", "#1"]


@pytest.mark.parametrize(
    ("status", "headers", "rests"),
    [
        (401, {}, [60, 120, 240, 480, 960, 1920, 3600, 3600]),
        (403, {}, [60, 120]),
        (429, {}, [1, 2, 4, 8, 16, 32, 60, 60]),
        (429, {"retry-after": "7"}, [7, 7]),
        (429, {"retry-after": "soon"}, [1, 2]),
        (429, {"retry-after": "-3"}, [1, 2]),
        (429, {"retry-after": "nan"}, [1, 2]),
        (429, {"retry-after": "9999999"}, [86400]),
        (401, {"retry-after": "7"}, [60]),
    ],
)
def test_one_that_is_refused_rests(clock: Clock, status: int, headers: dict[str, str], rests: list[float]) -> None:
    credentials = three(clock)
    one = credentials.turn()[0]
    for rest in rests:
        assert credentials.refused(one, Answer(status, headers))
        assert one.rests_until - clock.now == pytest.approx(rest)
        clock.now += rest - 0.5
        assert "#1" not in labels(credentials)
        clock.now += 1
        assert "#1" in labels(credentials)


def test_a_good_answer_forgets_the_bad_ones(clock: Clock) -> None:
    credentials = three(clock)
    one = credentials.turn()[0]
    for _ in range(2):
        credentials.refused(one, Answer(401, {}))
        assert one.rests_until == clock.now + 60
        clock.now = one.rests_until
        assert not credentials.refused(one, Answer(500, {}))


def test_calls_that_were_under_way_do_not_make_the_rest_longer(clock: Clock) -> None:
    credentials = three(clock)
    one = credentials.turn()[0]
    for _ in range(5):
        assert credentials.refused(one, Answer(429, {}))
    assert one.rests_until == clock.now + 1


def test_when_all_rest_the_one_that_rested_most_is_tried(clock: Clock) -> None:
    credentials = three(clock)
    for one, after in zip(credentials.turn(), ("9", "3", "5"), strict=True):
        credentials.refused(one, Answer(429, {"retry-after": after}))
    assert labels(credentials) == labels(credentials) == ["#2"]


# At the provider: what the upstream sees.


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()
    await asyncio.sleep(0)


REQUEST = UpstreamRequest(Task.CHAT, "m", {"messages": []}, {}, False, 5.0)


def provider(upstream: Upstream, transport: Transport, *keys: str) -> HttpProvider:
    row = rows.rows()["groq"]
    spec = ProviderSpec("p", "groq", upstream.url, api_keys=tuple(map(SecretStr, keys)))
    return HttpProvider(row, spec, transport)


def sent(upstream: Upstream) -> str:
    return "".join((asked.header("authorization") or "").removeprefix("Bearer ") for asked in upstream.asked)


async def test_the_next_one_is_tried_at_once(
    upstream: Upstream, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async def only_c(asked: Asked, peer: Peer) -> None:
        status = {"Bearer a": 401, "Bearer b": 429}.get(asked.header("authorization") or "", 200)
        await whole(chat(), status, retry_after="50")(asked, peer)

    upstream.then(only_c)
    up = provider(upstream, transport, "a", "b", "c")
    with caplog.at_level(logging.WARNING):
        assert [(await up.send(REQUEST)).status for _ in range(3)] == [200, 200, 200]
    assert sent(upstream) == "abccc"
    assert caplog.messages == [
        "Provider 'p': its credential #1 was answered HTTP 401 and rests for 60 s",
        "Provider 'p': its credential #2 was answered HTTP 429 and rests for 50 s",
    ]


async def test_only_when_all_rest_the_last_answer_comes_back(upstream: Upstream, transport: Transport) -> None:
    upstream.then(whole({"error": {"message": "slow down"}}, 429, retry_after="50"))
    up = provider(upstream, transport, "a", "b")
    for expected in ("ab", "aba"):
        answer = await up.send(REQUEST)
        assert (answer.status, answer.headers["retry-after"]) == (429, "50")
        assert sent(upstream) == expected


@pytest.mark.parametrize("streamed", [False, True])
async def test_all_refused(upstream: Upstream, transport: Transport, streamed: bool) -> None:
    upstream.then(whole({"error": {"message": "no"}}, 401))
    request = UpstreamRequest(Task.CHAT, "m", {"messages": []}, {}, streamed, 5.0)
    with pytest.raises(UpstreamFailed, match="refused our credential"):
        await provider(upstream, transport, "a", "b").send(request)
    assert sent(upstream) == "ab"


#: https://ai.google.dev/gemini-api/docs/api-key, https://docs.x.ai/docs/key-information/debugging
GOOGLES = b"""[{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
 "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]}}]"""
XAIS = b"""{"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***ab."}"""
QUOTED = {"error": {"message": 'Bad value "Incorrect API key provided": \'"reason": "API_KEY_INVALID"\''}}


@pytest.mark.parametrize("said", [GOOGLES, XAIS])
async def test_some_say_under_400_that_a_key_is_wrong(upstream: Upstream, transport: Transport, said: bytes) -> None:
    upstream.then(whole(said, 400))
    with pytest.raises(UpstreamFailed, match="refused our credential"):
        await provider(upstream, transport, "a", "b").send(REQUEST)
    assert sent(upstream) == "ab"


async def test_a_caller_who_is_quoted_saying_so_puts_nothing_to_rest(upstream: Upstream, transport: Transport) -> None:
    upstream.then(whole(QUOTED, 400))
    assert (await provider(upstream, transport, "a", "b").send(REQUEST)).status == 400
    assert sent(upstream) == "a"


@pytest.mark.parametrize("answer", [whole(chat()), whole({"error": {}}, 400), whole({"error": {}}, 500)])
async def test_what_is_not_about_the_credential_is_answered_at_once(
    upstream: Upstream, transport: Transport, answer: object
) -> None:
    upstream.then(answer)  # type: ignore[arg-type]  # parametrize forgets what an Answer is
    await provider(upstream, transport, "a", "b").send(REQUEST)
    assert sent(upstream) == "a"


async def test_a_connection_that_breaks_is_no_reason_for_another(upstream: Upstream, transport: Transport) -> None:
    upstream.then(hang_up)
    with pytest.raises(UpstreamFailed):
        await provider(upstream, transport, "a", "b").send(REQUEST)
    assert sent(upstream) == "a"


async def test_a_single_one_never_rests(upstream: Upstream, transport: Transport) -> None:
    upstream.then(whole({"error": {"message": "slow down"}}, 429))
    up = provider(upstream, transport, "a")
    assert [(await up.send(REQUEST)).status for _ in range(3)] == [429] * 3
    assert sent(upstream) == "aaa"
