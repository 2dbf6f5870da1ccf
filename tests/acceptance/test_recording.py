"""A route that says so has its calls kept as traces in an experiment: both sides' text, tokens, cost, every attempt."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.services.gateway import ask, client, new_key
from tests.services.promptyard import Server
from tests.services.upstream import DONE, STREAM, Upstream, chat, delta, stream, until, usage_chunk, whole

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
ROUTES = """\
providers:
  up: {{type: openai_compatible, base_url: "{url}"}}
  other: {{type: openai_compatible, base_url: "{url}"}}
  fake: {{type: fake}}
routes:
  kept: {{deployments: [{{provider: up, model: m}}], fallbacks: [spare], trace: {{experiment: kept calls}}}}
  spare: {{deployments: [{{provider: other, model: n}}], trace: {{experiment: never}}}}
  cached: {{deployments: [{{provider: up, model: m}}], cache: {{ttl: 60}}, trace: {{experiment: cached calls}}}}
  gone: {{deployments: [{{provider: fake, model: m}}], trace: {{experiment: gone}}}}
  copied: {{deployments: [{{provider: fake, model: m}}], shadow: {{route: shadow, percent: 100}}}}
  shadow: {{deployments: [{{provider: fake, model: m}}], trace: {{experiment: copies}}}}
  plain: {{deployments: [{{provider: fake, model: m}}]}}
"""
PRICES = "prices: {up/m: {input: 1000, output: 2000}, other/n: {input: 1000, output: 2000}}\n"
SAID: Any = [{"role": "user", "content": "What is the secret?"}]


@pytest.fixture(scope="module")
def server(start_servers: StartServer, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that keeps traces of most of its routes."""
    home = tmp_path_factory.mktemp("kept")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES.format(url=upstream.url))
    return start_servers(home / "routes.yaml")


def traces(server: Server, experiment: str, count: int = 1) -> list[dict[str, Any]]:
    """The traces of an experiment, the newest first, once there are so many."""
    with server.client() as http:

        def found() -> list[dict[str, Any]] | None:
            said = http.get(f"{V2}/experiments/get-by-name", params={"experiment_name": experiment})
            if said.status_code == 404:
                return None
            where = {"experiment_id": said.json()["experiment"]["experiment_id"]}
            locations = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": where}]
            some = http.post(f"{V3}/traces/search", json={"locations": locations}).json().get("traces", [])
            return list(some) if len(some) >= count else None

        infos = until(found) if count else found() or []
        return [http.get(f"{V3}/traces/get", params={"trace_id": info["trace_id"]}).json()["trace"] for info in infos]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    """A span's attributes as plain values."""
    return {one["key"]: plain(one["value"]) for one in span["attributes"]}


def plain(value: Any) -> Any:
    [(kind, said)] = value.items() or [("", None)]
    if kind == "kvlist_value":
        return {one["key"]: plain(one["value"]) if one["value"] else None for one in said.get("values", [])}
    if kind == "array_value":
        return [plain(one) for one in said.get("values", [])]
    return said


