"""The stock MLflow client keeps its artifacts in S3 through us, and in parts beside us, on a real S3 server."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from tests.acceptance.test_mlflow_client import ROUTES, SETTINGS
from tests.conftest import StartServer
from tests.services import s3
from tests.services.process import wait_until
from tests.services.promptyard import Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

PROXY = "/api/2.0/mlflow-artifacts"
IN_PARTS = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1",
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 * 2**20),
    "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(5 * 2**20),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Mapping[str, str]]:
    """How the S3 server is reached. It has one bucket, `lab`."""
    with s3.running() as environment:
        bucket_of(environment)
        yield environment


@pytest.fixture(scope="module")
def server(place: Mapping[str, str], start_servers: StartServer) -> Server:
    """A server that keeps its artifacts there."""
    return start_servers(ROUTES, admin_key=None, artifacts="s3://lab/some/folder", env=place)


@pytest.fixture(scope="module")
def mlflow(server: Server) -> Iterator[Any]:
    """`mlflow`, pointed at that server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setitem(os.environ, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
        mlflow.set_tracking_uri(server.url)
        mlflow.set_experiment("s3")
        yield mlflow


def bucket_of(environment: Mapping[str, str]) -> Any:
    store = boto3.resource(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    bucket = store.Bucket("lab")
    if bucket not in store.buckets.all():
        bucket.create()
    return bucket


def keys(place: Mapping[str, str], run_id: str) -> list[str]:
    return [one.key.partition(run_id)[2] for one in bucket_of(place).objects.all() if run_id in one.key]


def test_artifacts_go_to_s3_and_come_back(mlflow: Any, place: Mapping[str, str], tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(1000) * 20_000)  # more than one part of what we send on
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(large), "deep/folder")
        mlflow.log_text("first", "a b/ü+=&[1]*.txt")
        mlflow.log_text("second", "a b/ü+=&[1]*.txt")
        model = mlflow.pyfunc.log_model(name="model", python_model=lambda model_input: model_input, pip_requirements=[])
    run_id = run.info.run_id
    assert sorted(keys(place, run_id)) == ["/artifacts/a b/ü+=&[1]*.txt", "/artifacts/deep/folder/large.bin"]
    client = mlflow.MlflowClient()
    assert [(one.path, one.is_dir) for one in client.list_artifacts(run_id)] == [("a b", True), ("deep", True)]
    assert [one.file_size for one in client.list_artifacts(run_id, "deep/folder")] == [20_000_000]
    down = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="", dst_path=str(tmp_path / "down"))
    assert (Path(down) / "deep/folder/large.bin").read_bytes() == large.read_bytes()
    assert (Path(down) / "a b/ü+=&[1]*.txt").read_text() == "second"
    assert mlflow.pyfunc.load_model(model.model_uri).predict([1]) == [1]


def test_artifacts_go_up_and_down_in_parts_beside_us(
    mlflow: Any, place: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(1000) * 12_000)
    for name, value in IN_PARTS.items():
        monkeypatch.setenv(name, value)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(large), "models")
    (stored,) = [one for one in bucket_of(place).objects.all() if run.info.run_id in one.key]
    # An ETag with a number of parts: S3 put it together from three.
    assert stored.e_tag.strip('"').endswith("-3")
    down = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="models", dst_path=str(tmp_path))
    assert (Path(down) / "large.bin").read_bytes() == large.read_bytes()


def test_what_the_proxy_serves_from_s3_is_safe_and_in_part(server: Server, place: Mapping[str, str]) -> None:
    name = f"{uuid.uuid4().hex}/page.html"
    with server.client() as http:
        assert http.put(f"{PROXY}/artifacts/{name}", content=b"<script>0123456789").status_code == 200
        whole = http.get(f"{PROXY}/artifacts/{name}")
        assert whole.content == b"<script>0123456789"
        assert whole.headers["content-disposition"] == "attachment; filename*=utf-8''page.html"
        assert whole.headers["content-security-policy"] == "sandbox"
        assert whole.headers["x-content-type-options"] == "nosniff"
        part = http.get(f"{PROXY}/artifacts/{name}", headers={"range": "bytes=8-11"})
        assert (part.status_code, part.content) == (206, b"0123")
        assert part.headers["content-range"] == "bytes 8-11/18"
        assert http.get(f"{PROXY}/artifacts/{name}", headers={"range": "bytes=99-"}).status_code == 200
        assert http.head(f"{PROXY}/artifacts/{name}").status_code in (200, 405)
        folder = name.partition("/")[0]
        assert http.get(f"{PROXY}/artifacts", params={"path": name}).json() == {}
        assert http.get(f"{PROXY}/artifacts/{folder}").status_code == 404
        assert http.delete(f"{PROXY}/artifacts/{folder}").status_code == 200
        assert http.get(f"{PROXY}/artifacts/{name}").status_code == 404
        assert http.get(f"{PROXY}/artifacts", params={"path": folder}).json() == {}
        assert http.delete(f"{PROXY}/artifacts/{folder}").status_code == 200
        for bad in ("%2e%2e/x", "a/%2e%2e/%2e%2e/x", "s3:%2F%2Flab/x", "x" * 256):
            for verb in ("PUT", "DELETE") if bad != "x" * 256 else ("PUT",):
                answer = http.request(verb, f"{PROXY}/artifacts/{bad}", content=b"1")
                assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), bad
        begun = http.post(f"{PROXY}/mpu/create/x", json={"path": "f", "num_parts": 1}).json()["upload_id"]
        for asked in ({"parts": [{"part_number": 1, "etag": "x"}]}, {"parts": []}):
            complete = http.post(f"{PROXY}/mpu/complete/x", json={"path": "f", "upload_id": begun, **asked})
            assert (complete.status_code, complete.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert http.post(f"{PROXY}/mpu/abort/x", json={"path": "f", "upload_id": begun}).status_code == 200
        assert http.post(f"{PROXY}/mpu/abort/x", json={"path": "f", "upload_id": "no"}).status_code == 400
        assert http.post(f"{PROXY}/mpu/create/x", json={"path": "f", "num_parts": 0}).status_code == 400
        assert http.get(f"{PROXY}/presigned/none").status_code == 404
        for place_of in ("mpu/create", "mpu/complete", "mpu/abort"):
            asked = {"path": "f", "upload_id": "1", "parts": [{"part_number": 1}]}
            assert http.post(f"{PROXY}/{place_of}/%2e%2e/x", json=asked).status_code == 400


def test_an_upload_that_breaks_off_leaves_nothing(server: Server, place: Mapping[str, str]) -> None:
    name = uuid.uuid4().hex

    def breaking() -> Iterator[bytes]:
        yield b"x" * (20 * 2**20)
        raise ConnectionError("the client is gone")

    with server.client() as http, pytest.raises((ConnectionError, httpx.TransportError)):
        http.put(f"{PROXY}/artifacts/{name}", content=breaking())
    with server.client() as http:
        assert http.get(f"{PROXY}/artifacts/{name}").status_code == 404
    bucket = bucket_of(place)
    assert [one.key for one in bucket.objects.all() if name in one.key] == []

    def given_up() -> bool:
        uploads = bucket.meta.client.list_multipart_uploads(Bucket="lab").get("Uploads", [])
        return not [one for one in uploads if name in one["Key"]]

    assert wait_until(given_up, server.process, 10)
