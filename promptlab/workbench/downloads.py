"""An artifact handed through to its visitor's disk, piece by piece, with their own key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode

from promptlab.client import CallFailed, Visitor

# A file is never opened as a page of ours, whatever is in it.
_SAFE = [
    (b"content-type", b"application/octet-stream"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def address(run_id: str, path: str) -> str:
    """Where the lab's pages find a run's file, relative to them."""
    return "artifact?" + urlencode({"run": run_id, "path": path})


async def download(
    visitor: Visitor,
    query: Mapping[str, list[str]],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Send the file that `query` names, holding one piece of it at a time. Raises `CallFailed` before any is sent."""
    run_id, path = query.get("run", [""])[0], query.get("path", [""])[0]
    async with visitor.download(run_id, path) as file:
        name = file.disposition or "attachment"
        headers = [*_SAFE, (b"content-disposition", name.encode("latin-1", "replace"))]
        if file.size is not None:
            headers.append((b"content-length", str(file.size).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # A browser that has gone takes everything in silence: only its message tells to stop reading.
        gone = asyncio.ensure_future(_gone(receive))
        try:
            async with aclosing(file.pieces) as pieces:
                async for piece in pieces:
                    if gone.done():
                        return
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except CallFailed:
            # Fewer bytes than were announced: the browser says that the download failed.
            return
        finally:
            gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
