"""One call, sent until somebody answers: the route's deployments in order, then its fallbacks."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from gateway.errors import BadRequest, RateLimited, UpstreamFailed, UpstreamTimeout
from gateway.limits import CAPS, Limiter, positive
from gateway.routes import Deployment, Route, Task
from gateway.routing import Router
from gateway.streaming import begun
from gateway.timing import Within
from gateway.types import Answer, Call, UpstreamRequest

log = logging.getLogger(__name__)

#: An upstream's status that another deployment may do better than. Every other 4xx is the caller's own.
_ELSEWHERE = frozenset({408, 409, 425, 429})


async def send(router: Router, limiter: Limiter, call: Call) -> Answer:
    """The first good answer to `call`; else the last failure, as the upstream told it.

    A fault of the caller's is answered at once and sent nowhere else.
    """
    outcome: Answer | UpstreamFailed = UpstreamFailed("The route has no deployment to send to.")
    for route in (call.route, *router.fallbacks(call.route)):
        if route is not call.route:
            try:
                await limiter.move(call, route)
            except (RateLimited, BadRequest) as error:
                log.info("%s: fallback '%s' has no room: %s", call.request.id, route.name, error.message)
                continue
        for deployment in router.order(route):
            outcome = await _attempt(router, call, route, deployment)
            if isinstance(outcome, Answer) and outcome.status < 500 and outcome.status not in _ELSEWHERE:
                return outcome
            said = outcome.message if isinstance(outcome, UpstreamFailed) else f"HTTP {outcome.status}"
            log.warning("%s: %s failed: %s", call.request.id, deployment.id, said)
    if isinstance(outcome, UpstreamFailed):
        raise outcome
    return outcome


async def _attempt(router: Router, call: Call, route: Route, deployment: Deployment) -> Answer | UpstreamFailed:
    call.deployment = deployment
    timeouts = route.timeouts
    stream = call.request.stream
    patience = timeouts.first_token if stream else timeouts.whole
    if timeouts.total is not None:
        patience = min(patience, timeouts.total)
    request = UpstreamRequest(
        task=call.request.task,
        model=deployment.model,
        body=_body(call, route),
        headers=call.request.headers,
        stream=stream,
        connect=timeouts.connect,
    )
    deadline = None if timeouts.total is None else asyncio.get_running_loop().time() + timeouts.total
    try:
        with Within(patience):
            answer = await router.provider(deployment).send(request)
            answer = await begun(answer, timeouts, deadline)
    except TimeoutError:
        return UpstreamTimeout(
            f"Provider '{deployment.provider}' did not {'begin to ' if stream else ''}answer within {patience:g} s."
        )
    except UpstreamFailed as error:
        return error
    call.first_token = time.perf_counter() - call.started
    return answer


def _body(call: Call, route: Route) -> dict[str, Any]:
    """The caller's JSON, with usage asked for on a stream, and the route's cap where the caller set none or a higher.

    A higher one was refused already where the caller named this route: here it is a fallback, and a shorter answer
    that says `length` is better than none.
    """
    body = dict(call.request.body)
    if call.request.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    cap = route.max_output_tokens
    if cap is not None and call.request.task is not Task.EMBEDDINGS:
        asked = {name: value for name in CAPS if (value := positive(body, name)) is not None}
        body |= {name: min(value, cap) for name, value in asked.items()} or {"max_tokens": cap}
    return body
