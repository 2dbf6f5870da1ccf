"""Inference, tracking and usage over HTTP, called with a visitor's key. The package's one HTTP door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

Json = dict[str, Any]

# A loaded model may be silent for minutes before its first token; the gateway has the deadlines.
_CHAT_TIMEOUT = httpx.Timeout(connect=5, read=900, write=60, pool=30)
_CALL_TIMEOUT = httpx.Timeout(connect=5, read=60, write=60, pool=30)
# The usage record of a call is written just after its last byte: ask again for about 1.5 s.
_USAGE_WAITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_MAX_EVENT = 16 * 1024 * 1024


class CallFailed(Exception):
    """A call the server refused or never answered, and after how many seconds to try again. Fit to be shown."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


@dataclass(frozen=True, slots=True)
class Route:
    """A name that can be called as `model`."""

    name: str
    task: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of an answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the server counted for the whole call."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Why the model ended: `stop`, `length`, ..."""

    reason: str


Piece = Text | Tokens | Finished


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is arriving."""

    request_id: str | None
    pieces: AsyncGenerator[Piece, None]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run, or the first part of it."""

    content: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class File:
    """A file of a run on its way: what the server calls it, its size in bytes if it said so, and its pieces."""

    disposition: str | None
    size: int | None
    pieces: AsyncGenerator[bytes, None]


class Server:
    """The connections to one server, shared by all visitors. `visitor(key)` gives the calls."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        # A proxy named in the environment is for the outside, never for our own server.
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            trust_env=False,
            timeout=_CALL_TIMEOUT,
            limits=httpx.Limits(max_connections=512, max_keepalive_connections=32),
        )

    def visitor(self, key: str | None) -> Visitor:
        """The calls, made with `key`."""
        return Visitor(self._http, key)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Visitor:
    """Every call the lab makes for one visitor. All of them raise `CallFailed`."""

    def __init__(self, http: httpx.AsyncClient, key: str | None) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    async def ready(self) -> Json:
        """What `/health/ready` tells this key, whether it answers 200 or 503."""
        try:
            answer = await self._http.get("/health/ready", headers=self._headers, timeout=3)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _json_object(answer)

    async def key_name(self) -> str:
        """The name this key was given."""
        return str((await self._call("GET", "/admin/keys/self"))["name"])

    # Inference

    async def routes(self) -> list[Route]:
        """The routes this key may call."""
        found = await self._call("GET", "/v1/models")
        return [Route(entry["id"], entry.get("task", "chat")) for entry in found.get("data", ())]

    @asynccontextmanager
    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[Stream]:
        """A streamed chat answer. Leaving the block closes the connection, which stops the model.

        Its pieces raise `CallFailed` when the server reports an error half way, or when the
        stream ends without saying so.
        """
        request = self._http.build_request(
            "POST",
            "/v1/chat/completions",
            json={**body, "stream": True, "stream_options": {"include_usage": True}},
            headers=self._headers,
            timeout=_CHAT_TIMEOUT,
        )
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        try:
            if answer.status_code >= 400:
                await answer.aread()
                raise _refused(answer)
            yield Stream(answer.headers.get("x-request-id"), _pieces(answer))
        finally:
            await answer.aclose()

    async def usage(self, request_id: str) -> Json | None:
        """The usage record of one call of this key; None when there is none after about 1.5 s."""
        for wait in (*_USAGE_WAITS, None):
            try:
                return await self._call("GET", f"/admin/usage/{quote(request_id, safe='')}")
            except CallFailed as error:
                if error.status != 404 or wait is None:
                    return None
            await asyncio.sleep(wait)
        return None

    # Tracking

    async def experiments(self) -> list[Json]:
        """Every active experiment, the newest first."""
        found: list[Json] = []
        body: Json = {"max_results": 1000}
        while True:
            page = await self._track("experiments/search", body)
            found += page.get("experiments", [])
            if not page.get("next_page_token"):
                return found
            body["page_token"] = page["next_page_token"]

    async def experiment_named(self, name: str) -> str:
        """The id of the experiment called `name`, which is created when there is none."""
        params = {"experiment_name": name}
        try:
            found = await self._call("GET", "/api/2.0/mlflow/experiments/get-by-name", params=params)
        except CallFailed as error:
            if error.status != 404:
                raise
            return str((await self._track("experiments/create", {"name": name}))["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    async def create_promptlab_run(self, body: Json) -> Json:
        """The run MLflow's PromptLab would have made of `body`."""
        return dict((await self._call("POST", "/ajax-api/2.0/mlflow/runs/create-promptlab-run", json=body))["run"])

    async def search_runs(self, experiment_id: str, filter_text: str, order_by: str, limit: int) -> list[Json]:
        """The first `limit` runs of an experiment that match an MLflow filter."""
        body: Json = {"experiment_ids": [experiment_id], "max_results": limit}
        if filter_text:
            body["filter"] = filter_text
        if order_by:
            body["order_by"] = [order_by]
        found = await self._track("runs/search", body)
        return list(found.get("runs", []))

    async def run(self, run_id: str) -> Json:
        """One run, with its latest metrics, params and tags."""
        return dict((await self.registry("GET", "runs/get", params={"run_id": run_id}))["run"])

    async def history(self, run_id: str, metric: str) -> list[Json]:
        """Every logged point of one metric."""
        found = await self.registry("GET", "metrics/get-history", params={"run_id": run_id, "metric_key": metric})
        return list(found.get("metrics", []))

    async def artifacts(self, run_id: str, path: str = "") -> list[Json]:
        """The files and folders of a run, directly below `path`."""
        params = {"run_id": run_id, "path": path} if path else {"run_id": run_id}
        found = await self._call("GET", "/api/2.0/mlflow/artifacts/list", params=params)
        return list(found.get("files", []))

    async def artifact(self, run_id: str, path: str, limit: int) -> Artifact:
        """At most `limit` bytes of one file of a run."""
        params = {"run_id": run_id, "path": path}
        content = b""
        try:
            async with self._http.stream("GET", "/get-artifact", params=params, headers=self._headers) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    raise _refused(answer)
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > limit:
                        return Artifact(content[:limit], truncated=True)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return Artifact(content, truncated=False)

    @asynccontextmanager
    async def download(self, run_id: str, path: str) -> AsyncIterator[File]:
        """One file of a run, read as fast as its pieces are taken and no faster. Leaving the block ends it."""
        request = self._http.build_request(
            "GET",
            "/get-artifact",
            params={"run_id": run_id, "path": path},
            headers={**self._headers, "accept-encoding": "identity"},
        )
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        try:
            if answer.status_code >= 400:
                await answer.aread()
                raise _refused(answer)
            size = answer.headers.get("content-length", "")
            disposition = answer.headers.get("content-disposition")
            yield File(disposition, int(size) if size.isdecimal() else None, _raw(answer))
        finally:
            await answer.aclose()

    async def admin(self, method: str, path: str, **arguments: Any) -> Json:
        """A call of the admin API, `path` from `/admin/` on: `json` or `params` are its arguments."""
        return await self._call(method, f"/admin/{path}", **arguments)

    async def registry(self, method: str, path: str, **arguments: Any) -> Json:
        """A call of MLflow's API, `path` from `/mlflow/` on: `json` or `params` are its arguments."""
        return await self._call(method, f"/api/2.0/mlflow/{path}", **arguments)

    async def traced(self, method: str, path: str, **arguments: Any) -> Json:
        """A call about traces, `path` from `/traces/` on: `json` or `params` are its arguments."""
        return await self._call(method, f"/api/3.0/mlflow/traces/{path}", **arguments)

    async def _track(self, name: str, body: Json) -> Json:
        return await self.registry("POST", name, json=body)

    async def _call(self, method: str, path: str, **arguments: Any) -> Json:
        return _json_object(await self._answered(method, path, **arguments))

    async def _answered(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, **{"headers": self._headers, **arguments})
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if answer.status_code >= 400:
            raise _refused(answer)
        return answer


