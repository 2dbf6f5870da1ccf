"""The artifact store: nothing leaves its folder, nothing is ever half there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from promptlab.artifacts import Artifacts, proxied_path
from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter, NotFound

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


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(artifacts: Artifacts, tmp_path: Path, path: str) -> None:
    for use in (artifacts.list, artifacts.file, artifacts.upload, artifacts.delete):
        with pytest.raises(InvalidParameter):
            use(path)
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_leads_nowhere_else(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidParameter):
        artifacts.file("link/secret")


@pytest.mark.parametrize("path", ["a", "a/b.txt", "50%.txt", "a b/ü+=&?.bin", "..a/b..", "xy:z", "a/c:/d", "%zz"])
def test_names_that_are_only_unusual(artifacts: Artifacts, path: str) -> None:
    artifacts.write(path, b"1")
    assert artifacts.file(path).read_bytes() == b"1"
    artifacts.delete(path)
    with pytest.raises(NotFound, match="No such artifact"):
        artifacts.file(path)


def test_listing(artifacts: Artifacts) -> None:
    assert artifacts.list("") == []
    artifacts.write("run/b.txt", b"123")
    artifacts.write("run/a/x", b"")
    assert artifacts.list("") == [FileInfo("run")]
    assert artifacts.list("run") == artifacts.list("run/") == [FileInfo("a"), FileInfo("b.txt", 3)]
    assert artifacts.list("run/a") == [FileInfo("x", 0)]
    assert artifacts.list("run/b.txt") == artifacts.list("nowhere") == []


def test_an_upload_is_seen_whole_or_not_at_all(artifacts: Artifacts) -> None:
    artifacts.write("f", b"old")
    upload = artifacts.upload("f")
    upload.write(b"new")
    assert artifacts.file("f").read_bytes() == b"old"
    upload.commit()
    upload.close()
    assert artifacts.file("f").read_bytes() == b"new"


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


def test_deleting(artifacts: Artifacts) -> None:
    artifacts.write("run/a/x", b"1")
    artifacts.delete("run")
    artifacts.delete("run")
    assert artifacts.list("") == []
    with pytest.raises(InvalidParameter):
        artifacts.delete("")


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
