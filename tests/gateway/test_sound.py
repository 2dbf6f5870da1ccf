"""How long a WAV is by its own word, and which files have none."""

from __future__ import annotations

import io
import struct
import wave

import pytest

from gateway import sound


def wav(frames: int, *, channels: int = 1, width: int = 2, rate: int = 8000) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(frames * channels * width))
    return made.getvalue()


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<4sI", name, len(data) if size is None else size) + data + bytes(len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    return b"RIFF\xff\xff\xff\xffWAVE" + b"".join(chunks)


FORM = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 1000, 2000, 2, 16))


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (wav(8000), 1.0),
        (wav(12_001), 1.501),
        (wav(44_100, channels=2, width=3, rate=44_100), 1.0),
        (wav(0), 0.0),
        (riff(FORM, chunk(b"LIST", b"abc"), chunk(b"data", bytes(4000))), 2.0),
        # Written as a stream: nobody knew how long it would become.
        (riff(FORM, chunk(b"data", bytes(4000), 0xFFFFFFFF)), 2.0),
        (riff(FORM, chunk(b"data", b"", 0), chunk(b"data", bytes(4000))), 2.0),
        (riff(FORM, FORM, chunk(b"data", bytes(4000))), None),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 1000, 90_000, 2, 16)), chunk(b"data", bytes(4000))), None),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 0x55, 1, 1000, 2000, 2, 16)), chunk(b"data", bytes(9))), None),
        (riff(chunk(b"fmt ", b"short"), chunk(b"data", bytes(9))), None),
        (riff(chunk(b"data", bytes(9))), None),
        (b"RIFF", None),
        (b"ID3\x04" + bytes(100), None),
        (b"", None),
    ],
)
def test_how_long_sound_is(data: bytes, seconds: float | None) -> None:
    assert sound.seconds(memoryview(data)) == seconds
