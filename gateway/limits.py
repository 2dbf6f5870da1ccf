"""Limits of keys and routes: a call claims all it may use before it starts, and settles what it used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from gateway import tokens
from gateway.budgets import DAY, Budgets, owner, refused
from gateway.counters import OPENED, WINDOW, Counters
from gateway.dialects.registry import DIALECTS
from gateway.errors import BadRequest, GatewayError, RateLimited
from gateway.owners import Key
from gateway.routes import Limits, Route, Task
from gateway.types import Attempt, Call, Claim, Grant, Refusal, Request, Rule, Standing, Unknown
from gateway.windows import window

_WHAT = {
    Rule.RPM: "requests a minute",
    Rule.TPM: "tokens a minute",
    Rule.CONCURRENCY: "calls at once",
    Rule.RPD: "requests a day",
    Rule.TPD: "tokens a day",
}
_WORDS = {Rule.RPM: "requests", Rule.TPM: "tokens", Rule.RPD: "requests", Rule.TPD: "tokens"}
_OF_TOKENS = frozenset((Rule.TPM, Rule.TPD))
# Found by name on the class, a member of an enumeration costs a call.
_RPM, _TPM, _CONCURRENCY = Rule.RPM, Rule.TPM, Rule.CONCURRENCY
_COUNT_TOKENS = Task.COUNT_TOKENS
#: A named tuple from its values in order: to call its class costs three times as much.
_tuple = tuple.__new__
#: What an answer is taken to be at most when neither caller, route nor price table says.
_UNSAID_OUTPUT = 4096
#: Longer texts, in characters, keep the estimate: counting 20 MB takes 14 s.
_COUNTED = 1_000_000
#: Scopes whose claims are made once, for all calls.
_REMEMBERED = 10_000


class _Same(NamedTuple):
    """What every call claims of one scope, as long as its limits are these."""

    limits: Limits
    requests: tuple[Claim, ...]
    all: tuple[Claim, ...]


class Limiter:
    """Admits calls."""

    def __init__(self, counters: Counters, budgets: Budgets) -> None:
        self._counters = counters
        self._budgets = budgets
        self._same: dict[str, _Same] = {}
        # Not the loop's own threads: whoever makes us count would keep SQL and host names waiting too.
        self._counting = ThreadPoolExecutor(1, "count-tokens")

    async def admit_hit(self, key: Key, route: Route, request: Request, started: float) -> Call:
        """Let in a call that asks nothing of an upstream: it claims requests, and nothing else.

        `started` is when it came (`time.perf_counter()`): it may have waited for another's answer.
        """
        call = Call(key, route, request, time.time(), started, [])
        scopes = (*key.limits_of(request.user), (f"route:{route.name}", route.limits))
        await self._claim(call, *scopes, requests_only=True)
        return call

    async def admit(self, key: Key, route: Route, request: Request) -> Call:
        """A call that holds requests, tokens and concurrency of `key`, its tenants and `route`, until `settle`.

        It also holds of their budgets what its first attempt may cost. Taken in one step, all or none: a refused
        call has used up nothing. Raises `RateLimited` or `BudgetExceeded` naming the rule, or `BadRequest` when the
        call alone is larger than a limit.
        """
        call = Call(
            key=key,
            route=route,
            request=request,
            time=time.time(),
            started=time.perf_counter(),
            grants=[],
        )
        scopes = (*key.limits_of(request.user), (f"route:{route.name}", route.limits))
        counting = request.task is _COUNT_TOKENS  # it uses no tokens, costs nothing, and keeps no model busy
        await self._claim(call, *scopes, money=not counting and budgeted(key, route), requests_only=counting)
        return call

    async def reserve(self, call: Call, route: Route, attempt: Attempt) -> None:
        """Have `attempt` hold what it may cost of the budgets that apply, until `spend`.

        The call's first takes over what the call was admitted with, where it is of the same route. Raises as `admit`
        does.
        """
        if not budgeted(call.key, route) or call.request.task is _COUNT_TOKENS:
            return
        if call.reserved is route and call.reservation:
            self._budgets.check(call, route, attempt.deployment)
            attempt.reservation, call.reservation = call.reservation, ()
            return
        self.spend(call, 0)
        only = [attempt.deployment]

        def claims() -> list[Claim]:
            return self._budgets.claims(call, route, only, attempt.body)

        attempt.reservation = (await self._granted(call, await self._counters.take(claims()), claims)).money

    def begin(self, call: Call, route: Route, attempt: Attempt) -> None:
        """Journal an attempt whose upstream is asked now (`Budgets.begin`)."""
        self._budgets.begin(call, route, attempt)

    def spend(self, holder: Call | Attempt, cost: int) -> None:
        """Settle what `holder` holds of budgets at `cost` nano-dollars (`Budgets.spend`)."""
        self._budgets.spend(holder, cost)

    def late(self, call: Call, route: Route, cost: int) -> None:
        """Count `cost` of budgets that were set while the call ran (`Budgets.late`)."""
        self._budgets.late(call, route, cost)

    async def move(self, call: Call, route: Route) -> None:
        """Let `call` go on with `route`: that route's limits are claimed, those of the one before given back.

        Its key is not asked again: it holds what it held. Raises as `admit` does.
        """
        left = f"route:{call.route.name}"
        for scope in (left, of_day(left, call.time), of_minute(left, call.time)):
            for grant in call.grants:
                self._counters.settle(grant, 0, scope=scope)
                grant.standings = [one for one in grant.standings if one.claim.scope != scope]
        before, call.route = call.route, route
        try:
            await self._claim(call, (f"route:{route.name}", route.limits))
        except BaseException:
            call.route = before
            raise

    def settle(self, call: Call, used: int) -> None:
        """Give back what `call` holds; `used` tokens stay counted."""
        for grant in call.grants:
            self._counters.settle(grant, used)

    async def _claim(
        self, call: Call, *scopes: tuple[str, Limits], money: bool = False, requests_only: bool = False
    ) -> None:
        def wanted() -> list[Claim]:
            limits = self._claims(call, scopes, requests_only=requests_only)
            return limits + self._budgets.claims(call, call.route, call.route.deployments) if money else limits

        claims = wanted()
        if not claims:
            return
        taken = await self._counters.take(claims)
        if not isinstance(taken, Grant):
            taken = await self._granted(call, taken, wanted)
        call.grants.append(taken)
        if money:
            call.reservation, call.reserved = taken.money, call.route

    async def _granted(self, call: Call, taken: Grant | Refusal | Unknown, claims: Callable[[], list[Claim]]) -> Grant:
        """A grant of `claims`, asked for again where the ledger, or an exact count of the input, changes the answer."""
        while not isinstance(taken, Grant):
            if isinstance(taken, Unknown):
                await self._budgets.open(taken.claim, call)
            elif not await self._count(call, taken.claim):
                raise refused(taken, call) if taken.claim.rule is Rule.BUDGET else _refused(taken, call)
            taken = await self._counters.take(claims())
        return taken

    async def _count(self, call: Call, claim: Claim) -> bool:
        """Whether the input's tokens, counted exactly for the first time, are known now.

        The estimate is generous: near a limit it is worth a thread to know how many there really are. Not
        where that cannot help, since no text of that length has so few.
        """
        if call.counted or not (claim.rule is Rule.BUDGET or claim.rule in _OF_TOKENS):
            return False
        body = call.request.body
        size = tokens.size(body)
        beside = claim.least - call.input_estimate
        if size > _COUNTED or (claim.rule in _OF_TOKENS and size // tokens.LONGEST + beside > claim.limit):
            return False
        call.input_estimate = await self._in_thread(tokens.at_most, body, call.route.deployments[0].model)
        call.counted = True
        return True

    async def count(self, request: Request, model: str) -> int:
        """The input tokens of `request` as `model` counts them; estimated where its texts are very long."""
        body = request.body
        return (
            tokens.likely(body) if tokens.size(body) > _COUNTED else await self._in_thread(tokens.counted, body, model)
        )

    async def _in_thread(
        self, count: Callable[[Mapping[str, Any], str], int], body: Mapping[str, Any], model: str
    ) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._counting, count, body, model)

    def _claims(self, call: Call, scopes: tuple[tuple[str, Limits], ...], *, requests_only: bool) -> list[Claim]:
        claims: list[Claim] = []
        asked: tuple[int, int] | None = None
        for scope, limits in scopes:
            minute = of_minute(scope, call.time) if limits.fixed else scope
            same = self._same.get(minute)
            if same is None or same.limits is not limits:
                same = self._remembered(minute, scope, limits)
            claims += same.requests if requests_only else same.all
            if limits.rpd is not None:
                claims.append(Claim(of_day(scope, call.time), Rule.RPD, limits.rpd))
            if requests_only:
                continue
            if limits.tpm is not None:
                asked = asked or self._tokens(call)
                claims.append(_tuple(Claim, (minute, _TPM, limits.tpm, *asked)))
            if limits.tpd is not None:
                asked = asked or self._tokens(call)
                claims.append(Claim(of_day(scope, call.time), Rule.TPD, limits.tpd, *asked))
        return claims

    def _remembered(self, minute: str, scope: str, limits: Limits) -> _Same:
        requests = () if limits.rpm is None else (Claim(minute, _RPM, limits.rpm),)
        running = () if limits.concurrency is None else (Claim(scope, _CONCURRENCY, limits.concurrency),)
        if len(self._same) >= _REMEMBERED:
            self._same.clear()
        same = self._same[minute] = _Same(limits, requests, requests + running)
        return same

    def _tokens(self, call: Call) -> tuple[int, int]:
        """The whole of what the caller asked for; without its own cap on the output, whatever part of it is left.

        Else every client would have to send `max_tokens` to be let in beside another.
        """
        call.input_estimate = call.input_estimate or tokens.estimate(call.request.body)
        output, capped = self._output(call)
        amount = call.input_estimate + output
        return amount, amount if capped else min(amount, call.input_estimate + 1)

    def _output(self, call: Call) -> tuple[int, bool]:
        """The most tokens the answer may have, and whether the upstream is told so."""
        request = call.request
        asked, answers = request.output or DIALECTS[request.task].output(request.body)[:2]
        most = call.route.max_output_tokens
        cap = asked if most is None or (asked is not None and asked < most) else most
        if cap is not None:
            return cap * answers, True
        stated = [one.listing.max_output_tokens for one in call.route.deployments]
        return max((most for most in stated if most), default=_UNSAID_OUTPUT) * answers, False


def headers(grants: list[Grant]) -> dict[str, str]:
    """`x-ratelimit-*` as OpenAI sends them, for the tightest limit of each kind; none where nothing is limited.

    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    requests: Standing | None = None
    used: Standing | None = None
    for grant in grants:
        for standing in grant.standings:
            if standing.claim.rule not in _OF_TOKENS:
                if requests is None or standing.left < requests.left:
                    requests = standing
            elif used is None or standing.left < used.left:
                used = standing
    said = {} if requests is None else _headers(requests, _WORDS[_RPM])
    return said if used is None else said | _headers(used, _WORDS[_TPM])


