"""OpenTelemetry's wire format, read: a batch of spans in protobuf or in its JSON becomes plain data."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from promptlab.entities_traces import REQUEST_ID, Span
from promptlab.errors import InvalidParameter, NotConvertible, TooLarge

PROTOBUF, JSON = "application/x-protobuf", "application/json"
# A batch is bounded when it arrives; this bounds what a small one may unfold to.
MAX_INFLATED = 64 * 1024 * 1024

_STATUSES = ("UNSET", "OK", "ERROR")
_UNREADABLE = "Invalid OpenTelemetry format"
_TIME_LIMIT = 2**63


def inflate(body: bytes, encoding: str) -> bytes:
    """The body as it was before this `Content-Encoding`."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip":
            windows: tuple[int, ...] = (zlib.MAX_WBITS | 16,)
        case "deflate":
            # Some send it with zlib's frame, as the standard says, and some without.
            windows = (zlib.MAX_WBITS, -zlib.MAX_WBITS)
        case _:
            raise InvalidParameter(f"Unsupported Content-Encoding: {encoding[:100]}. Expected: gzip or deflate")
    for window in windows:
        try:
            inflating = zlib.decompressobj(window)
            whole = inflating.decompress(body, MAX_INFLATED + 1)
        except zlib.error:
            continue
        if len(whole) > MAX_INFLATED:
            raise TooLarge(f"The request body unfolds to more than {MAX_INFLATED} bytes")
        if inflating.eof:
            return whole
    raise InvalidParameter(f"Failed to decompress the {encoding.strip().lower()} body")


def read(body: bytes, content_type: str) -> list[Span]:
    """Every span of a batch. Raises `InvalidParameter`, or `NotConvertible` where one of them cannot be kept."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise InvalidParameter(f"Invalid Content-Type: {content_type[:100]}. Expected: {PROTOBUF} or {JSON}")
    parsed = _from_json(body) if kind == JSON else _from_protobuf(body)
    if not parsed.resource_spans:
        raise InvalidParameter(f"{_UNREADABLE} - no spans found")
    return list(_spans(parsed))


def _from_protobuf(body: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, RecursionError):
        raise InvalidParameter(f"{_UNREADABLE}: the body is no ExportTraceServiceRequest in protobuf") from None
    return request


def _from_json(body: bytes) -> Any:
    from google.protobuf.json_format import ParseDict, ParseError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        said = orjson.loads(body)
        for span in _json_spans(said):
            for one in (span, *(span.get("links") or ())):
                _ids_to_base64(one)
        ParseDict(said, request, ignore_unknown_fields=True)
    except (ParseError, RecursionError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        shown = str(error)[:300]
        raise InvalidParameter(f"{_UNREADABLE}: the body is no ExportTraceServiceRequest in JSON: {shown}") from None
    return request


def _json_spans(said: Any) -> Iterator[dict[str, Any]]:
    for resource in said.get("resourceSpans") or ():
        for scope in resource.get("scopeSpans") or ():
            yield from scope.get("spans") or ()


def _ids_to_base64(one: dict[str, Any]) -> None:
    # OTLP's JSON has ids in hexadecimal; protobuf's JSON reads bytes as base64.
    for name in ("traceId", "spanId", "parentSpanId"):
        if one.get(name):
            one[name] = base64.b64encode(bytes.fromhex(one[name])).decode()


def _spans(request: Any) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: Any, resource: Mapping[str, Any]) -> Span:
    trace_id, span_id, parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    if len(trace_id) != 32 or not int(trace_id, 16) or len(span_id) != 16 or not int(span_id, 16):
        raise NotConvertible(
            "Cannot convert OpenTelemetry span to MLflow span: it needs a trace_id of 16 bytes and a span_id of 8"
        )
    times = (span.start_time_unix_nano, span.end_time_unix_nano, *(event.time_unix_nano for event in span.events))
    if max(times) >= _TIME_LIMIT:
        raise NotConvertible(f"Cannot convert OpenTelemetry span to MLflow span: a time of '{span_id}' is too large")
    rest = {
        "message": _text(span.status.message),
        "events": [
            {"time": event.time_unix_nano, "name": _text(event.name), "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
        "links": [
            {"trace": link.trace_id.hex(), "span": link.span_id.hex(), "attributes": _attributes(link.attributes)}
            for link in span.links
            if len(link.trace_id) == 16 and len(link.span_id) == 8
        ],
    }
    return Span(
        trace_id=trace_id,
        id=span_id,
        parent=parent if parent.strip("0") else None,
        name=_text(span.name),
        status=_STATUSES[span.status.code] if 0 <= span.status.code < len(_STATUSES) else _STATUSES[0],
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano or None,
        # The id MLflow knows the trace by follows from the trace's own, whatever the sender says.
        attributes={**_attributes(span.attributes), REQUEST_ID: f"tr-{trace_id}"},
        rest={name: value for name, value in rest.items() if value},
        resource=resource,
    )


def _attributes(given: Any) -> dict[str, Any]:
    return {_text(one.key): _value(one.value) for one in given}


def _value(given: Any) -> Any:
    match given.WhichOneof("value"):
        case "string_value":
            return _text(given.string_value)
        case "array_value":
            return [_value(one) for one in given.array_value.values]
        case "kvlist_value":
            return _attributes(given.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(given.bytes_value).decode()
        case "double_value":
            number = given.double_value
            return number if math.isfinite(number) else str(number)
        case "bool_value":
            return given.bool_value
        case "int_value":
            return given.int_value
        case _:
            return None


def _text(value: str) -> str:
    # PostgreSQL keeps no NUL in a text.
    return value.replace("\0", "\ufffd")
