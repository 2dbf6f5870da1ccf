"""Files that runs and models leave behind. The only code that turns a caller's path into the names of a file.

Where they are kept is a matter of `ports.Files`: a folder of this machine, or elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from promptlab.artifacts_disk import DiskFiles
from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter, NotFound, TooLarge, Unsupported
from promptlab.ports import UNFINISHED, Direct, Files, Part, Stored, Writing

# What S3 takes.
MAX_PARTS = 10_000

_SCHEME = "mlflow-artifacts"
_FOREIGN_ROOT = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.\-]*:/")


class Artifacts:
    """Artifacts, addressed by relative paths with forward slashes. Safe to use from many threads."""

    def __init__(self, root: Path | Files, largest: int | None = None) -> None:
        """They are kept in the folder `root`, which is made, or wherever those files are.

        None may be larger than `largest` bytes.
        """
        self._files: Files = DiskFiles(root) if isinstance(root, Path) else root
        self._largest = largest

    def list(self, path: str) -> Sequence[FileInfo]:
        """What the folder holds, by name; nothing for a file or what is not there. Paths are base names."""
        parts = safe_parts(path)
        found = [info for info in self._files.list(parts) if parts or info.path != UNFINISHED]
        return sorted(found, key=lambda info: info.path)

    def list_below(self, folder: str, path: str) -> Sequence[FileInfo]:
        """The same of `folder`, which is called `path` where it is asked for: as paths from there."""
        base = path.rstrip("/")
        found = self.list(folder)
        return [replace(file, path=f"{base}/{file.path}") for file in found] if base else found

    def open(self, path: str) -> Stored:
        """The artifact, to be read. Raises `NotFound`."""
        found = self._files.open(safe_parts(path))
        if found is None:
            raise NotFound(f"No such artifact: '{path}'")
        return found

    def read(self, path: str) -> bytes:
        """A small artifact, whole. Raises `NotFound`."""
        found = self.open(path)
        return b"".join(found.read(0, found.size))

    def upload(self, path: str) -> Upload:
        """A new artifact to write to. Until it is committed readers see the old one; never a part."""
        return Upload(self._files.create(_named(path)), self._largest)

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
        self._files.delete(_named(path))

    # ── in parts, beside us ──────────────────────────────────────────────────────────────────────

    def begin_parts(self, path: str, count: int) -> tuple[str, Sequence[str]]:
        """The id of an upload in so many parts, and where each of them goes. Raises `Unsupported`."""
        direct = self._direct("Multipart upload")
        if self._largest is not None:
            # How large they become nobody here would see.
            raise unsupported("Multipart upload")
        if not 1 <= count <= MAX_PARTS:
            raise InvalidParameter(f"Invalid value {count} for parameter 'num_parts': give 1 to {MAX_PARTS}.")
        return direct.begin(_named(path), count)

    def finish_parts(self, path: str, upload_id: str, uploaded: Sequence[Part]) -> None:
        """Put an artifact that was uploaded in parts together. Raises `Unsupported`."""
        direct = self._direct("Multipart upload")
        if not uploaded or not upload_id:
            raise InvalidParameter("An upload is complete with its upload_id and at least one of its parts.")
        direct.finish(_named(path), upload_id, uploaded)

    def abandon_parts(self, path: str, upload_id: str) -> None:
        """Give up an upload in parts. Raises `Unsupported`."""
        self._direct("Multipart upload").abandon(_named(path), upload_id)

    def download_url(self, path: str) -> tuple[str, int]:
        """Where an artifact may be downloaded from, and its size. Raises `Unsupported` and `NotFound`."""
        direct = self._direct("Presigned download")
        return direct.url(_named(path)), self.open(path).size

    def _direct(self, what: str) -> Direct:
        direct = self._files.direct
        if direct is None:
            raise unsupported(what)
        return direct


def unsupported(what: str) -> Unsupported:
    """The error that sends clients back to the proxy: they compare the beginning of its text."""
    return Unsupported(f"{what} is not supported for the current artifact repository")


class Upload:
    """An artifact being written, to at most so many bytes. `close` without `commit` leaves nothing behind."""

    def __init__(self, writing: Writing, largest: int | None) -> None:
        self._writing = writing
        self._largest = largest
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises `TooLarge`."""
        self._size += len(data)
        if self._largest is not None and self._size > self._largest:
            raise TooLarge(
                f"The artifact is larger than the {self._largest} bytes that this server keeps of one; "
                "its setting PROMPTYARD_MAX_ARTIFACT says so."
            )
        self._writing.write(data)

    def commit(self) -> None:
        """Put the artifact in its place, at once and durably."""
        self._writing.commit()

    def close(self) -> None:
        """Give up what was not committed. Safe to call twice."""
        self._writing.close()


def _named(path: str) -> Sequence[str]:
    parts = safe_parts(path)
    if not parts:
        raise InvalidParameter("Invalid path")
    return parts


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
    if any(part in ("", ".") for part in parts) or parts[:1] == [UNFINISHED]:
        raise InvalidParameter("Invalid path")
    return parts


def proxied_path(artifact_uri: str, path: str = "") -> str | None:
    """The path in our store of `path` below an artifact URI; None where the URI says they are kept elsewhere."""
    split = urlsplit(artifact_uri)
    if split.scheme != _SCHEME:
        return None
    base = split.path.strip("/")
    return f"{base}/{path}" if path else base
