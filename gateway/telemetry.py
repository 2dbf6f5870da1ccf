"""Traces of calls in OpenTelemetry's GenAI conventions, sent over OTLP/HTTP from a thread of their own.

https://github.com/open-telemetry/semantic-conventions-genai. A call is one SERVER span, each of its attempts a
CLIENT span below it. They are made when the call is settled, from what was noted while it ran. The text of
prompts and answers is in none of them, whatever the environment asks.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from gateway import trace as noted
from gateway.routes import ProviderSpec
from gateway.settings import Tracing
from gateway.trace import AttemptSpan, Parent, Trace
from gateway.types import UsageRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

log = logging.getLogger(__name__)

#: Seconds `Tracer.close` waits for what is still to be sent.
LAST_CHANCE = 1.0
#: Characters of a text attribute: an upstream's words may be of any length.
_LONGEST = 256
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}
_CHATS = ("chat/completions", "messages", "responses")
# Where the conventions name a provider otherwise than routes.yaml (or litellm) does.
_PROVIDERS = {"azure": "azure.ai.openai", "azure_ai": "azure.ai.inference", "azure_deployments": "azure.ai.openai",
              "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai", "moonshot": "moonshot_ai",
              "vertex": "gcp.vertex_ai", "vertex_ai": "gcp.vertex_ai", "watsonx": "ibm.watsonx.ai",
              "xai": "x_ai"}  # fmt: skip


class _Settled(NamedTuple):
    """A call that is over. `epoch` is what to add to `perf_counter` seconds to have UTC epoch seconds."""

    trace: Trace
    record: UsageRecord
    ended: float
    epoch: float


class Tracer:
    """Begins and records traces. Nothing it does waits for whoever receives them, and nothing it does raises.

    `spec` gives the provider of a name, as it is configured now. What the receiver does not take is
    dropped and counted; so is the newest when more calls wait than `tracing` allows.
    """

    def __init__(self, tracing: Tracing, version: str, spec: Callable[[str], ProviderSpec | None]) -> None:
        # The library logs headers it cannot read, and addresses with all they hold: we say it ourselves.
        library = logging.getLogger("opentelemetry")
        library.propagate, library.handlers = False, [logging.NullHandler()]
        from opentelemetry.exporter.otlp.proto.http import trace_exporter
        from opentelemetry.sdk.trace import TracerProvider

        self._status = _Status()
        logging.getLogger(trace_exporter.__name__).addHandler(self._status)
        # Where to, how and how many: the SDK reads all of that from the environment.
        self._exporter = trace_exporter.OTLPSpanExporter()
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._make = _spans(version, spec)
        self._tracing = tracing
        self._waiting: deque[_Settled] = deque()
        self._wake = threading.Event()
        self._stopping = self._given_up = self._failing = False
        # Counts of spans. Two for what is dropped: calls count what they are refused, under no lock.
        self._sent = self._lost = self._refused = 0
        self._in_hand: list[_Settled] = []
        self._counting = threading.Lock()  # the thread and `close` both count what is in hand: once
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def begin(self, traceparent: str | None, body: Mapping[str, Any], started: float, *, stream: bool) -> Trace | None:
        """The trace of a call that `started` then, below its caller's span; None where it is not sampled.

        `started` is in `time.perf_counter()` seconds. An unsampled call's `traceparent` is passed on as it came.
        """
        parent = noted.parent(traceparent)
        number = parent.trace if parent else random.getrandbits(128) or 1
        if self._sampler.should_sample(_context(parent), number, "").decision.name != "RECORD_AND_SAMPLE":
            return None
        return Trace(number, noted.new_span(), parent, started, noted.asked(body, stream=stream))

    def record(self, trace: Trace, record: UsageRecord) -> None:
        """Hand over a settled call. It costs a microsecond: spans are made by the thread that sends them."""
        if len(self._waiting) >= self._tracing.waiting or self._stopping:
            self._refused += 1 + len(trace.attempts)
            return
        now = time.perf_counter()
        self._waiting.append(_Settled(trace, record, now, time.time() - now))
        if len(self._waiting) >= self._tracing.batch:
            self._wake.set()

    def status(self) -> str:
        """One line for `/health/ready`: how many spans were sent, how many were not."""
        return f"{self._sent} spans sent, {self._lost + self._refused} dropped"

    def close(self) -> None:
        """Send what waits, as far as a second goes. Blocks that long at most."""
        self._stopping = True
        self._wake.set()
        self._thread.join(LAST_CHANCE)
        with self._counting:
            self._given_up = True
            self._lost += _count([*self._waiting, *self._in_hand])
            self._in_hand = []
            self._waiting.clear()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it bare
        if self._refused or self._lost:
            log.warning("Traces: %s.", self.status())

    def _run(self) -> None:
        while True:
            self._wake.wait(self._tracing.delay)
            self._wake.clear()
            stopping = self._stopping  # asked before the last look: what comes later is counted as dropped
            while batch := self._next():
                self._export(batch)
            if stopping:
                return

    def _next(self) -> list[_Settled]:
        with self._counting:
            size = min(self._tracing.batch, len(self._waiting))
            self._in_hand = [self._waiting.popleft() for _ in range(size)]
            return self._in_hand

    def _export(self, calls: list[_Settled]) -> None:
        self._status.code = None
        try:
            spans = [span for call in calls for span in self._make(call)]
            taken = self._exporter.export(spans).name == "SUCCESS"
        except Exception:
            log.exception("Traces could not be made")
            taken = False
        with self._counting:
            count = _count(self._in_hand)
            self._in_hand = []
            if taken:
                self._sent += count
            else:
                self._lost += count
        if taken is self._failing and not self._given_up:
            self._failing = not taken
            if taken:
                log.info("Traces are taken again: %s.", self.status())
            else:
                answered = f"status {self._status.code}" if self._status.code else "no answer"
                log.warning("The OTLP receiver does not take traces (%s): they are dropped until it does.", answered)


def _count(calls: list[_Settled]) -> int:
    """How many spans they are."""
    return sum(1 + len(call.trace.attempts) for call in calls)


class _Status(logging.Handler):
    """Keeps the status a receiver refused with: the exporter tells it to its log alone."""

    code: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        said = record.args if isinstance(record.args, tuple) else ()
        self.code = next((each for each in said if isinstance(each, int)), self.code)


def _context(parent: Parent | None) -> Context | None:
    """`parent` as a sampler wants to see it."""
    if parent is None:
        return None
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(_remote(parent)))


def _remote(parent: Parent) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(parent.trace, parent.span, is_remote=True, trace_flags=TraceFlags(parent.flags))


def _spans(version: str, spec: Callable[[str], ProviderSpec | None]) -> Callable[[_Settled], list[ReadableSpan]]:
    """What makes the spans of one call: the call's own first."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "promptyard"}))
    scope = InstrumentationScope("promptyard", version)
    sampled = TraceFlags(TraceFlags.SAMPLED)
    unset, failed = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

    def span(call: _Settled, name: str, number: int, **facts: Any) -> ReadableSpan:
        context = SpanContext(call.trace.id, number, is_remote=False, trace_flags=sampled)
        return ReadableSpan(name, context, resource=resource, instrumentation_scope=scope, **facts)

    def attempt(call: _Settled, number: int, one: AttemptSpan, parent: SpanContext) -> ReadableSpan:
        attributes, status = _of_attempt(call, number, one, spec(one.deployment.provider))
        begun = [] if one.first_token is None else [Event("gen_ai.first_token", None, _ns(call, one.first_token))]
        return span(
            call,
            f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}",
            one.span,
            parent=parent,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            events=begun,
            status=failed if status is None or status >= 400 else unset,
            start_time=_ns(call, one.started),
            end_time=_ns(call, call.ended if one.ended is None else one.ended),
        )

    def spans(call: _Settled) -> list[ReadableSpan]:
        trace, record = call.trace, call.record
        operation = _operation(record.task)
        own = span(
            call,
            f"{operation} {record.route}".strip(),
            trace.span,
            parent=_remote(trace.parent) if trace.parent else None,
            kind=SpanKind.SERVER,
            attributes=_of_call(call, operation, spec),
            # A refusal is a server's success: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status
            status=failed if record.status >= 500 else unset,
            start_time=_ns(call, trace.started),
            end_time=_ns(call, call.ended),
        )
        return [own, *(attempt(call, number, one, own.context) for number, one in enumerate(trace.attempts, 1))]

    return spans


