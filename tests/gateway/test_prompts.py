"""Prompts are found without making calls wait, obeyed when they move, and kept when their source is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gateway import prompts
from gateway.errors import BadRequest, Overloaded, UnknownModel
from gateway.owners import Key, Scope
from gateway.prompts import Asked, Prompts, Version
from gateway.routes import Task

KEY = Key("key_1", "ann", frozenset({Scope.INFERENCE}))


class Kept:
    """A version as a source has it."""

    response_format: Mapping[str, Any] | None = None
    slow = False

    def __init__(self, name: str, version: int, **config: Any) -> None:
        self.name = name
        self.version = version
        self.config = {"model_name": "chat", **config}

    def messages(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": f"{self.name} {values}"}]


class Shelf:
    """A source whose one prompt is of the version `now`; it can be slow, and away."""

    def __init__(self) -> None:
        self.now = 1
        self.asked = 0
        self.away = False
        self.open = threading.Event()
        self.open.set()

    def find(self, asked: Asked) -> Kept:
        self.asked += 1
        self.open.wait(10)
        if self.away:
            raise ConnectionError("away")
        if asked.name != "p":
            raise UnknownModel(f"There is no prompt '{asked.name}'.")
        return Kept("p", self.now)

    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        if self.away:
            raise ConnectionError("away")
        return {"p": ("production", "candidate"), "q": ()}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """The source of a test's prompts."""
    shelf = Shelf()
    yield shelf
    shelf.open.set()


def test_what_a_name_means() -> None:
    for model, wanted in [
        ("prompt:a", ("a", "production", None, ("prompt:a", "prompt:a@production"))),
        ("prompt:a.b-c_1@x-1", ("a.b-c_1", "x-1", None, ("prompt:a.b-c_1", "prompt:a.b-c_1@x-1"))),
        ("prompt:a/03", ("a", None, 3, ("prompt:a", "prompt:a/3"))),
        ("prompt:a b", ("a b", "production", None, ("prompt:a b", "prompt:a b@production"))),
    ]:
        assert tuple(prompts.parse(model)) == wanted
    for model in (
        "prompt:",
        "prompt:a@",
        "prompt:a/",
        "prompt:a/x",
        "prompt:a/1/2",
        "prompt:a@b/1",
        "prompt:a:b",
        "prompt:" + "a" * 600,
    ):
        with pytest.raises(UnknownModel, match="Call a prompt as"):
            prompts.parse(model)


async def test_a_prompt_that_is_known_is_not_waited_for(shelf: Shelf) -> None:
    known = Prompts(shelf)
    asked = prompts.parse("prompt:p")
    assert (await known.find(asked)).id == "p/1"
    for _ in range(100):
        assert (await known.find(asked)).id == "p/1"
    assert shelf.asked == 1
    shelf.now = 2
    await asyncio.sleep(0.45)
    shelf.open.clear()
    # It is asked for anew beside this call, which has what is known.
    assert (await known.find(asked)).id == "p/1"
    shelf.open.set()
    await asyncio.sleep(0.1)
    assert (await known.find(asked)).id == "p/2"
    assert shelf.asked == 2
    await known.close()


async def test_what_is_too_old_is_asked_for_first_and_once_for_all(shelf: Shelf) -> None:
    known = Prompts(shelf)
    asked = prompts.parse("prompt:p")
    shelf.open.clear()
    waiting = [asyncio.create_task(known.find(asked)) for _ in range(20)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    shelf.open.set()
    found = await asyncio.gather(*waiting[1:])
    assert {one.id for one in found} == {"p/1"}
    assert shelf.asked == 1
    await asyncio.sleep(0.95)
    shelf.now = 2
    assert (await known.find(asked)).id == "p/2"
    await known.close()


async def test_a_source_that_is_away_leaves_prompts_as_they_are(shelf: Shelf) -> None:
    known = Prompts(shelf)
    asked = prompts.parse("prompt:p")
    assert (await known.find(asked)).id == "p/1"
    assert await known.names(KEY) == ["prompt:p", "prompt:p@candidate"]
    shelf.away = True
    await asyncio.sleep(0.95)
    assert (await known.find(asked)).id == "p/1"
    assert await known.names(KEY) == ["prompt:p", "prompt:p@candidate"]
    with pytest.raises(Overloaded, match="does not answer"):
        await known.find(prompts.parse("prompt:other"))
    shelf.away, shelf.now = False, 2
    await asyncio.sleep(0.5)
    await known.find(asked)
    await asyncio.sleep(0.05)
    assert (await known.find(asked)).id == "p/2"
    await known.close()


async def test_what_is_gone_is_not_answered_from_memory(shelf: Shelf) -> None:
    known = Prompts(shelf)
    for _ in range(2):
        with pytest.raises(UnknownModel):
            await known.find(prompts.parse("prompt:gone"))
    assert shelf.asked == 2
    await known.close()


def test_a_name_that_no_header_could_hold_is_quoted() -> None:
    for name, wanted in [
        ("a b", "a b/1"),
        ("a\r\nb", "a%0D%0Ab/1"),
        ("é", "%C3%A9/1"),
        ("é" * 256, "%C3%A9" * 46 + "%C3%/1"),
    ]:
        assert Version(Kept(name, 1)).id == wanted
        assert len(wanted) <= 300


async def test_the_call_that_a_version_makes() -> None:
    version = Version(Kept("p", 3, temperature=0.1, overrides=["max_tokens"], max_tokens=5, provider="x"))
    body = {"model": "prompt:p", "variables": {"a": 1}, "stream": True, "max_tokens": 9, "temperature": 0.1}
    assert await prompts.filled(version, Task.CHAT, body, KEY) == {
        "model": "chat",
        "messages": [{"role": "user", "content": "p {'a': 1}"}],
        "temperature": 0.1,
        "max_tokens": 9,
        "stream": True,
    }
    # Nothing of one call is left for the next.
    assert (await prompts.filled(version, Task.CHAT, {"model": "prompt:p"}, KEY))["max_tokens"] == 5
    with pytest.raises(BadRequest, match="'temperature' is set by version 3"):
        await prompts.filled(version, Task.CHAT, {"temperature": None}, KEY)
    with pytest.raises(BadRequest, match="A prompt is a conversation"):
        await prompts.filled(version, Task.EMBEDDINGS, {"input": "x"}, KEY)
