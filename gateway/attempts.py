"""One attempt: a call asked of one deployment, in a dialect it speaks, within the route's timeouts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import SecretStr

from gateway.dialects import lenient, translation
from gateway.dialects.dialect import Losses
from gateway.dialects.registry import DIALECTS, tally_of
from gateway.errors import BadRequest, GatewayError, Overloaded, UpstreamFailed, UpstreamSilent
from gateway.health import Condition
from gateway.providers.faulty import Drawn
from gateway.routes import CONVERSATIONS, Cooldown, Deployment, Route, Task
from gateway.routing import Router
from gateway.streaming import begun
from gateway.timing import Within, retry_after
from gateway.types import Answer, Attempt, Call, Provider, UpstreamRequest

#: An upstream's status that another deployment may do better than. Every other 4xx is the caller's own.
_ELSEWHERE = frozenset({408, 409, 425, 429})
#: And those under which one may say that a conversation is longer than its model's window: in these words.
_MAY_BE_LENGTH = frozenset({400, 413, 422})
_TOO_LONG = re.compile(
    rb"context_length_exceeded|context[ _](?:length|window|size)|too many (?:input )?tokens|prompt is too long"
    rb"|input is too long|maximum (?:number of )?(?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
#: How many of the fields that were dropped a header names, and how much of each name. The names are a caller's text.
_NAMED, _LONGEST_NAME = 20, 100
_DEFAULT_COOLDOWN = Cooldown()
#: Seconds a deployment is left alone for at most, whatever its upstream asks.
_LONGEST_REST = 3600.0
#: Headers that mean something in one dialect only.
_OF_MESSAGES = ("anthropic-version", "anthropic-beta")


class Failure(NamedTuple):
    """One attempt that another may do better than: what came of it, why, and seconds until its upstream said to return.

    `too_long`: the model's window was too small.
    """

    deployment: Deployment
    outcome: Answer | GatewayError
    why: str
    retry_after: float | None = None
    too_long: bool = False


#: Told of an attempt just before its upstream is asked.
Begin = Callable[[Call, Route, Attempt], None]


async def attempt(router: Router, call: Call, route: Route, one: Attempt, begin: Begin) -> Answer | Failure:
    """What `one` comes to: an answer, in the caller's dialect if it is whole (a stream is in the attempt's own), or a
    failure that another deployment may not meet. A fault of the caller's, told by the upstream, is an answer.

    An attempt that gave an answer keeps its place at the deployment until `one.end()`.
    """
    condition = router.health.of(one.deployment)
    if not condition.entered(one.deployment):
        try:
            await condition.enter(one.deployment)
        except Overloaded as error:
            return Failure(one.deployment, error, error.message)
    one.place = _Place(condition, _cooldown(route))
    told = False
    try:
        outcome = await _outcome(router, call, route, one, begin)
        if type(outcome) is Answer and outcome.status < 400:
            told = True
            condition.answered(time.perf_counter() - one.started)
            return outcome
        failure = _judged(route, one.deployment, outcome)
        told = not (isinstance(outcome, BadRequest) or _is_about_theirs(call, route, outcome))
        if failure is None or failure.too_long:
            condition.answered(time.perf_counter() - one.started)
        elif told:
            condition.failed(_cooldown(route), failure.retry_after)
        if failure is not None:
            one.asked = isinstance(outcome, UpstreamSilent)
            one.end()
            _note_end(one, outcome)
            return failure
        assert isinstance(outcome, Answer)  # noqa: S101 - what is none was judged a failure
        return outcome
    except BaseException:
        one.end()
        raise
    finally:
        if not told:
            condition.forsaken()


def headers(one: Attempt) -> dict[str, str]:
    """What a caller is told of the attempt that answered it: where it was, and what was left out of the request."""
    said = {"x-promptyard-deployment": one.deployment.id}
    if one.dropped:
        named = [name.encode("unicode_escape").decode("ascii")[:_LONGEST_NAME] for name in one.dropped[:_NAMED]]
        said["x-promptyard-dropped"] = ", ".join(named)
    return said


class _Place:
    """A place at a deployment, in its condition's count until it is left."""

    def __init__(self, condition: Condition, cooldown: Cooldown | None) -> None:
        self._condition = condition
        self._cooldown = cooldown

    def leave(self, *, broken: bool) -> None:
        """Another may have it; a broken answer counts as a failure (`Place.leave`)."""
        if broken:
            self._condition.failed(self._cooldown, None)
        self._condition.leave()


def _note_end(one: Attempt, outcome: Answer | GatewayError) -> None:
    """What the trace says of a failed attempt."""
    if one.span is None:
        return
    if isinstance(outcome, Answer):
        one.span.end(outcome.status, "upstream_error")
    else:
        one.span.end(None, outcome.code)


async def _outcome(
    router: Router, call: Call, route: Route, one: Attempt, begin: Begin
) -> Answer | UpstreamFailed | BadRequest:
    one.started, one.asked = time.perf_counter(), True
    if route.name != call.request.model:
        one.fallback = route.name
    provider = router.provider(one.deployment)
    one.secrets = provider.secrets
    try:
        one.task = _dialect(provider, call, one.deployment)
        request = _request(call, route, one)
        begin(call, route, one)
        answer = await _answered(provider, router.fault(route), call, route, one, request)
        now = time.perf_counter()
        one.first_token = now - call.started
        if one.span is not None:
            one.span.first_token = now
        if answer.chunks is None and one.task is not call.request.task:
            try:
                _translate(call, one.task, answer)
            except UpstreamFailed:
                if answer.document is not None and answer.status < 400:
                    one.used = DIALECTS[one.task].usage(answer.document)
                raise
        return answer
    except (UpstreamFailed, BadRequest) as error:
        error.hide(one.secrets)
        return error


