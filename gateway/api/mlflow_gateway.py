"""The paths of MLflow's AI Gateway, so that its clients call our routes: raw ASGI in front of the data plane.

Names in a path are our routes. What `mlflow.deployments.get_deploy_client` asks for:
https://mlflow.org/docs/latest/api_reference/python_api/mlflow.deployments.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import orjson

from gateway.api import http
from gateway.api.access import Access
from gateway.dialects import body as json_body
from gateway.errors import BadRequest, ClientGone, GatewayError, NotFound
from gateway.owners import Key, Scope
from gateway.plane import Plane
from gateway.routes import Route, RouteTask, Task

#: What belongs here; the last is within the tracking API's `/api/` and comes before it.
PREFIXES = ("/gateway/", "/endpoints/", "/api/2.0/endpoints")
#: As many as MLflow lists at once.
PAGE = 3000

_LIST = "/api/2.0/endpoints"
# MLflow's tracking server, which has a gateway of its own since 3.9, puts `/mlflow` in between.
_PREDICT = re.compile(r"/(?:gateway|endpoints)/(.+?)(?:/mlflow)?/invocations/?")
# There it also speaks as the providers do, with the name in the body: those are our paths already.
_AS_THE_PROVIDERS = re.compile(r"/gateway/(?:mlflow|openai|anthropic)(/v1/.+)")
_TYPES = {RouteTask.CHAT: "llm/v1/chat", RouteTask.EMBEDDINGS: "llm/v1/embeddings"}
_SHAPES = {"messages": Task.CHAT, "prompt": Task.COMPLETIONS, "input": Task.EMBEDDINGS}
# https://github.com/mlflow/mlflow/blob/master/mlflow/exceptions.py
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}

App = Callable[[http.Scope, http.Receive, http.Send], Awaitable[None]]


def route_asked(path: str) -> str | None:
    """The route a path's call is for, or None where it is no call."""
    match = _PREDICT.fullmatch(path)
    return match[1] if match else None


def task(body: Mapping[str, Any], route_task: RouteTask) -> Task:
    """What is asked, by the shape of the body; where that says nothing, what the route is for."""
    if route_task not in _TYPES:
        return route_task.tasks[0]
    return next((task for name, task in _SHAPES.items() if name in body), route_task.tasks[0])


def described(route: Route) -> dict[str, Any]:
    """A route as MLflow describes one of its own; the model is its first deployment's."""
    first, rpm = route.deployments[0], route.limits.rpm
    return {
        "name": route.name,
        "endpoint_type": _TYPES.get(route.task, route.task.value),
        "model": {"name": first.model, "provider": first.provider},
        "endpoint_url": f"/gateway/{route.name}/invocations",
        "limit": None if rpm is None else {"calls": rpm, "key": None, "renewal_period": "minute"},
    }


def listed(routes: Sequence[Route], page_token: str | None, size: int = PAGE) -> dict[str, Any]:
    """One page of routes from where `page_token` says, with the next page's where there is one."""
    begin = 0 if page_token is None else _index(page_token)
    end = begin + size
    page: dict[str, Any] = {"endpoints": [described(route) for route in routes[begin:end]]}
    if end < len(routes):
        page["next_page_token"] = base64.b64encode(orjson.dumps({"index": end})).decode()
    return page


def _index(page_token: str) -> int:
    try:
        index = orjson.loads(base64.b64decode(page_token, validate=True))["index"]
        if not isinstance(index, int) or index < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise BadRequest("'page_token' is none that was given here.", param="page_token") from None
    return index


def refusal(status: int, body: bytes) -> bytes:
    """An error's body with what MLflow's clients read, `error_code` and `message`, in front of what it said."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = {}
    said = said if isinstance(said, dict) else {}
    error = said.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    code = _CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return orjson.dumps({"error_code": code, "message": message or f"HTTP {status}", **said})


class MlflowGateway:
    """Everything under `PREFIXES`. `inference` answers the calls, on the paths of OpenAI's API."""

    def __init__(self, inference: App, access: Access, plane: Plane, *, max_body: int, body_timeout: float) -> None:
        self._inference = inference
        self._access = access
        self._plane = plane
        self._max_body = max_body
        self._body_timeout = body_timeout

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Answer one request; every failure has MLflow's shape."""
        provider_path = _AS_THE_PROVIDERS.fullmatch(scope["path"])
        if provider_path is not None:
            await self._inference({**scope, "path": provider_path[1]}, receive, send)
            return
        send = _in_mlflows_shape(send)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            key = await self._access.caller(headers, Scope.INFERENCE)
            name = route_asked(scope["path"])
            if name is None:
                document = self._document(scope, key)
                await http.answer(send, 200, {"content-type": "application/json"}, orjson.dumps(document))
                return
            http.need_method(scope, "POST")
            call = await self._call(scope, receive, headers, self._plane.current.router.find(name, key))
        except ClientGone:
            return
        except GatewayError as error:
            await http.answer_error(send, error, {})
            return
        await self._inference(*call, send)

    def _document(self, scope: http.Scope, key: Key) -> dict[str, Any]:
        """What is said of our routes: of all this key may call, or of one."""
        path: str = scope["path"]
        if path.rstrip("/") != _LIST and not path.startswith(f"{_LIST}/"):
            raise NotFound(f"There is no {scope['method']} {path[:200]} here. See /docs.")
        http.need_method(scope, "GET")
        name = path.removeprefix(_LIST).strip("/")
        if name:
            return described(self._plane.current.router.find(name, key))
        tokens = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("page_token")
        return listed(self._plane.current.router.allowed(key), tokens[0] if tokens else None)

    async def _call(
        self, scope: http.Scope, receive: http.Receive, headers: Mapping[bytes, bytes], route: Route
    ) -> tuple[http.Scope, http.Receive]:
        """The same call on the path of OpenAI's API, with the route's name in its body."""
        http.need_json(headers)
        body = json_body.parse(await http.read_body(receive, headers, self._max_body, self._body_timeout))
        if body.get("model", route.name) != route.name:
            raise BadRequest("The path names the model. Leave 'model' out of the body.", param="model")
        raw = orjson.dumps({**body, "model": route.name})
        known = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        path = f"/v1/{task(body, route.task).value}"
        asked = {**scope, "path": path, "headers": [*known, (b"content-length", b"%d" % len(raw))]}
        parts: list[http.Message] = [{"type": "http.request", "body": raw, "more_body": False}]

        async def again() -> http.Message:
            # What comes after the body is the caller's own: that it left.
            return parts.pop() if parts else await receive()

        return asked, again


def _in_mlflows_shape(send: http.Send) -> http.Send:
    """`send`, with the body of an error made what MLflow's clients read. Everything else passes as it comes."""
    begun: list[http.Message] = []

    async def shaped(message: http.Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            begun.append(message)
        elif begun:
            start = begun.pop()
            body = refusal(start["status"], message.get("body", b""))
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
            await send({**message, "body": body})
        else:
            await send(message)

    return shaped
