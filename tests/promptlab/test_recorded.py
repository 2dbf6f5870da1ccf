"""What MLflow's own server answered its own client, replayed against ours, on both databases.

`data/` holds exchanges recorded between the Python client and the server of MLflow 3.17.2: those of tracking,
those of the registry (its models made of files elsewhere, `s3://`, instead of a logged model), and those of traces.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

RECORDED = Path(__file__).parent / "data"
# The server's own clock.
TIMES = {"creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp"} | {
    *["creation_timestamp_ms", "last_updated_timestamp_ms"],
}
# True of that server and not of ours: we neither sign URLs for storage nor run its gateway.
OURS = {"presigned_upload_run_id_supported", "presigned_upload_model_id_supported", "features_enabled"}
# Where we do better: MLflow's server fails on an output that is noted already, telling its SQL.
BETTER = {"mlflow.log_outputs?": (200, {})}


def comparable(value: Any) -> Any:
    """`value` without what differs from run to run: clocks, random names, the order of labels, leaked SQL."""
    if isinstance(value, list):
        items = [comparable(item) for item in value]
        labels = items and all(isinstance(item, dict) and "key" in item for item in items)
        return sorted(items, key=lambda item: item["key"]) if labels and "step" not in items[0] else items
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, item in value.items():
        if name in TIMES or name in OURS:
            shown[name] = type(item).__name__
        elif name == "message":
            shown[name] = item.partition(" Error: ")[0]
        elif name not in ("sqlstate", "error_class"):
            shown[name] = comparable(item)
    return shown


def with_nan(value: Any) -> Any:
    """`value`, where MLflow's server forgot that a logged model's metric was NaN and said 0."""
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("key") == "nanm":
        return {**value, "value": "NaN"}
    return {name: with_nan(item) for name, item in value.items()}


def made(request: str, expected: dict[str, Any], got: dict[str, Any]) -> dict[str, str]:
    """What the recording calls what was just made, and what we call it."""
    if request.endswith("runs/create"):
        return {expected["run"]["info"][name]: got["run"]["info"][name] for name in ("run_id", "run_name")}
    if request.endswith("experiments/create"):
        return {expected["experiment_id"]: got["experiment_id"]} if expected["experiment_id"] == "EXPERIMENT" else {}
    if request.endswith("logged-models"):
        return {expected["model"]["info"]["model_id"]: got["model"]["info"]["model_id"]}
    if request.endswith("/assessments"):
        return {expected["assessment"]["assessment_id"]: got["assessment"]["assessment_id"]}
    return {}


def latest_first(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(metrics, key=lambda metric: str(metric["key"]))


def replay(http: httpx.Client, exchange: dict[str, Any]) -> httpx.Response:
    content = b"x" * exchange["size"] if "size" in exchange else None
    headers = {}
    if "data" in exchange:
        content = base64.b64decode(exchange["data"].removeprefix("b64:"))
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
    return http.request(
        exchange["method"],
        exchange["path"],
        params=exchange.get("params"),
        json=exchange.get("json"),
        content=content,
        headers=headers,
    )


def renamed(text: str, ours: dict[str, str]) -> str:
    for theirs, mine in ours.items():
        text = text.replace(theirs, mine)
    return text


@pytest.mark.parametrize("file", ["tier_a.jsonl", "registry.jsonl", "traces.jsonl", "logged_models.jsonl"])
def test_every_recorded_exchange_is_answered_as_mlflow_answers_it(http: httpx.Client, file: str) -> None:
    ours: dict[str, str] = {}
    for line in (RECORDED / file).read_text().splitlines():
        exchange = json.loads(renamed(line, ours))
        response = replay(http, exchange)
        where = f"{exchange['label']}: {exchange['method']} {exchange['path']}"
        status, expected = BETTER.get(exchange["label"], (exchange["status"], exchange.get("resp")))
        assert response.status_code == status, f"{where}: {response.text}"
        if not isinstance(expected, dict):
            continue
        got = response.json()
        if status == 200:
            ours |= made(exchange["path"] if exchange["method"] == "POST" else "", expected, got)
        expected = with_nan(json.loads(renamed(json.dumps(expected), ours)))
        if exchange["path"].endswith("runs/create"):
            # Ours says at once what MLflow's says on the next read.
            expected["run"].setdefault("outputs", {})
        if exchange["method"] == "POST" and exchange["path"].endswith("3.0/mlflow/traces"):
            # And so it does here, of tags that came after the spans.
            expected["trace"]["trace_info"]["tags"] |= exchange["json"]["trace"]["trace_info"]["tags"]
        for one in (expected, got):
            for run in [one.get("run"), *one.get("runs", [])]:
                if run and "metrics" in run["data"]:
                    run["data"]["metrics"] = latest_first(run["data"]["metrics"])
        assert comparable(got) == comparable(expected), where
