"""What `routes.yaml` describes, as one immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import SecretStr


class Task(StrEnum):
    """What is asked of a model, named as the last part of OpenAI's path."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


class RouteTask(StrEnum):
    """What a route is for: `chat` serves chat completions and completions, `embeddings` embeddings."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"

    def serves(self, task: Task) -> bool:
        """Whether a route of this kind answers `task`."""
        return (task is Task.EMBEDDINGS) == (self is RouteTask.EMBEDDINGS)


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a minute, tokens a minute, calls at once. None: not limited."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


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
class ProviderSpec:
    """One entry under `providers:`. `options` holds what only its type understands (a fake's script).

    Options may hold secrets as plain text (a cloud's session token), so they are never printed.
    """

    name: str
    type: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Provider and upstream model behind a route. `weight` is its share among the route's deployments."""

    provider: str
    model: str
    weight: float = 1.0

    @property
    def id(self) -> str:
        """How records and metrics name it: `provider/model`."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """A name callers send as `model`, and what answers it."""

    name: str
    deployments: tuple[Deployment, ...]
    task: RouteTask = RouteTask.CHAT
    fallbacks: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, understood. Names of routes and providers keep the file's order."""

    providers: Mapping[str, ProviderSpec]
    routes: Mapping[str, Route]
