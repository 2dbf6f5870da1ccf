"""The spine: one inference request, from the route it names to its settled answer."""

from __future__ import annotations

import time

from gateway import byok, limits
from gateway.errors import BadRequest
from gateway.fallback import Way, send
from gateway.limits import Limiter
from gateway.rescue import TextRescue
from gateway.routes import CONVERSATIONS, Route
from gateway.routing import Router
from gateway.types import Answer, Call, Key, Request
from gateway.usage import Meter


class Proxy:
    """Answers inference requests."""

    def __init__(self, router: Router, limiter: Limiter, meter: Meter) -> None:
        self._router = router
        self._limiter = limiter
        self._meter = meter

    async def answer(self, request: Request, key: Key) -> tuple[Call, Answer]:
        """Answer one request on behalf of `key`. The order below is the policy."""
        route = None
        try:
            route = self._router.find(request.model, key)
            _check(request, route)
            request.credential = byok.credential(request.given, route)
            call = await self._limiter.admit(key, route, request)
            request.marks.admitted = time.perf_counter()
        except BaseException as error:
            self._meter.refuse(request, key, route, error)
            raise
        try:
            way = Way(self._router, self._limiter, call)
            answer = await send(way, self._meter)
            request.marks.answered = time.perf_counter()
            return call, self._meter.metered(call, answer, _rescue(route, way, self._meter))
        except BaseException as error:  # a client that leaves while we wait cancels us here
            self._meter.close(call, error)
            raise


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
