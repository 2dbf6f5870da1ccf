"""A request body is understood exactly, or refused by name."""

from __future__ import annotations

import orjson
import pytest

from gateway.dialects.body import parse
from gateway.errors import BadRequest


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "m", "seed": 18446744073709551615}', {"model": "m", "seed": 2**64 - 1}),
        (b'{"a": -9223372036854775808}', {"a": -(2**63)}),
        (
            b'{"text": "12345678901234567890123", "b": {"text": 1}}',
            {"text": "12345678901234567890123", "b": {"text": 1}},
        ),
        (b'{"x": 0.12345678901234567890123}', {"x": 0.12345678901234568}),
        ('{"grüße": "\\u0041\\u00e9"}'.encode(), {"grüße": "Aé"}),
    ],
)
def test_what_can_be_carried_is_parsed(body: bytes, expected: object) -> None:
    assert parse(body) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"\x00\xff garbage", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": 1e400}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"model": "a", "model": "b"}', "'model' twice"),
        (b'{"model": "a", "m\\u006fdel": "b"}', "'model' twice"),
        (b'{"seed": 18446744073709551616}', "does not fit 64 bits"),
        (b'{"nested": [{"deep": -9223372036854775809}]}', "does not fit 64 bits"),
        (b'{"seed": ' + b"9" * 300 + b"}", "does not fit 64 bits"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_cannot_is_refused_by_name(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse(body)


def test_deep_nesting_ends_in_a_refusal() -> None:
    with pytest.raises(BadRequest, match=r"JSON|nested"):
        parse(b'{"a": 1, "b": "\\u0041", "c": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def deep(levels: int, told_apart: bytes = b"") -> bytes:
    return b'{%b"a": ' % told_apart + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("told_apart", [b"", b'"b": "\\u0041", '])
def test_what_is_parsed_leaves_levels_for_a_translation(told_apart: bytes) -> None:
    orjson.dumps([[[parse(deep(250, told_apart))]]])
    with pytest.raises(BadRequest, match="deeper than 250 levels"):
        parse(deep(251, told_apart))


class Searched(bytes):
    """A body that knows how often it was searched for a key."""

    searches = 0

    def count(self, *args: object) -> int:
        self.searches += 1
        return super().count(*args)  # type: ignore[arg-type]  # handed on as it came


@pytest.mark.parametrize("keys", [10, 64, 65, 5000])
def test_many_keys_do_not_search_the_body_for_each(monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    loads = orjson.loads  # takes bytes alone
    monkeypatch.setattr(orjson, "loads", lambda body: loads(bytes(body)))
    document = {f"key{number}": number for number in range(keys)}
    body = Searched(orjson.dumps(document))
    assert parse(body) == document
    assert body.searches <= 66
    twice = Searched(bytes(body[:-1]) + b', "key1": 1}')
    with pytest.raises(BadRequest, match="'key1' twice"):
        parse(twice)
    assert twice.searches <= 66
