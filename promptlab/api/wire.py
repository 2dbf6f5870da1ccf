"""MLflow's JSON as its clients speak it: declared fields in, decoded and checked; answers and errors out.

The rules, so that the Python, R and Java clients are all understood: names in snake_case or
camelCase, never both; whole numbers and doubles as numbers or strings; Booleans in any case,
also as strings; `NaN` and infinities as strings; enums by name or number; null means absent;
unknown fields are ignored. A body may be JSON inside a JSON string.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from promptlab.errors import InternalError, InvalidParameter, LabError, TooLarge, to_mlflow
from promptlab.lab import Lab

logger = logging.getLogger(__name__)

# The largest lawful call, a batch of long params and tags, is under 2 MB even when every letter is escaped.
MAX_BODY = 16 * 1024 * 1024

_ADVICE = " See the API docs for more information about request parameters."

Arguments = dict[str, Any]
Converter = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """How one field is read. `also` is an older name of the same field."""

    convert: Converter
    required: bool = False
    default: Any = None
    also: str | None = None


Fields = Mapping[str, Field]


# ── kinds of values ──────────────────────────────────────────────────────────────────────────────


def _wrong(path: str, value: object) -> InvalidParameter:
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    if len(shown) > 500:
        shown = shown[:500] + "…"
    return InvalidParameter(
        f"Invalid value {shown} for parameter '{path}' supplied:  Hint: Value was of type "
        f"'{type(value).__name__}'.{_ADVICE}"
    )


def string(value: Any, path: str) -> str:
    """Text. NUL is refused: PostgreSQL cannot keep it, and both databases must agree."""
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(path, value)
    return value


def integer(value: Any, path: str) -> int:
    """A whole number of at most 64 bits, as a number or a string. R writes 100000 as `1e+05`."""
    whole = _whole(value)
    if whole is None or not -(2**63) <= whole < 2**63:
        raise _wrong(path, value)
    return whole


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and "_" not in value:
        for read in (int, float):
            try:
                return _whole(read(value))
            except ValueError:
                continue
    return None


def double(value: Any, path: str) -> float:
    """A number, or a string of one, `NaN` and the infinities among them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        raise _wrong(path, value)
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise _wrong(path, value) from None


def boolean(value: Any, path: str) -> bool:
    """True or false; R writes `"TRUE"` and `"FALSE"`."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong(path, value)


def one_of(kind: type[IntEnum]) -> Converter:
    """A member of an enum by its name or its number."""

    def convert(value: Any, path: str) -> IntEnum:
        if isinstance(value, str) and value in kind.__members__:
            return kind[value]
        try:
            return kind(integer(value, path))
        except ValueError:
            raise _wrong(path, value) from None

    return convert


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one kind."""

    convert: Converter

    def __call__(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(path, value)
        return [self.convert(item, f"{path}[{index}]") for index, item in enumerate(value)]


def message(fields: Fields) -> Converter:
    """An object of these fields."""

    def convert(value: Any, path: str) -> Arguments:
        if not isinstance(value, dict):
            raise _wrong(path, value)
        return decode(value, fields, f"{path}.")

    return convert


def required(convert: Converter, *, also: str | None = None) -> Field:
    """A field that must be there and not be empty."""
    return Field(convert, required=True, also=also)


RUN_ID = required(string, also="run_uuid")
KEY_VALUE: Fields = {"key": required(string), "value": Field(string, default="")}


# ── reading a request ────────────────────────────────────────────────────────────────────────────


def decode(raw: Mapping[str, Any], fields: Fields, path: str = "") -> Arguments:
    """The declared fields of `raw`, converted; absent ones have their defaults. Raises `InvalidParameter`."""
    values: Arguments = {}
    for name, field in fields.items():
        value = _spelled(raw, name)
        if value in (None, "") and field.also is not None:
            value = _spelled(raw, field.also)
        if value is None or (value == "" and field.required):
            if field.required:
                raise InvalidParameter(f"Missing value for required parameter '{path}{name}'.{_ADVICE}")
            values[name] = field.default
        else:
            values[name] = field.convert(value, path + name)
    return values


def _spelled(raw: Mapping[str, Any], name: str) -> Any:
    first, *rest = name.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    if camel != name and raw.get(camel) is not None:
        if raw.get(name) is not None:
            raise InvalidParameter(f"Request specifies both '{name}' and '{camel}'; provide only one of them.")
        return raw[camel]
    return raw.get(name)


async def read_body(request: Request, most: int = MAX_BODY) -> bytes:
    """The whole body. Raises `TooLarge` before more than `most` bytes are held."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"The request body is larger than {most} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def arguments(request: Request, body: bytes, fields: Fields, *, from_query: bool = False) -> Arguments:
    """The request's fields: from the query on GET or where it is said, from the body else; on DELETE from either."""
    raw: dict[str, Any] = {}
    if from_query or request.method in ("GET", "HEAD", "DELETE"):
        for key, value in request.query_params.multi_items():
            raw.setdefault(key, []).append(value)
        for name, values in raw.items():
            if name not in fields or not isinstance(fields[name].convert, ListOf):
                raw[name] = values[0]
    if body and request.method != "GET":
        raw |= _json_object(request, body)
    return decode({**raw, **request.path_params}, fields)


def _json_object(request: Request, body: bytes) -> dict[str, Any]:
    content_type = request.headers.get("content-type")
    if content_type is None:
        raise InvalidParameter("Bad Request. Content-Type header is missing.")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidParameter("Bad Request. Content-Type must be one of ['application/json'].")
    try:
        parsed = orjson.loads(body)
        if isinstance(parsed, str):
            parsed = orjson.loads(parsed)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"The request body is not valid JSON: {error}") from None
    # R has one empty list for both kinds.
    if parsed is None or parsed == []:
        return {}
    if not isinstance(parsed, dict):
        raise InvalidParameter("The request body must be a JSON object.")
    return parsed


