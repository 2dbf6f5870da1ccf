"""The data plane, raw ASGI: a POST to `/v1/` for each task, in the dialect of its path, and `GET /v1/models`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson

from gateway import attempts, limits, prompts, users
from gateway.api import forms, http
from gateway.api.access import Access
from gateway.api.server_timing import server_timing
from gateway.dialects import body as json_body
from gateway.dialects.dialect import Dialect
from gateway.dialects.registry import DIALECTS
from gateway.dialects.sse import EVENTS
from gateway.errors import BadRequest, ClientGone, GatewayError, NotFound, Overloaded
from gateway.lanes import Chunks
from gateway.owners import Key, Scope
from gateway.plane import Plane, Snapshot
from gateway.prompts import PREFIX, Prompts
from gateway.proxy import Proxy
from gateway.routes import CONVERSATIONS, Route, Task
from gateway.telemetry import Tracer
from gateway.timing import current_task
from gateway.trace import Marks
from gateway.types import Answer, Call, Request
from gateway.usage import LEFT

log = logging.getLogger(__name__)

_TASKS = {f"/v1/{task.value}": task for task in DIALECTS}
# Found by name on the class, a member of an enumeration costs a call.
_CHAT, _MESSAGES, _INFERENCE = Task.CHAT, Task.MESSAGES, Scope.INFERENCE
#: Tasks whose answers may be streamed.
_STREAMED = frozenset((*CONVERSATIONS, Task.COMPLETIONS, Task.IMAGES, Task.TRANSCRIPTIONS))
#: Tasks whose answers are passed on as they come, asked for or not.
_AS_THEY_COME = frozenset((Task.SPEECH,))
#: Tasks that are asked in a multipart form.
_FORMS = frozenset((Task.TRANSCRIPTIONS,))
#: The caller's headers an upstream gets to see; everything else stays here.
_PASSED_UP = frozenset({b"accept", b"anthropic-version", b"anthropic-beta", b"idempotency-key", b"traceparent"})
_ONCE = "idempotency-key"
_MODELS = "/v1/models"
#: What a prompt is for, where a route says its task.
_PROMPT = "prompt"


class Inference:
    """Everything under `/v1/`."""

    def __init__(
        self,
        access: Access,
        proxy: Proxy,
        plane: Plane,
        tracer: Tracer | None,
        prompts: Prompts,
        *,
        max_body: int,
        body_timeout: float,
    ) -> None:
        self._access = access
        self._tracer = tracer
        self._proxy = proxy
        self._plane = plane
        self._prompts = prompts
        self._max_body = max_body
        self._body_timeout = body_timeout

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Answer one request; every failure, ours too, is an error in the caller's shape."""
        marks = Marks(time.perf_counter())
        task = _TASKS.get(scope["path"])
        headers: dict[bytes, bytes] = dict(scope["headers"])
        # Paths of no task have no dialect of their own; only Anthropic's clients say this.
        spoken = task or (_MESSAGES if b"anthropic-version" in headers else _CHAT)
        exchange = _Exchange(send, _request_id(), DIALECTS[spoken])
        try:
            key = await self._access.caller(headers, _INFERENCE)
            marks.authenticated = time.perf_counter()
            if task is not None:
                http.need_method(scope, "POST")
                await self._infer(exchange, scope, headers, receive, task, key, marks)
            elif scope["path"] == _MODELS or scope["path"].startswith(f"{_MODELS}/"):
                http.need_method(scope, "GET")
                await self._models(exchange, scope["path"], key)
            else:
                raise NotFound(f"There is no {scope['method']} {scope['path'][:200]} here. See /docs.")
        except GatewayError as error:
            await exchange.fail(error)
        except asyncio.CancelledError:
            if not exchange.left:
                # Cancelled by our own stop: a caller who is still there is told.
                await exchange.fail(Overloaded("The server is stopping."))
        except Exception:
            log.exception("%s: a fault of ours", exchange.id)
            await exchange.fail(GatewayError("Something went wrong inside the gateway. Its log says more."))

    async def _infer(
        self,
        exchange: _Exchange,
        scope: http.Scope,
        headers: Mapping[bytes, bytes],
        receive: http.Receive,
        task: Task,
        key: Key,
        marks: Marks,
    ) -> None:
        (forms.need_form if task in _FORMS else http.need_json)(headers)
        raw = await http.read_body(receive, headers, self._max_body, self._body_timeout)
        marks.read = time.perf_counter()
        # Not before it is read: who is refused while sending may never see why.
        snapshot = self._plane.enter()
        try:
            form = None
            if task in _FORMS:
                # In a thread: a file's hash takes as long as a hundred calls.
                body, form = await asyncio.to_thread(forms.parse, raw, headers[b"content-type"].decode("latin-1"))
            else:
                body = json_body.parse(raw)
            prompt = ""
            model = body.get("model")
            if isinstance(model, str) and model.startswith(PREFIX) and model not in snapshot.config.routes:
                body, prompt = await self._filled(exchange.id, task, model, body, key)
            request = _request(exchange.id, task, body, headers, marks, key)
            request.form, request.prompt, request.size = form, prompt, len(raw)
            await self._answer(exchange, scope, request, key, snapshot)
        finally:
            snapshot.leave()

    async def _filled(
        self, request_id: str, task: Task, model: str, body: dict[str, Any], key: Key
    ) -> tuple[dict[str, Any], str]:
        """The body that a registered prompt makes of a caller's, and which version it was."""
        try:
            asked = prompts.parse(model)
            prompts.check_allowed(asked, key)
            version = await self._prompts.find(asked)
            return await prompts.filled(version, task, body, key), version.id
        except GatewayError as error:
            self._proxy.refuse(Request(request_id, task, model, body, stream=False, headers={}), key, error)
            raise

    async def _answer(
        self, exchange: _Exchange, scope: http.Scope, request: Request, key: Key, snapshot: Snapshot
    ) -> None:
        if self._tracer is not None:
            request.trace = self._tracer.begin(
                request.headers.get("traceparent"), request.body, request.marks.received, stream=request.stream
            )
        exchange.watch(scope)
        call, answer = await self._proxy.answer(request, key, snapshot)
        await exchange.send(call, answer)

    async def _models(self, exchange: _Exchange, path: str, key: Key) -> None:
        if path == _MODELS:
            listed = [_routed(route) for route in self._plane.current.router.allowed(key)]
            listed += [_model(name, _PROMPT) for name in await self._prompts.names(key)]
            ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
            await exchange.reply({"object": "list", "data": listed, "has_more": False, **ends})
            return
        name = path.removeprefix(f"{_MODELS}/")
        router = self._plane.current.router
        if not name.startswith(PREFIX) or any(route.name == name for route in router.allowed(key)):
            await exchange.reply(_routed(router.find(name, key)))
            return
        asked = prompts.parse(name)
        prompts.check_allowed(asked, key)
        await self._prompts.find(asked)
        await exchange.reply(_model(name, _PROMPT))


