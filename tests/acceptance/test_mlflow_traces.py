"""The stock MLflow client and OpenTelemetry's own exporter, unmodified, keep traces with us."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.test_mlflow_client import ROUTES, SETTINGS
from tests.conftest import StartServer
from tests.services.upstream import until

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def server(start_servers: StartServer) -> str:
    """The address of a server of this module's own."""
    return start_servers(ROUTES, admin_key=None).url


@pytest.fixture(scope="module")
def mlflow(server: str) -> Iterator[Any]:
    """`mlflow`, pointed at it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        mlflow.set_tracking_uri(server)
        yield mlflow


@pytest.fixture
def experiment(mlflow: Any) -> str:
    """A new experiment, to which traces go."""
    return str(mlflow.set_experiment(uuid.uuid4().hex).experiment_id)


def last(mlflow: Any) -> Any:
    """The trace made last, once it has arrived."""
    mlflow.flush_trace_async_logging()
    return mlflow.get_trace(mlflow.get_last_active_trace_id())


def fail(mlflow: Any) -> None:
    """A span that ends badly."""
    with mlflow.start_span("bad") as span:
        span.set_attributes({"n": 1.5, "ü": {"deep": [1, None]}})
        raise ValueError("boom")


def test_functions_are_traced_and_found(mlflow: Any, experiment: str) -> None:
    @mlflow.trace(span_type="TOOL")
    def add(a: int) -> int:
        return a + 1

    @mlflow.trace
    def answer(x: int) -> int:
        mlflow.update_current_trace(tags={"team": "blue"}, metadata={"mlflow.trace.session": "s1"})
        return add(x)

    assert answer(1) == 2
    found = last(mlflow)
    assert [(one.name, one.span_type, one.inputs, one.outputs) for one in found.data.spans] == [
        ("answer", "UNKNOWN", {"x": 1}, 2),
        ("add", "TOOL", {"a": 1}, 2),
    ]
    assert (found.info.state, found.info.request_preview, found.info.response_preview) == ("OK", '{"x": 1}', "2")
    with pytest.raises(ValueError, match="boom"):
        fail(mlflow)
    bad = last(mlflow)
    assert (bad.info.state, bad.data.spans[0].events[0].name) == ("ERROR", "exception")
    assert bad.data.spans[0].attributes["ü"] == {"deep": [1, None]}

    def names(text: str | None) -> list[str]:
        traces = mlflow.search_traces(locations=[experiment], filter_string=text, return_type="list")
        return [one.info.tags["mlflow.traceName"] for one in traces]

    assert names(None) == ["bad", "answer"]
    assert names("metadata.`mlflow.trace.session` = 's1'") == ["answer"]
    assert names("span.name = 'add' AND span.type = 'TOOL'") == ["answer"]
    assert names("trace.status = 'ERROR'") == ["bad"]
    one = found.info.trace_id
    mlflow.set_trace_tag(one, "k", "v")
    assert names("tags.k = 'v'") == ["answer"]
    mlflow.delete_trace_tag(one, "k")
    assert names("tags.k = 'v'") == []
    with mlflow.start_run() as run:
        pass
    client = mlflow.MlflowClient()
    client.link_traces_to_run([one], run.info.run_id)
    assert names(f"attribute.run_id = '{run.info.run_id}'") == ["answer"]
    assert client.delete_traces(experiment, trace_ids=[one]) == 1
    assert names(None) == ["bad"]


def test_assessments_are_logged_overridden_and_removed(mlflow: Any, experiment: str) -> None:
    with mlflow.start_span("judged"):
        pass
    trace = last(mlflow).info.trace_id
    first = mlflow.log_feedback(trace_id=trace, name="good", value=True, rationale="so")
    wanted = mlflow.log_expectation(trace_id=trace, name="wanted", value={"a": [1, 2]})
    second = mlflow.override_feedback(trace_id=trace, assessment_id=first.assessment_id, value=False)

    def kept() -> list[tuple[str, Any, bool | None]]:
        return [(one.name, one.value, one.valid) for one in mlflow.get_trace(trace).info.assessments]

    assert kept() == [("good", True, False), ("wanted", {"a": [1, 2]}, None), ("good", False, True)]
    found = mlflow.search_traces(locations=[experiment], filter_string="feedback.good = 'false'", return_type="list")
    assert [one.info.trace_id for one in found] == [trace]
    mlflow.delete_assessment(trace_id=trace, assessment_id=second.assessment_id)
    changed = mlflow.entities.Feedback(name="good", value=0.5, rationale="hm")
    mlflow.update_assessment(trace_id=trace, assessment_id=first.assessment_id, assessment=changed)
    mlflow.delete_assessment(trace_id=trace, assessment_id=wanted.assessment_id)
    assert kept() == [("good", 0.5, True)]
    assert mlflow.get_assessment(trace, first.assessment_id).rationale == "hm"


def test_calls_of_a_route_are_traced(mlflow: Any, experiment: str, server: str) -> None:
    import openai

    mlflow.openai.autolog()
    try:
        with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
            client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hello there"}])
        found = last(mlflow)
    finally:
        mlflow.openai.autolog(disable=True)
    assert found.info.experiment_id == experiment
    assert (found.info.request_preview, found.info.response_preview) == ("hello there", "echo: hello there")
    assert found.info.token_usage["total_tokens"] > 0
    assert found.data.spans[0].span_type == "CHAT_MODEL"


def test_opentelemetrys_own_exporter(mlflow: Any, experiment: str, server: str) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    headers = {"x-mlflow-experiment-id": experiment}
    exporter = OTLPSpanExporter(endpoint=f"{server}/v1/traces", headers=headers, compression=Compression.Gzip)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("checkout"), tracer.start_as_current_span("pay") as inner:
        inner.set_attribute("amounts", [1, 2])
    provider.shutdown()
    [found] = mlflow.search_traces(locations=[experiment], return_type="list")
    assert [one.name for one in found.data.spans] == ["checkout", "pay"]
    assert found.data.spans[1].attributes["amounts"] == [1, 2]
    assert (found.info.state, found.info.tags["service.name"]) == ("OK", "shop")


def test_a_gateway_traces_its_calls_to_a_tracking_server(
    mlflow: Any, experiment: str, server: str, start_servers: StartServer
) -> None:
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": server,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-mlflow-experiment-id={experiment}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    gateway = start_servers(ROUTES, admin_key=None, env=told)
    asked = {"model": "fake", "messages": [{"role": "user", "content": "the secret"}]}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=asked).status_code == 200

    def arrived() -> list[Any]:
        return list(mlflow.search_traces(locations=[experiment], filter_string="status = 'OK'", return_type="list"))

    [found] = until(arrived)
    assert [one.span_type for one in found.data.spans] == ["CHAT_MODEL", "CHAT_MODEL"]
    assert found.info.token_usage["total_tokens"] == 5
    assert "secret" not in str(found.to_dict())


def test_an_evaluation_is_run_and_kept(mlflow: Any, experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else litellm, which judges would need, asks for prices on the net.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from mlflow.genai.scorers import scorer

    @scorer
    def exact(outputs: int, expectations: dict[str, int]) -> bool:
        return outputs == expectations["expected_response"]

    cases = [
        {"inputs": {"x": 1}, "expectations": {"expected_response": 2}},
        {"inputs": {"x": 5}, "expectations": {"expected_response": 7}},
    ]
    result = mlflow.genai.evaluate(data=cases, predict_fn=lambda x: x + 1, scorers=[exact])
    assert result.metrics == {"exact/mean": 0.5}
    assert mlflow.get_run(result.run_id).data.metrics == {"exact/mean": 0.5}
    found = mlflow.search_traces(locations=[experiment], run_id=result.run_id, return_type="list")
    said = sorted((one.name, one.value) for trace in found for one in trace.info.assessments)
    assert said == [("exact", False), ("exact", True), ("expected_response", 2), ("expected_response", 7)]
    right = mlflow.search_traces(locations=[experiment], filter_string="feedback.exact = 'true'", return_type="list")
    assert [trace.data.spans[0].inputs for trace in right] == [{"x": 1}]
