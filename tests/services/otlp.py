"""A receiver of traces: takes OTLP/HTTP on a real port and keeps the spans it is sent."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Span:
    """One span, its attributes as plain values, its ids in hexadecimal, its times in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    started: int
    ended: int
    failed: bool
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    resource: dict[str, Any]


@dataclass
class Receiver:
    """What came. `status` is what the next requests are answered with, once `answers` is set."""

    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    answers: threading.Event = field(default_factory=threading.Event)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        with self._came:
            self.headers = headers
            self.requests += 1
            if self.status == 200:
                self.spans += _spans(ExportTraceServiceRequest.FromString(data))
            self._came.notify_all()
        assert self.answers.wait(30), "nobody let the receiver answer"
        return self.status

    def wait(self, count: int, seconds: float = 10) -> list[Span]:
        """The spans, once `count` are here."""
        self.wait_until(lambda: len(self.spans) >= count, seconds)
        return self.spans

    def wait_until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        with self._came:
            assert self._came.wait_for(true, seconds), f"waited {seconds} s; here are {self.spans}"


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for one in scope.spans:
                yield Span(
                    one.name,
                    type(one).SpanKind.Name(one.kind).removeprefix("SPAN_KIND_"),
                    one.trace_id.hex(),
                    one.span_id.hex(),
                    one.parent_span_id.hex(),
                    one.start_time_unix_nano,
                    one.end_time_unix_nano,
                    one.status.code == 2,
                    _values(one.attributes),
                    [(event.name, event.time_unix_nano) for event in one.events],
                    _values(resource.resource.attributes),
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextlib.contextmanager
def running() -> Iterator[Receiver]:
    """A receiver on a port of its own, gone afterwards."""
    receiver = Receiver()
    receiver.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(receiver.take({**headers, ":path": self.path}, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
