"""An append-only journal of usage: one `write(2)` a line, so that a killed process has lost nothing it answered.

Segments `usage-<n>.jsonl` in one folder, written by one process at a time and read by others meanwhile. A line is on
its way to the disk when `append` returns (safe from `kill -9`) and on it after the next `sync` (safe from power loss).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigError

_SEGMENT_SIZE = 64 * 1024 * 1024
_READ_SIZE = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two lines: segment number and byte offset in it."""

    segment: int = 1
    offset: int = 0


class JournalReader:
    """The journal in `folder` as it is read, beside the process that writes it. `id` names it for ever."""

    #: The segment that is written, as far as this process writes one.
    _segment = 0

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.id = self._identity()

    @property
    def end(self) -> Position:
        """Behind what is written now; a line that is not whole yet may be part of that."""
        newest = max(self._segments(), default=0)
        path = self._path(newest)
        return Position(newest, path.stat().st_size) if newest and path.exists() else Position()

    def read(self, position: Position) -> tuple[list[bytes], Position]:
        """The next lines from `position` on, about a megabyte at most, and where they end. Nothing left: no lines."""
        while True:
            # Before its end is read: a segment that has a next one then is whole.
            there = self._segments()
            path = self._path(position.segment)
            data = b""
            if path.exists():
                with path.open("rb") as file:
                    if position.offset > file.seek(0, os.SEEK_END):
                        # Not the file this position was taken in: somebody cleared the folder. Read what is there.
                        position = Position(position.segment, 0)
                    file.seek(position.offset)
                    data = file.read(_READ_SIZE)
            end = data.rfind(b"\n") + 1
            if end:
                return data[: end - 1].split(b"\n"), Position(position.segment, position.offset + end)
            later = [number for number in there if number > position.segment]
            if position.segment not in there and not later and there:
                # Somebody cleared the folder, and its numbers began anew.
                later = there
            if not later:
                return [], position
            position = Position(min(later), 0)

    def forget(self, before: Position) -> None:
        """Delete the segments that lie wholly before `before`."""
        for number in self._segments():
            if number < before.segment and number != self._segment:
                self._path(number).unlink(missing_ok=True)

    def _identity(self) -> str:
        path = self._folder / "id"
        if not path.exists():
            path.write_text(secrets.token_hex(16))
        return path.read_text().strip()

    def _segments(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("usage-")) for path in self._folder.glob("usage-*.jsonl"))

    def _path(self, number: int) -> Path:
        return self._folder / f"usage-{number:08}.jsonl"


class Journal(JournalReader):
    """The journal in `folder`, held by this process until `close`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise ConfigError(
                f"Another Promptyard (process {holder or 'unknown'}) already serves the data folder "
                f"{folder.parent}. Stop it, or give this one a folder of its own with --data."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        super().__init__(folder)
        self._segment = max(self._segments(), default=1)
        self._file, self._size = self._open(self._segment)
        self._full: list[int] = []  # files of segments that are full but not yet synced

    @property
    def end(self) -> Position:
        """Behind the last line."""
        return Position(self._segment, self._size)

    def append(self, line: bytes) -> None:
        """Write one line, whole, before returning. `line` holds no newline."""
        data = line + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            # A full disk cuts a line short: take the torn part back, then say so.
            os.ftruncate(self._file, self._size)
            raise OSError(28, "No space left on the device for the journal")
        self._size += written
        if self._size >= _SEGMENT_SIZE:
            with contextlib.suppress(OSError):  # no file to be had: this segment grows on
                self._rotate()

    def sync(self) -> None:
        """Bring what was appended to the disk. Blocks. One thread at a time may call it, beside `append`."""
        while self._full:
            os.fsync(self._full[0])
            os.close(self._full.pop(0))
        os.fsync(self._file)

    def close(self) -> None:
        """Sync, and let another process have the folder."""
        self.sync()
        os.close(self._file)
        os.close(self._lock)

    def _open(self, number: int) -> tuple[int, int]:
        """The segment ready to append to, its torn last line taken off: nobody was told that it was written."""
        file = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(file).st_size
        whole = size
        while whole and os.pread(file, 1, whole - 1) != b"\n":
            whole -= 1
        if whole != size:
            os.ftruncate(file, whole)
        return file, whole

    def _rotate(self) -> None:
        opened = self._open(self._segment + 1)
        self._full.append(self._file)
        self._segment += 1
        self._file, self._size = opened
