"""How long sound is, by what its file says of itself."""

from __future__ import annotations

import math

#: Kinds of samples that are all of one size: numbers, fractions, A-law, µ-law, and those with a longer header.
_PLAIN = frozenset((1, 3, 6, 7, 0xFFFE))


def seconds(data: memoryview) -> float | None:
    """Seconds of a WAV, up to the next millisecond; None for every other file, and for what is squeezed.

    All samples in it are counted, whatever its first header says of their number: so does who reads it to the end.
    """
    if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        return None
    at, rate, samples = 12, 0, 0
    while at + 8 <= len(data):
        name, size = bytes(data[at : at + 4]), _number(data, at + 4, 4)
        at += 8
        if name == b"fmt ":
            if rate or not (rate := _rate(data[at : at + size])):
                return None
        elif name == b"data":
            samples += min(size, len(data) - at)
        at += size + size % 2
    return math.ceil(samples * 1000 / rate) / 1000 if rate else None


def _rate(form: memoryview) -> int:
    """Bytes a second; 0 where they are not all samples of one size."""
    if len(form) < 16 or _number(form, 0, 2) not in _PLAIN:
        return 0
    channels, frames, rate = _number(form, 2, 2), _number(form, 4, 4), _number(form, 8, 4)
    size, bits = _number(form, 12, 2), _number(form, 14, 2)
    return rate if size * 8 == channels * bits and rate == frames * size else 0


def _number(data: memoryview, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
