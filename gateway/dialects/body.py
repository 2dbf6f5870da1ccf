"""A request body, parsed once and exactly: what JSON cannot carry through us unchanged is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from gateway.errors import BadRequest

# Nineteen digits may not fit 64 bits, and an escaped ASCII letter may spell a key a second time. Both are rare:
# only bodies that could hold one are parsed a second time, by the parser that shows integers and pairs as written.
_LONG = b"0" * 19
_ESCAPED = re.compile(rb"\\u00[2-7]")
#: Makes every digit a zero. A regular expression for nineteen of them takes half a second for a picture of 10 MB,
#: in which everybody else waits; this and a search take a twentieth of that.
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
#: A body up to this size is soonest checked by writing it again.
_SHORT = 4096
# With more keys than any caller has reason for, searching for each costs more than the second parser.
_MANY = 64
_SPACE = b" \t\r\n"
#: How deep a body may be: orjson writes four levels more, of which a translation may add a few.
_DEPTH = 250


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises `BadRequest` for anything else, for one nested too deeply, for a repeated top-level key (which of the two
    would the upstream believe?) and for integers beyond 64 bits, which the parser would round.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(document, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    if body.count(b"[") + body.count(b"{") > _DEPTH:
        _check_depth(document)
    # `find`, since `in` first tries its left side as a number, and fails with an error that nobody sees.
    spaced = body.find(b'": ') >= 0
    if not spaced and orjson.dumps(document) == body:
        return document
    if spaced and len(body) <= _SHORT and _is_itself(body, document):
        return document
    if (
        len(document) > _MANY
        or body.translate(_ZEROS).find(_LONG) >= 0
        or (body.find(b"\\u00") >= 0 and _ESCAPED.search(body))
        or any(body.count(b'"%b"' % key.encode()) > 1 for key in document)
    ) and not _is_itself(body, document):
        _check_exactly(body)
    return document


def _is_itself(body: bytes, document: dict[str, Any]) -> bool:
    """Whether `document`, written again, is `body` but for white space: then nothing was lost, no key was there twice.

    White space inside texts is left out of the comparison too: it is no part of the structure.
    """
    return orjson.dumps(document).translate(None, _SPACE) == body.translate(None, _SPACE)


def _check_depth(document: dict[str, Any]) -> None:
    """Refuse now what could not be written in another dialect: the parser reads deeper than its writer."""
    try:
        orjson.dumps([[[[document]]]])
    except TypeError:
        raise _too_deep() from None


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is nested deeper than {_DEPTH} levels.", code="invalid_json")


def _check_exactly(body: bytes) -> None:
    outermost: list[tuple[str, Any]] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        nonlocal outermost
        outermost = items  # the outermost object is closed, and so reported, last

    try:
        json.loads(body, object_pairs_hook=pairs, parse_int=_integer)
    except RecursionError:
        raise _too_deep() from None
    seen: set[str] = set()
    for key, _ in outermost:
        if key in seen:
            raise BadRequest(f"The body has '{key[:100]}' twice.", param=key[:100], code="invalid_json")
        seen.add(key)


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise BadRequest(f"The integer {digits[:24]} does not fit 64 bits.", code="invalid_json")
    return 0
