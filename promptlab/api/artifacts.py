"""Artifacts over HTTP: the proxy that clients up- and download through, and the run's own view of them.

Bytes stream through in constant memory both ways. Whatever a run left behind is handed out as an
attachment that a browser neither sniffs nor runs.
"""

from __future__ import annotations

import mimetypes
import re
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from promptlab.api import render
from promptlab.api.wire import RUN_ID, Arguments, Endpoints, Field, Json, arguments, guarded, required, string
from promptlab.artifacts import Upload
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

_PROXY = "/2.0/mlflow-artifacts/artifacts"
_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
# How much is gathered before a thread writes it: a hop for each network read would cost more than the write.
_WRITE_BYTES = 1024 * 1024
_LIST = {"run_id": RUN_ID, "path": Field(string, default=""), "page_token": Field(string)}

served = Endpoints()


@served.get("artifacts/list", _LIST)
def list_of_run(lab: Lab, call: Arguments) -> Any:
    """The files and folders directly below a path of a run's artifacts."""
    info, found = lab.list_artifacts(call["run_id"], call["path"])
    return {"root_uri": info.artifact_uri, **render.files(found)}


def raw(lab: Lab) -> APIRouter:
    """The proxy and `/get-artifact`."""

    @guarded
    async def upload(request: Request, path: str) -> Response:
        writing = await to_thread.run_sync(lab.artifacts.upload, path)
        try:
            await _receive(request, writing)
            await to_thread.run_sync(writing.commit)
        finally:
            await to_thread.run_sync(writing.close)
        return Response()

    @guarded
    async def download(path: str) -> Response:
        return attachment(await to_thread.run_sync(lab.artifacts.file, path))

    @guarded
    async def delete(path: str) -> Response:
        await to_thread.run_sync(lab.artifacts.delete, path)
        return Json({})

    @guarded
    async def listing(request: Request) -> Response:
        path = arguments(request, b"", {"path": Field(string, default="")})["path"]
        return Json(render.files(await to_thread.run_sync(lab.artifacts.list, path)))

    @guarded
    async def of_run(request: Request) -> Response:
        call = arguments(request, b"", {"run_id": RUN_ID, "path": required(string)})

        def find() -> Path:
            return lab.artifacts.file(lab.artifact_path(call["run_id"], call["path"])[1])

        return attachment(await to_thread.run_sync(find))

    router = APIRouter()
    for prefix in ("/api", "/ajax-api"):
        one = f"{prefix}{_PROXY}/{{path:path}}"
        router.add_api_route(one, upload, methods=["PUT"], response_model=None)
        router.add_api_route(one, download, methods=["GET"], response_model=None)
        router.add_api_route(one, delete, methods=["DELETE"], response_model=None)
        router.add_api_route(f"{prefix}{_PROXY}", listing, methods=["GET"], response_model=None)
    router.add_api_route("/get-artifact", of_run, methods=["GET"], response_model=None)
    return router


async def _receive(request: Request, writing: Upload) -> None:
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) >= _WRITE_BYTES:
            await to_thread.run_sync(writing.write, bytes(gathered))
            gathered.clear()
    await to_thread.run_sync(writing.write, bytes(gathered))


class _Attachment(FileResponse):
    """A file, whole or one range of it. Ranges that it would answer in plain text are not asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = self.file.stat().st_size
        headers = [(name, value) for name, value in scope["headers"] if name != b"range" or _served(value, size)]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def __init__(self, file: Path) -> None:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        super().__init__(file, headers=_SAFE_HEADERS, media_type=kind, filename=file.name)
        self.file = file


def _served(header: bytes, size: int) -> bool:
    """Whether this `Range` is one range that begins within the file."""
    asked = re.fullmatch(rb"bytes=([0-9]{1,18})-([0-9]{0,18})", header.strip())
    return asked is not None and int(asked[1]) < size and (not asked[2] or int(asked[2]) >= int(asked[1]))


def attachment(file: Path) -> Response:
    """The file as a download that a browser neither sniffs nor runs."""
    if not file.name.isprintable():
        raise InvalidParameter("Invalid path")
    return _Attachment(file)
