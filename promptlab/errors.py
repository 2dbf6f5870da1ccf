"""The lab's one error tree. A class holds the facts (status, MLflow's error code), `to_mlflow` is the one converter.

Codes and their statuses are MLflow's, so that its clients raise what they raise against their own server:
https://github.com/mlflow/mlflow/blob/master/mlflow/exceptions.py
"""

from __future__ import annotations

import orjson


class LabError(Exception):
    """Base of everything this package raises on purpose. `message` is shown to the caller: never a secret."""

    status = 500
    code = "INTERNAL_ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParameter(LabError):
    """A field is missing, of the wrong type, over a limit, or not allowed in this state."""

    status = 400
    code = "INVALID_PARAMETER_VALUE"


class NotConvertible(InvalidParameter):
    """Spans that can be read and not be kept, or that do not say whose they are: all of a batch is refused."""

    status = 422


class AlreadyExists(LabError):
    """The name is taken. MLflow answers 400 here, not 409, and its clients rely on it."""

    status = 400
    code = "RESOURCE_ALREADY_EXISTS"


class NotFound(LabError):
    """No such experiment, run, tag or artifact."""

    status = 404
    code = "RESOURCE_DOES_NOT_EXIST"


class EndpointNotFound(LabError):
    """A path we do not serve; clients of newer features fall back or say so when they read this code."""

    status = 404
    code = "ENDPOINT_NOT_FOUND"


class MethodNotAllowed(LabError):
    """A path that exists, asked with the wrong verb."""

    status = 405
    code = "BAD_REQUEST"


class TooLarge(LabError):
    """The body is larger than any call of this protocol needs."""

    status = 413
    code = "BAD_REQUEST"


class Unauthenticated(LabError):
    """No key, or none that is known: whoever serves this package asks for one."""

    status = 401
    code = "UNAUTHENTICATED"


class PermissionDenied(LabError):
    """A good key that may not do this."""

    status = 403
    code = "PERMISSION_DENIED"


class Unavailable(LabError):
    """Not now: still loading, or failed to."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"


class Unsupported(LabError):
    """What this server cannot do as it is set up; MLflow's clients then do it another way."""

    status = 501
    code = "NOT_IMPLEMENTED"


class InternalError(LabError):
    """A fault of ours. The message says nothing about it: the server's log does."""


def to_mlflow(error: LabError) -> tuple[int, bytes]:
    """Status and JSON body of `error` in MLflow's shape: `{"error_code", "message"}`."""
    return error.status, orjson.dumps({"error_code": error.code, "message": error.message})
