"""The spine: one inference request, from the route it names to its settled answer."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from gateway import attempts, byok, limits, recording
from gateway.cache import Cache, Wish
from gateway.errors import BadRequest
from gateway.fallback import Way, send
from gateway.limits import Limiter
from gateway.owners import Key
from gateway.plane import Snapshot
from gateway.rescue import TextRescue
from gateway.routes import CONVERSATIONS, CachePolicy, Route, Task
from gateway.shadow import Shadows
from gateway.types import Answer, Call, Request
from gateway.usage import Meter

# Found by name on the class, a member of an enumeration costs a call.
_COUNT_TOKENS = Task.COUNT_TOKENS


class Proxy:
    """Answers inference requests."""

    def __init__(self, limiter: Limiter, meter: Meter, cache: Cache) -> None:
        self._limiter = limiter
        self._meter = meter
        self._cache = cache
        self._shadows = Shadows(self._copied)

    async def answer(self, request: Request, key: Key, snapshot: Snapshot) -> tuple[Call, Answer]:
        """Answer one request on behalf of `key`, as `snapshot` says. The order below is the policy."""
        route = None
        try:
            router = snapshot.router
            asked = request.model
            route = router.behind(request.prompt, asked) if request.prompt else router.find(asked, key)
            if route.trace is not None:
                recording.begin(request, route.trace)
            _check(request, route)
            request.credential = byok.credential(request.given, route)
        except BaseException as error:
            self._meter.refuse(request, key, route, error)
            raise
        if route.cache is None:
            return await self._asked(request, key, route, snapshot)
        return await self._cached(request, key, route, route.cache, snapshot)

    def refuse(self, request: Request, key: Key, error: BaseException) -> None:
        """Record a call that could not be understood well enough to be answered."""
        self._meter.refuse(request, key, None, error)

    async def close(self) -> None:
        """End the copies of calls that are still under way."""
        await self._shadows.close()

    async def _copied(self, request: Request, key: Key, snapshot: Snapshot) -> tuple[Call, Answer]:
        route = snapshot.router.find(request.model, key)
        if route.trace is not None:
            recording.begin(request, route.trace)
        return await self._asked(request, key, route, snapshot, is_copy=True)

    async def _asked(
        self, request: Request, key: Key, route: Route, snapshot: Snapshot, *, is_copy: bool = False
    ) -> tuple[Call, Answer]:
        """Ask upstream: admitted, measured, and recorded however it ends."""
        try:
            call = await self._limiter.admit(key, route, request)
            request.marks.admitted = time.perf_counter()
        except BaseException as error:
            self._meter.refuse(request, key, route, error)
            raise
        try:
            if route.shadow is not None and not is_copy:
                # Only now: a caller beyond its limits must not spend by way of copies.
                self._shadows.cast(route, request, snapshot)
            way = Way(snapshot.router, self._limiter, call)
            answer = await self._counted(call, snapshot) if request.task is _COUNT_TOKENS else None
            answer = answer or await send(way, self._meter)
            request.marks.answered = time.perf_counter()
            return call, self._meter.metered(call, answer, _rescue(route, way, self._meter))
        except BaseException as error:  # a client that leaves while we wait cancels us here
            self._meter.close(call, error)
            raise

    async def _counted(self, call: Call, snapshot: Snapshot) -> Answer | None:
        """How many tokens a conversation has, counted by ourselves; None where the provider is to be asked.

        Who is asked first tells: a provider of Anthropic's models counts as it will bill, every other cannot.
        """
        first = (snapshot.router.order(call.route, call) or call.route.deployments)[0]
        if snapshot.router.provider(first).speaks(_COUNT_TOKENS, first.model):
            return None
        document = {"input_tokens": await self._limiter.count(call.request, first.model)}
        return Answer(200, {"content-type": "application/json"}, orjson.dumps(document), document=document)

    async def _cached(
        self, request: Request, key: Key, route: Route, policy: CachePolicy, snapshot: Snapshot
    ) -> tuple[Call, Answer]:
        """Answer as another was, or is just now; else ask upstream for all who ask the same."""
        started = time.perf_counter()
        asked: list[Call | None] = []

        async def start() -> tuple[Answer, Callable[[], bool]]:
            asked.append(None)  # from here on the call records itself, also where its caller has left
            call, answer = await self._asked(request, key, route, snapshot)
            asked[0] = call
            if call.attempt is not None:
                answer.headers |= attempts.headers(call.attempt)  # for those who share it
            # What a fallback answered is not given again once the route itself is back.
            return answer, lambda: call.settled and call.error is None and call.route is route

        answer: Answer | None = None
        try:
            digest = snapshot.digests.of(key, route, request)
            wish = Wish.of(request.given.get(b"cache-control", b"").decode("latin-1"))
            answer, hit = await self._cache.share(policy, digest, start, wish)
            if not hit and asked and asked[0] is not None:
                return asked[0], answer
            call = await self._limiter.admit_hit(key, route, request, started)
            request.marks.admitted = request.marks.answered = time.perf_counter()
        except BaseException as error:
            if answer is not None and answer.chunks is not None:
                await answer.chunks.aclose()
            if not asked:
                self._meter.refuse(request, key, route, error)
            raise
        return call, self._meter.hit(call, answer)


def _rescue(route: Route, way: Way, meter: Meter) -> TextRescue | None:
    asked = way.call.request
    return TextRescue(way, meter) if route.rescue and asked.stream and asked.task in CONVERSATIONS else None


def _check(request: Request, route: Route) -> None:
    """Refuse what this route can never answer."""
    if not route.task.serves(request.task):
        raise BadRequest(
            f"The model '{route.name}' serves {route.task.value}, not {request.task.value}: "
            f"POST it to /v1/{route.task.tasks[0].value}.",
            param="model",
            code="wrong_task",
        )
    limits.check(request, route)
