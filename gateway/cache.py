"""Exact cache: an answer is given again to whoever asks exactly the same, and identical calls in flight share one.

Only where a route says `cache:`. Entries are kept in this process or in Redis; flights are those of one process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum, auto
from typing import Any

import orjson

from gateway.cache_store import Store
from gateway.flights import BURST, Flights, Start
from gateway.owners import Key
from gateway.routes import CachePolicy, Config, ProviderSpec, Route, Task
from gateway.types import Answer, Request

#: The header that tells a caller whether its answer was asked for on its behalf: `miss`, else `hit`.
HEADER = "x-promptyard-cache"
#: The layout of an entry. Another one's are not read.
_LAYOUT = 1
#: Fields of a request that say who asks, and shape no answer.
_WHO = frozenset({"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
#: The caller's headers that shape an answer.
_SHAPING = ("anthropic-version", "anthropic-beta")
#: What a route and its parts say that shapes no answer. All else does: what is new is a miss at first, never stale.
_NOT_SHAPING = frozenset((
    *("deployments", "fallbacks", "context_fallbacks", "limits", "timeouts", "cache", "weight", "listing"),
    *("strategy", "sticky", "retries", "cooldown", "hedge", "rescue", "shadow", "trace", "order", "concurrency"),
    *("queue", "byok"),
))  # fmt: skip


class Wish(Enum):
    """What a request's `Cache-Control` asks for. Other directives than these two have no effect.

    https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
    """

    #: Nothing: share, take what is kept.
    SHARED = auto()
    #: `no-cache`: ask upstream, on its own; the answer is kept for others.
    FRESH = auto()
    #: `no-store`: ask upstream, on its own; nothing is kept.
    UNKEPT = auto()

    @classmethod
    def of(cls, cache_control: str) -> Wish:
        """The wish in a header's value, empty where there is none."""
        said = {part.partition("=")[0].strip().lower() for part in cache_control.split(",")}
        return cls.UNKEPT if "no-store" in said else cls.FRESH if "no-cache" in said else cls.SHARED


class Digests:
    """Names requests so that equal names may have one answer. One object for each configuration."""

    def __init__(self, config: Config) -> None:
        cached = [route for route in config.routes.values() if route.cache is not None]
        self._routes = {route.name: _route(route, config.providers) for route in cached}

    def of(self, key: Key, route: Route, request: Request) -> str:
        """The digest of `request`: of its JSON in any order, its key (unless the route is `shared`), and its route.

        A stream and a whole answer are two. Who the caller says it asks for (`user`) is left out.
        """
        left_out = _WHO if request.stream else _WHO | {"stream", "stream_options"}
        body = {name: value for name, value in request.body.items() if name not in left_out}
        metadata = body.get("metadata")
        if request.task is Task.MESSAGES and isinstance(metadata, dict):
            # Anthropic's word for `user`.
            body["metadata"] = {name: value for name, value in metadata.items() if name != "user_id"} or None
            if body["metadata"] is None:
                del body["metadata"]
        owner = None if route.cache is not None and route.cache.shared else key.id
        shaping = [request.headers.get(name) for name in _SHAPING]
        theirs = request.credential.get_secret_value() if request.credential else ""
        head = [owner, self._routes[route.name], request.task.value, request.stream, shaping, theirs]
        digest = hashlib.sha256(orjson.dumps(head))
        digest.update(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
        return digest.hexdigest()


class Cache:
    """Answers given again, and calls shared."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights = Flights()

    async def share(self, policy: CachePolicy, digest: str, start: Start, wish: Wish) -> tuple[Answer, bool]:
        """An answer for `digest`, and whether it is a hit: kept from before, or one upstream call's for several.

        A miss is asked for by `start`, which admits and settles a call of its own, once, whoever still
        waits when it ends. A hit costs nothing upstream, and its caller is still to be admitted and recorded.
        Raises what `start` raised; an answer's `chunks` must be closed, also where none was read.
        """
        if wish is Wish.UNKEPT:
            (answer, _), hit = await start(), False
        else:
            fresh = wish is Wish.FRESH
            shelf = _Shelf(self._store, digest, policy.ttl, looks=not fresh)
            answer, hit = await self._flights.join(
                digest, start, shelf, policy.max_bytes, alone=fresh, turns=policy.shared
            )
        answer.headers[HEADER] = "hit" if hit else "miss"
        return answer, hit

    async def close(self) -> None:
        """End the calls in flight and let the store go."""
        await self._flights.close()
        await self._store.close()


class _Shelf:
    """The place of one digest in the store."""

    def __init__(self, store: Store, digest: str, ttl: float, *, looks: bool) -> None:
        self._store = store
        self._digest = digest
        self._ttl = ttl
        self._looks = looks

    async def find(self) -> Callable[[], Answer] | None:
        """What makes the kept answer (`Shelf.find`)."""
        entry = await self._store.get(self._digest) if self._looks else None
        return None if entry is None else _unpacked(entry)

    async def keep(self, headers: Mapping[str, str], pieces: Sequence[bytes], *, stream: bool) -> None:
        """Keep a good answer (`Shelf.keep`)."""
        await self._store.put(self._digest, _packed(headers, pieces, stream=stream), self._ttl)


def _packed(headers: Mapping[str, str], pieces: Sequence[bytes], *, stream: bool) -> bytes:
    """An answer as bytes: a line of JSON (layout, headers, lengths of a stream's pieces), then the answer itself."""
    kept = {name: value for name, value in headers.items() if name == "content-type" or name.startswith("x-promptyard")}
    lengths = [len(piece) for piece in pieces] if stream else None
    return b"\n".join((orjson.dumps([_LAYOUT, kept, lengths]), b"".join(pieces)))


def _unpacked(entry: bytes) -> Callable[[], Answer] | None:
    """What makes the answer in `entry`, as often as it is called. None where it is not one of this layout."""
    end = entry.find(b"\n")
    try:
        layout, headers, lengths = orjson.loads(entry[: max(0, end)])
    except ValueError:
        return None
    if layout != _LAYOUT:
        return None
    # A view: a slow reader of a hit holds no more than the entry itself.
    answer = memoryview(entry)[end + 1 :]
    if lengths is None:
        return lambda: Answer(200, dict(headers), bytes(answer))
    return lambda: Answer(200, dict(headers), chunks=_replayed(answer, lengths))


async def _replayed(answer: memoryview, lengths: Sequence[int]) -> AsyncGenerator[bytes, None]:
    begin = 0
    for number, length in enumerate(lengths):
        if number % BURST == BURST - 1:
            await asyncio.sleep(0)
        yield bytes(answer[begin : begin + length])
        begin += length


def _route(route: Route, providers: Mapping[str, ProviderSpec]) -> str:
    """A digest of what a route's file says that shapes its answers: other deployments are another cache."""
    said: list[Any] = [_shape(route)]
    for deployment in route.deployments:
        spec = providers[deployment.provider]
        said.append((_shape(deployment), _shape(spec)))
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _shape(part: Route | ProviderSpec | Any) -> list[tuple[str, Any]]:
    """Names and values of a part's fields. Secrets are of a type that prints as stars."""
    return [(one.name, getattr(part, one.name)) for one in fields(part) if one.name not in _NOT_SHAPING]
