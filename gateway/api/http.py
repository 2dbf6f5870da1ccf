"""Raw ASGI, the little of it the data plane needs: headers, a bounded body, an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from gateway.api.cycle import WHEN_GONE, Cycle
from gateway.errors import (
    BadRequest,
    ClientGone,
    GatewayError,
    MethodNotAllowed,
    Timeout,
    TooLarge,
    UnsupportedMedia,
    to_openai,
)
from gateway.timing import Within

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Status, headers and body of an error in one wire format.
Refusal = Callable[[GatewayError], tuple[int, Mapping[str, str], bytes]]


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], most: int, patience: float) -> bytes:
    """The whole request body, of `most` bytes and `patience` seconds at most.

    Raises `TooLarge` (before reading, where the length is told), `Timeout`,
    `UnsupportedMedia` for a compressed body, `ClientGone`.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMedia("Send the body uncompressed: Content-Encoding is not read here.")
    told = headers.get(b"content-length", b"0")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    # Small bodies come with their heads: then there is nothing to wait for, and no timer to set.
    message = _ready(receive) or await _next(receive, patience)
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > most:
            raise _too_large(most)
        return body
    parts = bytearray(body)
    deadline = asyncio.get_running_loop().time() + patience
    while message.get("more_body"):
        message = await _next(receive, deadline - asyncio.get_running_loop().time())
        parts += message.get("body", b"")
        if len(parts) > most:
            raise _too_large(most)
    return bytes(parts)


def _ready(receive: Receive) -> Message | None:
    cycle = getattr(receive, "__self__", None)
    return cycle.ready() if isinstance(cycle, Cycle) else None


async def _next(receive: Receive, patience: float) -> Message:
    try:
        with Within(patience):
            message = await receive()
    except TimeoutError:
        raise Timeout("The request body did not arrive in time.") from None
    if message["type"] == "http.disconnect":
        raise ClientGone("The caller left before its request was complete.")
    return message


def _too_large(most: int) -> TooLarge:
    size = f"{most / 2**20:g} MiB" if most >= 2**20 else f"{most} bytes"
    return TooLarge(f"The request body is larger than {size}. PROMPTYARD_MAX_BODY sets the limit.")


def answer(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> Awaitable[None]:
    """Send a whole answer."""
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, Cycle):
        return cycle.answer(status, headers, body)
    return _answer(send, status, headers, body)


async def _answer(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """A whole answer in messages, for somebody who stands between and reads those."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    encoded.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def part(send: Send) -> Callable[[bytes], bool] | None:
    """What sends a piece of the body at once where it can (`Cycle.part`); None where somebody stands between."""
    cycle = getattr(send, "__self__", None)
    return cycle.part if isinstance(cycle, Cycle) else None


async def answer_error(send: Send, error: GatewayError, extra: Mapping[str, str], said: Refusal = to_openai) -> None:
    """Send `error` in the shape that `said` gives it: OpenAI's, unless the caller speaks another dialect."""
    status, headers, body = said(error)
    challenge = {"www-authenticate": "Bearer"} if status == 401 else {}
    closing = {"connection": "close"} if isinstance(error, Timeout) else {}
    await answer(send, status, {**headers, **challenge, **closing, **extra}, body)


def when_gone(scope: Scope, then: Callable[[], object]) -> None:
    """Have `then` called when the caller leaves before its answer is complete, at once if it has left already.

    For whoever has read the body. Our own protocol's word for it: ASGI would have a task wait in `receive`.
    """
    scope["extensions"][WHEN_GONE](then)


def need_method(scope: Scope, method: str) -> None:
    """Refuse a path that exists, asked with another verb than `method`. Raises `MethodNotAllowed`."""
    if scope["method"] != method:
        error = MethodNotAllowed(f"{scope['path'][:200]} takes {method}, not {scope['method']}.")
        error.headers["allow"] = method
        raise error


def need_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is not JSON by its own word: browsers may send such from any page without asking."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind and kind != b"application/json" and not kind.endswith(b"+json"):
        raise UnsupportedMedia(f"Send Content-Type: application/json, not {kind.decode('latin-1')}.")
    if not kind and headers.get(b"origin"):
        raise BadRequest("Send Content-Type: application/json.")