def metric(server: Server, name: str) -> float:
    with server.client() as http:
        found = re.search(rf"^{name} ([\d.]+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_a_call_that_fell_back_is_kept_with_both_attempts(server: Server, upstream: Upstream) -> None:
    upstream.then(whole({"error": {"message": "no"}}, status=503), whole(chat("It is 42.")))
    key = new_key(server)
    with server.client(key["key"]) as http:
        answer = http.post("/v1/chat/completions", json={"model": "kept", "messages": SAID, "user": "ann"})
    assert answer.status_code == 200
    [trace] = traces(server, "kept calls")
    info = trace["trace_info"]
    assert info["client_request_id"] == answer.headers["x-request-id"]
    assert (info["state"], info["request_preview"], info["response_preview"]) == (
        "OK",
        "What is the secret?",
        "It is 42.",
    )
    metadata = info["trace_metadata"]
    assert metadata["mlflow.trace.tokenUsage"] == '{"input_tokens":9,"output_tokens":2,"total_tokens":11}'
    assert metadata["mlflow.trace.cost"] == '{"input_cost":0.009,"output_cost":0.004,"total_cost":0.013}'
    assert metadata["mlflow.trace.user"] == "ann"
    assert metadata["promptyard.key_id"] == key["id"]
    assert (metadata["promptyard.deployment"], metadata["promptyard.fallback"]) == ("other/n", "spare")
    call, failed, good = trace["spans"]
    assert [span["name"] for span in (call, failed, good)] == ["kept", "up/m", "other/n"]
    assert failed["parent_span_id"] == good["parent_span_id"] == call["span_id"]
    assert (failed["status"]["code"], good["status"]["code"]) == ("STATUS_CODE_ERROR", "STATUS_CODE_OK")
    said = attributes(call)
    assert said["mlflow.spanType"] == "CHAT_MODEL"
    assert said["mlflow.spanInputs"]["messages"] == SAID
    assert said["mlflow.spanOutputs"] == answer.json()
    assert key["key"] not in repr(trace)
    upstreams = [asked.header("traceparent") for asked in upstream.asked[-2:]]
    assert upstreams == [None, None]  # what we keep changes nothing of what is sent


def test_streams_are_kept_as_the_answers_they_make(server: Server, upstream: Upstream) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    upstream.then(
        stream(delta(role="assistant", tool_calls=[call]), delta(finish="tool_calls"), usage_chunk(), DONE),
        stream(*STREAM),
        stream(*STREAM[:3], None),
    )
    before = len(traces(server, "kept calls", 0))
    with client(server) as sdk:
        for _ in sdk.chat.completions.create(model="kept", messages=SAID, tools=tools, stream=True):  # type: ignore[call-overload]
            pass
    with server.client() as http:
        http.post("/v1/messages", json={"model": "kept", "max_tokens": 9, "messages": SAID, "stream": True})
        cut = http.post("/v1/chat/completions", json={"model": "kept", "messages": SAID, "stream": True})
    assert "[DONE]" not in cut.text
    broken, messages, called = traces(server, "kept calls", before + 3)[:3]
    said = attributes(called["spans"][0])
    message = said["mlflow.spanOutputs"]["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert said["mlflow.chat.tools"][0]["function"]["name"] == "look"
    [event] = called["spans"][1]["events"]
    assert event["name"] == "gen_ai.first_token"
    told = attributes(messages["spans"][0])
    assert told["mlflow.message.format"] == "anthropic"
    assert told["mlflow.spanOutputs"]["content"] == [{"type": "text", "text": "Hello"}]
    assert broken["trace_info"]["state"] == "ERROR"
    assert attributes(broken["spans"][0])["mlflow.spanOutputs"]["choices"][0]["message"]["content"] == "Hello"


def test_refusals_cache_hits_and_copies_are_kept_too(server: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat("once")))
    with server.client() as http:
        for _ in range(2):
            assert ask(http, "cached").status_code == 200
        assert http.post("/v1/embeddings", json={"model": "cached", "input": "x"}).status_code == 400
        assert ask(http, "copied").status_code == 200
    refused, hit, asked = traces(server, "cached calls", 3)
    assert [len(trace["spans"]) for trace in (refused, hit, asked)] == [1, 1, 2]
    assert refused["trace_info"]["state"] == "ERROR"
    assert refused["spans"][0]["status"]["message"] == "wrong_task"
    assert hit["trace_info"]["trace_metadata"]["promptyard.cached"] == "True"
    assert hit["trace_info"]["response_preview"] == "once"
    [copy] = traces(server, "copies")
    assert copy["trace_info"]["client_request_id"].endswith("-shadow")


def test_a_prompt_is_linked_and_finds_its_calls(server: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat("Hello Ann")))
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    tags = {"mlflow.prompt.text": "Greet {{ who }}", "_mlflow_prompt_model_config": '{"model_name": "kept"}'}
    own = [is_prompt, *({"key": key, "value": value} for key, value in tags.items())]
    with server.client() as http:
        http.post(f"{V2}/registered-models/create", json={"name": "greeting", "tags": [is_prompt]})
        version = {"name": "greeting", "source": "dummy-source", "tags": own}
        assert http.post(f"{V2}/model-versions/create", json=version).status_code == 200
        before = len(traces(server, "kept calls", 0))
        said = http.post("/v1/chat/completions", json={"model": "prompt:greeting/1", "variables": {"who": "Ann"}})
        assert said.status_code == 200, said.text
        trace = traces(server, "kept calls", before + 1)[0]
        assert attributes(trace["spans"][0])["mlflow.spanInputs"]["messages"][0]["content"] == "Greet Ann"
        assert trace["trace_info"]["trace_metadata"]["promptyard.prompt"] == "greeting/1"
        assert trace["trace_info"]["tags"]["mlflow.linkedPrompts"] == '[{"name":"greeting","version":"1"}]'
        where = trace["trace_info"]["trace_location"]
        found = http.post(
            f"{V3}/traces/search", json={"locations": [where], "filter": "attributes.prompt = 'greeting/1'"}
        )
        assert [one["trace_id"] for one in found.json()["traces"]] == [trace["trace_info"]["trace_id"]]


def test_traces_of_a_deleted_experiment_are_dropped_and_counted(server: Server) -> None:
    with server.client() as http:
        made = http.post(f"{V2}/experiments/create", json={"name": "gone"}).json()["experiment_id"]
        http.post(f"{V2}/experiments/delete", json={"experiment_id": made})
        before = metric(server, "promptyard_traces_dropped_total")
        kept = metric(server, "promptyard_traces_recorded_total")
        assert ask(http, "gone").status_code == 200
        assert ask(http, "plain").status_code == 200
        until(lambda: metric(server, "promptyard_traces_dropped_total") == before + 1)
        assert metric(server, "promptyard_traces_recorded_total") == kept


def test_workers_keep_traces_and_a_stop_loses_none(start_server: StartServer, fresh_redis: str) -> None:
    server = start_server(ROUTES.format(url="http://127.0.0.1:9"), redis_url=fresh_redis, workers=2)
    for _ in range(6):
        with server.client() as http:  # a connection each: one worker or the other has it
            assert ask(http, "copied").status_code == 200
    until(lambda: metric(server, "promptyard_traces_recorded_total") == 6)
    assert len(traces(server, "copies", 6)) == 6
