"""Traces over HTTP, on both databases: information and spans in either order, tags, links, what is refused."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import zlib

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.promptlab.tracing import START, V2, V3, Client, attributes, new_id, span

PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def api(http: httpx.Client) -> Client:
    return Client(http)


def test_information_first_then_spans(api: Client) -> None:
    trace = new_id()
    stats = json.dumps({"total_size_bytes": 9, "num_spans": 2})
    said = api.start(
        trace,
        execution_duration="0s",
        trace_metadata={"mlflow.trace.sizeStats": stats, "m": "1"},
        tags={"mlflow.traceName": "f", "mlflow.trace.spansLocation": "elsewhere"},
        request_preview="in",
        client_request_id="mine",
    )
    location = f"mlflow-artifacts:/{api.experiment}/traces/{trace}/artifacts"
    assert said["tags"] == {"mlflow.traceName": "f", "mlflow.artifactLocation": location}
    assert said["trace_metadata"] == {
        "mlflow.trace.sizeStats": stats,
        "m": "1",
        "mlflow.trace.infoFinalized": "true",
    }
    assert (said["execution_duration"], said["request_time"]) == ("0s", "2026-11-23T13:09:42.344Z")
    assert said["trace_location"]["mlflow_experiment"] == {"experiment_id": api.experiment}
    early = api.ask("GET", "traces/get", trace_id=trace)
    assert (early.status_code, early.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "not fully exported yet" in early.text
    root = span(trace, mlflow__spanInputs={"x": 1, "deep": [True, 1.5, None]}, mlflow__spanType="TOOL")
    api.send(root)
    assert api.ask("GET", "traces/get", trace_id=trace).status_code == 404
    assert "spans" in api("GET", "traces/get", trace_id=trace, allow_partial="true")["trace"]
    assert api("GET", "traces/batchGet", trace_ids=[trace]) == {}
    api.send(span(trace, "child", root["spanId"]))
    found = api("GET", "traces/get", trace_id=trace)["trace"]
    assert found["trace_info"]["execution_duration"] == "0.005s"
    assert found["trace_info"]["tags"]["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert found["trace_info"]["request_preview"] == "in"
    assert found["trace_info"]["client_request_id"] == "mine"
    one, other = found["spans"]
    assert base64.b64decode(one["trace_id"]).hex() == trace[3:]
    assert base64.b64decode(other["parent_span_id"]).hex() == root["spanId"]
    assert (one["start_time_unix_nano"], one["status"]) == (START, {"code": "STATUS_CODE_OK"})
    said_of = {each["key"]: each["value"] for each in one["attributes"]}
    assert said_of["mlflow.traceRequestId"] == {"string_value": trace}
    deep = {"array_value": {"values": [{"bool_value": True}, {"double_value": 1.5}, {"string_value": "None"}]}}
    assert said_of["mlflow.spanInputs"]["kvlist_value"]["values"] == [
        {"key": "x", "value": {"int_value": 1}},
        {"key": "deep", "value": deep},
    ]
    assert [each["trace_info"]["trace_id"] for each in api("GET", "traces/batchGet", trace_ids=[trace])["traces"]] == [
        trace
    ]
    infos = api("POST", "traces/batchGetInfos", trace_ids=["tr-none", trace], experiment_ids=[api.experiment])
    assert [each["trace_id"] for each in infos["trace_infos"]] == [trace]


def test_spans_first_say_what_a_trace_is(api: Client) -> None:
    trace, run = new_id(), api("POST", "runs/create", V2, experiment_id=api.experiment)["run"]["info"]["run_id"]
    child = span(
        trace, "llm", "1" * 16, took=20, mlflow__chat__tokenUsage={"input_tokens": 3, "total_tokens": 3}, user__id="u"
    )
    api.send(child, **{"x-mlflow-run-id": run})
    begun = api("GET", f"traces/{trace}")["trace"]["trace_info"]
    assert (begun["state"], begun["execution_duration"]) == ("IN_PROGRESS", "0.020s")
    root = span(
        trace,
        "agent",
        took=30,
        mlflow__spanInputs={"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
        mlflow__spanOutputs={"choices": [{"message": {"role": "assistant", "content": "yes"}}]},
        mlflow__llm__cost={"input_cost": 0.25, "total_cost": 0.25},
        mlflow__traceTag__team="blue",
        session__id="s1",
    )
    root["spanId"], root["status"] = "1" * 16, {"code": 2, "message": "no"}
    again = span(trace, "same", "1" * 16, mlflow__chat__tokenUsage={"input_tokens": 2, "output_tokens": 1})
    body = {"resourceSpans": [{"resource": {"attributes": attributes(service__name="shop", telemetry__sdk__name="x")}}]}
    body["resourceSpans"][0]["scopeSpans"] = [{"spans": [root, again]}]  # type: ignore[assignment] # of JSON
    sent = api.http.post("/v1/traces", json=body, headers={"x-mlflow-experiment-id": api.experiment})
    assert (sent.status_code, sent.content) == (200, b"{}")
    found = api("GET", f"traces/{trace}")["trace"]["trace_info"]
    assert (found["state"], found["execution_duration"]) == ("ERROR", "0.030s")
    assert (found["request_preview"], found["response_preview"]) == ("hi", "yes")
    metadata = found["trace_metadata"]
    assert json.loads(metadata["mlflow.trace.tokenUsage"]) == {"input_tokens": 5, "output_tokens": 1, "total_tokens": 3}
    assert json.loads(metadata["mlflow.trace.cost"])["total_cost"] == 0.25
    assert json.loads(metadata["mlflow.trace.sizeStats"])["num_spans"] == 3
    assert (metadata["mlflow.trace.session"], metadata["mlflow.trace.user"]) == ("s1", "u")
    tags = found["tags"]
    assert {"team": "blue", "service.name": "shop", "mlflow.traceName": "agent"}.items() <= tags.items()
    assert "telemetry.sdk.name" not in tags
    assert api.search(f"run_id = '{run}'") == [trace]
    # What the trace's maker says then counts for more.
    usage = json.dumps({"input_tokens": 9})
    late = api.start(trace, execution_duration="1.5s", trace_metadata={"mlflow.trace.tokenUsage": usage})
    assert (late["state"], late["execution_duration"], late["request_preview"]) == ("OK", "1.500s", "hi")
    api.send(span(trace, "later", "1" * 16, mlflow__chat__tokenUsage={"input_tokens": 2}))
    assert api("GET", f"traces/{trace}")["trace"]["trace_info"]["trace_metadata"]["mlflow.trace.tokenUsage"] == usage


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate", "raw"])
def test_batches_come_in_protobuf_and_folded(api: Client, encoding: str) -> None:
    request, trace = ExportTraceServiceRequest(), secrets.token_bytes(16)
    sent = request.resource_spans.add().scope_spans.add().spans.add()
    sent.trace_id, sent.span_id, sent.name = trace, b"12345678", "n\0m"
    sent.start_time_unix_nano, sent.end_time_unix_nano = START, START + 7_000_000
    sent.attributes.add(key="b").value.bytes_value = b"\xff"
    sent.attributes.add(key="d").value.double_value = float("nan")
    event = sent.events.add(name="e", time_unix_nano=START)
    event.attributes.add(key="k").value.string_value = "v"
    sent.links.add(trace_id=trace, span_id=b"87654321")
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = request.SerializeToString()
    folded = {"": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}
    folded["raw"] = raw.compress(body) + raw.flush()
    headers = {**PROTOBUF, "x-mlflow-experiment-id": api.experiment}
    if encoding:
        headers["content-encoding"] = encoding.replace("raw", "deflate")
    answer = api.http.post("/v1/traces", content=folded[encoding], headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"
    found = api("GET", "traces/get", trace_id=f"tr-{trace.hex()}")["trace"]["spans"][0]
    assert found["name"] == "n\ufffdm"
    said = {each["key"]: each["value"] for each in found["attributes"]}
    assert (said["b"], said["d"]) == ({"string_value": "/w=="}, {"string_value": "nan"})
    shown = {"time_unix_nano": START, "name": "e", "attributes": [{"key": "k", "value": {"string_value": "v"}}]}
    assert found["events"] == [shown]
    assert base64.b64decode(found["links"][0]["span_id"]) == b"87654321"


def test_what_is_out_of_bounds_is_kept_as_far_as_it_goes(api: Client) -> None:
    trace, most = new_id(), 2**63 - 1
    spans = [span(trace, "s", "1" * 16, gen_ai__usage__input_tokens=most, gen_ai__usage__output_tokens=5) for _ in "ab"]
    api.send(*(one | {"status": {"code": code}, "name": ""} for one, code in zip(spans, (-1, 99), strict=True)))
    found = api("GET", "traces/get", trace_id=trace)["trace"]
    assert {one["status"]["code"] for one in found["spans"]} == {"STATUS_CODE_UNSET"}
    usage = json.loads(found["trace_info"]["trace_metadata"]["mlflow.trace.tokenUsage"])
    assert usage == {"input_tokens": most, "output_tokens": 10, "total_tokens": most}


def test_batches_that_are_refused_leave_nothing(api: Client) -> None:
    trace = new_id()
    good, headers = span(trace), {"x-mlflow-experiment-id": api.experiment}
    for bad in ({"traceId": "00" * 16}, {"spanId": ""}, {"startTimeUnixNano": str(2**63)}, {"traceId": "ab"}):
        assert api.export(good, span(trace) | bad).status_code == 422
    assert api.http.post("/v1/traces", content=b"", headers=PROTOBUF).status_code == 422
    refused: list[tuple[int, bytes, dict[str, str], str]] = [
        (400, b"\xff\xff", PROTOBUF, "no ExportTraceServiceRequest in protobuf"),
        (400, b"", PROTOBUF, "no spans found"),
        (400, b"{}", {"content-type": "text/plain"}, "Expected: application/x-protobuf or application/json"),
        (400, b"{}", {**PROTOBUF, "content-encoding": "br"}, "Expected: gzip or deflate"),
        (400, b"{}", {**PROTOBUF, "content-encoding": "gzip"}, "Failed to decompress the gzip body"),
        (413, gzip.compress(bytes(65 * 1024 * 1024)), {**PROTOBUF, "content-encoding": "gzip"}, "unfolds to more"),
        *(
            (400, body, {"content-type": "application/json"}, "Invalid OpenTelemetry format")
            for body in (
                b"[]",
                b"nonsense",
                b'{"resourceSpans": 1}',
                b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
                b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}',
                b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "x"}]}]}]}',
            )
        ),
    ]
    for status, body, more, says in refused:
        answer = api.http.post("/v1/traces", content=body, headers={**headers, **more})
        assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert api.export(good, **{"x-mlflow-experiment-id": "987654"}).status_code == 404
    assert api.export(good, **{"x-mlflow-experiment-id": "nope"}).status_code == 400
    assert api.export(good, **{"x-mlflow-run-id": "none"}).status_code == 404
    assert api.ask("GET", f"traces/{trace}").status_code == 404


def test_tags_links_and_removal(api: Client) -> None:
    traces = [new_id() for _ in range(4)]
    for number, trace in enumerate(traces):
        api.start(trace, request_time=f"2026-11-23T13:09:4{number}Z")
    one = traces[0]
    for prefix in (V2, V3):
        assert api("PATCH", f"traces/{one}/tags", prefix, key="k", value="v") == {}
        assert api("GET", f"traces/{one}")["trace"]["trace_info"]["tags"]["k"] == "v"
        assert api("DELETE", f"traces/{one}/tags", prefix, key="k") == {}
        gone = api.ask("DELETE", f"traces/{one}/tags", prefix, key="k")
        assert (gone.status_code, gone.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
        for key, text in (("mlflow.artifactLocation", "x"), ("k", "x" * 8001), ("k" * 251, "x")):
            assert api.ask("PATCH", f"traces/{one}/tags", prefix, key=key, value=text).status_code == 400
        assert api.ask("PATCH", "traces/tr-none/tags", prefix, key="k", value="x").status_code == 404
    run = api("POST", "runs/create", V2, experiment_id=api.experiment)["run"]["info"]["run_id"]
    api("POST", "traces/link-to-run", V2, trace_ids=[*traces[:2], "tr-none"], run_id=run)
    api("POST", "traces/link-to-run", V2, trace_ids=traces[:1], run_id=run)
    assert api.search(f"attributes.run_id = '{run}'") == [traces[1], traces[0]]
    assert api.ask("POST", "traces/link-to-run", V2, trace_ids=["t"] * 101, run_id=run).status_code == 400
    assert api.ask("POST", "traces/link-to-run", V2, trace_ids=traces, run_id="none").status_code == 404
    files = "/api/2.0/mlflow-artifacts/artifacts"
    kept = [f"{files}/{api.experiment}/traces/{trace}/artifacts/traces.json" for trace in traces]
    for file in kept:
        assert api.http.put(file, content=b"{}").status_code == 200
    delete = {"prefix": V2, "experiment_id": api.experiment}
    for fields in (
        {},
        {"request_ids": [one], "max_timestamp_millis": 5},
        {"request_ids": [one], "max_traces": 1},
        {"max_timestamp_millis": 5, "max_traces": 0},
    ):
        assert api.ask("POST", "traces/delete-traces", **delete, **fields).status_code == 400
    assert api("POST", "traces/delete-traces", **delete, request_ids=[traces[3], "tr-none"]) == {"traces_deleted": 1}
    newest = 1_795_439_382_000
    assert api("POST", "traces/delete-traces", **delete, max_timestamp_millis=newest, max_traces=1) == {
        "traces_deleted": 1
    }
    assert api.search() == [traces[2], traces[1]]
    assert [api.http.get(file).status_code for file in kept] == [404, 200, 200, 404]
    delete["prefix"] = V3
    assert api("POST", "traces/delete-traces", **delete, max_timestamp_millis=newest) == {"traces_deleted": 2}
    assert api.search() == []


def test_what_is_said_of_a_trace_is_checked(api: Client) -> None:
    good = {"trace_id": new_id(), "state": "OK"}
    for bad in (
        {"trace_id": "no blanks"},
        {"trace_id": "no/slash"},
        {"trace_id": ""},
        {"state": "WELL"},
        {"request_time": "yesterday"},
        {"request_time": "2026-13-23T13:09:42Z"},
        {"execution_duration": "5"},
        {"tags": {"k": 5}},
        {"tags": {"k": "x" * 8001}},
        {"tags": {"": "x"}},
        {"trace_metadata": []},
        {"request_preview": "x" * 70_000},
        {"assessments": 5},
        {"assessments": [{"assessment_name": "x"}]},
        {"trace_location": {"mlflow_experiment": {"experiment_id": "no number"}}},
    ):
        answer = api.ask("POST", "traces", trace={"trace_info": good | bad})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert api.ask("POST", "traces", trace={}).status_code == 400
    # Without a place it is of the experiment `Default`; every state may be a number.
    kept = api("POST", "traces", trace={"traceInfo": {"traceId": good["trace_id"], "state": 2}})["trace"]["trace_info"]
    assert (kept["state"], kept["trace_location"]["mlflow_experiment"]) == ("ERROR", {"experiment_id": "0"})


def test_clients_before_the_third_protocol(api: Client) -> None:
    said = {"request_metadata": [{"key": "m", "value": "1"}], "tags": [{"key": "mlflow.traceName", "value": "old"}]}
    begun = api("POST", "traces", V2, experiment_id=api.experiment, timestamp_ms="1000", **said)["trace_info"]
    trace = begun["request_id"]
    assert (begun["status"], begun["timestamp_ms"], begun["execution_time_ms"]) == ("IN_PROGRESS", 1000, 0)
    assert {"key": "mlflow.traceName", "value": "old"} in begun["tags"]
    more = {"request_metadata": [{"key": "n", "value": "2"}], "tags": [{"key": "t", "value": "u"}]}
    ended = api("PATCH", f"traces/{trace}", V2, timestamp_ms=3500, status="OK", **more)["trace_info"]
    assert (ended["status"], ended["execution_time_ms"]) == ("OK", 2500)
    assert {one["key"] for one in ended["request_metadata"]} >= {"m", "n"}
    assert api("GET", f"traces/{trace}/info", V2)["trace_info"] == ended
    asked = {"experiment_ids": [api.experiment], "filter": "tags.t = 'u'", "max_results": 1}
    assert api("GET", "traces", V2, **asked)["traces"] == [ended]
    assert api("GET", "traces", V2, experiment_ids=[api.experiment], filter="status = 'ERROR'") == {}
    assert api.ask("PATCH", "traces/none", V2, timestamp_ms=1, status="OK").status_code == 404
    assert api.ask("PATCH", f"traces/{trace}", V2, timestamp_ms=1, status="FINE").status_code == 400
    assert api.ask("POST", "traces", V2, experiment_id=api.experiment).status_code == 400
