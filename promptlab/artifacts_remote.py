"""Artifacts on any file system that fsspec knows, S3 first among them. The one door to fsspec."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs

from promptlab.entities import FileInfo
from promptlab.errors import InvalidParameter
from promptlab.ports import UNFINISHED, Direct, Part, Stored, Writing

T = TypeVar("T")

_READ_BYTES = 4 * 1024 * 1024
# S3 takes parts of 5 MiB and more, and ten thousand of them: one of 16 MiB lets a file be 160 GB.
_WRITE_BYTES = 16 * 1024 * 1024
_SIGNED_SECONDS = 3600
_MAX_NAME = 1024
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
_CALLERS_ERRORS = {
    *["NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidRequest", "MalformedXML"],
}
_S3_AT_ONCE = 1000


class RemoteFiles:
    """Files below an address such as `s3://bucket/folder`; credentials are found as its own tools find them."""

    def __init__(self, address: str) -> None:
        """Nothing is asked of the place yet. Raises `ValueError` for an address that nothing here understands."""
        try:
            # Listings are not kept: other processes write here too.
            self._files, root = url_to_fs(address, use_listings_cache=False)
        except TypeError:
            self._files, root = url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ValueError(f"Artifacts cannot be kept there: {error}") from None
        self._root = str(root).rstrip("/")
        self._is_s3 = "s3" in _protocols(self._files)

    def list(self, parts: Sequence[str]) -> Sequence[FileInfo]:
        """See `ports.Files`."""
        folder = self._at(parts)
        try:
            found = self._files.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        infos = [(str(one["name"]).rstrip("/"), one) for one in found]
        # Of a file its own entry is told; a folder's, on S3, by an empty file of its name.
        return [
            FileInfo(name.rpartition("/")[2], None if one["type"] == "directory" else int(one["size"]))
            for name, one in infos
            if name.strip("/") != folder.strip("/")
        ]

    def open(self, parts: Sequence[str]) -> Stored | None:
        """See `ports.Files`."""
        at = self._at(parts)
        try:
            info = self._files.info(at)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if info["type"] != "file":
            return None
        return Stored(parts[-1], int(info["size"]), partial(self._read, at))

    def _read(self, at: str, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            data: bytes = self._files.cat_file(at, start=start, end=min(start + _READ_BYTES, end))
            if not data:
                return
            start += len(data)
            yield data

    def create(self, parts: Sequence[str]) -> Writing:
        """See `ports.Files`."""
        at = self._at(parts)
        if max(len(part.encode()) for part in parts) > 255 or len(at.encode()) > _MAX_NAME:
            raise InvalidParameter(f"An artifact cannot be kept at '{'/'.join(parts)[:200]}'")
        if self._is_s3:
            return S3Writing(self._files.open(at, "wb", block_size=_WRITE_BYTES, autocommit=False))
        return RemoteWriting(self._files, self._at([UNFINISHED, uuid.uuid4().hex]), at)

    def delete(self, parts: Sequence[str]) -> None:
        """See `ports.Files`."""
        at = self._at(parts)
        with contextlib.suppress(FileNotFoundError):
            if self._files.isfile(at):
                self._files.rm_file(at)
            elif self._is_s3:
                self._delete_keys(self._files.find(at))
            elif any(letter in at for letter in "*?["):
                # fsspec would take the name for a pattern, and remove whatever it fits.
                for file in self._files.find(at):
                    self._files.rm_file(file)
            else:
                self._files.rm(at, recursive=True)

    def _delete_keys(self, found: Sequence[str]) -> None:
        for start in range(0, len(found), _S3_AT_ONCE):
            split = [self._files.split_path(one) for one in found[start : start + _S3_AT_ONCE]]
            objects = [{"Key": key} for _, key, _ in split]
            self._files.call_s3("delete_objects", Bucket=split[0][0], Delete={"Objects": objects, "Quiet": True})

    @property
    def direct(self) -> Direct | None:
        """S3 signs URLs; no other place here does."""
        return S3Parts(self._files, self._at) if self._is_s3 else None

    def _at(self, parts: Sequence[str]) -> str:
        if self._is_s3 and any("?versionId=" in part for part in parts):
            raise InvalidParameter("Invalid path")
        return "/".join((self._root, *parts))


class RemoteWriting:
    """A file written beside the others, and moved to its place when it is committed."""

    def __init__(self, files: fsspec.AbstractFileSystem, unfinished: str, at: str) -> None:
        self._files, self._unfinished, self._at = files, unfinished, at
        files.makedirs(unfinished.rpartition("/")[0], exist_ok=True)
        self._file = files.open(unfinished, "wb", block_size=_WRITE_BYTES)
        self._open = True

    def write(self, data: bytes) -> None:
        """See `ports.Writing`."""
        self._file.write(data)

    def commit(self) -> None:
        """See `ports.Writing`."""
        self._file.close()
        if self._files.isdir(self._at):
            raise InvalidParameter("An artifact cannot be kept where a folder is")
        self._files.makedirs(self._at.rpartition("/")[0], exist_ok=True)
        self._files.mv(self._unfinished, self._at)
        self._open = False

    def close(self) -> None:
        """See `ports.Writing`."""
        if self._open:
            self._open = False
            self._file.close()
            self._files.rm(self._unfinished)


class S3Writing:
    """A file being sent to S3, which has it once it is committed, and until then has only parts."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._open = True

    def write(self, data: bytes) -> None:
        """See `ports.Writing`."""
        self._file.write(data)

    def commit(self) -> None:
        """See `ports.Writing`."""
        self._file.close()
        self._file.commit()
        self._open = False

    def close(self) -> None:
        """See `ports.Writing`."""
        if self._open:
            self._open = False
            with contextlib.suppress(Exception):
                self._file.discard()
            self._file.closed = True


