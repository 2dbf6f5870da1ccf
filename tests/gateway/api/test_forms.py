"""Multipart forms are read as every upstream reads them, or refused; what is sent on differs in the model's name."""

from __future__ import annotations

import hashlib

import pytest

from gateway.api import forms
from gateway.errors import BadRequest, UnsupportedMedia

BOUNDARY = b"----Boundary7MA"
KIND = "multipart/form-data; boundary=" + BOUNDARY.decode()
MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nfast'


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + BOUNDARY + end


def named(name: bytes, value: bytes, more: bytes = b"", headers: bytes = b"") -> bytes:
    return b'%bContent-Disposition: form-data; name="%b"%b\r\n\r\n%b' % (headers, name, more, value)


SOUND = bytes(range(256)) * 40 + b"\r\n--\r\n\r\n--" + BOUNDARY[:-1] + b"\r\n"
FILE = named(b"file", SOUND, b'; filename="a b.wav"', b"Content-Type: audio/wav\r\n")


def test_a_bad_form_writes_no_line_of_a_librarys_own(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadRequest):
        forms.parse(b"no form", KIND)
    assert caplog.text == ""


def test_fields_and_what_is_known_of_a_file() -> None:
    raw = form(
        MODEL,
        FILE,
        named(b"timestamp_granularities[]", b"word"),
        named(b"timestamp_granularities[]", b"segment"),
        named(b"prompt", "Grüße".encode()),
        named(b"stream", b"True"),
        named(b"language", b""),
    )
    body, _ = forms.parse(raw, KIND)
    assert body == {
        "model": "fast",
        "file": {
            "filename": "a b.wav",
            "type": "audio/wav",
            "size": len(SOUND),
            "sha256": hashlib.sha256(SOUND).hexdigest(),
        },
        "timestamp_granularities[]": ["word", "segment"],
        "prompt": "Grüße",
        "stream": True,
        "language": "",
    }


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL), (FILE, MODEL, named(b"prompt", b"fast"))])
def test_only_the_models_name_is_written_anew(parts: tuple[bytes, ...]) -> None:
    _, found = forms.parse(form(*parts), KIND)
    other = MODEL.removesuffix(b"fast") + "whisper-größte".encode()
    assert found.naming("whisper-größte") == form(*(other if part is MODEL else part for part in parts))
    assert found.content_type == KIND


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name=model",
        b'Form-Data; name="model"',
        b'form-data;name="model"',
    ],
)
def test_ways_in_which_clients_write_a_name(disposition: bytes) -> None:
    part = b"content-type: text/plain; charset=utf-8\r\ncontent-disposition: " + disposition + b"\r\n\r\nfast"
    assert forms.parse(form(part), KIND)[0] == {"model": "fast"}


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="file"; filename="a.wav"; filename*=utf-8\'\'%c3%a4.wav',
        b"form-data; name=file; filename=a.wav; filename*=utf-8''a.wav",
        b'form-data; name="file"; filename="a\\"b.wav"',
        b'form-data; name="file"; filename=""',
    ],
)
def test_ways_in_which_clients_write_a_file(disposition: bytes) -> None:
    body, _ = forms.parse(form(b"Content-Disposition: " + disposition + b"\r\n\r\nRIFF"), KIND)
    assert body["file"]["size"] == 4


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "ends before"),
        (b"no form at all", "cannot be read"),
        (form(MODEL)[:-6], "ends before"),
        (form(MODEL, FILE)[:200], "ends before"),
        (form(MODEL, MODEL), "'model' twice"),
        (form(named(b"prompt", b"\xff\xfe")), "'prompt' is not UTF-8"),
        (form(*[MODEL] * 120), "more than 99 parts"),
        # What one reader takes for content and another for a part of its own.
        (form(MODEL, named(b"file", b"x\n--" + BOUNDARY + b"\n" + named(b"model", b"dear"))), "inside of a part"),
        (form(MODEL) + b"--" + BOUNDARY + b"\r\n" + named(b"model", b"dear"), "inside of a part"),
        (form(b'Content-Disposition: form-data; name="x"; name="model"\r\n\r\nfast'), "without one plain"),
        (form(b"Content-Disposition: form-data; name*=utf-8''model\r\n\r\nfast"), "without one plain"),
        (form(b'Content-Disposition: attachment; name="model"\r\n\r\nfast'), "without one plain"),
        (form(named(b"x", b"fast", headers=b'Content-Disposition: form-data; name="model"\r\n')), "without one plain"),
        (form(named(b"x", b"fast", headers=b'X: y\nContent-Disposition: form-data; name="model"\r\n')), "one plain"),
        (form(b"fast"), "cannot be read"),
        (form(b"Content-Type: text/plain\r\n\r\nfast"), "without one plain"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        forms.parse(raw, KIND)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"{KIND}; boundary=other",
        f"multipart/form-data; boundary={'x' * 300}",
    ],
)
def test_a_boundary_that_is_none(kind: str) -> None:
    with pytest.raises(BadRequest):
        forms.parse(form(MODEL), kind)


@pytest.mark.parametrize("kind", [b"", b"application/json", b"multipart/mixed; boundary=x", b"text/plain"])
def test_another_content_type(kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="multipart/form-data"):
        forms.need_form({b"content-type": kind})


def test_its_own_content_type() -> None:
    forms.need_form({b"content-type": b"Multipart/Form-Data; boundary=x"})
