"""Calls arrive at a real OTLP receiver as spans; a receiver that is away costs the calls nothing."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import settings
from gateway.routes import Deployment, ProviderSpec
from gateway.settings import Tracing
from gateway.telemetry import LAST_CHANCE, Tracer
from gateway.trace import Trace
from gateway.types import UsageRecord
from tests.services import otlp
from tests.services.otlp import Receiver

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{SPAN}-01"
BODY = {"model": "fast", "messages": [{"role": "user", "content": "the secret"}], "temperature": 0.5, "max_tokens": 9}
SPECS = {
    "up": ProviderSpec("up", "openai", "https://up.example/v1"),
    "mistral": ProviderSpec("mistral", "mistral", "http://127.0.0.1:8001/v1"),
    "cloud": ProviderSpec("cloud", "litellm"),
}
RECORD = UsageRecord(
    request_id="req_1", time=0.0, key_id="key_1", key_name="app", route="fast", deployment="up/gpt-4o",
    task="chat/completions", status=200, input_tokens=9, output_tokens=2, cached_tokens=3, cost=1_500_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Iterator[Receiver]:
    with otlp.running() as running:
        yield running


@pytest.fixture
def receiver(shared: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """The receiver, empty, where the environment says traces go."""
    shared.spans, shared.status, shared.requests = [], 200, 0
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", shared.url)
    return shared


@pytest.fixture
def tracers() -> Iterator[list[Tracer]]:
    started: list[Tracer] = []
    yield started
    for each in started:
        each.close()


def tracer(started: list[Tracer], delay: float = 0.01, waiting: int = 100, batch: int = 50) -> Tracer:
    started.append(Tracer(Tracing(waiting, batch, delay), "1.2.3", SPECS.get))
    return started[-1]


def begun(one: Tracer, traceparent: str | None = CALLER, stream: bool = False) -> Trace:
    trace = one.begin(traceparent, BODY, time.perf_counter(), stream=stream)
    assert trace is not None
    return trace


def record(**changes: Any) -> UsageRecord:
    return dataclasses.replace(RECORD, **changes)


def test_a_call_is_a_span_below_its_callers_and_its_attempts_below_it(
    receiver: Receiver, tracers: list[Tracer]
) -> None:
    before = time.time_ns()
    one = tracer(tracers)
    trace = begun(one)
    trace.attempt(Deployment("mistral", "large")).end(503, "upstream_error")
    good = trace.attempt(Deployment("up", "gpt-4o"))
    trace.read({"model": "gpt-4o-2026", "choices": [{"finish_reason": "stop"}]})
    one.record(trace, RECORD)

    call, failed, answered = receiver.wait(3)
    assert (call.name, call.kind, call.trace, call.parent) == ("chat fast", "SERVER", TRACE, SPAN)
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "fast",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "gpt-4o-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "promptyard.request_id": "req_1",
        "promptyard.key_id": "key_1",
        "promptyard.deployment": "up/gpt-4o",
        "promptyard.cost_usd": 0.0015,
    }
    assert not call.failed
    assert call.resource["service.name"] == "promptyard"
    assert call.resource["service.version"] == "1.2.3"

    assert (failed.name, failed.kind, failed.trace, failed.parent) == ("chat large", "CLIENT", TRACE, call.id)
    assert failed.failed
    assert failed.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "large",
        "promptyard.deployment": "mistral/large",
        "promptyard.attempt": 1,
        "server.address": "127.0.0.1",
        "server.port": 8001,
        "http.response.status_code": 503,
        "error.type": "upstream_error",
    }
    assert answered.id == f"{good.span:016x}"
    assert (answered.attributes["server.address"], answered.attributes["server.port"]) == ("up.example", 443)
    assert (answered.attributes["http.response.status_code"], answered.failed) == (200, False)
    assert before <= call.started <= failed.started <= failed.ended <= answered.started
    assert answered.started <= answered.ended == call.ended <= time.time_ns()
    assert "the secret" not in repr(receiver.spans)


def test_a_stream_tells_when_its_first_token_came(receiver: Receiver, tracers: list[Tracer]) -> None:
    one = tracer(tracers)
    trace = begun(one, stream=True)
    attempt = trace.attempt(Deployment("up", "gpt-4o"))
    attempt.first_token = time.perf_counter()
    one.record(trace, record(stream=True, first_token=0.25, status=499, error="client_closed_request"))
    call, below = receiver.wait(2)
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.response.time_to_first_chunk"] == 0.25
    [(event, moment)] = below.events
    assert event == "gen_ai.first_token"
    assert below.started <= moment <= below.ended
    assert 0 <= below.attributes["gen_ai.response.time_to_first_chunk"] < 10
    # The caller left: no fault of ours, and the attempt was broken off.
    assert (call.failed, below.failed) == (False, True)
    assert call.attributes["error.type"] == below.attributes["error.type"] == "client_closed_request"


@pytest.mark.parametrize(
    ("changes", "deployment", "name", "provider", "failed"),
    [
        ({"task": "messages"}, Deployment("up", "m"), "chat fast", "openai", False),
        ({"task": "responses"}, Deployment("up", "m"), "chat fast", "openai", False),
        ({"task": "completions"}, Deployment("up", "m"), "text_completion fast", "openai", False),
        ({"task": "embeddings"}, Deployment("up", "m"), "embeddings fast", "openai", False),
        ({"task": "audio/speech"}, Deployment("up", "m"), "audio_speech fast", "openai", False),
        ({}, Deployment("cloud", "bedrock/claude"), "chat fast", "aws.bedrock", False),
        ({}, Deployment("gone", "m"), "chat fast", "gone", False),
        ({"status": 404, "error": "model_not_found", "route": ""}, None, "chat", "promptyard", False),
        ({"status": 502, "error": "upstream_failed"}, Deployment("up", "m"), "chat fast", "openai", True),
    ],
)
def test_names_and_failures(
    receiver: Receiver,
    tracers: list[Tracer],
    changes: dict[str, Any],
    deployment: Deployment | None,
    name: str,
    provider: str,
    failed: bool,
) -> None:
    one = tracer(tracers)
    trace = begun(one, None)
    if deployment:
        trace.attempt(deployment)
    one.record(trace, record(**changes))
    call = receiver.wait(2 if deployment else 1)[0]
    assert (call.name, call.attributes["gen_ai.provider.name"], call.failed) == (name, provider, failed)
    assert call.attributes.get("error.type") == changes.get("error")
    assert call.parent == ""


def test_text_no_protobuf_can_carry_costs_no_span(receiver: Receiver, tracers: list[Tracer]) -> None:
    one = tracer(tracers)
    trace = begun(one)
    trace.model, trace.finish_reasons = "m\ud800" + "x" * 1000, ("\udfff",)
    one.record(trace, RECORD)
    [call] = receiver.wait(1)
    assert call.attributes["gen_ai.response.model"] == "m?" + "x" * 254
    assert call.attributes["gen_ai.response.finish_reasons"] == ["?"]


@pytest.mark.parametrize(
    ("sampler", "argument", "traceparent", "sampled"),
    [
        ("", "", None, True),
        ("", "", f"00-{TRACE}-{SPAN}-00", False),
        ("always_on", "", f"00-{TRACE}-{SPAN}-00", True),
        ("always_off", "", CALLER, False),
        ("traceidratio", "0", CALLER, False),
        ("parentbased_traceidratio", "0", CALLER, True),
        ("parentbased_traceidratio", "0", None, False),
        ("parentbased_traceidratio", "1", "nonsense", True),
    ],
)
def test_the_environment_says_which_calls_are_traced(
    receiver: Receiver,
    tracers: list[Tracer],
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    traceparent: str | None,
    sampled: bool,
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert (tracer(tracers).begin(traceparent, BODY, 0.0, stream=False) is not None) == sampled


def test_the_environment_names_the_service_and_carries_a_secret_nobody_logs(
    receiver: Receiver, tracers: list[Tracer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "yard-7")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret-ab,s3cret-without-a-name")
    logging.getLogger().addHandler(shown := logging.StreamHandler())
    try:
        one = tracer(tracers)
        receiver.status = 401
        one.record(begun(one), RECORD)
        receiver.wait_until(lambda: receiver.requests == 1)
        until_said(one, "0 spans sent, 1 dropped")
        receiver.status = 200
        one.record(begun(one), RECORD)
        [call] = receiver.wait(1)
        until_said(one, "1 spans sent, 1 dropped")
        one.close()
    finally:
        logging.getLogger().removeHandler(shown)
    assert call.resource["service.name"] == "yard-7"
    assert (receiver.headers["api-key"], receiver.headers[":path"]) == ("s3cret-ab", "/v1/traces")
    said = capfd.readouterr().err
    assert "The OTLP receiver does not take traces (status 401)" in said
    assert "Traces are taken again" in said or "Traces: 1 spans sent, 1 dropped." in said
    assert "s3cret" not in said


def until_said(one: Tracer, status: str) -> None:
    deadline = time.monotonic() + 10
    while one.status() != status:
        assert time.monotonic() < deadline, one.status()
        time.sleep(0.01)


def test_more_calls_than_may_wait_are_dropped_and_counted(receiver: Receiver, tracers: list[Tracer]) -> None:
    one = tracer(tracers, delay=3600, waiting=3, batch=3)
    receiver.status = 400
    trace = begun(one)
    trace.attempt(Deployment("up", "m"))
    for _ in range(3):
        one.record(trace, RECORD)
    receiver.wait_until(lambda: receiver.requests == 1)  # a whole batch does not wait for the clock
    until_said(one, "0 spans sent, 6 dropped")
    held = tracer(tracers, delay=3600, waiting=3, batch=4)
    for _ in range(5):
        held.record(trace, RECORD)
    assert held.status() == "0 spans sent, 4 dropped"


def test_what_waits_is_sent_at_the_end(receiver: Receiver, tracers: list[Tracer]) -> None:
    one = tracer(tracers, delay=3600)
    one.record(begun(one), RECORD)
    one.close()
    assert len(receiver.spans) == 1
    one.record(begun(one), RECORD)
    assert one.status() == "1 spans sent, 1 dropped"


def test_a_receiver_that_is_away_holds_up_neither_calls_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    one = Tracer(Tracing(100, 50, 3600), "1", SPECS.get)
    one.record(begun(one), RECORD)
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < LAST_CHANCE + 2
    assert one.status() == "0 spans sent, 1 dropped"


def test_a_span_given_up_at_the_end_is_counted_once_whatever_becomes_of_it(
    receiver: Receiver, tracers: list[Tracer]
) -> None:
    one = tracer(tracers)
    receiver.answers.clear()
    try:
        one.record(begun(one), RECORD)
        receiver.wait_until(lambda: receiver.requests == 1)
        one.close()
        assert one.status() == "0 spans sent, 1 dropped"
    finally:
        receiver.answers.set()
    for thread in threading.enumerate():
        if thread.name == "traces":
            thread.join(10)
    assert one.status() == "0 spans sent, 1 dropped"


PLACE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "tracing"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        (PLACE, Tracing(2048, 512, 5.0)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, Tracing(2048, 512, 5.0)),
        (PLACE | {"OTEL_SDK_DISABLED": "True"}, None),
        (PLACE | {"OTEL_SDK_DISABLED": "false"}, Tracing(2048, 512, 5.0)),
        (PLACE | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (PLACE | {"OTEL_TRACES_EXPORTER": "console, otlp"}, Tracing(2048, 512, 5.0)),
        (PLACE | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        (
            PLACE | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            Tracing(2048, 512, 5.0),
        ),
        (PLACE | {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "200"}, Tracing(100, 100, 0.2)),
        (PLACE | {"OTEL_BSP_MAX_QUEUE_SIZE": "0", "OTEL_BSP_SCHEDULE_DELAY": "x"}, Tracing(2048, 512, 5.0)),
    ],
)
def test_tracing_is_off_unless_the_environment_says_where_to(
    environment: dict[str, str], tracing: Tracing | None
) -> None:
    assert settings.tracing(environment) == tracing
