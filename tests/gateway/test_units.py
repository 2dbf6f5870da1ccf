"""What is not billed by tokens, or by dearer ones: at most before, exactly after, with prices of the shipped table."""

from __future__ import annotations

import io
import wave
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest

from gateway import tokens, units
from gateway.dialects.registry import DIALECTS
from gateway.money import FREE, Price, Rates, Tokens, Unit
from gateway.prices import PriceTable
from gateway.routes import Deployment, ProviderSpec, Task
from gateway.settings import price_map_file
from gateway.types import Form, Request

D = Decimal
TABLE = PriceTable(price_map_file())


def price(kind: str, model: str) -> Price:
    found = TABLE.find(ProviderSpec("p", kind), Deployment("p", model))
    assert found is not None, model
    return found


def request(task: Task, form: bytes | None = None, **body: Any) -> Request:
    read = None if form is None else Form(form, "multipart/form-data; boundary=x", 0, 0)
    return Request("req_1", task, "m", body, False, {}, form=read)


def sound(seconds: int, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(b"\0\0" * rate * seconds)
    return file.getvalue()


WAV = sound(3)
MP3 = b"ID3" + b"\0" * 79_997
IMAGES = [{"b64_json": ""}, {"b64_json": ""}]
#: Whose model, what is asked, what is answered; dollars expected at most, and in the end (None: as expected).
CASES: dict[str, tuple[str, str, Request, dict[str, Any], str | None, str | None]] = {
    "an image": ("xai", "grok-imagine-image", request(Task.IMAGES, prompt="p", n=3), {"data": IMAGES}, "0.06", "0.04"),
    "none said": ("xai", "grok-imagine-image", request(Task.IMAGES, prompt="p"), {}, "0.02", None),
    "by pixels": ("azure", "dall-e-3", request(Task.IMAGES, prompt="p", n=2), {"data": IMAGES}, None, "0.088000064"),
    "characters": ("openai", "tts-1", request(Task.SPEECH, input="Zoë " * 25), {}, "0.0015", "0.0015"),
    "seconds it says": ("openai", "whisper-1",
                        request(Task.TRANSCRIPTIONS, WAV, file={"size": len(WAV), "seconds": 3.002}),
                        {"usage": {"type": "duration", "seconds": 3}}, "0.0003002", "0.0003"),
    "the duration": ("openai", "whisper-1", request(Task.TRANSCRIPTIONS, MP3, file={"size": len(MP3)}),
                     {"duration": 5.5}, "0.008", "0.00055"),
    "text alone": ("openai", "whisper-1", request(Task.TRANSCRIPTIONS, MP3, file={"size": len(MP3)}), {}, "0.008", ""),
    "a query": ("cohere", "rerank-v3.5", request(Task.RERANK, query="q", documents=["a"] * 101),
                {"meta": {"billed_units": {"search_units": 2}}}, "0.004", "0.004"),
    "a long document": ("cohere", "rerank-v3.5", request(Task.RERANK, query="q", documents=["word " * 60_000]),
                        {"meta": {"billed_units": {"search_units": 1}}}, None, "0.002"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_billed_by_other_than_tokens(name: str) -> None:
    kind, model, asked, answer, most, in_the_end = CASES[name]
    of = price(kind, model)
    assert of.unit is not None
    if most is not None:
        assert units.most(of.unit, asked) == int(D(most) * 10**9)
    billed, guessed = units.billed(of, asked, answer)
    assert billed is not None
    assert guessed == (not in_the_end)
    # Sound that says nothing of its length is held at 8 kbit/s, and paid at 64.
    assert ceil(billed) == int(D(in_the_end or (most if in_the_end is None else 0.001) or 0) * 10**9)
    assert ceil(billed) <= units.most(of.unit, asked)
    assert of.cost(Tokens(5, billed=billed)) == ceil(billed)
    assert units.expected(of, asked) is not None


@pytest.mark.parametrize(
    ("body", "most", "in_the_end"),
    [
        ({"size": "1024x1024", "quality": "low"}, "0.009", "0.009"),
        ({"size": "1536x1024", "quality": "high", "n": 2}, "0.4", "0.4"),
        ({"size": "1024x1024"}, "0.133", "0.009"),
        ({"size": "auto"}, "0.2", "0.009"),
        ({}, "0.2", "0.009"),
    ],
)
def test_images_by_size(body: dict[str, Any], most: str, in_the_end: str) -> None:
    of, asked = price("openai", "gpt-image-1.5"), request(Task.IMAGES, prompt="p", **body)
    assert of.unit is not None
    assert units.most(of.unit, asked) == int(D(most) * 10**9)
    assert units.expected(of, asked) == Fraction(in_the_end) * 10**9
    # Where the answer counts its tokens, those are billed: what it writes are pictures.
    used = {"input_tokens": 50, "output_tokens": 4160, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}
    told = DIALECTS[Task.IMAGES].usage({"usage": used})
    assert told is not None
    assert of.cost(told) == 10 * 5000 + 40 * 8000 + 4160 * 32_000


def test_dearer_tokens_are_dearer() -> None:
    claude = price("anthropic", "claude-sonnet-4-5")
    said = {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30}}  # fmt: skip
    told = DIALECTS[Task.MESSAGES].usage({"usage": said})
    assert told is not None
    assert claude.cost(told) == 10 * 3000 + 100 * 300 + 20 * 3750 + 30 * 6000 + 3 * 15_000
    # A chat server in front of it says so as well, without how long.
    chat = {"prompt_tokens": 160, "completion_tokens": 3, "cache_creation_input_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 100}}  # fmt: skip
    told = DIALECTS[Task.CHAT].usage({"usage": chat})
    assert told is not None
    assert claude.cost(told) == 10 * 3000 + 100 * 300 + 50 * 3750 + 3 * 15_000
    audio = price("openai", "gpt-audio")
    heard = {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"audio_tokens": 80},
             "completion_tokens_details": {"audio_tokens": 40}}  # fmt: skip
    told = DIALECTS[Task.CHAT].usage({"usage": heard})
    assert told is not None
    rates = audio.rates
    assert rates.heard is not None
    assert rates.spoken is not None
    exact = 20 * rates.input + 80 * rates.heard + 10 * rates.output + 40 * rates.spoken
    assert audio.cost(told) == ceil(exact * 10**9)
    assert audio.cost(told) > audio.cost(Tokens(100, 50))


def test_how_a_call_was_served_has_its_price() -> None:
    of = price("openai", "gpt-5")
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    costs = {}
    for tier in ("default", "flex", "priority", "scale"):
        told = DIALECTS[Task.CHAT].usage({"usage": usage, "service_tier": tier})
        assert told is not None
        costs[tier] = of.cost(told)
        whole = {"usage": {"input_tokens": 1000, "output_tokens": 100}, "service_tier": tier}
        told = DIALECTS[Task.RESPONSES].usage(whole)
        assert told is not None
        assert of.cost(told) == costs[tier]
    assert costs["flex"] * 2 == costs["default"] == costs["scale"] < costs["priority"]
    assert of.most(1000, 100, dear=True) >= costs["priority"]
    assert of.most(1000, 100) == costs["default"]


PARTS = Price(
    Rates(D("1E-6"), D("2E-6"), D("1E-7"), written=D("2E-6"), kept=D("3E-6"), heard=D("9E-6"), spoken=D("8E-6"))
)


@pytest.mark.parametrize(
    ("used", "nano"),
    [
        (Tokens(10, 10, written=4), 14_000 + 20_000),
        (Tokens(10, 10, kept=4), 18_000 + 20_000),
        (Tokens(10, 0, cached=4, written=99), 400 + 6 * 2000),
        (Tokens(10, 0, written=6, kept=99), 6 * 2000 + 4 * 3000),
        (Tokens(10, 0, cached=10, kept=5, heard=5), 1000),
        (Tokens(0, 10, reasoning=4, spoken=99), 4 * 2000 + 6 * 8000),
        (Tokens(10, 10, written=-5, spoken=-1), 10_000 + 20_000),
        (Tokens(1, 0, billed=Fraction(1, 3)), 1001),
    ],
)
def test_parts_are_never_more_than_what_they_are_of(used: Tokens, nano: int) -> None:
    assert PARTS.cost(used) == nano
    assert PARTS.cost(used) <= PARTS.most(used.input, used.output, dear=True) + (used.billed is not None)


def test_writing_to_a_cache_is_always_reckoned_with_and_the_rest_where_it_is_asked_for() -> None:
    assert PARTS.most(10, 10) == 20_000 + 20_000
    assert PARTS.most(10, 10, dear=True) == 90_000 + 80_000
    assert (FREE.free, PARTS.free, FREE.odd, PARTS.odd) == (True, False, False, True)
    by_unit = Price(FREE.rates, unit=Unit("query", D(1)))
    assert (by_unit.free, by_unit.by_unit, PARTS.by_unit) == (False, True, False)
    assert units.prices(by_unit, Task.RERANK)
    assert not units.prices(by_unit, Task.CHAT)  # or its conversations would cost nothing
    assert units.prices(PARTS, Task.RERANK)
    assert not units.prices(None, Task.RERANK)


@pytest.mark.parametrize(
    ("body", "dear"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, False),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "cache_control": {"type": "e"}}]}]},
            False,
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "cache_control": {"ttl": "1h"}}]}]}, True),
        ({"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, True),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, True),
        ({"messages": [], "modalities": ["text", "audio"]}, True),
        ({"messages": [], "service_tier": "priority"}, True),
        ({"messages": [], "service_tier": "default"}, False),
        ({"messages": "odd", "tools": {}}, False),
    ],
)
def test_which_requests_may_be_dear(body: dict[str, Any], dear: bool) -> None:
    assert tokens.dear(body) is dear


@pytest.mark.parametrize("odd", [None, "x", -1, True, [], {}, float("nan"), 10**12])
def test_numbers_that_are_none_are_not_believed(odd: Any) -> None:
    for kind, model, asked, answer in (
        ("openai", "whisper-1", request(Task.TRANSCRIPTIONS, WAV, file={"size": 10}), {"duration": odd}),
        ("cohere", "rerank-v3.5", request(Task.RERANK, query="q", documents=[]),
         {"meta": {"billed_units": {"search_units": odd}}}),
        ("xai", "grok-imagine-image", request(Task.IMAGES, prompt="p", n=odd), {"data": odd}),
    ):  # fmt: skip
        billed, _ = units.billed(price(kind, model), asked, answer)
        assert billed is not None
        assert billed >= 0
