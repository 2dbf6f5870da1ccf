"""Token counts against the encodings' own numbers, and the quick estimate against the count."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway import tokens

ENGLISH = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 20
GERMAN = (
    "Die Donaudampfschifffahrtsgesellschaft übt Rücksicht, denn größere Schiffe haben auf dem Fluss keine Vorfahrt. "
    * 5
)
CHINESE = "人工智能网关把请求转发给不同的模型提供商，并且记录每一次调用的费用。" * 5
EMOJI = "😀👩‍👩‍👧‍👦🏳️‍🌈🦄🧑🏽‍🚀 " * 5
CODE = Path(tokens.__file__).read_text("utf-8")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"search_{number}",
            "description": "Searches the catalogue and gives the best matches back, best first.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "maximum": 50}},
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }
    for number in range(5)
]
SECRET = "".join(random.Random(1).choices(string.ascii_letters + string.digits + "+/", k=600))
TEXTS = {
    "english": ENGLISH,
    "german": GERMAN,
    "chinese": CHINESE,
    "rare": "".join(map(chr, range(0x20000, 0x20040))),
    "emoji": EMOJI,
    "code": CODE,
    "json": json.dumps(TOOLS),
    "minified": json.dumps(TOOLS, separators=(",", ":")),
    "base64": SECRET,
    "base64 in prose": ENGLISH[:600] + SECRET,
    "letters": "a b c d e f g h " * 20,
    "control": "\x01\x02\x03" * 30,
    "russian": "Съешь ещё этих мягких французских булок, да выпей чаю. " * 5,
    "lone surrogate": "\ud800 " * 5,
    "empty": "",
}


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        ("hello world", "gpt-4o", 2),
        ("hello world", "gpt-4", 2),
        ("мягких французских булок", "gpt-4o", 7),
        ("мягких французских булок", "gpt-3.5-turbo", 15),
        ("мягких французских булок", "openai/gpt-3.5-turbo", 15),
        ("мягких французских булок", "qwen3-8b", 7),
        ("<|endoftext|>", "gpt-4o", 7),
        ("", "gpt-4o", 0),
    ],
)
def test_count(text: str, model: str, expected: int) -> None:
    assert tokens.count(text, model) == expected


def test_count_from_many_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda n: tokens.count(ENGLISH, f"model-{n % 4}"), range(64))) == {421}


def test_importing_does_not_load_the_tokenizer() -> None:
    code = "import sys, gateway.tokens as t; t.estimate({'prompt': 'x'}); sys.exit('tiktoken' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_estimate_is_not_below_the_count(text: str, model: str) -> None:
    exact = tokens.count(text, model)
    assert tokens.estimate({"messages": [{"role": "user", "content": text}]}) >= exact + 7
    assert tokens.estimate({"prompt": text}) >= exact
    assert tokens.estimate({"input": [text, text]}) >= 2 * exact


@pytest.mark.parametrize(("text", "times"), [(ENGLISH, 2.5), (GERMAN, 3), (CODE, 3), (CHINESE, 5)])
def test_estimate_is_not_far_above(text: str, times: float) -> None:
    estimate = tokens.estimate({"messages": [{"role": "user", "content": text}]})
    assert estimate <= times * tokens.count(text, "gpt-4o") + 50


def test_estimate_counts_tools_and_schemas() -> None:
    exact = tokens.count(json.dumps(TOOLS, separators=(",", ":")), "gpt-4o")
    assert exact <= tokens.estimate({"tools": TOOLS}) <= 4 * exact
    assert tokens.estimate({"response_format": {"type": "json_schema", "json_schema": {"schema": TOOLS[0]}}}) > 80


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, 32),
        ({"model": "x", "metadata": {"a": "b" * 1000}, "user": "u" * 1000}, 32),
        ({"input": [1] * 1000}, 1032),
        ({"input": [[1, 2], [3, 4, 5]]}, 40),
        ({"prompt": None}, 36),
        ({"messages": "not a list"}, 38),
    ],
)
def test_estimate_of_odd_bodies(body: dict[str, object], expected: int) -> None:
    assert tokens.estimate(body) == expected


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_an_image_costs_the_same_whatever_its_bytes(size: int) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}
    assert tokens.IMAGE < tokens.estimate({"messages": [{"role": "user", "content": [image]}]}) < tokens.IMAGE + 70


def test_sound_and_files_cost_more_the_longer_they_are() -> None:
    def sound(size: int) -> int:
        return tokens.estimate({"messages": [{"type": "input_audio", "input_audio": {"data": "A" * size}}]})

    assert sound(100) < sound(100_000) < 100_000 / 10


def test_estimate_of_a_body_nested_deeper_than_the_stack() -> None:
    body: list[object] = []
    for _ in range(100_000):
        body = [body]
    assert tokens.estimate({"messages": body}) > 100_000


@pytest.mark.parametrize("character", [" ", "\n", "\u3000", "a"])
def test_a_million_of_one_character_are_counted(character: str) -> None:
    body = {"messages": [{"role": "user", "content": character * 1_000_000}]}
    assert 1_000_000 / 128 <= tokens.counted(body, "gpt-4o") < 300_000


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "text-davinci-003"])
def test_no_text_has_fewer_tokens_than_the_least(name: str, model: str) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXTS[name] * 9}]}], "tools": TOOLS}
    assert tokens.size(body) // tokens.LONGEST <= tokens.counted(body, model)
    assert tokens.size(body) >= len(TEXTS[name]) * 9


def test_a_long_text_is_counted_in_parts_that_add_next_to_nothing() -> None:
    whole = tokens.count(ENGLISH * 200, "gpt-4o")
    assert whole <= tokens.counted({"prompt": ENGLISH * 200}, "gpt-4o") <= whole + 60


def test_other_tokenizers_are_given_room() -> None:
    body = {"messages": [{"role": "user", "content": "The quick brown fox. " * 50}]}
    exact = tokens.counted(body, "gpt-4o")
    assert tokens.at_most(body, "openai/gpt-4o") == exact
    assert exact * 1.3 < tokens.at_most(body, "claude-sonnet-4-5") <= min(exact * 1.5, tokens.estimate(body))


@pytest.mark.parametrize(
    ("model", "more"),
    [("gpt-4o", 0), ("gpt-4o-mini", 46_569), ("gpt-5-nano", 2179), ("claude-x", 0), ("o4-mini", 1042)],
)
def test_images_that_are_dear_have_their_most(model: str, more: int) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, image, image]}], "user": [image]}
    assert tokens.surplus(body, model) == 2 * more
    assert tokens.surplus({"messages": "odd"}, model) == 0
