"""Artifacts over HTTP: up, down, in part, back from the web UI, and never outside, on both databases."""

from __future__ import annotations

import socket
import tracemalloc
from urllib.parse import urlsplit

import httpx
import pytest

from tests.promptlab.test_api import EXPERIMENTS, RUNS, new_run, post

PROXY = "/api/2.0/mlflow-artifacts/artifacts"


def test_an_artifact_goes_up_and_comes_down(http: httpx.Client) -> None:
    run = new_run(http)
    target = f"{PROXY}/0/{run}/artifacts/page/index.html"
    sent = http.put(target, content=b"<script>1</script>")
    assert (sent.status_code, sent.content) == (200, b"")
    for path in (
        target,
        f"/get-artifact?run_id={run}&path=page/index.html",
        f"/get-artifact?run_uuid={run}&path=page%2Findex.html",
    ):
        got = http.get(path)
        assert got.content == b"<script>1</script>"
        assert got.headers["content-disposition"] == 'attachment; filename="index.html"'
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-security-policy"] == "sandbox"
    listed = http.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": "page"}).json()
    assert listed == {
        "root_uri": f"mlflow-artifacts:/0/{run}/artifacts",
        "files": [{"path": "page/index.html", "is_dir": False, "file_size": 18}],
    }
    assert http.get(PROXY, params={"path": f"0/{run}/artifacts"}).json() == {
        "files": [{"path": "page", "is_dir": True}]
    }
    assert http.get(PROXY, params={"path": f"0/{run}/artifacts/page/index.html"}).json() == {}
    assert http.delete(target).json() == {}
    missing = http.get(target)
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=8-", 206, b"89"),
        ("bytes=99-", 200, b"0123456789"),
        ("bytes=-3", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=x", 200, b"0123456789"),
    ],
)
def test_a_part_of_an_artifact(http: httpx.Client, asked: str, status: int, content: bytes) -> None:
    http.put(f"{PROXY}/part.bin", content=b"0123456789")
    got = http.get(f"{PROXY}/part.bin", headers={"range": asked})
    assert (got.status_code, got.content) == (status, content)


def test_an_artifact_larger_than_memory_should_be_streams_through(http: httpx.Client) -> None:
    size = 48 * 1024 * 1024
    block = bytes(range(256)) * 256
    tracemalloc.start()
    try:
        http.put(f"{PROXY}/large", content=(block for _ in range(size // len(block))))
        with http.stream("GET", f"{PROXY}/large") as down:
            got = sum(len(chunk) for chunk in down.iter_bytes() if chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == size
    assert peak < size / 4


def test_a_disk_sends_clients_back_to_the_proxy(http: httpx.Client) -> None:
    uploading = {"path": "/home/me/f.bin", "num_parts": 2, "upload_id": "1", "parts": [{"part_number": 1}]}
    for name in ("create", "complete", "abort"):
        for place in ("", "/0/x/artifacts"):
            response = http.post(f"/api/2.0/mlflow-artifacts/mpu/{name}{place}", json=uploading)
            assert response.status_code == 501
            assert response.json() == {
                "error_code": "NOT_IMPLEMENTED",
                "message": "Multipart upload is not supported for the current artifact repository",
            }
    response = http.get("/api/2.0/mlflow-artifacts/presigned/0/x/artifacts/f.bin")
    assert response.status_code == 501
    assert response.json()["message"] == "Presigned download is not supported for the current artifact repository"


def test_a_table_is_written_back(http: httpx.Client) -> None:
    run = new_run(http)
    place = {"run_uuid": run, "path": "eval/table.json"}
    upload = "/ajax-api/2.0/mlflow/upload-artifact"
    assert http.post(upload, params=place, content=b"[1]").status_code == 200
    assert http.get("/get-artifact", params=place).content == b"[1]"
    for params, content, status, says in (
        ({"path": "x"}, b"1", 400, "Missing value for required parameter 'run_id'."),
        ({"run_uuid": run}, b"1", 400, "Missing value for required parameter 'path'."),
        (place, b"", 400, "Request must specify data."),
        ({**place, "path": "../x"}, b"1", 400, "Invalid path"),
        (place, b"1" * (10 * 1024 * 1024 + 1), 413, "larger than 10485760 bytes"),
        ({**place, "run_uuid": "0" * 32}, b"1", 404, "not found"),
    ):
        response = http.post(upload, params=params, content=content)
        assert response.status_code == status, response.text
        assert says in response.json()["message"]


def test_a_large_body_for_a_path_that_cannot_be_is_read_to_its_end(http: httpx.Client) -> None:
    # MLflow's client reads no answer before it has sent everything, and would begin again if it were cut off.
    for path in ("a/../../x", "x" * 256):
        sent = []
        blocks = (sent.append(1) or b"x" * 1_000_000 for _ in range(30))
        assert http.put(f"{PROXY}/{path.replace('../', '%2e%2e/')}", content=blocks).status_code == 400
        assert len(sent) == 30


def raw_request(server: str, line: str) -> bytes:
    target = urlsplit(server)
    with socket.create_connection((target.hostname or "", target.port or 0)) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["../x", "%2e%2e/x", "..%2fx", "%252e%252e%252fx", "a/%2e%2e/%2e%2e/x", "%2fetc/passwd", "a%5c..%5cx", "%00"],
)
def test_no_encoding_of_a_path_leads_outside(server: str, verb: str, path: str) -> None:
    # By hand: a well-behaved client would resolve the dots itself.
    answer = raw_request(server, f"{verb} {PROXY}/{path}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error_code":"INVALID_PARAMETER_VALUE","message":"Invalid path"}' in answer


def test_artifacts_kept_elsewhere_are_not_ours_to_serve(http: httpx.Client) -> None:
    made = post(http, f"{EXPERIMENTS}/create", name="elsewhere", artifact_location="s3://bucket/x")["experiment_id"]
    info = post(http, f"{RUNS}/create", experiment_id=made)["run"]["info"]
    assert info["artifact_uri"] == f"s3://bucket/x/{info['run_id']}/artifacts"
    response = http.get("/get-artifact", params={"run_id": info["run_id"], "path": "x"})
    assert response.status_code == 400
    assert "which this server does not serve" in response.json()["message"]
