"""Multipart forms, which transcriptions are asked in: read for their fields, and passed on byte for byte.

What an upstream would read otherwise than we do is refused: a form in which it found another model than we did would
be answered at our expense by a model its caller may not call.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway import sound
from gateway.errors import BadRequest, UnsupportedMedia
from gateway.types import Form

# It warns of every form it cannot read, without a word on whose it was: the call's own line says both.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_KIND = b"multipart/form-data"
#: More boundaries than any caller has reason for.
_MOST = 100
_TOKEN = rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
#: One way to write it, so that nobody can read it another way. https://www.rfc-editor.org/rfc/rfc7578#section-4.2
_DISPOSITION = re.compile(
    rb'form-data; *name=(?:"([^"\\\r\n]+)"|' + _TOKEN + rb")"
    rb'(?:; *filename=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|' + _TOKEN + rb"))?(?:; *filename\*=[^;\"\r\n]*)?",
    re.IGNORECASE,
)
_TRUTH = {"true": True, "false": False}


def need_form(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is no form by its own word. Raises `UnsupportedMedia`."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != _KIND:
        said = kind.decode("latin-1") or "nothing"
        raise UnsupportedMedia(f"Send Content-Type: multipart/form-data with a boundary, not {said}.")


def parse(raw: bytes, content_type: str) -> tuple[dict[str, Any], Form]:
    """The fields of the form in `raw`, and the form with the place of its model's name.

    A field given several times is a list, `stream` a truth. Of a file there are its name, type, size and hash: enough
    to tell it from another; and how many seconds it is, where it is a WAV. Raises `BadRequest`, naming the field where
    one is wrong.
    """
    body: dict[str, Any] = {}
    begin = end = 0
    for part in _parts(raw, content_type):
        name, value = part.name, part.value(raw)
        if name == "model":
            if "model" in body:
                raise BadRequest("The form has 'model' twice.", param="model", code="invalid_form")
            begin, end = part.begin, part.end
        if name in body:
            before = body[name]
            value = [*before, value] if isinstance(before, list) else [before, value]
        body[name] = value
    if isinstance(stream := body.get("stream"), str):
        body["stream"] = _TRUTH.get(stream.lower(), stream)
    return body, Form(raw, content_type, begin, end)


class _Part:
    """One part of a form: its headers, and where its bytes are."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.begin = self.end = 0
        self.name = ""
        self._file: str | None = None

    def understood(self) -> None:
        """Read its name. Raises `BadRequest` where it could be read in two ways."""
        found = [value for name, value in self.headers if name == b"content-disposition"]
        match = _DISPOSITION.fullmatch(found[0].strip()) if len(found) == 1 else None
        if match is None or any(b"\n" in value for _, value in self.headers):
            raise _invalid("has a part without one plain 'Content-Disposition: form-data; name=\"…\"'")
        name, bare, file, bare_file = match.groups()
        self.name = (name or bare).decode("utf-8", "replace")
        said = bare_file if file is None else file
        self._file = None if said is None else said.decode("utf-8", "replace")

    def value(self, raw: bytes) -> Any:
        """Its text, or what there is to know of its file."""
        data = memoryview(raw)[self.begin : self.end]
        if self._file is None:
            try:
                return str(data, "utf-8")
            except UnicodeDecodeError:
                raise BadRequest(f"'{self.name[:100]}' is not UTF-8.", param=self.name, code="invalid_form") from None
        kind = next((value for name, value in self.headers if name == b"content-type"), b"")
        told = {"filename": self._file, "type": kind.decode("latin-1"), "size": len(data)}
        seconds = sound.seconds(data)
        length = {} if seconds is None else {"seconds": seconds}
        return {**told, **length, "sha256": hashlib.sha256(data).hexdigest()}


def _parts(raw: bytes, content_type: str) -> list[_Part]:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary or content_type.lower().count("boundary=") != 1:
        raise _invalid("needs one boundary in its Content-Type")
    reader, said = _Reader(), raw.count(b"--" + boundary)
    if said > _MOST:
        raise _invalid(f"has more than {_MOST - 1} parts")
    try:
        reader.read(raw, boundary)
    except FormParserError as error:
        raise _invalid(f"cannot be read: {error}") from None
    if not reader.ended:
        raise _invalid("ends before its last boundary")
    # One that we took for content may part it in another reader's eyes.
    if said != len(reader.parts) + 1:
        raise _invalid("holds its boundary inside of a part")
    for part in reader.parts:
        part.understood()
    return reader.parts


class _Reader:
    """What python-multipart tells of one form. It is given all bytes at once: then offsets are those of the body."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._name = self._value = b""

    def read(self, raw: bytes, boundary: bytes) -> None:
        """Collect the parts. Raises `FormParserError`."""
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
        )
        parser.write(raw)

    def _begin(self) -> None:
        self.parts.append(_Part())

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name = data[start:end].lower()

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = data[start:end]

    def _on_header(self) -> None:
        self.parts[-1].headers.append((self._name, self._value))
        self._name = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.begin, part.end = part.begin or start, end

    def _on_end(self) -> None:
        self.ended = True


def _invalid(what: str) -> BadRequest:
    return BadRequest(f"The form {what}.", code="invalid_form")
