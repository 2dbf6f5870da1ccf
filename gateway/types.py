"""The gateway's words: what a call, an answer, a key and a usage record are. No behaviour, no IO."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gateway.routes import Limits, Task


class Scope(StrEnum):
    """What a key may be used for."""

    INFERENCE = "inference"
    TRACKING = "tracking"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key we issued, without its secret.

    `routes` is None where every route is allowed. Times are UTC epoch seconds.
    `id` is "anonymous" for callers without a key in protected mode, "admin" for the admin key.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    routes: frozenset[str] | None = None
    limits: Limits = field(default_factory=Limits)
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def may_call(self, route: str) -> bool:
        """Whether this key's allowed routes include `route`."""
        return self.routes is None or route in self.routes


@dataclass(slots=True)
class Tokens:
    """Tokens of one answer as the provider counted them; `cached` and `reasoning` are parts of the other two."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class UpstreamRequest:
    """One attempt's request, ready for a provider.

    `body` is the caller's JSON object and must not be changed in place: a fallback
    sends it again. `model` is the upstream's own id. `headers` passed the allow-list.
    `connect` is in seconds; every other timeout is kept by the caller of `send`.
    """

    task: Task
    model: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    stream: bool
    connect: float


@dataclass(slots=True)
class Answer:
    """What a provider answered, in OpenAI's wire format.

    Either `body` is the whole answer, or `chunks` yields server-sent-event bytes cut
    anywhere (its `aclose` leaves the upstream at once). `headers` passed the allow-list
    (content-type, retry-after). A status of 400 or more keeps the upstream's own body.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: AsyncGenerator[bytes, None] | None = None


class Provider(Protocol):
    """Who serves upstream models. One object for each entry under `providers:`."""

    name: str

    async def start(self) -> None:
        """Begin whatever runs beside the calls (a child process). Returns at once, never raises."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer one attempt.

        For a stream it returns when the status and headers are known. Raises
        `UpstreamFailed` or `UpstreamTimeout`, nothing else.
        """

    async def close(self) -> None:
        """Release connections and children. Safe to call twice."""

    def status(self) -> str:
        """One word for `/health/ready`: "ready", "loading" or "failed: <why>"."""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One call as it is written to the journal and to SQL. Money is integer nano-dollars, time UTC epoch seconds.

    `status` is the HTTP status the caller got (499: it left before the end).
    `estimated` says the provider gave no usage and the tokens are our own tally.
    """

    request_id: str
    time: float
    key_id: str
    key_name: str
    route: str
    deployment: str
    task: str
    status: int
    error: str | None
    stream: bool
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: int
    priced: bool
    estimated: bool
    latency: float
    first_token: float | None
