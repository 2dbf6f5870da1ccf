"""A fake provider's answers to tasks that are no conversation: small, true to their shapes, the same for the same."""

from __future__ import annotations

import base64
import email
import email.message
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gateway.providers.fake_answers import Malformed
from gateway.routes import Task
from gateway.types import UpstreamRequest

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"
_SAMPLES_A_WORD, _RATE = 800, 8000
#: Bytes of sound in one chunk.
_CHUNK = 4096
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)


class Told(NamedTuple):
    """An answer before it is sent: its content type, and the pieces a stream brings it in."""

    kind: str
    pieces: list[bytes]


def told(request: UpstreamRequest) -> Told:
    """The answer to a request for one of `TASKS`. Raises `Malformed`."""
    return TASKS[request.task](request)


def _moderations(request: UpstreamRequest) -> Told:
    given = _need(request.document, "input", str, list)
    # A list of parts is one input, of texts as many.
    inputs = given if isinstance(given, list) and given and isinstance(given[0], str) else [given]
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return _json({"id": "modr-fake", "model": request.model, "results": [result for _ in inputs]})


def _images(request: UpstreamRequest) -> Told:
    body = request.document
    prompt, count = _need(body, "prompt", str), body.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= 10:
        raise Malformed("'n' must be a number from 1 to 10.")
    image = base64.b64encode(_png(prompt)).decode()
    words = len(prompt.split())
    usage = {
        "input_tokens": words,
        "input_tokens_details": {"text_tokens": words, "image_tokens": 0},
        "output_tokens": count,
        "total_tokens": words + count,
    }
    if not request.stream:
        return _json({"created": 0, "data": [{"b64_json": image} for _ in range(count)], "usage": usage})
    shared = {"b64_json": image, "created_at": 0, "size": "1x1", "quality": "low", "background": "opaque",
              "output_format": "png"}  # fmt: skip
    partial = {"type": "image_generation.partial_image", "partial_image_index": 0, **shared}
    return _events(partial, {"type": "image_generation.completed", **shared, "usage": usage})


def _png(text: str) -> bytes:
    """One pixel, of a colour that depends on `text`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = b"\0" + zlib.crc32(text.encode()).to_bytes(4)[:3]
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")


def _speech(request: UpstreamRequest) -> Told:
    words = len(_need(request.document, "input", str).split())
    sound = _wav(words * _SAMPLES_A_WORD)
    parts = [sound[at : at + _CHUNK] for at in range(0, len(sound), _CHUNK)]
    if request.document.get("stream_format") != "sse":
        return Told("audio/wav", parts)
    deltas = [{"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()} for part in parts]
    usage = {"input_tokens": words, "output_tokens": len(parts), "total_tokens": words + len(parts)}
    return _events(*deltas, {"type": "speech.audio.done", "usage": usage})


def _wav(samples: int) -> bytes:
    """Silence, 16 bits a sample."""
    size = 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE, 2 * _RATE, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size) + bytes(size)


def _transcriptions(request: UpstreamRequest) -> Told:
    fields = _form(request)
    text = f"echo: {_need(fields, 'file', str)}"
    form = fields.get("response_format", "json")
    words = text.split()
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": len(words), "total_tokens": 1 + len(words)}
    if request.stream:
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        deltas = [{"type": "transcript.text.delta", "delta": piece} for piece in pieces]
        return _events(*deltas, {"type": "transcript.text.done", "text": text, "usage": usage})
    match form:
        case "json":
            return _json({"text": text, "usage": usage})
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": 1.0, "text": text}
            seconds = {"type": "duration", "seconds": 1}
            return _json({"task": "transcribe", "language": "english", "duration": 1.0, "text": text,
                          "segments": [segment], "usage": seconds})  # fmt: skip
        case "srt":
            text = f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n"
        case "vtt":
            text = f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n"
        case "text":
            text += "\n"
        case _:
            raise Malformed(f"'response_format' cannot be {form!r}.")
    return Told("text/plain; charset=utf-8", [text.encode()])


def _form(request: UpstreamRequest) -> dict[str, str]:
    """The texts of a form; of a file its name."""
    raw = request.body if isinstance(request.body, bytes) else b""
    message = email.message_from_bytes(b"content-type: " + request.content_type.encode() + b"\r\n\r\n" + raw)
    parts = message.get_payload() if message.is_multipart() else []
    fields: dict[str, str] = {}
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, email.message.Message):
            data = part.get_payload(decode=True)
            text = data.decode(errors="replace") if isinstance(data, bytes) else ""
            fields[str(part.get_param("name", header="content-disposition"))] = part.get_filename() or text
    return fields


def _rerank(request: UpstreamRequest) -> Told:
    body = request.document
    query, documents = set(_need(body, "query", str).lower().split()), _need(body, "documents", list)
    texts = [str(one.get("text", "")) if isinstance(one, dict) else str(one) for one in documents]
    scores = [len(query & set(text.lower().split())) / max(1, len(query)) for text in texts]
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    results.sort(key=lambda one: -one["relevance_score"])
    tokens = sum(len(text.split()) for text in texts) + len(query)
    top = body.get("top_n")
    return _json({
        "id": "rerank-fake",
        "model": request.model,
        "results": results[: top if isinstance(top, int) and top > 0 else None],
        "usage": {"total_tokens": tokens},
    })  # fmt: skip


def _need(body: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = body.get(name)
    if not isinstance(value, kinds) or not value:
        raise Malformed(f"'{name}' is missing, empty or of another kind.")
    return value


def _json(document: dict[str, Any]) -> Told:
    return Told(_JSON, [orjson.dumps(document)])


def _events(*events: dict[str, Any]) -> Told:
    return Told(_EVENTS, [b"data: %b\n\n" % orjson.dumps(one) for one in events])


TASKS = {
    Task.MODERATIONS: _moderations,
    Task.IMAGES: _images,
    Task.SPEECH: _speech,
    Task.TRANSCRIPTIONS: _transcriptions,
    Task.RERANK: _rerank,
}