class S3Parts:
    """Parts of files that clients send to S3 themselves."""

    def __init__(self, files: Any, at: Callable[[Sequence[str]], str]) -> None:
        self._files = files
        self._at = at

    def begin(self, parts: Sequence[str], count: int) -> tuple[str, Sequence[str]]:
        """See `ports.Direct`."""
        at = self._at(parts)
        upload_id = str(self._files.call_s3("create_multipart_upload", **self._key(parts))["UploadId"])
        return upload_id, [
            str(
                self._files.url(
                    at,
                    expires=_SIGNED_SECONDS,
                    client_method="upload_part",
                    UploadId=upload_id,
                    PartNumber=number,
                )
            )
            for number in range(1, count + 1)
        ]

    def finish(self, parts: Sequence[str], upload_id: str, uploaded: Sequence[Part]) -> None:
        """See `ports.Direct`."""
        together = [{"PartNumber": one.number, "ETag": one.etag} for one in uploaded]
        self._ask(
            "complete_multipart_upload",
            **self._key(parts),
            UploadId=upload_id,
            MultipartUpload={"Parts": sorted(together, key=lambda part: part["PartNumber"])},
        )

    def abandon(self, parts: Sequence[str], upload_id: str) -> None:
        """See `ports.Direct`."""
        self._ask("abort_multipart_upload", **self._key(parts), UploadId=upload_id)

    def url(self, parts: Sequence[str]) -> str:
        """See `ports.Direct`."""
        return str(self._files.url(self._at(parts), expires=_SIGNED_SECONDS))

    def _key(self, parts: Sequence[str]) -> dict[str, str]:
        bucket, key, _ = self._files.split_path(self._at(parts))
        return {"Bucket": bucket, "Key": key}

    def _ask(self, method: str, **fields: Any) -> None:
        try:
            self._files.call_s3(method, **fields)
        except Exception as error:
            said = getattr(error.__cause__, "response", {})
            if said.get("Error", {}).get("Code") not in _CALLERS_ERRORS:
                raise
            raise InvalidParameter(f"The upload cannot be found, or its parts do not fit together: {error}") from None


def _protocols(files: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
