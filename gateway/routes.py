"""What `routes.yaml` describes, as one immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.money import UNLISTED, Listing


class Task(StrEnum):
    """What is asked of a model and in which dialect, named as the last part of its path under `/v1`."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    RESPONSES = "responses"
    MODERATIONS = "moderations"
    IMAGES = "images/generations"
    SPEECH = "audio/speech"
    TRANSCRIPTIONS = "audio/transcriptions"
    RERANK = "rerank"


class RouteTask(StrEnum):
    """What a route is for: `chat` serves every dialect of a conversation, the others one task each."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    IMAGES = "images"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    RERANK = "rerank"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks a route of this kind answers; the first is the usual one."""
        return _TASKS[self]

    def serves(self, task: Task) -> bool:
        """Whether a route of this kind answers `task`."""
        return task in _TASKS[self]


#: Dialects of a conversation, the pivot of all translation first.
CONVERSATIONS = (Task.CHAT, Task.MESSAGES, Task.RESPONSES)
_TASKS = {
    RouteTask.CHAT: (*CONVERSATIONS, Task.COMPLETIONS, Task.COUNT_TOKENS),
    RouteTask.EMBEDDINGS: (Task.EMBEDDINGS,),
    RouteTask.MODERATIONS: (Task.MODERATIONS,),
    RouteTask.IMAGES: (Task.IMAGES,),
    RouteTask.SPEECH: (Task.SPEECH,),
    RouteTask.TRANSCRIPTIONS: (Task.TRANSCRIPTIONS,),
    RouteTask.RERANK: (Task.RERANK,),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Money per window: `most` in nano-dollars, in every window of `duration` (`windows.window`; None: in all)."""

    most: int
    duration: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a minute, tokens a minute, calls at once, money, requests and tokens a day. None: not limited.

    A `soft` budget refuses nothing: somebody is told when much of it is spent. Minutes slide, or are `fixed`: those of
    the clock.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budget: Budget | None = None
    rpd: int | None = None
    tpd: int | None = None
    soft: Budget | None = None
    fixed: bool = False


#: Per cent of a budget that somebody is told of where the file does not say.
PERCENT = (50, 80, 100)


@dataclass(frozen=True, slots=True)
class Alerts:
    """Who is told of budgets, and at how many per cent of them. Messages are signed with `secret`."""

    webhook: SecretStr
    secret: SecretStr
    at: tuple[int, ...] = PERCENT


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_token` and `idle` are for streams; `total` for whole answers, and for streams only if set."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0
    total: float | None = None

    @property
    def whole(self) -> float:
        """Seconds an answer that is not streamed may take: `total`, or 600 where the file does not say."""
        return 600.0 if self.total is None else self.total


@dataclass(frozen=True, slots=True)
class Retries:
    """How often all deployments are asked again: rounds, seconds before the first of them, longest pause in seconds."""

    times: int = 1
    backoff: float = 0.5
    longest: float = 10.0


@dataclass(frozen=True, slots=True)
class Cooldown:
    """How many failures in a row put a deployment to rest, and for how many seconds."""

    failures: int = 5
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Queue:
    """How many calls may wait for a deployment, and for how many seconds."""

    size: int = 100
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Shadow:
    """The route that copies of calls go to, and how many of a hundred."""

    route: str
    percent: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on purpose with a route's attempts. `error`, `stall`, `cut` and `slow` are shares of them.

    `stall_after` and `cut_after` count pieces of a stream; `pause` and `retry_after` are seconds.
    """

    seed: int = 0
    error: float = 0.0
    status: int = 503
    retry_after: float | None = None
    stall: float = 0.0
    stall_after: int = 0
    cut: float = 0.0
    cut_after: int = 0
    slow: float = 0.0
    pause: float = 0.0


class Strategy(StrEnum):
    """Which of a route's deployments is asked first."""

    WEIGHTED = "weighted"
    PRIORITY = "priority"
    LATENCY = "latency"
    LEAST_BUSY = "least_busy"
    CHEAPEST = "cheapest"


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One entry under `providers:`. `options` holds what only its type understands (a fake's script).

    Options may hold secrets as plain text (a cloud's session token), so they are never printed.
    `api_keys` are several credentials used in turn; where they are written, `api_key` is not. Calls leave through
    `proxy` (it may hold a password), and trust only the authorities in `ca_bundle`, where these are written.
    """

    name: str
    type: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    api_keys: tuple[SecretStr, ...] = ()
    proxy: SecretStr | None = None
    ca_bundle: Path | None = None
    #: Of what stands in that file: with other certificates, this is another entry.
    ca_digest: str | None = None

    @property
    def credentials(self) -> tuple[SecretStr, ...]:
        """All its credentials, in the file's order."""
        return self.api_keys if self.api_key is None else (self.api_key,)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Provider and upstream model behind a route. `weight` is its share among the route's deployments."""

    provider: str
    model: str
    weight: float = 1.0
    #: Those of a lower order are asked first.
    order: int = 1
    #: Calls at once; more wait in `queue`.
    concurrency: int | None = None
    queue: Queue = field(default_factory=Queue)
    #: What is known of its price and size, once a `PriceTable` has looked it up.
    listing: Listing = field(default=UNLISTED, compare=False)
    #: How records and metrics name it: `provider/model`.
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.provider}/{self.model}")


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Answers are given again for `ttl` seconds: to the same key, or where `shared` to all. None above `max_bytes`."""

    ttl: float
    shared: bool = False
    max_bytes: int = 4 * 2**20


@dataclass(frozen=True, slots=True)
class TracePolicy:
    """The experiment that keeps traces of calls, by its name, and the share of them that is kept."""

    experiment: str
    sample: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """A name callers send as `model`, and what answers it."""

    name: str
    deployments: tuple[Deployment, ...]
    task: RouteTask = RouteTask.CHAT
    strategy: Strategy = Strategy.WEIGHTED
    #: `user`, or a header's name: what keeps a caller's calls at one deployment.
    sticky: str | None = None
    fallbacks: tuple[str, ...] = ()
    context_fallbacks: tuple[str, ...] = ()
    retries: Retries | None = None
    cooldown: Cooldown | None = None
    #: Seconds without a first token after which a second deployment is asked beside the first.
    hedge: float | None = None
    #: Whether a stream that breaks off is continued by the next deployment.
    rescue: bool = False
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_output_tokens: int | None = None
    #: Whether a deployment nobody knows the price of may be asked where a budget applies. It then costs nothing.
    free_if_unpriced: bool = False
    fault: Fault | None = None
    #: Whether what a deployment's dialect cannot say is dropped (and named) rather than refused.
    drops_unsupported: bool = False
    #: Whether a caller may bring a credential of its own for the provider; ours is then not sent.
    byok: bool = False
    cache: CachePolicy | None = None
    shadow: Shadow | None = None
    trace: TracePolicy | None = None


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    """A key that the file declares, by the SHA-256 of its secret (hex). The rest is as a key's that somebody made."""

    name: str
    hash: str = field(repr=False)
    scopes: tuple[str, ...]
    routes: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    user_limits: Limits = field(default_factory=Limits)
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, understood. Names of routes and providers keep the file's order."""

    providers: Mapping[str, ProviderSpec]
    routes: Mapping[str, Route]
    alerts: Alerts | None = None
    keys: Mapping[str, DeclaredKey] = field(default_factory=dict)
    #: Places whose text was taken from elsewhere: what stands there may be a secret.
    filled: frozenset[tuple[str | int, ...]] = field(default=frozenset(), compare=False)
