"""What would become of a call: each rule in order, the deployment that would be asked, and why. Nothing is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gateway import users
from gateway.counters import OPENED, Counters
from gateway.errors import BadRequest, BudgetUnavailable, GatewayError, NotFound
from gateway.keys import ADMIN, Keys
from gateway.limits import of_day, of_minute
from gateway.money import usd
from gateway.owners import Key, Scope
from gateway.plane import Plane, Snapshot
from gateway.routes import CONVERSATIONS, Budget, Deployment, Limits, Route, Strategy, Task
from gateway.types import Call, Claim, Grant, Refusal, Request, Rule, Unknown
from gateway.windows import window

Document = dict[str, Any]


class Question(NamedTuple):
    """The call in question. `task` is the route's usual where it is not said.

    `user` is for whom it is, and what a sticky route goes by.
    """

    model: str
    task: str | None = None
    user: str | None = None


class Explainer:
    """Explains calls to the server that would get them, with its limits and cooldowns as they stand."""

    def __init__(self, plane: Plane, keys: Keys, counters: Counters) -> None:
        self._plane = plane
        self._keys = keys
        self._counters = counters

    async def explain(self, question: Question, key: str | None) -> Document:
        """As `explain`, on behalf of the key with that id or name; None: of one that may do everything."""
        asking = ADMIN if key is None else find_key(await asyncio.to_thread(self._keys.list), key)
        return await explain(self._plane.current, self._counters, asking, question)


def find_key(keys: Iterable[Key], name: str) -> Key:
    """The key with that id, else the newest of that name. Raises `NotFound`."""
    found = [key for key in keys if name in (key.id, key.name)]
    if not found:
        raise NotFound(f"There is no key '{name[:100]}'. `promptyard keys list` shows them.", param="key")
    return next((key for key in found if key.id == name), found[-1])


async def explain(snapshot: Snapshot, counters: Counters | None, key: Key, question: Question) -> Document:
    """What would become of a call of `key`, as JSON. Without `counters`, only what the file says.

    Draws of a strategy are drawn: another call may go another way. Raises `BadRequest` for a task that is none.
    """
    told: Document = {"model": question.model, "key": {"id": key.id, "name": key.name}, "task": question.task}
    rules = told["rules"] = []
    told |= {"version": snapshot.version, "live": counters is not None, "deployments": [], "fallbacks": []}
    told["answers"] = None
    route = snapshot.config.routes.get(question.model)
    if route is None:
        rules.append(_rule("route", passes=False, says=_refused(snapshot, question.model, key)))
        return told
    task = _task(question.task, route)
    told["task"] = task.value
    rules += [
        _rule("route", passes=True, says=f"'{route.name}' is a route for {route.task.value}."),
        _key_rule(snapshot, route, key),
        _task_rule(route, task),
        *[
            rule
            for scope, limits in key.limits_of(users.shown(question.user or ""))
            for rule in await _limits(counters, scope, limits)
        ],
        *await _limits(counters, f"route:{route.name}", route.limits),
    ]
    order = snapshot.router.order(route, _call(route, key, task, question.user))
    told["deployments"] = _deployments(snapshot, route, order, task)
    ready = [one for one in order if not snapshot.router.health.of(one).rests()]
    known = bool(ready) if counters is not None else None
    rules.append(_rule("cooldown", passes=known, says=_resting(len(order) - len(ready), len(order))))
    rules.append(_rule("strategy", passes=True, says=_strategy(route, question.user)))
    told["fallbacks"] = _fallbacks(snapshot, route)
    if all(rule["passes"] is not False or rule["rule"] == "cooldown" for rule in rules):
        others = [one for other in snapshot.router.fallbacks(route) for one in snapshot.router.order(other)]
        awake = (one.id for one in (*ready, *others) if not snapshot.router.health.of(one).rests())
        told["answers"] = next(awake, None)
    return told


def _rule(name: str, *, passes: bool | None, says: str) -> Document:
    return {"rule": name, "passes": passes, "says": says}


def _task(name: str | None, route: Route) -> Task:
    if name is None:
        return route.task.tasks[0]
    try:
        return Task(name.removeprefix("/v1/"))
    except ValueError:
        raise BadRequest(f"'{name[:100]}' is none of {', '.join(Task)}.", param="task") from None


def _refused(snapshot: Snapshot, model: str, key: Key) -> str:
    try:
        snapshot.router.find(model, key)
    except GatewayError as error:
        return error.message
    return ""


def _key_rule(snapshot: Snapshot, route: Route, key: Key) -> Document:
    if key.revoked_at is not None:
        return _rule("key", passes=False, says="This key was revoked.")
    if key.blocked_at is not None:
        return _rule("key", passes=False, says="This key is blocked.")
    for tenant in key.tenants:
        if tenant.blocked_at is not None:
            return _rule("key", passes=False, says=f"The {tenant.kind} '{tenant.name}' is blocked.")
    if key.expires_at is not None and key.expires_at <= time.time():
        return _rule("key", passes=False, says="This key has expired.")
    if Scope.INFERENCE not in key.scopes:
        return _rule("key", passes=False, says="This key has no scope 'inference'.")
    if refused := _refused(snapshot, route.name, key):
        return _rule("key", passes=False, says=refused)
    which = "every route" if key.routes is None else ", ".join(sorted(key.routes))
    which += f" but {', '.join(sorted(key.denied))}" if key.denied else ""
    return _rule("key", passes=True, says=f"'{key.name}' may call {which}.")


def _task_rule(route: Route, task: Task) -> Document:
    if route.task.serves(task):
        return _rule("task", passes=True, says=f"It serves {task.value}.")
    return _rule("task", passes=False, says=f"It serves {', '.join(route.task.tasks)}, not {task.value}.")


async def _limits(counters: Counters | None, scope: str, limits: Limits) -> list[Document]:
    told = [await _limit(counters, scope, rule, limit, fixed=limits.fixed) for rule, limit in _stated(limits)]
    return told if limits.budget is None else [*told, await _budget(counters, scope, limits.budget)]


def _stated(limits: Limits) -> list[tuple[Rule, int]]:
    by_minute = ((Rule.RPM, limits.rpm), (Rule.TPM, limits.tpm), (Rule.CONCURRENCY, limits.concurrency))
    stated = (*by_minute, (Rule.RPD, limits.rpd), (Rule.TPD, limits.tpd))
    return [(rule, limit) for rule, limit in stated if limit is not None]


def _allowed(budget: Budget) -> str:
    return f"{usd(budget.most)} in {budget.duration}" if budget.duration else f"{usd(budget.most)} in all"


async def _limit(counters: Counters | None, scope: str, rule: Rule, limit: int, *, fixed: bool) -> Document:
    name = f"{scope.partition(':')[0]} {rule.value}"
    if counters is None:
        return _rule(name, passes=None, says=f"{limit}; how much of it is in use only the server knows.")
    here = of_day(scope, time.time()) if rule in OPENED else scope
    if fixed and rule in (Rule.RPM, Rule.TPM):
        here = of_minute(scope, time.time())
    refusal = await _used(counters, here, rule, limit)
    if isinstance(refusal, Unknown):
        return _rule(name, passes=None, says=f"{limit}; nobody has asked for any of it since the start.")
    used = refusal.used
    return _rule(name, passes=used < limit, says=f"{used} of {limit} in use.")


async def _budget(counters: Counters | None, scope: str, budget: Budget) -> Document:
    name, allowed = f"{scope.partition(':')[0]} {Rule.BUDGET.value}", _allowed(budget)
    if counters is None:
        return _rule(name, passes=None, says=f"{allowed}; how much of it is spent only the server knows.")
    here = f"{scope}@{window(budget.duration, time.time()).start}"
    try:
        refusal = await _used(counters, here, Rule.BUDGET, budget.most)
    except BudgetUnavailable as error:
        return _rule(name, passes=False, says=error.message)
    if isinstance(refusal, Unknown):
        return _rule(name, passes=None, says=f"{allowed}; nobody has asked for any of it since the start.")
    spent = refusal.used - refusal.held
    says = f"{usd(spent)} of {allowed} spent, {usd(refusal.held)} held by running calls."
    return _rule(name, passes=refusal.used < budget.most, says=says)


async def _used(counters: Counters, scope: str, rule: Rule, limit: int) -> Refusal | Unknown:
    """What is used. A claim that can never fit is refused with it, and takes nothing."""
    refusal = await counters.take([Claim(scope, rule, limit, limit + 1, limit + 1)])
    assert not isinstance(refusal, Grant)  # noqa: S101 - it never fits
    return refusal


def _call(route: Route, key: Key, task: Task, user: str | None) -> Call:
    body = {} if user is None else {"user": user}
    given = {} if user is None or route.sticky is None else {route.sticky.lower().encode(): user.encode()}
    request = Request("explained", task, route.name, body, False, {}, given, user=users.shown(user or ""))
    return Call(key, route, request, time.time(), time.perf_counter(), [])


def _deployments(snapshot: Snapshot, route: Route, order: Sequence[Deployment], task: Task) -> list[Document]:
    """Each in the order it would be asked, those that never are behind."""
    told = []
    for number, one in enumerate(order, 1):
        condition = snapshot.router.health.of(one)
        rests = condition.rests()
        says = [f"at rest after failures, for {rests:.1f} s more" if rests else _merit(snapshot, route, one)]
        if one.concurrency is not None:
            says.append(f"{condition.running} of {one.concurrency} calls at once")
        says.append(_dialect(snapshot, one, task))
        told.append({"deployment": one.id, "asked": None if rests else number, "says": "; ".join(says)})
    asked = {one.id for one in order}
    never = [one.id for one in route.deployments if one.id not in asked]
    return [*told, *({"deployment": one, "asked": None, "says": "weight 0: never asked"} for one in never)]


def _merit(snapshot: Snapshot, route: Route, one: Deployment) -> str:
    """What the route's strategy looks at."""
    first = f"order {one.order}, " if any(other.order != one.order for other in route.deployments) else ""
    condition = snapshot.router.health.of(one)
    match route.strategy:
        case Strategy.PRIORITY:
            return f"{first}number {route.deployments.index(one) + 1} in the file"
        case Strategy.LATENCY:
            return f"{first}{condition.latency:.3f} s to a first token of late, {condition.running} calls running"
        case Strategy.LEAST_BUSY:
            return f"{first}{condition.running} calls running"
        case Strategy.CHEAPEST:
            price = one.listing.price
            usd = None if price is None else float(price.rates.input + price.rates.output) * 1e6
            return f"{first}unpriced" if usd is None else f"{first}{usd:g} USD for a million tokens in and out"
        case _:
            share = one.weight / sum(other.weight for other in route.deployments if other.order == one.order)
            return f"{first}weight {one.weight:g}, {share:.0%} of the calls"