# ── answering ────────────────────────────────────────────────────────────────────────────────────


class Json(JSONResponse):
    """A JSON answer."""

    def render(self, content: Any) -> bytes:
        """The content as orjson writes it."""
        return orjson.dumps(content)


def failed(error: Exception) -> Response:
    """`error` as MLflow's clients read it. What we did not raise on purpose is logged here and told to nobody."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    if not isinstance(error, LabError):
        logger.exception("a tracking call failed", exc_info=error)
        error = InternalError("The server failed to carry this out; its log says why.")
    status, body = to_mlflow(error)
    return Response(body, status, media_type="application/json")


def number(value: float) -> float | str:
    """A double as it travels: what JSON has no word for as a string."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


Handler = Callable[[Lab, Arguments], Any]


class Endpoints:
    """A noun's endpoints, declared once and served for any lab, below `/api` and `/ajax-api`."""

    def __init__(self) -> None:
        self._declared: list[tuple[str, str, Fields, int, Handler]] = []

    def get(self, path: str, fields: Fields, *, version: str = "2.0") -> Callable[[Handler], Handler]:
        """Declare what answers GET; see `post`."""
        return self._declare("GET", f"{version}/mlflow/{path}", fields)

    def post(
        self, path: str, fields: Fields, *, version: str = "2.0", max_body: int = MAX_BODY
    ) -> Callable[[Handler], Handler]:
        """Declare what answers POST: a function of the lab and the decoded fields, whose result is sent as JSON."""
        return self._declare("POST", f"{version}/mlflow/{path}", fields, max_body)

    def patch(self, path: str, fields: Fields, *, version: str = "2.0") -> Callable[[Handler], Handler]:
        """Declare what answers PATCH; see `post`."""
        return self._declare("PATCH", f"{version}/mlflow/{path}", fields)

    def delete(self, path: str, fields: Fields, *, version: str = "2.0") -> Callable[[Handler], Handler]:
        """Declare what answers DELETE, whose fields may be in the body or in the query; see `post`."""
        return self._declare("DELETE", f"{version}/mlflow/{path}", fields)

    def _declare(self, verb: str, path: str, fields: Fields, max_body: int = MAX_BODY) -> Callable[[Handler], Handler]:
        def keep(handler: Handler) -> Handler:
            self._declared.append((verb, path, fields, max_body, handler))
            return handler

        return keep

    def router(self, lab: Lab) -> APIRouter:
        """The declared endpoints, each on the thread pool."""
        router = APIRouter()
        for verb, path, fields, max_body, handler in self._declared:
            run = _answering(lab, fields, max_body, handler)
            for prefix in ("/api", "/ajax-api"):
                router.add_api_route(f"{prefix}/{path}", run, methods=[verb], response_model=None)
        return router


def _answering(lab: Lab, fields: Fields, max_body: int, handler: Handler) -> Callable[[Request, bytes], Response]:
    async def whole(request: Request) -> bytes:
        return await read_body(request, max_body)

    def run(request: Request, body: bytes = Depends(whole)) -> Response:
        try:
            return Json(handler(lab, arguments(request, body, fields)))
        except Exception as error:
            return failed(error)

    return run


def guarded(handler: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """`handler` with its failures answered in MLflow's shape. It keeps the signature fastapi reads."""

    @functools.wraps(handler)
    async def run(*args: Any, **kwargs: Any) -> Response:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            return failed(error)

    return run
