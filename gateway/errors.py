"""The gateway's one error tree. A class holds the facts (status, type, code), `to_openai` is the one converter.

Codes and types follow https://platform.openai.com/docs/guides/error-codes so that the official client
raises its typed errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import orjson


class GatewayError(Exception):
    """Base of everything this package raises on purpose. `message` is shown to the caller: never a secret."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}

    def hide(self, secrets: Iterable[str]) -> None:
        """Take `secrets` out of the message: an upstream may have quoted them."""
        for secret in secrets:
            if secret in self.message:
                self.message = self.message.replace(secret, "***")
                self.args = (self.message,)


class BadRequest(GatewayError):
    """The caller's request cannot be understood or carried out as it stands."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidKey(GatewayError):
    """No key, an unknown one, or one that is revoked or expired."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """A good key that may not do this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(GatewayError):
    """No such path or record."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """No route of that name; the message names those this key may call."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """A path that exists, asked with the wrong verb."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Timeout(GatewayError):
    """The caller did not finish sending its request in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class TooLarge(GatewayError):
    """The request body is over the configured limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMedia(GatewayError):
    """A content type or encoding we do not read."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(GatewayError):
    """A limit refused; the message names which rule, how much is used and when it frees."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetExceeded(GatewayError):
    """The money of a budget is spent: waiting does not help before its window ends, and neither does another try."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        super().__init__(message, retry_after=retry_after)
        # What OpenAI's and Anthropic's clients ask before they try again.
        self.headers["x-should-retry"] = "false"


class BudgetUnavailable(GatewayError):
    """Nobody can say what is left of a budget: it refuses until somebody can."""

    status = 429
    type = "rate_limit_error"
    code = "budget_unavailable"


class Overloaded(GatewayError):
    """We cannot take the call now (starting, stopping, model loading)."""

    status = 503
    type = "server_error"
    code = "overloaded"


class UpstreamFailed(GatewayError):
    """The provider could not be reached, broke off, or sent what is not an answer."""

    status = 502
    type = "upstream_error"
    code = "upstream_failed"


class UpstreamTimeout(UpstreamFailed):
    """The provider was silent longer than the route allows."""

    status = 504
    code = "upstream_timeout"


class UpstreamSilent(UpstreamTimeout):
    """It had the whole request and did not answer in time: it may have read the prompt, and bill it."""


class ClientGone(GatewayError):
    """The caller left before the answer was complete. Recorded, never sent."""

    status = 499
    type = "client_closed_request"
    code = "client_closed_request"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where it stands and what to do. It never holds a secret's value.

    `source` is the file (empty for settings, which have no file); `key` is a dotted path as
    `routes.fast.deployments[1].provider`, or the name of an environment variable.
    """

    source: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line is not None else self.source
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(GatewayError):
    """Every problem of a configuration file at once; `str()` is what a person reads."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_config"
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """One error for all of `problems`, one line each, in the order of the file; the same problem once."""
        ordered = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.source, problem.line or 0)))
        error = cls("\n".join(map(str, ordered)))
        error.problems = ordered
        return error


def to_openai(error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of `error` in OpenAI's shape: `{"error": {message, type, param, code}}`."""
    body = {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    headers = {"content-type": "application/json", **error.headers}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, -int(-error.retry_after // 1)))
    return error.status, headers, orjson.dumps(body)
