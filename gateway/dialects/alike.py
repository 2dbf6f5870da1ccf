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


#: What events alike say: how many there are, and the bytes of their text.
Said = tuple[int, int]


class Alike(NamedTuple):
    """What stands before, between and after text and noise of such an event, and between two. Noise may be none."""

    before: bytes
    between: bytes
    after: bytes
    seam: bytes

    def of(self, text: bytes, noise: bytes) -> bytes:
        """Such an event."""
        return self.before + text + (self.between + noise if self.between else b"") + self.after

    def read(self, chunk: bytes) -> Said | None:
        """What `chunk` says, where it is nothing but whole events like this one."""
        before, between, after, seam = self
        if not chunk.startswith(before) or not chunk.endswith(after):
            return None
        texts = chunk[len(before) : -len(after)].split(seam)
        if between:
            cut = [text.partition(between) for text in texts]
            texts = [text for text, _, noise in cut if noise and noise.isascii() and _CLEAN.fullmatch(noise)]
            if len(texts) < len(cut):
                return None
        said = texts[0] if len(texts) == 1 else b"".join(texts)
        if not all(texts) or not _CLEAN.fullmatch(said) or not (said.isascii() or all(map(_is_text, texts))):
            return None
        return len(texts), len(said)


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
    return Alike(before, between, after, after + before)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
