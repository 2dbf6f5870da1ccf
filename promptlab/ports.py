"""What this package asks of whoever composes it. Nothing here knows how it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from promptlab.entities import FileInfo

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection, MetaData

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a schema's history. `version` counts from 2: version 1 is what `create_all` made first."""

    version: int
    apply: Callable[[Operations], None]


class Database(Protocol):
    """A SQL database, SQLite or PostgreSQL, as the stores use it. Safe to call from any thread."""

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""

    def read(self) -> AbstractContextManager[Connection]:
        """A connection to read with, in a transaction of its own that sees every answered write."""

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result once it is durable.

        On SQLite one thread runs all writers and commits them in groups; a `work` that
        raises is rolled back alone and its error reaches its caller only.
        """

    def migrate(self, component: str, metadata: MetaData, steps: Sequence[Migration]) -> None:
        """Bring `component`'s tables to their newest version: all made at once when new, else step by step."""

    def close(self) -> None:
        """Finish what was begun and close every connection."""


# The folder, in the root of the artifacts, of uploads that have not ended; it is no caller's.
UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is there to be read. `path` is where it is on this machine, if it is."""

    name: str
    size: int
    read: Callable[[int, int], Iterator[bytes]]
    path: Path | None = None


class Writing(Protocol):
    """A file being written. Until it is committed readers see the old one, or none; never a part."""

    def write(self, data: bytes) -> None:
        """Append."""

    def commit(self) -> None:
        """Put the file in its place, at once and durably."""

    def close(self) -> None:
        """Give up what was not committed. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file that was uploaded in parts, counted from 1; `etag` is what the place called it."""

    number: int
    etag: str


class Direct(Protocol):
    """Files that clients up- and download in parts themselves, at URLs that are signed for them."""

    def begin(self, parts: Sequence[str], count: int) -> tuple[str, Sequence[str]]:
        """The id of an upload in so many parts, and where each of them goes."""

    def finish(self, parts: Sequence[str], upload_id: str, uploaded: Sequence[Part]) -> None:
        """Put the file together, at once."""

    def abandon(self, parts: Sequence[str], upload_id: str) -> None:
        """Give up what was uploaded."""

    def url(self, parts: Sequence[str]) -> str:
        """Where the file may be downloaded from, for an hour."""


class Files(Protocol):
    """Folders and files, by the names on the way to them; no names are the root. Safe to use from many threads.

    The names are safe: none is empty, `.` or `..`. What the place refuses to hold is `InvalidParameter`.
    """

    def list(self, parts: Sequence[str]) -> Sequence[FileInfo]:
        """What the folder holds, in any order; nothing for a file or what is not there. Paths are base names."""

    def open(self, parts: Sequence[str]) -> Stored | None:
        """The file, or None where there is none."""

    def create(self, parts: Sequence[str]) -> Writing:
        """A file to write to, in place of one that is there."""

    def delete(self, parts: Sequence[str]) -> None:
        """Remove the file, or the folder with all it holds. What is not there is gone already."""

    @property
    def direct(self) -> Direct | None:
        """How clients reach files without us, or None where they cannot."""
