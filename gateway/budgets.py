"""Budgets of keys, tenants and routes: an attempt holds the most it may cost, and settles what it did cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from gateway import tokens, units
from gateway.counters import Counters
from gateway.dialects.registry import DIALECTS
from gateway.errors import BadRequest, BudgetExceeded, GatewayError, RateLimited
from gateway.money import usd
from gateway.owners import Key
from gateway.routes import CONVERSATIONS, Budget, Deployment, Route, Task
from gateway.types import Attempt, Call, Claim, Refusal, Rule
from gateway.windows import Window, window

#: Tasks whose answers are written in tokens, and those whose answers have none.
_WRITTEN = frozenset((*CONVERSATIONS, Task.COMPLETIONS))
#: The window of a limit a day.
DAY = "1d"
#: What an answer is taken to be at most when neither caller, route nor price table says.
_UNSAID_OUTPUT = 4096
#: No more fits into a line of the journal: nine billion dollars.
_MOST = 2**63 - 1
_READ = frozenset((Task.EMBEDDINGS, Task.MODERATIONS, Task.RERANK))


class Balances(Protocol):
    """Knows what was spent, and is told of every attempt before it may cost anything (`Ledger`)."""

    def begin(self, attempt: tuple[Any, ...]) -> None:
        """Note an attempt (the fields of `lines.Begun`). Raises `Overloaded` where that cannot be."""

    async def used(self, rule: Rule, whose: str, since: float, until: float | None) -> int:
        """What `key:<id>` and so on (`Claim`) used of `rule`, by calls that began from `since` until `until`."""


class Now(NamedTuple):
    """Keys by id and routes by name as they are now, which may have changed while a call runs; None: as they were."""

    key: Callable[[str], Key | None] = lambda _: None
    route: Callable[[str], Route | None] = lambda _: None


class Budgets:
    """What calls claim of budgets. A budget that was not asked of before is opened with what the ledger says of it."""

    def __init__(self, counters: Counters, balances: Balances, now: Now | None = None) -> None:
        self._counters = counters
        self._balances = balances
        self._now = now or Now()
        self._opening: dict[tuple[str, Rule], asyncio.Task[None]] = {}

    def claims(
        self, call: Call, route: Route, deployments: Iterable[Deployment], body: Mapping[str, Any] | None = None
    ) -> list[Claim]:
        """What an attempt at any of `deployments` holds of the budgets of the call's key, its tenants and `route`.

        `body` is what it asks, where that is not the call's own. Raises `BadRequest` where nobody knows its cost.
        """
        applying = _applying(call.key, call, route)
        if not applying:
            return []
        most = _most(call, route, deployments, body)
        return [Claim(_scope(whose, budget, call), Rule.BUDGET, budget.most, most, most) for whose, budget in applying]

    def begin(self, call: Call, route: Route, attempt: Attempt) -> None:
        """Note `attempt` with the most it may cost, where that is known: what a kill cuts short is settled at that."""
        number, request, key, most = call.attempts + 1, call.request, call.key, 0
        if attempt.deployment.listing.price is not None and request.task is not Task.COUNT_TOKENS:
            most = min(_bound(call, route, attempt), _MOST)
        self._balances.begin(
            (
                *(request.id, number, call.time, key.id, key.name, request.model, attempt.deployment.id),
                *(request.task.value, request.stream, call.input_estimate, most, attempt.fallback),
                *(key.team_id, key.organisation_id, request.user, request.prompt),
            )
        )
        call.attempts = attempt.number = number

    def check(self, call: Call, route: Route, deployment: Deployment) -> None:
        """Refuse a deployment of which nobody knows what it may cost (`BadRequest`): what is held is not for it."""
        check_price(route, deployment, call.request.task)
        _cost(call, route, deployment, None)

    def spend(self, holder: Call | Attempt, cost: int) -> None:
        """Settle what `holder` holds at `cost` nano-dollars. Again, it does nothing."""
        if holder.reservation:
            money, holder.reservation = holder.reservation, ()
            self._counters.spend(money, cost)

    def late(self, call: Call, route: Route, cost: int) -> None:
        """Count `cost` of budgets that were set, or given other windows, while the call ran: it holds none of them."""
        key, there = self._now.key(call.key.id) or call.key, self._now.route(route.name) or route
        if key is call.key and there is route:
            return
        held = {_scope(whose, budget, call) for whose, budget in _applying(call.key, call, route)}
        for whose, budget in _applying(key, call, there):
            if (scope := _scope(whose, budget, call)) not in held:
                self._counters.charge(scope, cost)

    async def open(self, claim: Claim, call: Call) -> None:
        """Begin the window of `claim` with what was used in it. However many ask, the ledger is asked once."""
        window, until = (claim.scope, claim.rule), _window(claim, call).end
        opening = self._opening.get(window)
        if opening is None:
            opening = self._opening[window] = asyncio.create_task(self._open(claim, until))
            opening.add_done_callback(lambda _: self._opening.pop(window, None))
        await asyncio.shield(opening)

    async def _open(self, claim: Claim, until: int | None) -> None:
        whose, _, start = claim.scope.rpartition("@")
        await self._counters.open(claim, await self._balances.used(claim.rule, whose, float(start), until))


def _applying(key: Key, call: Call, route: Route) -> list[tuple[str, Budget]]:
    """The budgets that an attempt of `call` at `route` is spent of, and whose they are, if `key` is what it was made
    with.
    """
    scopes = (*key.limits_of(call.request.user), (f"route:{route.name}", route.limits))
    return [(whose, limits.budget) for whose, limits in scopes if limits.budget is not None]


def _scope(whose: str, budget: Budget, call: Call) -> str:
    return f"{whose}@{window(budget.duration, call.time).start}"


def _budget(claim: Claim, call: Call) -> Budget | None:
    """The budget that `claim` is of."""
    whose = claim.scope.rpartition("@")[0]
    if whose.startswith("route:"):
        return call.route.limits.budget
    return dict(call.key.limits_of(call.request.user))[whose].budget


def owner(scope: str, key: Key) -> str:
    """Whose limit or budget it is, in words: `this key`, `team 'ops'`, `route 'fast'`, `user 'ann' of this key`."""
    kind, _, name = scope.partition(":")
    if kind == "key":
        return "this key"
    if kind == "user":
        of, _, user = name.partition("/")
        return f"user '{user}' of {owner(of, key)}" if user else f"every call of {owner(of, key)} that names no user"
    return f"{kind} '{next((one.name for one in key.tenants if one.id == name), name)}'"


def _window(claim: Claim, call: Call) -> Window:
    if claim.rule is not Rule.BUDGET:
        return window(DAY, call.time)
    budget = _budget(claim, call)
    return window(budget.duration if budget else None, call.time)


def check_price(route: Route, deployment: Deployment, task: Task) -> None:
    """Refuse a deployment whose price nobody knows, where `route` does not call that free."""
    if not units.prices(deployment.listing.price, task) and not route.free_if_unpriced:
        raise BadRequest(
            f"A budget applies, and nobody knows what {deployment.id} costs. Whoever runs this gateway can write its "
            f"price into config/prices.yaml, or `unpriced: free` at the route '{route.name}'.",
            code="unpriced_model",
        )


def _most(call: Call, route: Route, deployments: Iterable[Deployment], body: Mapping[str, Any] | None) -> int:
    """The most an attempt at any of `deployments` may cost, in nano-dollars."""
    costs: list[int] = []
    unknown: BadRequest | None = None
    for deployment in deployments:
        try:
            check_price(route, deployment, call.request.task)
            costs.append(_cost(call, route, deployment, body))
        except BadRequest as error:
            unknown = unknown or error
    if not costs and unknown is not None:
        raise unknown
    return max(costs, default=0)


def _cost(call: Call, route: Route, deployment: Deployment, body: Mapping[str, Any] | None) -> int:
    price = deployment.listing.price
    if price is None or price.free:
        return 0
    if body is None:
        read = call.input_estimate = call.input_estimate or tokens.estimate(call.request.body)
    else:
        read = tokens.estimate(body)
    read += tokens.surplus(call.request.body if body is None else body, deployment.model)
    unit = units.of(price, call.request.task)
    if unit is not None:
        return price.most(read, 0, dear=True) + units.most(unit, call.request)
    written = _written(call, route, deployment)
    return price.most(read, written, dear=price.odd and tokens.dear(body or call.request.body))


def _bound(call: Call, route: Route, attempt: Attempt) -> int:
    """The most an attempt may cost, as far as anybody can say: an answer without a bound is taken for a long one."""
    price = attempt.deployment.listing.price
    try:
        return _cost(call, route, attempt.deployment, attempt.body)
    except BadRequest:
        written = _UNSAID_OUTPUT if call.request.task in _WRITTEN else 0
        return 0 if price is None else price.most(call.input_estimate, written)


def _written(call: Call, route: Route, deployment: Deployment) -> int:
    """The most tokens an answer may have."""
    request = call.request
    if request.task in _READ:
        return 0
    if request.task not in _WRITTEN:
        if route.free_if_unpriced:
            return 0
        raise BadRequest(
            f"A budget applies, and {request.task.value} is not billed by tokens: what it may cost is not known here. "
            f"Whoever runs this gateway can write `unpriced: free` at the route '{route.name}'.",
            code="unpriced_task",
        )
    asked, answers, param = DIALECTS[request.task].output(request.body)
    most = route.max_output_tokens
    cap = asked if most is None or (asked is not None and asked < most) else most
    cap = deployment.listing.max_output_tokens if cap is None else cap
    if cap is None:
        raise BadRequest(
            f"A budget applies, and nobody knows how long an answer of {deployment.id} may become: send {param}.",
            param=param,
            code="unbounded_cost",
        )
    return cap * answers


def refused(refusal: Refusal, call: Call) -> GatewayError:
    """Why a budget refused: what the call may cost, what is spent and held, and when the budget begins anew."""
    claim, held, budget = refusal.claim, refusal.held, _budget(refusal.claim, call)
    whose = claim.scope.rpartition("@")[0]
    who = owner(whose, call.key)
    period = "in all" if budget is None or budget.duration is None else f"in {budget.duration}"
    may = f"{who[0].upper()}{who[1:]} may spend {usd(claim.limit)} {period} (max_budget)"
    if claim.least > claim.limit:
        return BadRequest(
            f"This call may cost {usd(claim.least)}, but {may[0].lower()}{may[1:]}: it can never be let in. "
            "Send a shorter prompt or a smaller max_tokens.",
            code="request_exceeds_limit",
        )
    spent = refusal.used - held
    if spent + claim.least <= claim.limit:
        return RateLimited(
            f"{may}; {usd(spent)} are spent and running calls hold {usd(held)}, this call may cost "
            f"{usd(claim.least)}. Try again in 1 s.",
            retry_after=1.0,
        )
    end = _window(claim, call).end
    until = "It does not begin anew."
    if end is not None:
        until = f"It begins anew at {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC; no shorter wait helps."
    return BudgetExceeded(
        f"{may}; {usd(spent)} are spent, and this call may cost {usd(claim.least)}. {until}",
        retry_after=None if end is None else max(1.0, end - call.time),
    )
