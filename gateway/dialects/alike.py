"""Events that say the same but for a text: known by what stands around it, and not parsed again.

The chunks of one answer differ in a few letters of some hundreds. JSON's grammar makes this exact: between two quotes
of a document that was read, any text without a quote, a backslash or a control character gives a document that reads
the same but for that text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BEGINS = re.compile(rb'"(?:content|text)": ?"')
#: OpenAI pads its chunks with noise, so that their lengths do not betray the text.
_NOISE = re.compile(rb'"obfuscation": ?"')
_CLEAN = re.compile(rb'[^"\\\x00-\x1f]+')


class Said(NamedTuple):
    """What events alike say: how many there are, and their text."""

    pieces: int
    text: bytes


class Alike(NamedTuple):
    """What stands before, between and after text and noise of such an event. Without noise nothing is between."""

    before: bytes
    between: bytes
    after: bytes

    def of(self, text: bytes, noise: bytes) -> bytes:
        """Such an event."""
        return self.before + text + (self.between + noise if self.between else b"") + self.after

    def read(self, chunk: bytes) -> Said | None:
        """What `chunk` says, where it is nothing but whole events like this one."""
        before, between, after = self
        if not chunk.startswith(before) or not chunk.endswith(after):
            return None
        texts = chunk.split(after)
        texts.pop()
        skipped = len(before)
        for number, event in enumerate(texts):
            if not event.startswith(before):
                return None
            text = event[skipped:]
            if between:
                text, found, noise = text.partition(between)
                if not found or not _CLEAN.fullmatch(noise) or not noise.isascii():
                    return None
            if not _CLEAN.fullmatch(text) or not (text.isascii() or _is_text(text)):
                return None
            texts[number] = text
        return Said(len(texts), texts[0] if len(texts) == 1 else b"".join(texts))


def alike(event: bytes) -> Alike | None:
    """What events like `event` may have in common; None where it has no text that could differ.

    A guess: whoever reads `of` another text must find it in the text's place, and the noise in its own.
    """
    begins = _BEGINS.search(event)
    end = event.find(b'"', begins.end()) if begins else -1
    if begins is None or end < 0:
        return None
    before, between, after = event[: begins.end()], b"", event[end:]
    noise = _NOISE.search(after)
    if noise is not None:
        close = after.find(b'"', noise.end())
        between, after = after[: noise.end()], after[close:]
    return Alike(before, between, after)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
