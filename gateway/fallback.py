"""One call, sent until somebody answers: its route's deployments in order, again where it retries, then fallbacks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Generator

from gateway.attempts import Failure, attempt
from gateway.errors import BadRequest, GatewayError, Overloaded, RateLimited, UpstreamFailed
from gateway.limits import Limiter, budgeted
from gateway.routes import Deployment, Route
from gateway.routing import Router
from gateway.types import Answer, Attempt, Call
from gateway.usage import Meter

log = logging.getLogger(__name__)


#: Steps to take, and between them what must be waited for: whether to go on is sent back.
_Steps = Generator[tuple[Route, Deployment] | Awaitable[bool], bool, None]


async def send(way: Way, meter: Meter) -> Answer:
    """The first good answer to the call on its `way`; else the last failure, as the upstream told it.

    A fault of the caller's is answered at once and sent nowhere else, but for a request that one deployment's
    dialect cannot say: another may speak the caller's own.
    """
    call, router = way.call, way.router
    failure: Failure | None = None
    while (step := await way.next()) is not None:
        if failure is not None and call.attempt is not None:
            meter.failed(call, call.attempt, failure.outcome)
        route, deployment = step
        call.attempt = one = Attempt(deployment, call.request.task)
        if budgeted(call.key, route) and (refused := await way.reserve(route, one)):
            outcome: Answer | Failure = refused
        elif route.hedge is None:
            outcome = await attempt(router, call, route, one, way.begin)
        else:
            outcome = await _Hedge(way, meter, route).first(one, route.hedge)
        if isinstance(outcome, Answer):
            return outcome
        failure = outcome
        way.failed(outcome)
    return way.end()


class _Hedge:
    """One step of a route that hedges: a second attempt beside the first when that is slow to begin."""

    def __init__(self, way: Way, meter: Meter, route: Route) -> None:
        self._way = way
        self._meter = meter
        self._route = route
        self._running: dict[asyncio.Task[Answer | Failure], Attempt] = {}

    async def first(self, one: Attempt, after: float) -> Answer | Failure:
        """What the sooner of the two answers, or what the last failed with. The other is cancelled, and recorded."""
        try:
            self._start(one)
            if not await self._done(after):
                second = Attempt(self._way.beside() or one.deployment, self._way.call.request.task)
                # Without money for it, the first is waited for alone.
                if await self._way.reserve(self._route, second) is None:
                    self._start(second)
            while True:
                for task in await self._done(None):
                    attempted = self._running.pop(task)
                    try:
                        outcome = task.result()
                    except BaseException:
                        self._meter.left(self._way.call, attempted)
                        raise
                    if isinstance(outcome, Answer):
                        self._way.call.attempt = attempted
                        return outcome
                    if not self._running:
                        return outcome
                    self._way.failed(outcome)
                    self._meter.failed(self._way.call, attempted, outcome.outcome)
                    self._way.call.attempt = next(iter(self._running.values()))
        finally:
            await self._cancel()

    def _start(self, one: Attempt) -> None:
        task = asyncio.create_task(attempt(self._way.router, self._way.call, self._route, one, self._way.begin))
        self._running[task] = one

    async def _done(self, within: float | None) -> set[asyncio.Task[Answer | Failure]]:
        done, _ = await asyncio.wait(self._running, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        return done

    async def _cancel(self) -> None:
        losers, self._running = self._running, {}
        for task, one in losers.items():
            if task.done() and not task.cancelled() and isinstance(answer := task.result(), Answer):
                await _closed(answer)
            task.cancel()
            one.end()
            # The call's own attempt, where nobody answered because its caller left, is settled with the call.
            if one is not self._way.call.attempt:
                self._meter.forsaken(self._way.call, one)


async def _closed(answer: Answer) -> None:
    if answer.chunks is not None:
        await answer.chunks.aclose()


class Way:
    """Where one call may still go. Each step is a deployment that does not rest; `outcome` is told of each."""

    def __init__(self, router: Router, limiter: Limiter, call: Call) -> None:
        self.router = router
        self.begin = limiter.begin
        self._limiter = limiter
        self.call = call
        #: Deployments that cannot be told the call in their dialect: asking again would change nothing.
        self._unsaid: set[str] = set()
        self._unsaying: BadRequest | None = None
        self._last: Answer | GatewayError | None = None
        self._rest: float | None = None
        self._too_long = False
        self._retry_after: float | None = None
        self._order: deque[Deployment] = deque()
        self._steps = self._walk()

    async def next(self) -> tuple[Route, Deployment] | None:
        """The next deployment to ask; None where there is none left."""
        # Plain generators: one of the asynchronous kind that is left before its end costs its call two tasks.
        step = next(self._steps, None)
        while not (step is None or isinstance(step, tuple)):
            answer = await step
            try:
                step = self._steps.send(answer)
            except StopIteration:
                return None
        return step

    async def reserve(self, route: Route, one: Attempt) -> Failure | None:
        """Have `one` hold what it may cost of the budgets that apply; why it cannot, where it cannot."""
        try:
            await self._limiter.reserve(self.call, route, one)
        except GatewayError as error:
            return Failure(one.deployment, error, error.message)
        return None

    def beside(self) -> Deployment | None:
        """A deployment to ask beside the last step's, of the same route. It is no step of this round any more."""
        while self._order:
            deployment = self._order.popleft()
            if deployment.id not in self._unsaid and not self.router.health.of(deployment).rests():
                return deployment
        return None

    def failed(self, failure: Failure) -> None:
        """The last step came to this: whether, and where, to go on depends on it."""
        outcome = failure.outcome
        if isinstance(outcome, BadRequest):
            self._unsaying = self._unsaying or outcome
            self._unsaid.add(failure.deployment.id)
            return
        self._last = outcome
        self._too_long = failure.too_long
        if failure.retry_after is not None:
            self._retry_after = min(failure.retry_after, self._retry_after or failure.retry_after)
        log.warning("%s: %s failed: %s", self.call.request.id, failure.deployment.id, failure.why)

    def end(self) -> Answer:
        """The last failure, as the upstream told it. Raises it where it is no answer."""
        if isinstance(self._last, Answer):
            return self._last
        if self._last is None and self._unsaying is None and self._rest is not None:
            raise Overloaded(
                f"Every deployment of '{self.call.request.model}' rests after failures. "
                f"Try again in {max(1, round(self._rest))} s.",
                code="all_resting",
                retry_after=self._rest,
            )
        raise self._last or self._unsaying or UpstreamFailed("The route has no deployment to send to.")

    def _walk(self) -> _Steps:
        first = self.call.route
        yield from self._around(first)
        for route in self.router.larger(first) if self._too_long else self.router.fallbacks(first):
            if (yield self._moved(route)):
                yield from self._around(route)

    def _around(self, route: Route) -> _Steps:
        retries = route.retries
        rounds = retries.times if retries else 0
        for turn in range(rounds + 1):
            if turn and retries is not None:
                worth: bool = yield self._pause(retries.backoff * 2 ** (turn - 1), retries.longest)
                if not worth:
                    return
            self._retry_after = None
            self._order = deque(self.router.order(route, self.call))
            while self._order:
                deployment = self._order.popleft()
                if deployment.id in self._unsaid:
                    continue
                if rests := self.router.health.of(deployment).rests():
                    self._rest = min(rests, self._rest or rests)
                    continue
                yield route, deployment
                if self._too_long:
                    return

    async def _pause(self, backoff: float, longest: float) -> bool:
        """Wait before another round, as long as an upstream asked for; whether that is worth it."""
        if self._last is None and self._rest is None:
            return False
        wait = max(backoff * random.uniform(0.5, 1.0), self._retry_after or 0.0)  # noqa: S311 - spreads callers, no secret
        if wait > longest:
            return False
        await asyncio.sleep(wait)
        return True

    async def _moved(self, route: Route) -> bool:
        """Whether the call may go on with `route`, a fallback."""
        try:
            await self._limiter.move(self.call, route)
        except (RateLimited, BadRequest) as error:
            log.info("%s: fallback '%s' has no room: %s", self.call.request.id, route.name, error.message)
            return False
        return True
