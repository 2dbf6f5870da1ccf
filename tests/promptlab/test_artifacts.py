"""The artifact store: nothing leaves its folder, nothing is ever half there."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from promptlab.artifacts import Artifacts, proxied_path
from promptlab.artifacts_remote import RemoteFiles
from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter, NotFound, TooLarge, Unsupported

OUTSIDE = [
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc/passwd",
    "//etc/passwd",
    "%2e%2e/x",
    "%252e%252e/x",
    "%25252e%25252e%25252fx",
    "a/%2e%2e/x",
    "..%2fx",
    "%2fetc/passwd",
    "..\\x",
    "a\\..\\x",
    "%5cx",
    "C:/x",
    "c:x",
    "C%3a/x",
    "file:/etc/passwd",
    "file:///etc/passwd",
    "http://example.com/x",
    "a/./x",
    "./x",
    "a//x",
    "a\0x",
    "%00",
    ".unfinished/x",
    ".unfinished",
]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    (tmp_path / "secret").write_text("secret")
    return Artifacts(tmp_path / "root")


@pytest.fixture(params=["disk", "elsewhere"])
def anywhere(request: pytest.FixtureRequest, artifacts: Artifacts) -> Artifacts:
    """Artifacts on disk, and on a file system of fsspec's; S3 has a test of its own, over the wire."""
    return artifacts if request.param == "disk" else Artifacts(RemoteFiles(f"memory://{uuid.uuid4().hex}"))


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(artifacts: Artifacts, tmp_path: Path, path: str) -> None:
    for use in (artifacts.list, artifacts.open, artifacts.upload, artifacts.delete):
        with pytest.raises(InvalidParameter):
            use(path)
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_leads_nowhere_else(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidParameter):
        artifacts.open("link/secret")


@pytest.mark.parametrize(
    "path", ["a", "a/b.txt", "50%.txt", "a b/ü+=&?.bin", "..a/b..", "xy:z", "a/c:/d", "%zz", "a*", "x[1]", "q?"]
)
def test_names_that_are_only_unusual(anywhere: Artifacts, path: str) -> None:
    anywhere.write(path, b"1")
    assert anywhere.read(path) == b"1"
    anywhere.delete(path)
    with pytest.raises(NotFound, match="No such artifact"):
        anywhere.open(path)


def test_listing(anywhere: Artifacts) -> None:
    assert anywhere.list("") == []
    anywhere.write("run/b.txt", b"123")
    anywhere.write("run/a/x", b"")
    assert anywhere.list("") == [FileInfo("run")]
    assert anywhere.list("run") == anywhere.list("run/") == [FileInfo("a"), FileInfo("b.txt", 3)]
    assert anywhere.list("run/a") == [FileInfo("x", 0)]
    assert anywhere.list("run/b.txt") == anywhere.list("nowhere") == []


def test_an_upload_is_seen_whole_or_not_at_all(anywhere: Artifacts) -> None:
    anywhere.write("f", b"old")
    upload = anywhere.upload("f")
    upload.write(b"new")
    assert anywhere.read("f") == b"old"
    upload.commit()
    upload.close()
    assert anywhere.read("f") == b"new"


def test_an_upload_given_up_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    upload = artifacts.upload("f")
    upload.write(b"half")
    upload.close()
    upload.close()
    assert artifacts.list("") == []
    assert list((tmp_path / "root" / ".unfinished").iterdir()) == []


def test_what_a_killed_server_left_unfinished_is_swept_after_a_day(artifacts: Artifacts, tmp_path: Path) -> None:
    left = [tmp_path / "root" / ".unfinished" / name for name in ("yesterday", "now")]
    for file in left:
        file.touch()
    os.utime(left[0], times=(time.time() - 90_000,) * 2)
    Artifacts(tmp_path / "root")
    assert [file.exists() for file in left] == [False, True]


@pytest.mark.parametrize("path", ["file/below", "folder", "x" * 256, "/".join(["d" * 200] * 30)])
def test_what_a_file_system_cannot_hold_is_the_callers_mistake(artifacts: Artifacts, path: str) -> None:
    artifacts.write("file", b"")
    artifacts.write("folder/x", b"")
    with pytest.raises(InvalidParameter, match="cannot be kept"):
        artifacts.write(path, b"")


def test_deleting(anywhere: Artifacts) -> None:
    anywhere.write("run/a/x", b"1")
    anywhere.delete("run")
    anywhere.delete("run")
    assert anywhere.list("") == []
    with pytest.raises(InvalidParameter):
        anywhere.delete("")


@pytest.mark.parametrize(
    ("uri", "path", "found"),
    [
        ("mlflow-artifacts:/1/r/artifacts", "", "1/r/artifacts"),
        ("mlflow-artifacts:/1/r/artifacts", "a/b", "1/r/artifacts/a/b"),
        ("mlflow-artifacts://host:1/1/r/artifacts", "a", "1/r/artifacts/a"),
        ("s3://bucket/1/r", "a", None),
        ("/local/1/r", "a", None),
    ],
)
def test_what_a_runs_artifact_uri_means_here(uri: str, path: str, found: str | None) -> None:
    assert proxied_path(uri, path) == found


def test_no_path_leads_out_of_a_place_elsewhere() -> None:
    artifacts = Artifacts(RemoteFiles(f"memory://{uuid.uuid4().hex}"))
    for path in OUTSIDE:
        if not path.startswith(".unfinished"):
            for use in (artifacts.list, artifacts.open, artifacts.upload, artifacts.delete):
                with pytest.raises(InvalidParameter):
                    use(path)


def test_an_artifact_larger_than_allowed_is_refused_while_it_comes(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, largest=10)
    artifacts.write("f", b"x" * 10)
    with pytest.raises(TooLarge, match="10 bytes"):
        artifacts.write("f", b"x" * 11)
    assert artifacts.read("f") == b"x" * 10


def test_a_name_is_never_a_pattern(anywhere: Artifacts) -> None:
    for path in ("run/a", "run/b/c", "run/*/x"):
        anywhere.write(path, b"1")
    anywhere.delete("run/*")
    anywhere.delete("run/?")
    anywhere.delete("*")
    assert [one.path for one in anywhere.list("run") if one.path != "*"] == ["a", "b"]
    assert anywhere.list("run/*") == []


def test_a_folder_is_no_artifact(anywhere: Artifacts) -> None:
    anywhere.write("folder/x", b"1")
    with pytest.raises(InvalidParameter, match="cannot be kept"):
        anywhere.write("folder", b"1")
    assert [one.path for one in anywhere.list("")] == ["folder"]


def test_a_disk_signs_no_urls(artifacts: Artifacts) -> None:
    for use in (
        lambda: artifacts.begin_parts("f", 1),
        lambda: artifacts.finish_parts("f", "1", []),
        lambda: artifacts.abandon_parts("f", "1"),
    ):
        with pytest.raises(Unsupported, match=r"^Multipart upload is not supported for the current artifact reposito"):
            use()
    with pytest.raises(Unsupported, match=r"^Presigned download is not supported for the current artifact reposito"):
        artifacts.download_url("f")


@pytest.mark.parametrize("address", ["nothing://x", "gs://bucket"])
def test_a_place_nothing_here_understands(address: str) -> None:
    with pytest.raises(ValueError, match="Artifacts cannot be kept there"):
        RemoteFiles(address)
