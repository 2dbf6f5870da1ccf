"""In which order a route's deployments are asked."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from gateway import users
from gateway.health import Health
from gateway.money import Listing, Price, Rates
from gateway.owners import Key, Scope
from gateway.routes import Config, Deployment, Route, Strategy, Task
from gateway.routing import Router
from gateway.types import Call, Request


def call(user: object = None, *, key: str = "k", **headers: str) -> Call:
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    body = {"model": "r"} if user is None else {"model": "r", "user": user}
    request = Request("req_1", Task.CHAT, "r", body, False, {}, given, user=users.named(given, body))
    return Call(Key(key, key, frozenset(Scope)), Route("r", ()), request, 0.0, 0.0, [])


def priced(name: str, usd: str | None, **fields: Any) -> Deployment:
    price = None if usd is None else Price(Rates(Decimal(usd), Decimal(usd)))
    return Deployment(name, "m", listing=Listing(price), **fields)


def order(router: Router, route: Route, asked: Call | None = None) -> str:
    return "".join(one.provider for one in router.order(route, asked))


@pytest.fixture
def router() -> Router:
    return Router(Config({}, {}), {}, Health())


def test_a_lower_order_comes_first_whatever_the_strategy(router: Router) -> None:
    deployments = (priced("a", "1", order=2), priced("b", "9", order=1), priced("c", "2", order=1))
    for strategy in Strategy:
        assert order(router, Route("r", deployments, strategy=strategy))[2] == "a"


def test_priority_is_the_files_order_and_cheapest_the_price(router: Router) -> None:
    deployments = (priced("a", None), priced("b", "0.3"), priced("c", "0.1"))
    assert order(router, Route("r", deployments, strategy=Strategy.PRIORITY)) == "abc"
    assert order(router, Route("r", deployments, strategy=Strategy.CHEAPEST)) == "cba"


async def test_least_busy_is_by_running_calls_for_the_room_there_is(router: Router) -> None:
    small, large = priced("s", "1", concurrency=2), priced("l", "1", concurrency=10)
    route = Route("r", (small, large), strategy=Strategy.LEAST_BUSY)
    for _ in range(2):
        await router.health.of(large).enter(large)
    assert order(router, route) == "ls"
    for _ in range(4):
        await router.health.of(large).enter(large)
    assert order(router, route) == "sl"


async def test_latency_is_the_better_of_two_drawn(router: Router) -> None:
    quick, slow, unknown = Deployment("q", "m"), Deployment("s", "m"), Deployment("u", "m")
    router.health.of(quick).answered(0.1)
    router.health.of(slow).answered(2.0)
    two = Route("r", (quick, slow), strategy=Strategy.LATENCY)
    assert {order(router, two) for _ in range(50)} == {"qs"}
    # A failure is no quick answer.
    router.health.of(quick).failed(None, None)
    assert {order(router, two) for _ in range(50)} == {"sq"}
    three = Route("r", (quick, slow, unknown), strategy=Strategy.LATENCY)
    first = Counter(order(router, three)[0] for _ in range(600))
    assert first["u"] > first["s"] > 0  # never the worst of two, so not `q`
    assert first["q"] == 0


@pytest.mark.parametrize(
    ("sticky", "one", "other"),
    [
        ("user", call("ann"), call("bob")),
        ("user", call("ann", key="k1"), call("ann", key="k2")),
        ("X-Session", call(x_session="1"), call(x_session="2")),
    ],
)
def test_what_sticks_keeps_to_one_deployment(router: Router, sticky: str, one: Call, other: Call) -> None:
    deployments = tuple(Deployment(name, "m") for name in "abcdefgh")
    route = Route("r", deployments, sticky=sticky)
    assert len({order(router, route, one) for _ in range(20)}) == 1
    assert order(router, route, one) != order(router, route, other)
    assert len({order(router, route, call()) for _ in range(20)}) > 1
    # Where one goes away, the others keep their places.
    gone = order(router, route, one)[0]
    left = Route("r", tuple(each for each in deployments if each.provider != gone), sticky=sticky)
    assert order(router, left, one) == order(router, route, one)[1:]


def test_what_sticks_is_spread_by_weight(router: Router) -> None:
    route = Route("r", (Deployment("a", "m", 3.0), Deployment("b", "m", 1.0)), sticky="user")
    first = Counter(order(router, route, call(f"user {number}"))[0] for number in range(4000))
    assert abs(first["a"] / 4000 - 0.75) < 6 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize("user", [5, [], {}, "", None])
def test_a_value_that_is_none_does_not_stick(router: Router, user: object) -> None:
    route = Route("r", tuple(Deployment(name, "m") for name in "abcdef"), sticky="user")
    assert len({order(router, route, call(user)) for _ in range(30)}) > 1
