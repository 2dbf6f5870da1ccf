"""`/health`: that the process answers. `/health/ready`: how each of its parts is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.api import http

#: A part's state, as one word or a short sentence.
States = Callable[[], Mapping[str, Any]]


async def alive(send: http.Send) -> None:
    """Plain `OK`, as MLflow's clients expect it."""
    await http.answer(send, 200, {"content-type": "text/plain; charset=utf-8"}, b"OK")


async def ready(send: http.Send, states: States) -> None:
    """200 when every part a call needs is there, 503 while one is not; the body tells which."""
    found = states()
    status = 200 if found["status"] == "ready" else 503
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    await http.answer(send, status, headers, orjson.dumps(found))