def _dialect(snapshot: Snapshot, one: Deployment, task: Task) -> str:
    speaks = snapshot.router.provider(one).speaks
    if speaks(task, one.model):
        return f"asked in {task.value}"
    for other in CONVERSATIONS if task in CONVERSATIONS else ():
        if speaks(other, one.model):
            return f"translated to {other.value}"
    return f"does not answer {task.value}"


def _resting(resting: int, of: int) -> str:
    return "No deployment is at rest." if not resting else f"{resting} of {of} deployments are at rest."


_STRATEGIES = {
    Strategy.WEIGHTED: "drawn by weight, anew for each call",
    Strategy.PRIORITY: "in the file's order",
    Strategy.LATENCY: "the quicker of two drawn by weight",
    Strategy.LEAST_BUSY: "the least busy first",
    Strategy.CHEAPEST: "the cheapest first",
}


def _strategy(route: Route, user: str | None) -> str:
    if route.sticky is not None and user:
        return f"sticky by {route.sticky}: '{user[:100]}' of this key is always asked of the same deployment first."
    return f"{route.strategy.value}: {_STRATEGIES[route.strategy]}."


def _fallbacks(snapshot: Snapshot, route: Route) -> list[Document]:
    def told(other: Route, when: str) -> Document:
        stated = [f"{rule.value} {limit}" for rule, limit in _stated(other.limits)]
        if other.limits.budget is not None:
            stated.append(f"{Rule.BUDGET.value} {_allowed(other.limits.budget)}")
        limits = ", ".join(stated)
        needs = f"within its own limits ({limits})" if limits else "without limits of its own"
        return {"route": other.name, "says": f"{when}, {needs}: {', '.join(one.id for one in other.deployments)}"}

    router = snapshot.router
    return [
        *[told(other, "when every deployment has failed") for other in router.fallbacks(route)],
        *[told(other, "when the conversation is too long") for other in router.larger(route)],
    ]
