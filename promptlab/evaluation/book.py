"""Answers on disk, found again by what was asked: a killed evaluation goes on without paying twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from promptlab.client_calls import Answer
from promptlab.evaluation.problems import PlanInvalid

_READ = 1 << 20


def key_of(body: Mapping[str, Any], repeat: int) -> str:
    """The name of an answer: the SHA-256 of the request, in whatever order its keys are, and of which repeat it is."""
    said = json.dumps([body, repeat], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:40]


class Book:
    """A file of answers, one a line, only ever added to. In memory is where each stands, not what it says.

    Each is written with one `write(2)` once it has come, so it outlives this process; a last line that was cut
    is overwritten. One process at a time: a second one is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PlanInvalid.at(("answers",), f"'{self._path}' cannot be written: {error.strerror}.") from None
        if not _locked(self._file):
            os.close(self._file)
            raise PlanInvalid.at(
                ("answers",), f"'{self._path}' is in use by another evaluation. Wait for it, or name another file."
            )
        self._end = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Answer | None:
        """The answer of that name."""
        place = self._places.get(key)
        if place is None:
            return None
        _, answer = json.loads(os.pread(self._file, place[1], place[0]))
        return Answer.of(answer)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        line = json.dumps([key, answer.document()], ensure_ascii=False, separators=(",", ":"))
        raw = line.encode("utf-8", "surrogatepass") + b"\n"
        written = 0
        while written < len(raw):
            written += os.pwrite(self._file, raw[written:], self._end + written)
        self._places[key] = (self._end, len(raw))
        self._end += len(raw)

    def _read(self) -> int:
        """Note where each answer stands; where the last whole line ends. What is no answer of ours is passed over."""
        place, rest = 0, b""
        while piece := os.pread(self._file, _READ, place + len(rest)):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                size = len(line) + 1
                if line.startswith(b'["') and line.endswith(b"]") and line[42:44] == b'",':
                    self._places[line[2:42].decode("ascii", "replace")] = (place, size)
                place += size
        os.ftruncate(self._file, place)
        return place


def _locked(file: int) -> bool:
    """Whether the file is ours alone until this process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
