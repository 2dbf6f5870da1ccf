"""Artifacts over HTTP: the proxy that clients up- and download through, and the run's own view of them.

Bytes stream through in constant memory both ways. Whatever a run left behind is handed out as an
attachment that a browser neither sniffs nor runs.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from promptlab.api import render
from promptlab.api.wire import (
    RUN_ID,
    Arguments,
    Endpoints,
    Field,
    Fields,
    Json,
    arguments,
    guarded,
    read_body,
    required,
    string,
)
from promptlab.artifacts import Upload
from promptlab.errors import InvalidParameter, LabError
from promptlab.lab import Lab
from promptlab.ports import Stored

_PROXY = "/2.0/mlflow-artifacts/artifacts"
_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
# How much is gathered before a thread writes it: a hop for each network read would cost more than the write.
_WRITE_BYTES = 1024 * 1024
# A table of answers, which the web UI of MLflow writes back.
_WRITE_BACK_BYTES = 10 * 1024 * 1024
_FILE = {"run_id": RUN_ID, "path": required(string)}
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
        await _keep(lab, request, path)
        return Response()

    @guarded
    async def download(path: str) -> Response:
        return attachment(await to_thread.run_sync(lab.artifacts.open, path))

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
        call = _query(request, _FILE)

        def find() -> Stored:
            return lab.artifacts.open(lab.artifact_path(call["run_id"], call["path"])[1])

        return attachment(await to_thread.run_sync(find))

    @guarded
    async def write_back(request: Request) -> Response:
        call = _query(request, _FILE)
        _, path = await to_thread.run_sync(lab.artifact_path, call["run_id"], call["path"])
        content = await read_body(request, _WRITE_BACK_BYTES)
        if not content:
            raise InvalidParameter("Request must specify data.")
        await to_thread.run_sync(lab.artifacts.write, path, content)
        return Json({})

    router = APIRouter()
    for prefix in ("/api", "/ajax-api"):
        one = f"{prefix}{_PROXY}/{{path:path}}"
        router.add_api_route(one, upload, methods=["PUT"], response_model=None)
        router.add_api_route(one, download, methods=["GET"], response_model=None)
        router.add_api_route(one, delete, methods=["DELETE"], response_model=None)
        router.add_api_route(f"{prefix}{_PROXY}", listing, methods=["GET"], response_model=None)
    router.add_api_route("/get-artifact", of_run, methods=["GET"], response_model=None)
    router.add_api_route("/ajax-api/2.0/mlflow/upload-artifact", write_back, methods=["POST"], response_model=None)
    return router


def _query(request: Request, fields: Fields) -> Arguments:
    return arguments(request, b"", fields, from_query=True)


async def _keep(lab: Lab, request: Request, path: str) -> None:
    """Store the body at `path`. A body that is refused is read to its end all the same.

    MLflow's client sends all of it before it reads an answer: cut off, it would begin again for minutes.
    """
    chunks = request.stream()
    try:
        writing = await to_thread.run_sync(lab.artifacts.upload, path)
        try:
            await _receive(chunks, writing)
            await to_thread.run_sync(writing.commit)
        finally:
            await to_thread.run_sync(writing.close)
    except LabError:
        async for _ in chunks:
            pass
        raise


async def _receive(chunks: AsyncIterator[bytes], writing: Upload) -> None:
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= _WRITE_BYTES:
            await to_thread.run_sync(writing.write, bytes(gathered))
            gathered.clear()
    await to_thread.run_sync(writing.write, bytes(gathered))


class _Attachment(FileResponse):
    """A file of this machine, whole or one range of it. Ranges it would answer in plain text are not asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = self.file.stat().st_size
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"range" or _range(value.decode("latin-1"), size) is not None
        ]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def __init__(self, file: Path) -> None:
        super().__init__(file, headers=_SAFE_HEADERS, media_type=_kind(file.name), filename=file.name)
        self.file = file


class _Streamed(StreamingResponse):
    """The same of a file that is kept elsewhere."""

    def __init__(self, stored: Stored) -> None:
        named = quote(stored.name)
        headers = {**_SAFE_HEADERS, "Accept-Ranges": "bytes"}
        headers["Content-Disposition"] = f"attachment; filename*=utf-8''{named}"
        super().__init__(iter(()), headers=headers, media_type=_kind(stored.name))
        self.stored = stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope).get("range")
        part = None if asked is None else _range(asked, self.stored.size)
        start, end = part or (0, self.stored.size)
        if part is not None:
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self.stored.size}"
        self.headers["Content-Length"] = str(end - start)
        self.body_iterator = iterate_in_threadpool(self.stored.read(start, end))
        await super().__call__(scope, receive, send)


def _kind(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _range(header: str, size: int) -> tuple[int, int] | None:
    """Where the one range of this `Range` begins and ends, if it is one and begins within the file."""
    asked = re.fullmatch(r"bytes=([0-9]{1,18})-([0-9]{0,18})", header.strip())
    if asked is None or int(asked[1]) >= size or (asked[2] and int(asked[2]) < int(asked[1])):
        return None
    return int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size


def attachment(stored: Stored) -> Response:
    """The file as a download that a browser neither sniffs nor runs."""
    if not stored.name.isprintable():
        raise InvalidParameter("Invalid path")
    return _Streamed(stored) if stored.path is None else _Attachment(stored.path)
