"""Artifacts in a folder of this machine."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter
from promptlab.ports import UNFINISHED, Stored

_UNFINISHED_SECONDS = 24 * 3600
_READ_BYTES = 1024 * 1024
# What the file system refuses about a path is the caller's mistake, not ours.
_CALLERS_ERRORS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY}


class DiskFiles:
    """Files under `root`, which is made; what a killed server left unfinished is swept after a day."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        # Beside the artifacts, so that finishing one is a rename within a file system.
        self._unfinished = self._root / UNFINISHED
        self._unfinished.mkdir(parents=True, exist_ok=True)
        for left in self._unfinished.iterdir():
            if left.stat().st_mtime < time.time() - _UNFINISHED_SECONDS:
                left.unlink(missing_ok=True)

    def list(self, parts: Sequence[str]) -> Sequence[FileInfo]:
        """See `ports.Files`."""
        folder = self._locate(parts)
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return [FileInfo(entry.name, None if entry.is_dir() else entry.stat().st_size) for entry in entries]

    def open(self, parts: Sequence[str]) -> Stored | None:
        """See `ports.Files`."""
        file = self._locate(parts)
        if not file.is_file():
            return None
        return Stored(file.name, file.stat().st_size, partial(_read, file), file)

    def create(self, parts: Sequence[str]) -> DiskWriting:
        """See `ports.Files`."""
        return DiskWriting(self._locate(parts), self._unfinished / uuid.uuid4().hex)

    def delete(self, parts: Sequence[str]) -> None:
        """See `ports.Files`."""
        target = self._locate(parts)
        with _callers_errors("/".join(parts)):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    @property
    def direct(self) -> None:
        """Nobody reaches this machine's disk but through us."""

    def _locate(self, parts: Sequence[str]) -> Path:
        with _callers_errors("/".join(parts)):
            located = self._root.joinpath(*parts).resolve()
            _check_holdable(located)
        if not located.is_relative_to(self._root):
            raise InvalidParameter("Invalid path")
        return located


def _read(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        while start < end and (data := opened.read(min(_READ_BYTES, end - start))):
            start += len(data)
            yield data


class DiskWriting:
    """A file being written. `close` without `commit` leaves nothing behind."""

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


@contextmanager
def _callers_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _CALLERS_ERRORS:
            raise
        raise InvalidParameter(f"An artifact cannot be kept at '{path[:200]}'") from None
