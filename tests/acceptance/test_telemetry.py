"""The whole server tells an OTLP receiver of its calls, its callers where time went, and `/openapi.json` of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.conftest import StartServer
from tests.services import otlp
from tests.services import upstream as stand_in
from tests.services.otlp import Receiver
from tests.services.promptyard import Server
from tests.services.upstream import Upstream

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASK = {"model": "chat", "messages": [{"role": "user", "content": "the secret"}], "temperature": 0.5}
ROUTES = """\
providers:
  first: {{type: openai_compatible, base_url: "{url}"}}
  second: {{type: openai_compatible, base_url: "{url}"}}
routes:
  chat:
    deployments: [{{provider: first, model: one}}]
    fallbacks: [spare]
  spare:
    deployments: [{{provider: second, model: two}}]
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with stand_in.running() as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[Receiver]:
    with otlp.running() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, shared: Receiver) -> Iterator[Server]:
    servers = StartServer(lambda: tmp_path_factory.mktemp("traced"))
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": shared.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    try:
        yield servers(ROUTES.format(url=upstream.url), env=env)
    finally:
        servers.stop()


@pytest.fixture
def receiver(shared: Receiver) -> Receiver:
    shared.spans = []
    return shared


def test_a_call_that_fell_back_is_one_trace_and_upstreams_hang_below_their_attempts(
    traced: Server, upstream: Upstream, receiver: Receiver
) -> None:
    upstream.then(stand_in.whole({"error": {"message": "no"}}, status=503), stand_in.whole(stand_in.chat()))
    with traced.client() as client:
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        answer = client.post("/v1/chat/completions", json=ASK, headers=header)
    call, failed, good = receiver.wait(3)
    assert (call.name, call.kind, call.trace, call.parent) == ("chat chat", "SERVER", TRACE, SPAN)
    assert call.attributes["promptyard.request_id"] == answer.headers["x-request-id"]
    assert call.attributes["promptyard.key_id"] == "admin"
    assert call.attributes["gen_ai.response.model"] == "up"
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert call.attributes["gen_ai.request.temperature"] == 0.5
    tokens = [call.attributes[f"gen_ai.usage.{side}_tokens"] for side in ("input", "output")]
    assert tokens == [9, 2]
    assert [one.attributes["promptyard.deployment"] for one in (failed, good)] == ["first/one", "second/two"]
    assert [one.attributes["http.response.status_code"] for one in (failed, good)] == [503, 200]
    assert [one.attributes["server.port"] for one in (failed, good)] == [upstream.port] * 2
    assert [one.parent for one in (failed, good)] == [call.id] * 2
    assert [asked.header("traceparent") for asked in upstream.asked] == [
        f"00-{TRACE}-{one.id}-01" for one in (failed, good)
    ]
    assert call.started <= failed.started <= failed.ended <= good.started <= good.ended <= call.ended
    assert "the secret" not in repr(receiver.spans)
    assert "Hello" not in repr(receiver.spans)


def test_a_stream_is_one_span_from_its_request_to_its_end(
    traced: Server, upstream: Upstream, receiver: Receiver
) -> None:
    upstream.then(stand_in.stream(*stand_in.STREAM[:2], 0.2, *stand_in.STREAM[2:]))
    with OpenAI(base_url=f"{traced.url}/v1", api_key=traced.admin_key) as client:
        for _ in client.chat.completions.create(**ASK, stream=True):  # type: ignore[call-overload]
            pass
    call, attempt = receiver.wait(2)
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.usage.output_tokens"] == 2
    [(name, moment)] = attempt.events
    assert name == "gen_ai.first_token"
    assert attempt.started <= moment <= attempt.ended - 100_000_000


def test_a_refused_call_is_told_without_the_name_its_caller_made_up(traced: Server, receiver: Receiver) -> None:
    with traced.client() as client:
        assert client.post("/v1/chat/completions", json={**ASK, "model": "made-up"}).status_code == 404
    [call] = receiver.wait(1)
    assert (call.name, call.failed, call.attributes["error.type"]) == ("chat", False, "model_not_found")
    assert "made-up" not in repr(call)


def test_a_call_its_caller_did_not_sample_passes_as_if_nobody_traced(
    traced: Server, upstream: Upstream, receiver: Receiver
) -> None:
    upstream.then(stand_in.whole(stand_in.chat()))
    header = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    with traced.client() as client:
        client.post("/v1/chat/completions", json=ASK, headers=header)
        assert upstream.last.header("traceparent") == header["traceparent"]
        client.post("/v1/chat/completions", json=ASK)
    spans = receiver.wait(2)
    assert TRACE not in {span.trace for span in spans}


def test_what_waits_is_sent_when_the_server_stops(
    start_server: StartServer, upstream: Upstream, receiver: Receiver, tmp_path: Path
) -> None:
    upstream.then(stand_in.whole(stand_in.chat()))
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_SERVICE_NAME": "yard-7"}
    env["OTEL_EXPORTER_OTLP_HEADERS"] = "api-key=s3cret"
    server = start_server(ROUTES.format(url=upstream.url), env=env)
    with server.client() as client:
        client.post("/v1/chat/completions", json=ASK)
    assert receiver.spans == []
    server.stop()
    assert receiver.wait(2)[0].resource["service.name"] == "yard-7"
    assert receiver.headers["api-key"] == "s3cret"
    assert "s3cret" not in server.stdout() + server.stderr()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_says_where_its_time_went(traced: Server, upstream: Upstream, stream: bool) -> None:
    events = [0.2, *stand_in.STREAM[:2], 0.3, *stand_in.STREAM[2:]]
    whole = stand_in.whole(stand_in.chat())

    async def slow(asked: stand_in.Asked, peer: stand_in.Peer) -> None:
        await stand_in.asyncio.sleep(0.2)
        await whole(asked, peer)

    upstream.then(stand_in.stream(*events) if stream else slow)
    with traced.client() as client:
        answer = client.post("/v1/chat/completions", json={**ASK, "stream": stream})
    told = re.findall(r"(\w+);dur=(-?[\d.]+)", answer.headers["server-timing"])
    assert [name for name, _ in told] == ["auth", "limit", "route", "upstream", "own"]
    times = {name: float(value) for name, value in told}
    assert all(value >= 0 for value in times.values())
    assert times["upstream"] >= 200
    assert times["own"] >= times["auth"] + times["limit"] + times["route"] - 0.03  # rounded to hundredths
    assert times["own"] < times["upstream"] + 1000  # what a stream's later chunks take is nobody's


def test_every_path_described_is_answered(server: Server) -> None:
    server.wait_ready()
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        for path, verbs in client.get("/openapi.json").json()["paths"].items():
            if path.startswith("/admin/"):
                continue
            for verb in verbs:
                answer = client.request(verb, re.sub(r"{\w+}", "fake", path), json={} if verb == "post" else None)
                assert "There is no" not in answer.text, path
                assert answer.status_code in (200, 400, 415), (path, answer.text)