async def _raw(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError as error:
        raise CallFailed("The file was cut before its end.") from error


async def _pieces(answer: httpx.Response) -> AsyncGenerator[Piece, None]:
    ended = False
    async for event in _events(answer):
        if event == "[DONE]":
            return
        for piece in _read(event):
            ended = ended or isinstance(piece, Finished)
            yield piece
    if not ended:
        raise CallFailed("The stream was cut before the answer ended.")


def _read(event: str) -> list[Piece]:
    try:
        chunk = json.loads(event)
        if chunk.get("error"):
            raise CallFailed(_message(chunk) or "The server reported an error half way.")
        found: list[Piece] = []
        for choice in chunk.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                found.append(Text(text))
            if reason := choice.get("finish_reason"):
                found.append(Finished(reason))
        if usage := chunk.get("usage"):
            found.append(Tokens(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise CallFailed("The server sent a chunk that cannot be read.") from error
    return found


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    """The `data:` of each server-sent event.

    Split at line feeds only: JSON may hold U+2028 raw, where `aiter_lines` would cut it in two.
    """
    rest = b""
    try:
        async for piece in answer.aiter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _MAX_EVENT:
                raise CallFailed("The server sent a chunk of more than 16 MB.")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip().decode("utf-8", "replace")
    except httpx.HTTPError as error:
        raise CallFailed("The stream was cut before the answer ended.") from error
    if rest.startswith(b"data:"):
        yield rest[5:].strip().decode("utf-8", "replace")


def _json_object(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CallFailed(f"{answer.url.path} did not answer JSON.", status=answer.status_code)
    return found


def _refused(answer: httpx.Response) -> CallFailed:
    """The error of an answer, in the server's own words, whether OpenAI's shape or MLflow's."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    code = None
    if isinstance(found, dict):
        error = found.get("error")
        code = error.get("code") if isinstance(error, dict) else found.get("error_code")
    message = _message(found) or f"{answer.url.path} answered {answer.status_code} {answer.reason_phrase}."
    after = answer.headers.get("retry-after", "")
    again = float(after) if after.isdecimal() else None
    return CallFailed(message, status=answer.status_code, code=code, retry_after=again)


def _message(found: object) -> str | None:
    if not isinstance(found, dict):
        return None
    error = found.get("error")
    message = error.get("message") if isinstance(error, dict) else found.get("message") or error
    return message if isinstance(message, str) and message else None


def _unreachable(error: httpx.HTTPError) -> CallFailed:
    if isinstance(error, httpx.TimeoutException):
        return CallFailed("The server did not answer in time.")
    return CallFailed("The server cannot be reached. Is it still running?")
