"""What the streams of plain tasks say: events of images, speech and transcriptions, or bytes that are no events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import sse
from gateway.dialects.chat_tally import read_usage
from gateway.dialects.sse import Tally
from gateway.errors import UpstreamFailed
from gateway.money import Tokens

#: How the `type` of an event ends that says an image, a speech or a text is complete.
_LAST = (".done", ".completed")


class EventsTally(Tally):
    """Reads events named by their `type`, as `transcript.text.delta` and `image_generation.completed`.

    https://platform.openai.com/docs/api-reference/images-streaming
    """

    __slots__ = ()

    def _note(self, document: dict[str, Any]) -> bool:
        kind = document.get("type")
        if document.get("error") or kind == "error":
            raise UpstreamFailed(f"The provider broke its stream off: {sse.said(document.get('error') or document)}")
        if isinstance(kind, str) and kind.endswith(_LAST):
            self.finished = True
        self.usage = read_tokens(document) or self.usage
        return False


class BytesTally(Tally):
    """Passes bytes on as they come. They say nothing of tokens, and are complete where the upstream says so."""

    __slots__ = ()

    def _note(self, document: dict[str, Any]) -> bool:
        return False

    def feed(self, chunk: bytes) -> bytes:
        """The same bytes (`Tally.feed`)."""
        self.begun = self.begun or bool(chunk)
        return chunk

    def close(self) -> bytes:
        """Nothing more (`Tally.close`): a body cut short was an error of the connection's already."""
        self.finished = True
        return b""


def read_tokens(document: Mapping[str, Any]) -> Tokens | None:
    """The tokens an answer states: in OpenAI's `usage` under either of its names for them, or in Cohere's `meta`.

    Rerankers state the total alone, all of it input. None where what is stated is something else, as seconds of sound.
    """
    usage, meta = document.get("usage"), document.get("meta")
    if not isinstance(usage, dict):
        usage = meta.get("tokens") if isinstance(meta, dict) else None
    if not isinstance(usage, dict):
        return None
    found = read_usage(usage)
    found.output = found.output or sse.count(usage, "output_tokens")
    found.input = found.input or sse.count(usage, "input_tokens") or sse.count(usage, "total_tokens")
    # Images say `input_tokens_details`, transcriptions `input_token_details`.
    read = usage.get("input_tokens_details") or usage.get("input_token_details")
    found.heard = found.heard or sse.count(read, "audio_tokens")
    found.seen = sse.count(read, "image_tokens")
    found.cached = found.cached or sse.count(read, "cached_tokens")
    return found if found.input or found.output else None
