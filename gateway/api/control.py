"""The admin API and the documentation pages, as one FastAPI application."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import alerts, audit, http, keys, metrics, openapi, plane, tenants, usage
from gateway.api.access import Access
from gateway.api.metrics import Gauge
from gateway.errors import BadRequest, ClientGone, GatewayError, MethodNotAllowed, NotFound, TooLarge, to_openai
from gateway.explain import Explainer
from gateway.keys import Keys
from gateway.ledger import Ledger
from gateway.metrics import Metrics
from gateway.reload import Reloader
from gateway.store.alerts import AlertStore
from gateway.store.audit import AuditStore
from gateway.tenants import Tenants

log = logging.getLogger(__name__)

#: Bytes of a request's body, and seconds to send it: the longest question is a key's name and its routes.
_MOST = 2**20
_PATIENCE = 30.0
_FAULT = "Something went wrong inside the gateway. Its log says more."


def create(
    version: str, access: Access, owners: Owners, books: Books, reloader: Reloader, explainer: Explainer
) -> FastAPI:
    """The application for `/admin/**`, `/metrics`, `/docs` and `/openapi.json`."""
    app = _Described(title="Promptyard", version=version, docs_url=None, redoc_url=None)
    app.openapi_version = "3.0.3"  # the newest that the bundled Swagger renders
    app.include_router(keys.router(access, owners.keys, owners.tenants, books.ledger))
    app.include_router(tenants.router(access, owners.tenants))
    app.include_router(usage.router(access, books.ledger))
    app.include_router(metrics.router(access, books.metrics, books.gauges, version))
    app.include_router(audit.router(access, books.audit))
    app.include_router(alerts.router(access, books.alerts))
    app.include_router(plane.router(access, reloader, explainer, books.audit))
    _add_docs(app)
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _wrong_method)
    app.add_exception_handler(HTTPException, _unreadable)
    app.add_middleware(_Edge)
    return app


class Owners(NamedTuple):
    """Who may call, and whose usage it is."""

    keys: Keys
    tenants: Tenants


class Books(NamedTuple):
    """What was used and done, of whom and in all, and how the parts are."""

    ledger: Ledger
    audit: AuditStore
    alerts: AlertStore
    metrics: Metrics
    gauges: Sequence[Gauge]


class _Described(FastAPI):
    """An application whose description also tells of what is served beside it."""

    def openapi(self) -> dict[str, Any]:
        """OpenAPI's document of the whole server."""
        return openapi.with_data_plane(super().openapi())


def _add_docs(app: FastAPI) -> None:
    # Swagger's own files come with a package: the page loads nothing from elsewhere.
    bundle = Path(str(files("swagger_ui_bundle"))) / "vendor"
    folder = max(bundle.glob("swagger-ui-*"))
    app.mount("/docs/assets", StaticFiles(directory=folder))

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Promptyard API",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )


def _respond(error: GatewayError) -> Response:
    status, headers, body = to_openai(error)
    return Response(body, status, dict(headers))


class _Edge:
    """Lets bodies of a sensible size in, and answers our own bugs (and a database that is away) in OpenAI's shape.

    Starlette's handler of all exceptions would break the connection as well, under the caller's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            body = await http.read_body(receive, dict(scope["headers"]), _MOST, _PATIENCE)
            await self._app(scope, _again(body, receive), noting)
        except ClientGone:
            return
        except TooLarge:
            await http.answer_error(send, TooLarge("The request body is larger than 1 MiB."), {})
        except GatewayError as error:
            await http.answer_error(send, error, {})
        except Exception:
            log.exception("%s %s: a fault of ours", scope["method"], scope["path"])
            if started:
                raise
            await http.answer_error(send, GatewayError(_FAULT), {})


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that begins with a body that was read already."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _gateway_error(_request: Request, error: Exception) -> Response:
    return _respond(error if isinstance(error, GatewayError) else GatewayError(_FAULT))


def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _gateway_error(request, error)
    first = error.errors()[0]
    if first.get("type") == "json_invalid":
        return _respond(BadRequest(f"The body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}."))
    where = ".".join(str(part) for part in first["loc"][1:])
    return _respond(BadRequest(f"{where or 'The body'}: {first['msg']}.", param=where or None))


def _unreadable(_request: Request, _error: Exception) -> Response:
    # What is left for FastAPI to raise by itself: a body that is not UTF-8, or nested beyond any use.
    return _respond(BadRequest("The body cannot be read as JSON."))


def _not_found(request: Request, error: Exception) -> Response:
    detail = f"There is no {request.method} {request.url.path} here. See /docs."
    return _respond(error if isinstance(error, GatewayError) else NotFound(detail))


def _wrong_method(request: Request, error: Exception) -> Response:
    refusal = _respond(MethodNotAllowed(f"{request.url.path} does not take {request.method}."))
    # Starlette says which methods it would take.
    refusal.headers.update(getattr(error, "headers", None) or {})
    return refusal
