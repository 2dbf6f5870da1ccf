"""Files that runs leave behind, in a folder of this machine. The only code that turns a caller's path into ours."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter, NotFound

_SCHEME = "mlflow-artifacts"
# Unfinished uploads live beside the artifacts, so that finishing one is a rename within a file system.
_UNFINISHED = ".unfinished"
_UNFINISHED_SECONDS = 24 * 3600
_FOREIGN_ROOT = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.\-]*:/")
# What the file system refuses about a path is the caller's mistake, not ours.
_CALLERS_ERRORS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY}


class Artifacts:
    """Artifacts under `root`, addressed by relative paths with forward slashes. Safe to use from many threads."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._unfinished = self._root / _UNFINISHED
        self._unfinished.mkdir(parents=True, exist_ok=True)
        for left in self._unfinished.iterdir():
            if left.stat().st_mtime < time.time() - _UNFINISHED_SECONDS:
                left.unlink(missing_ok=True)

    def list(self, path: str) -> list[FileInfo]:
        """What the folder holds, by name; nothing for a file or what is not there. Paths are base names."""
        folder = self._locate(path)
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            found = [
                FileInfo(entry.name, None if entry.is_dir() else entry.stat().st_size)
                for entry in entries
                if not (folder == self._root and entry.name == _UNFINISHED)
            ]
        return sorted(found, key=lambda info: info.path)

    def list_below(self, folder: str, path: str) -> Sequence[FileInfo]:
        """The same of `folder`, which is called `path` where it is asked for: as paths from there."""
        base = path.rstrip("/")
        found = self.list(folder)
        return [replace(file, path=f"{base}/{file.path}") for file in found] if base else found

    def file(self, path: str) -> Path:
        """Where an artifact's bytes are. Raises `NotFound`."""
        file = self._locate(path)
        if not file.is_file():
            raise NotFound(f"No such artifact: '{path}'")
        return file

    def upload(self, path: str) -> Upload:
        """A new artifact to write to. Until it is committed readers see the old one; never a part."""
        target = self._locate(path)
        if target == self._root:
            raise InvalidParameter("Invalid path")
        return Upload(target, self._unfinished / uuid.uuid4().hex)

    def write(self, path: str, content: bytes) -> None:
        """Store a small artifact, durable when this returns."""
        upload = self.upload(path)
        try:
            upload.write(content)
            upload.commit()
        finally:
            upload.close()

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all it holds. What is not there is gone already."""
        target = self._locate(path)
        if target == self._root:
            raise InvalidParameter("Invalid path")
        with _callers_errors(path):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _locate(self, path: str) -> Path:
        parts = safe_parts(path)
        if parts[:1] == [_UNFINISHED]:
            raise InvalidParameter("Invalid path")
        with _callers_errors(path):
            located = self._root.joinpath(*parts).resolve()
            _check_holdable(located)
        if not located.is_relative_to(self._root):
            raise InvalidParameter("Invalid path")
        return located


class Upload:
    """An artifact being written. `close` without `commit` leaves nothing behind."""

    def __init__(self, target: Path, unfinished: Path) -> None:
        self._target = target
        self._unfinished = unfinished
        self._file: BinaryIO = unfinished.open("xb")

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)

    def commit(self) -> None:
        """Put the artifact in its place, at once and durably."""
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = self._target.parent
        with _callers_errors(self._target.name):
            new = [one for one in (folder, *folder.parents) if not one.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._unfinished.replace(self._target)
        # A name is durable only when the folder that holds it is.
        for holding in (folder, *(one.parent for one in new)):
            _sync_folder(holding)

    def close(self) -> None:
        """Give up what was not committed. Safe to call twice."""
        self._file.close()
        self._unfinished.unlink(missing_ok=True)


def _check_holdable(path: Path) -> None:
    # Raises for a name that the file system could never hold; that there is nothing yet is fine.
    with suppress(FileNotFoundError, NotADirectoryError):
        path.stat()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_parts(path: str) -> list[str]:
    """The names in a relative path; none for the root. Raises `InvalidParameter` for whatever could lead elsewhere.

    Names that only become dangerous when decoded once more are refused too: who sends
    `%252e%252e` hopes that somebody behind us decodes it.
    """
    form, decoded = path, unquote(path)
    while True:
        parts = form.split("/")
        if any(part == ".." for part in parts) or form.startswith("/") or "\\" in form or "\0" in form:
            raise InvalidParameter("Invalid path")
        if _FOREIGN_ROOT.match(form):
            raise InvalidParameter("Invalid path")
        if decoded == form:
            break
        form, decoded = decoded, unquote(decoded)
    parts = path.split("/")
    if parts[-1] == "":
        parts.pop()
    if any(part in ("", ".") for part in parts):
        raise InvalidParameter("Invalid path")
    return parts


def proxied_path(artifact_uri: str, path: str = "") -> str | None:
    """The path in our store of `path` below an artifact URI; None where the URI says they are kept elsewhere."""
    split = urlsplit(artifact_uri)
    if split.scheme != _SCHEME:
        return None
    base = split.path.strip("/")
    return f"{base}/{path}" if path else base


@contextmanager
def _callers_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _CALLERS_ERRORS:
            raise
        raise InvalidParameter(f"An artifact cannot be kept at '{path[:200]}'") from None
