"""Which face answers a path, and who is let through to it. Callers wait a little for one that is still loading."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.api import health, http, mlflow_gateway, tracking
from gateway.api.access import Access
from gateway.errors import Forbidden, GatewayError, InvalidKey, NotFound, Overloaded, to_openai
from gateway.owners import Scope
from gateway.plane import Plane

log = logging.getLogger(__name__)

App = Callable[[http.Scope, http.Receive, http.Send], Awaitable[None]]
#: Says how each part is; in detail to those who may know.
States = Callable[[], dict[str, Any]]
#: Paths of MLflow's protocol, `/v1/traces` among them.
_TRACKING = ("/api/", "/ajax-api/", "/v1/traces", "/version", "/get-artifact", "/model-versions/get-artifact")
_CONTROL = ("/admin/", "/metrics", "/docs", "/openapi.json")
#: How long a request waits for a face that is still loading, in seconds.
_PATIENCE = 60.0


def is_call(path: str) -> bool:
    """Whether every process answers this path; the others belong to the one that has the faces behind."""
    calls = path.startswith("/v1/") and not path.startswith("/v1/traces")
    return calls or path == "/health" or path.startswith(mlflow_gateway.PREFIXES)


class Calls:
    """What a worker answers, as one ASGI application: the data plane, and that it is alive."""

    def __init__(self, inference: App, mlflow: App) -> None:
        self._inference = inference
        self._mlflow = mlflow

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Hand a request to the face its path belongs to."""
        path: str = scope["path"]
        if not is_call(path):
            # The second request of one packet, behind a call: it was read before it could be handed over.
            error = Overloaded("Ask for this on a connection of its own.", retry_after=1)
            error.headers["connection"] = "close"
            await http.answer_error(send, error, {})
        elif path == "/health":
            await health.alive(send)
        elif path.startswith("/v1/"):
            await self._inference(scope, receive, send)
        else:
            await self._mlflow(scope, receive, send)


class Face:
    """An application that loads behind the data plane, and how a refusal looks to its callers."""

    def __init__(self, refusal: http.Refusal = to_openai) -> None:
        self.refusal = refusal
        self.loaded = asyncio.Event()
        self.app: App | None = None
        self.state = "loading"

    def turn_off(self) -> None:
        """It is not served at all."""
        self.state = "off"
        self.loaded.set()


class Faces:
    """Everything behind one port, as one ASGI application."""

    def __init__(
        self,
        access: Access,
        plane: Plane,
        inference: App,
        mlflow: App,
        states: States,
        *,
        to_mlflow: http.Refusal,
        lab: bool,
    ) -> None:
        self._access = access
        self._plane = plane
        self._inference = inference
        self._mlflow = mlflow
        self._states = states
        self._behind = {"control": Face(), "tracking": Face(to_mlflow), "lab": Face()}
        self._has_lab = lab
        #: Requests under way at faces whose requests end by themselves: the lab's pages hold theirs open.
        self.running = 0
        if not lab:
            self._behind["lab"].turn_off()

    def states(self) -> dict[str, str]:
        """How each face that loads behind is."""
        return {name: face.state for name, face in self._behind.items()}

    async def load(self, name: str, build: Callable[[], Awaitable[App]]) -> None:
        """Let callers through to what `build` makes, once it is made. What fails is told to them and to the log."""
        face = self._behind[name]
        began = time.perf_counter()
        try:
            face.app = await build()
            face.state = "ready"
            log.info("The %s is ready (%.1f s)", name, time.perf_counter() - began)
        except GatewayError as error:
            log.error("The %s could not be loaded: %s", name, error.message)
            face.state = f"failed: {type(error).__name__}"
        except Exception as error:
            log.exception("The %s could not be loaded", name)
            face.state = f"failed: {type(error).__name__}"
        face.loaded.set()

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Hand a request to the face its raw path belongs to."""
        path: str = scope["path"]
        if path.startswith("/v1/") and not path.startswith("/v1/traces"):
            await self._inference(scope, receive, send)
        elif path.startswith(mlflow_gateway.PREFIXES):
            await self._mlflow(scope, receive, send)
        elif path == "/health":
            await health.alive(send)
        elif path.startswith(_TRACKING):
            await self._counted(scope, receive, send, "tracking", self._allow_tracking)
        elif path.startswith(_CONTROL):
            await self._counted(scope, receive, send, "control", self._allow_control)
        elif path == "/lab" or path.startswith("/lab/"):
            await self._guarded(scope, receive, send, "lab", self._allow_lab)
        elif path == "/health/ready":
            await self._ready(scope, send)
        elif path == "/":
            await http.answer(send, 307, {"location": "/lab/" if self._has_lab else "/docs"}, b"")
        else:
            method = scope["method"]
            await http.answer_error(send, NotFound(f"There is no {method} {path[:200]} here. See /docs."), {})

    async def _counted(
        self,
        scope: http.Scope,
        receive: http.Receive,
        send: http.Send,
        name: str,
        allow: Callable[[http.Scope, Mapping[bytes, bytes]], None],
    ) -> None:
        self.running += 1
        try:
            await self._guarded(scope, receive, send, name, allow)
        finally:
            self.running -= 1

    async def _guarded(
        self,
        scope: http.Scope,
        receive: http.Receive,
        send: http.Send,
        name: str,
        allow: Callable[[http.Scope, Mapping[bytes, bytes]], None],
    ) -> None:
        """Let an allowed caller through to a face, once it is loaded."""
        face = self._behind[name]
        try:
            self._plane.refuse_if_stopping()
            headers = dict(scope["headers"])
            try:
                allow(scope, headers)
            except InvalidKey:
                if not await self._access.look_again(headers):
                    raise
                allow(scope, headers)
            async with asyncio.timeout(_PATIENCE):
                await face.loaded.wait()
            if face.state == "off":
                raise NotFound(f"The {name} is off.")
            if face.app is None:
                raise Overloaded(f"The {name} is {face.state}.")
        except TimeoutError:
            await self._refuse(scope, send, name, Overloaded(f"The {name} is still loading."))
        except GatewayError as error:
            await self._refuse(scope, send, name, error)
        else:
            await face.app(scope, receive, send)

    async def _refuse(self, scope: http.Scope, send: http.Send, name: str, error: GatewayError) -> None:
        status, headers, body = self._behind[name].refusal(error)
        challenge = {"www-authenticate": 'Basic realm="Promptyard: the password is a key"'}
        browser = name == "control" and not scope["path"].startswith(("/admin/", "/metrics"))
        await http.answer(send, status, {**headers, **(challenge if status == 401 and browser else {})}, body)

    def _allow_tracking(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        if scope["path"] == "/version":
            self._access.check_origin(headers)
        else:
            looks = tracking.reads(scope["method"], scope["path"])
            self._access.allow_one_of(headers, (Scope.TRACKING, Scope.TRACKING_READ) if looks else (Scope.TRACKING,))

    def _allow_control(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        # Handlers under /admin/ say themselves which scope they need; the pages need any key.
        self._access.key(headers)

    def _allow_lab(self, scope: http.Scope, headers: Mapping[bytes, bytes]) -> None:
        # With an admin key the lab signs its visitors in itself.
        self._access.check_origin(headers)

    async def _ready(self, scope: http.Scope, send: http.Send) -> None:
        states = self._states()
        try:
            self._access.key(dict(scope["headers"]))
        except (InvalidKey, Forbidden):
            states = {"status": states["status"]}
        await health.ready(send, lambda: states)