class _Exchange:
    """One request and its answer: an id, whether the caller is still there, and what was sent."""

    def __init__(self, send: http.Send, request_id: str, dialect: Dialect) -> None:
        self.id = request_id
        self._dialect = dialect
        self.left = False
        self._send = send
        self._started = False
        self._events = True
        self._recorded = False

    def watch(self, scope: http.Scope) -> None:
        """Cancel this request the moment its caller leaves, so that the upstream stops too."""
        self._recorded = True
        task = current_task()

        def leave() -> None:
            self.left = True
            if task is not None:
                task.cancel(LEFT)

        http.when_gone(scope, leave)

    async def reply(self, document: dict[str, Any]) -> None:
        """Send our own JSON."""
        await http.answer(self._send, 200, {"content-type": "application/json", **self._own()}, orjson.dumps(document))

    async def send(self, call: Call, answer: Answer) -> None:
        """Send a provider's answer, whole or as it comes."""
        headers = {**answer.headers, "x-request-id": self.id, "request-id": self.id, **limits.headers(call.grants)}
        headers["server-timing"] = server_timing(call.request.marks, time.perf_counter())
        if call.attempt is not None:
            headers |= attempts.headers(call.attempt)
        if call.request.prompt:
            headers["x-promptyard-prompt"] = call.request.prompt
        if answer.chunks is None:
            if call.settled and call.cost is not None:
                headers["x-promptyard-cost"] = f"{call.cost / 1e9:.9f}"
            await http.answer(self._send, answer.status, headers, answer.body)
            self._started = True
            return
        async with aclosing(answer.chunks) as chunks:
            # The first chunk is here already. Taking it starts the generator, which from now on settles the
            # call however it ends; one that was never started would not.
            first = await anext(chunks, b"")
            await self._begin(answer.status, headers)
            self._started = True
            await self._part(first)
            if isinstance(chunks, Chunks) and (part := http.part(self._send)):
                chunks.divert(part)
            async for chunk in chunks:
                await self._part(chunk)
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: GatewayError) -> None:
        """Send `error`: as an answer, or as the last event of a stream that has begun."""
        if not self._recorded:
            log.info("%d %s, %s", error.status, error.message, self.id)
        if isinstance(error, ClientGone):
            return
        if self._started and not self._events:
            # No error can be told amid sound. Ended without an end, it is known to be cut.
            return
        if self._started:
            await self._send({"type": "http.response.body", "body": self._dialect.broken_off(error)})
            return
        await http.answer_error(self._send, error, self._own(), self._dialect.refusal)

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        # Proxies in front must neither keep a stream back nor keep it.
        self._events = headers.get("content-type", EVENTS).lower().startswith(EVENTS)
        headers = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _part(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def _own(self) -> dict[str, str]:
        # Under the name that Anthropic's client looks for as well.
        return {"x-request-id": self.id, "request-id": self.id}


def _request_id() -> str:
    """A new id. They begin with the time, in milliseconds: an index of random ones is slow to add to as it grows."""
    return f"req_{time.time_ns() // 1_000_000:012x}{random.getrandbits(48):012x}"


def _request(
    request_id: str, task: Task, body: dict[str, Any], headers: Mapping[bytes, bytes], marks: Marks, key: Key
) -> Request:
    """The request in `body`, as far as we have to understand it; the rest is the upstream's to judge."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("Name a model: a string in the field 'model'. GET /v1/models lists them.", param="model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false.", param="stream")
    DIALECTS[task].check(body)
    passed = {name.decode(): headers[name].decode("latin-1") for name in _PASSED_UP.intersection(headers)}
    if once := passed.get(_ONCE):
        # With one credential upstream, two keys' callers who chose the same word would get each other's answer.
        passed[_ONCE] = hashlib.sha256(f"{key.id}\0{once}".encode()).hexdigest()
    streamed = task in _AS_THEY_COME or (bool(stream) and task in _STREAMED)
    user = users.named(headers, body)
    return Request(request_id, task, model, body, streamed, passed, headers, marks, user=user)


def _model(name: str, task: str) -> dict[str, Any]:
    """A route or a prompt as OpenAI and Anthropic both list a model: neither's client minds the other's fields.

    `task` is ours.
    """
    named = {"id": name, "object": "model", "created": 0, "owned_by": "promptyard", "task": str(task)}
    return {**named, "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


def _routed(route: Route) -> dict[str, Any]:
    """A route as it is listed: with what it costs, and how long an answer may be."""
    return {**_model(route.name, route.task), "pricing": _pricing(route), "max_output_tokens": _longest(route)}


def _pricing(route: Route) -> dict[str, float] | None:
    """USD a million tokens at the cheapest and at the dearest deployment; None where the price of one is not known."""
    prices = [one.listing.price for one in route.deployments]
    rates = [rates for price in prices if price is not None for rates in (price.rates, *(of for _, of in price.tiers))]
    if not rates or None in prices:
        return None
    read, written = (
        sorted(float(one.input * 10**6) for one in rates),
        sorted(float(one.output * 10**6) for one in rates),
    )
    return {"input": read[0], "output": written[0], "most_input": read[-1], "most_output": written[-1]}


def _longest(route: Route) -> int | None:
    """The most tokens an answer may have; None where nothing says."""
    said = [one.listing.max_output_tokens for one in route.deployments]
    models = None if None in said else max((most for most in said if most is not None), default=None)
    return min((most for most in (route.max_output_tokens, models) if most is not None), default=None)
