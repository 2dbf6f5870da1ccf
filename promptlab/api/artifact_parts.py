"""Large artifacts in parts, straight between a client and the place that keeps them, where that place can sign URLs.

Where it cannot, as on a disk, the answer is the one that sends MLflow's clients back to the proxy.
"""

from __future__ import annotations

import posixpath
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from promptlab.api.wire import (
    Field,
    Fields,
    Json,
    ListOf,
    arguments,
    guarded,
    integer,
    message,
    read_body,
    required,
    string,
)
from promptlab.lab import Lab
from promptlab.ports import Part

_PLACE = "/2.0/mlflow-artifacts"
_CREATE: Fields = {"path": required(string), "num_parts": Field(integer, default=1)}
_PART: Fields = {"part_number": required(integer), "etag": Field(string, default=""), "url": Field(string)}
_COMPLETE: Fields = {
    "path": required(string),
    "upload_id": Field(string, default=""),
    "parts": required(ListOf(message(_PART))),
}
_ABORT: Fields = {"path": required(string), "upload_id": Field(string, default="")}


def raw(lab: Lab) -> APIRouter:
    """Uploads in parts, and URLs to download from."""

    @guarded
    async def create(request: Request) -> Response:
        call, path = await _asked(request, _CREATE)
        upload_id, urls = await to_thread.run_sync(lab.artifacts.begin_parts, path, call["num_parts"])
        credentials = [{"url": url, "part_number": number, "headers": {}} for number, url in enumerate(urls, 1)]
        return Json({"upload_id": upload_id, "credentials": credentials})

    @guarded
    async def complete(request: Request) -> Response:
        call, path = await _asked(request, _COMPLETE)
        parts = [Part(one["part_number"], one["etag"]) for one in call["parts"]]
        await to_thread.run_sync(lab.artifacts.finish_parts, path, call["upload_id"], parts)
        return Json({})

    @guarded
    async def abort(request: Request) -> Response:
        call, path = await _asked(request, _ABORT)
        await to_thread.run_sync(lab.artifacts.abandon_parts, path, call["upload_id"])
        return Json({})

    @guarded
    async def presigned(path: str) -> Response:
        url, size = await to_thread.run_sync(lab.artifacts.download_url, path)
        return Json({"url": url, "headers": {}, "file_size": size})

    router = APIRouter()
    for prefix in ("/api", "/ajax-api"):
        for name, run in (("create", create), ("complete", complete), ("abort", abort)):
            for tail in ("", "/{path:path}"):
                router.add_api_route(f"{prefix}{_PLACE}/mpu/{name}{tail}", run, methods=["POST"], response_model=None)
        router.add_api_route(
            f"{prefix}{_PLACE}/presigned/{{path:path}}", presigned, methods=["GET"], response_model=None
        )
    return router


async def _asked(request: Request, fields: Fields) -> tuple[dict[str, Any], str]:
    """The request's fields, and the artifact's whole path: clients send their own file's path beside the folder's."""
    folder = request.path_params.pop("path", "")
    call = arguments(request, await read_body(request), fields)
    name = posixpath.basename(call["path"].replace("\\", "/"))
    return call, f"{folder.rstrip('/')}/{name}" if folder else name
