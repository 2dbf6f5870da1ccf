"""The tracking server as one ASGI app, which speaks MLflow's protocol and nothing else."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from promptlab.api import (
    artifact_parts,
    artifacts,
    assessments,
    evaluation_datasets,
    experiments,
    inputs,
    logged_models,
    metrics,
    model_versions,
    otlp,
    promptlab_runs,
    registered_models,
    runs,
    scorers,
    server_info,
    traces,
    traces_v2,
    webhooks,
)
from promptlab.api.wire import failed
from promptlab.artifacts import Artifacts
from promptlab.delivery import Delivery
from promptlab.errors import EndpointNotFound, InvalidParameter, LabError, MethodNotAllowed
from promptlab.lab import Lab
from promptlab.ports import Database, Files
from promptlab.webhooks import Deliverer


def create(
    database: Database,
    artifact_root: Path | str,
    *,
    largest_artifact: int | None = None,
    private_webhooks: bool = False,
) -> FastAPI:
    """An app that keeps runs in `database` and files below `artifact_root`, both made ready here.

    The root is a folder, or an address such as `s3://bucket/folder`; no file is larger than `largest_artifact`.

    It asks nobody who they are: whoever serves it does, and says `app.state.close()` before it closes the database.
    `private_webhooks`: webhooks may be told inside the operator's own network too.
    """
    sending = Delivery(private=private_webhooks)
    lab = Lab(database, Artifacts(_files(artifact_root), largest_artifact), sending)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    tracking = (experiments, runs, metrics, artifacts, inputs, logged_models, promptlab_runs, server_info)
    traced = (traces, traces_v2, assessments)
    for noun in (*tracking, *traced, registered_models, model_versions, evaluation_datasets, scorers, webhooks):
        app.include_router(noun.served.router(lab))
    app.include_router(server_info.plain())
    app.include_router(artifacts.raw(lab))
    app.include_router(artifact_parts.raw(lab))
    app.include_router(model_versions.raw(lab))
    app.include_router(otlp.raw(lab))
    app.include_router(logged_models.raw(lab))
    app.add_exception_handler(HTTPException, _not_served)
    for kind in (LabError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _broken)
    deliverer = Deliverer(database, sending)
    app.state.close = deliverer.close
    return app


def _files(root: Path | str) -> Path | Files:
    if isinstance(root, Path):
        return root
    # Imported here: most keep their artifacts on disk.
    from promptlab.artifacts_remote import RemoteFiles

    return RemoteFiles(root)


async def _not_served(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.scope["path"]
    if status == 404:
        return failed(EndpointNotFound(f"This server has no endpoint {request.method} {path}"))
    if status == 405:
        return failed(MethodNotAllowed(f"The endpoint {path} does not answer {request.method}"))
    return failed(InvalidParameter("The request could not be read"))


async def _broken(_request: Request, error: Exception) -> Response:
    return failed(error)