def _of_call(call: _Settled, operation: str, spec: Callable[[str], ProviderSpec | None]) -> dict[str, Any]:
    """A call's attributes. Tokens stand here alone: summed over a trace's spans they count once."""
    trace, record = call.trace, call.record
    last = trace.attempts[-1] if trace.attempts else None
    found: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _provider(last, spec(last.deployment.provider)) if last else "promptyard",
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "promptyard.request_id": record.request_id,
        "promptyard.key_id": record.key_id,
        **trace.asked,
    }
    more = {
        "gen_ai.request.model": record.route,
        "gen_ai.response.model": _text(trace.model),
        "gen_ai.response.finish_reasons": tuple(filter(None, map(_text, trace.finish_reasons))),
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.response.time_to_first_chunk": record.first_token if record.stream else None,
        "error.type": record.error,
        "promptyard.deployment": record.deployment,
        "promptyard.prompt": record.prompt or None,
        "promptyard.cost_usd": record.cost / 1e9 if record.priced else None,
        "promptyard.usage_estimated": record.estimated or None,
    }
    return found | {name: value for name, value in more.items() if value not in (None, "", ())}


def _of_attempt(
    call: _Settled, number: int, one: AttemptSpan, spec: ProviderSpec | None
) -> tuple[dict[str, Any], int | None]:
    """An attempt's attributes, and the status it ended with: the call's, where nobody ended it before."""
    status, error = (one.status, one.error) if one.ended is not None else (call.record.status, call.record.error)
    parts = urlsplit((spec and spec.base_url) or "")
    found: dict[str, Any] = {
        "gen_ai.operation.name": _operation(call.record.task),
        "gen_ai.provider.name": _provider(one, spec),
        "gen_ai.request.model": one.deployment.model,
        "promptyard.deployment": one.deployment.id,
        "promptyard.attempt": number,
    }
    if parts.hostname:
        found["server.address"] = parts.hostname
        found["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    if status is not None:
        found["http.response.status_code"] = status
    if error or status is None or status >= 400:
        found["error.type"] = error or str(status or "_OTHER")
    if call.record.stream:
        found["gen_ai.request.stream"] = True
        if one.first_token is not None:
            found["gen_ai.response.time_to_first_chunk"] = one.first_token - one.started
    return found, status


def _operation(task: str) -> str:
    """The conventions' word for a task; for what they have none, the task's own."""
    return "chat" if task in _CHATS else _OPERATIONS.get(task, task.replace("/", "_"))


def _provider(attempt: AttemptSpan, spec: ProviderSpec | None) -> str:
    kind = attempt.deployment.provider if spec is None else spec.type
    if kind == "litellm":
        kind = attempt.deployment.model.partition("/")[0]
    return _PROVIDERS.get(kind, kind)


def _text(value: str | None) -> str | None:
    """An upstream's text as protobuf takes it."""
    return value[:_LONGEST].encode(errors="replace").decode() if value else None


def _ns(call: _Settled, moment: float) -> int:
    return int((moment + call.epoch) * 1e9)
