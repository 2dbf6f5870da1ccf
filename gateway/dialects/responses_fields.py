"""Fields of a request or an answer of the Responses dialect, read as what they have to be."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.reading import need_text
from gateway.errors import BadRequest, UpstreamFailed

NO_WORD = "chat completions have no word for it."
_OURS = re.compile(r"(chatcmpl|resp|msg)[-_]")
# What OpenAI takes back as an id is at most 64 of these, with a beginning and an end of ours.
_NO_ID = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = 48


def kind(value: Mapping[str, Any], path: str) -> str:
    """The `type` of an object, which has to be there."""
    return need_text(value.get("type"), f"{path}.type")


def some(source: Mapping[str, Any], *names: str) -> Document:
    """Those of `names` that `source` says anything under: null is as good as absent."""
    return {name: source[name] for name in names if source.get(name) is not None}


def lose_rest(source: Mapping[str, Any], known: Collection[str], path: str, losses: Losses, why: str = NO_WORD) -> None:
    """Give to `losses` whatever `source` says beyond the `known` names."""
    for name, value in source.items():
        if name not in known and value is not None:
            losses.lose(f"{path}.{name}" if path else name, why)


@contextmanager
def from_upstream(what: str) -> Iterator[None]:
    """Reads an upstream's words: what is not as it has to be is the upstream's fault, not the caller's."""
    try:
        yield
    except BadRequest as error:
        raise UpstreamFailed(f"The provider's {what} is not one: {error.message}") from None


def tail(value: Any) -> str:
    """What ids are made of, from the id of an answer of either dialect."""
    return _NO_ID.sub("", _OURS.sub("", value, count=1))[:_LONGEST] or "0" if isinstance(value, str) else "0"
