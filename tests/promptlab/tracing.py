"""A client of traces, and the spans it sends, for tests of what the server makes of them."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

import httpx

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
START = 1_795_439_382_344_508_276


class Client:
    """Asks the server, and requires that it answers."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.experiment = self.new_experiment()

    def new_experiment(self) -> str:
        """A new experiment."""
        made = self.http.post(f"{V2}/experiments/create", json={"name": uuid.uuid4().hex})
        return str(made.json()["experiment_id"])

    def __call__(self, method: str, path: str, prefix: str = V3, **fields: Any) -> dict[str, Any]:
        """The answer's JSON."""
        answer = self.ask(method, path, prefix, **fields)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ask(self, method: str, path: str, prefix: str = V3, **fields: Any) -> httpx.Response:
        """The whole answer."""
        if method == "GET":
            return self.http.request(method, f"{prefix}/{path}", params=fields)
        return self.http.request(method, f"{prefix}/{path}", json=fields)

    def start(self, trace_id: str, **said: Any) -> dict[str, Any]:
        """Say what a trace is."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment}}
        info = {
            "trace_id": trace_id,
            "trace_location": location,
            "request_time": "2026-11-23T13:09:42.344Z",
            "state": "OK",
        }
        return dict(self("POST", "traces", trace={"trace_info": info | said})["trace"]["trace_info"])

    def export(self, *spans: dict[str, Any], **headers: str) -> httpx.Response:
        """Send spans as OpenTelemetry's JSON."""
        body = {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": list(spans)}]}]}
        return self.http.post("/v1/traces", json=body, headers={"x-mlflow-experiment-id": self.experiment, **headers})

    def send(self, *spans: dict[str, Any], **headers: str) -> None:
        """The same, and it is taken."""
        answer = self.export(*spans, **headers)
        assert answer.status_code == 200, answer.text

    def search(self, text: str = "", **fields: Any) -> list[str]:
        """The ids of the traces that a filter finds."""
        locations = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment}}]
        found = self("POST", "traces/search", locations=locations, filter=text, **fields)
        return [trace["trace_id"] for trace in found.get("traces", [])]


def attributes(**said: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value(one)} for key, one in said.items()]


def value(one: Any) -> dict[str, Any]:
    match one:
        case bool():
            return {"boolValue": one}
        case int():
            return {"intValue": str(one)}
        case float():
            return {"doubleValue": one}
        case dict():
            return {"kvlistValue": {"values": attributes(**one)}}
        case list():
            return {"arrayValue": {"values": [value(each) for each in one]}}
        case _:
            return {"stringValue": str(one)}


def span(trace: str, name: str = "root", parent: str | None = None, took: int = 5, **said: Any) -> dict[str, Any]:
    """A span of `took` milliseconds."""
    made = {
        "traceId": trace.removeprefix("tr-"),
        "spanId": secrets.token_hex(8),
        "name": name,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + took * 1_000_000),
        "attributes": attributes(**said),
        "status": {"code": 1},
    }
    return made | ({"parentSpanId": parent} if parent else {})


def new_id() -> str:
    return f"tr-{secrets.token_hex(16)}"