def of_minute(scope: str, moment: float) -> str:
    """The scope of a limit whose minutes are the clock's: the one that `moment` is in."""
    return f"{int(moment // WINDOW * WINDOW)}@{scope}"


def of_day(scope: str, moment: float) -> str:
    """The scope of a limit a day: the day that `moment` is in, UTC."""
    return f"{scope}@{window(DAY, moment).start}"


def _headers(standing: Standing, word: str) -> dict[str, str]:
    claim = standing.claim
    reset = _ends(claim, standing.reset)
    return {
        f"x-ratelimit-limit-{word}": str(claim.limit),
        f"x-ratelimit-remaining-{word}": str(standing.left),
        f"x-ratelimit-reset-{word}": f"{reset:.3f}s",
    }


def _ends(claim: Claim, sliding: float) -> float:
    """Seconds until `claim` is let go: until its day or its minute ends, else as its window `sliding` says."""
    if claim.rule in OPENED:
        return max(0.0, (window(DAY, float(claim.scope.rpartition("@")[2])).end or 0) - time.time())
    if claim.scope[0].isdigit():
        return max(0.0, float(claim.scope.partition("@")[0]) + WINDOW - time.time())
    return sliding


def _refused(refusal: Refusal, call: Call) -> GatewayError:
    claim = refusal.claim
    after = _ends(claim, refusal.retry_after)
    wait = max(1, -int(-after // 1))
    scope = claim.scope.rpartition("@")[0] if claim.rule in OPENED else claim.scope
    scope = scope.partition("@")[2] if scope[0].isdigit() else scope
    whose, verb = owner(scope, call.key), "has" if scope.startswith("user:") else "allows"
    if claim.least > claim.limit:
        return BadRequest(
            f"This call may use {claim.least} tokens, but {whose} {verb} {claim.limit} "
            f"{_WHAT[claim.rule]} ({claim.rule}): it can never be let in. "
            "Send a shorter prompt or a smaller max_tokens.",
            code="request_exceeds_limit",
        )
    asked = f", this call needs {claim.least} more" if claim.rule in _OF_TOKENS else ""
    error = RateLimited(
        f"{whose[0].upper()}{whose[1:]} {verb} {claim.limit} {_WHAT[claim.rule]} ({claim.rule}); "
        f"{refusal.used} are in use{asked}. Try again in {wait} s.",
        retry_after=wait,
    )
    word = _WORDS.get(claim.rule)
    if word is not None:
        error.headers |= _headers(Standing(claim, max(0, claim.limit - refusal.used), after), word)
    return error


def budgeted(key: Key, route: Route) -> bool:
    """Whether calls of `key` on `route` spend somebody's budget."""
    return key.budgeted or route.limits.budget is not None


def check(request: Request, route: Route) -> None:
    """Refuse numbers that are none, and more output than `route` gives. Raises `BadRequest` naming the field."""
    asked, answers, param = DIALECTS[request.task].output(request.body)
    request.output = asked, answers
    most = route.max_output_tokens
    if asked is not None and most is not None and asked > most:
        raise BadRequest(
            f"{param} is {asked}, but the model '{route.name}' answers with {most} tokens at most.", param=param
        )