def _judged(route: Route, deployment: Deployment, outcome: Answer | GatewayError) -> Failure | None:
    """Why another deployment may do better; None for an answer, and for a fault of the caller's."""
    if isinstance(outcome, GatewayError):
        return Failure(deployment, outcome, outcome.message, outcome.retry_after)
    if outcome.status >= 500 or outcome.status in _ELSEWHERE:
        wait = retry_after(outcome.headers.get("retry-after"), _LONGEST_REST)
        return Failure(deployment, outcome, f"HTTP {outcome.status}", wait)
    if outcome.status in _MAY_BE_LENGTH and route.context_fallbacks and _TOO_LONG.search(outcome.body):
        return Failure(deployment, outcome, "the conversation is too long for it", too_long=True)
    return None


def _theirs(call: Call, route: Route) -> SecretStr | None:
    """The caller's own credential, for the route it was brought to: a fallback may be another provider's."""
    return call.request.credential if route.name == call.request.model else None


def _is_about_theirs(call: Call, route: Route, outcome: Answer | GatewayError) -> bool:
    """Whether the caller's own credential is rate-limited: others' calls have nothing to fear of the deployment."""
    return isinstance(outcome, Answer) and outcome.status == 429 and _theirs(call, route) is not None


def _cooldown(route: Route) -> Cooldown | None:
    """When a deployment of `route` rests. Where the file does not say, only one that is not the last resort does."""
    if route.cooldown is None and (len(route.deployments) > 1 or route.fallbacks):
        return _DEFAULT_COOLDOWN
    return route.cooldown if route.cooldown and route.cooldown.seconds else None


def _dialect(provider: Provider, call: Call, deployment: Deployment) -> Task:
    """The caller's own dialect where `provider` speaks it, so that nothing is translated; else one it can be put into.

    Raises `BadRequest` where there is none.
    """
    asked = call.request.task
    if provider.speaks(asked, deployment.model):
        return asked
    if asked in CONVERSATIONS:
        for task in CONVERSATIONS:
            if provider.speaks(task, deployment.model):
                return task
    raise BadRequest(
        f"The model '{call.request.model}' cannot be asked at /v1/{asked.value}: "
        f"provider '{provider.name}' does not answer it.",
        param="model",
        code="unsupported_task",
    )


async def _answered(
    provider: Provider, fault: Drawn | None, call: Call, route: Route, one: Attempt, request: UpstreamRequest
) -> Answer:
    timeouts, stream = route.timeouts, call.request.stream
    patience = timeouts.first_token if stream else timeouts.whole
    if timeouts.total is not None:
        patience = min(patience, timeouts.total)
    sent = time.perf_counter()
    deadline = None if timeouts.total is None else asyncio.get_running_loop().time() + timeouts.total
    try:
        with Within(patience):
            answer = await (provider.send(request) if fault is None else fault.send(provider, request))
            if answer.chunks is not None:
                heard = tally_of(one.task, call.request.body, answer.headers)
                answer = await begun(answer, heard, timeouts, deadline)
            return answer
    except TimeoutError:
        raise UpstreamSilent(
            f"Provider '{provider.name}' did not {'begin to ' if stream else ''}answer within {patience:g} s"
            f"{fault.said if fault else ''}."
        ) from None
    finally:
        call.request.marks.upstream += time.perf_counter() - sent


def _request(call: Call, route: Route, one: Attempt) -> UpstreamRequest:
    """The caller's request as this attempt sends it.

    A route's cap is sent where the caller set none or a higher. A higher one was refused already where the caller
    named this route: here it is a fallback, and a shorter answer that says `length` is better than none.
    """
    asked = call.request
    body, headers = one.body or asked.body, asked.headers
    if one.task is not asked.task:
        losses = Losses(route.drops_unsupported)
        body = translation.request({**body, "model": one.deployment.model}, asked.task, one.task, losses)
        if asked.stream:
            body["stream"] = True
        one.dropped = losses.names
        if one.task is not Task.MESSAGES:
            headers = {name: value for name, value in headers.items() if name not in _OF_MESSAGES}
    prepared = DIALECTS[one.task].prepare(body, route.max_output_tokens, stream=asked.stream)
    if asked.trace is not None:
        one.span = asked.trace.attempt(one.deployment)
        one.span.fallback = one.fallback
    if asked.trace is not None and asked.trace.exported and one.span is not None:
        headers = {**headers, "traceparent": asked.trace.traceparent(one.span)}
    return UpstreamRequest(
        task=one.task,
        model=one.deployment.model,
        body=prepared if asked.form is None else asked.form.naming(one.deployment.model),
        headers=headers,
        stream=asked.stream,
        connect=route.timeouts.connect,
        content_type="application/json" if asked.form is None else asked.form.content_type,
        credential=_theirs(call, route),
    )


def _translate(call: Call, task: Task, answer: Answer) -> None:
    """Put a whole answer, or an upstream's error, into the caller's dialect. Raises `UpstreamFailed` for neither."""
    asked = call.request
    try:
        document = lenient.loads(answer.body) if answer.document is None else answer.document
        if not isinstance(document, dict):
            raise UpstreamFailed("The provider's answer is not a JSON object.")
        if answer.status >= 400:
            answer.body = translation.refused(document, asked.task, task, answer.status)
        else:
            answer.document = document
            answer.body = translation.answer(document, asked.task, task, asked.body)
    except ValueError:
        raise UpstreamFailed("The provider's answer is not JSON.") from None
    answer.headers["content-type"] = "application/json"
