"""The embedded model in its real child process: what it answers, and that neither process takes the other along."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.providers import embedded
from gateway.providers.embedded import DIMENSIONS, EmbeddedProvider
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "Say hello."}]
# The token that ends an answer is never chosen: it is as long as asked.
ON: dict[str, Any] = {"logit_bias": [[2, False]]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[EmbeddedProvider]:
    transport = Transport()
    provider = EmbeddedProvider(ProviderSpec("local", "embedded"), transport)
    await provider.start()
    yield provider
    await provider.close()
    await transport.close()


async def send(provider: EmbeddedProvider, task: Task = Task.CHAT, model: str = "smollm2", **body: Any) -> Answer:
    body = {"model": "route", **body}
    if task is Task.CHAT:
        body = {"messages": MESSAGES, "max_tokens": 8, **body}
    return await provider.send(UpstreamRequest(task, model, body, {}, body.get("stream") is True, 5.0))


async def chat(provider: EmbeddedProvider, **body: Any) -> dict[str, Any]:
    answer = await send(provider, **body)
    assert answer.status == 200, answer.body
    said: dict[str, Any] = json.loads(answer.body)
    return said


async def text(provider: EmbeddedProvider, **body: Any) -> str:
    content = (await chat(provider, **body))["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def pid(provider: EmbeddedProvider) -> int:
    assert provider._child is not None
    return provider._child.process.pid


def alive(process: int) -> bool:
    """Whether `process` runs; one that is dead but not yet collected does not."""
    if sys.platform == "linux":
        stat = Path(f"/proc/{process}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


async def test_chat(model: EmbeddedProvider) -> None:
    said = await chat(model, **ON)
    assert (said["object"], said["model"]) == ("chat.completion", "smollm2")
    assert said["choices"][0]["message"]["content"]
    assert said["usage"]["completion_tokens"] == 8
    assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] + 8
    assert model.status() == "ready"


async def test_stream_ends_with_usage(model: EmbeddedProvider) -> None:
    answer = await send(model, stream=True, stream_options={"include_usage": True}, **ON)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.chunks is not None
    events = b"".join([chunk async for chunk in answer.chunks]).decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1])


async def test_temperature_zero_and_a_seed_repeat_themselves(model: EmbeddedProvider) -> None:
    assert await text(model, temperature=0) == await text(model, temperature=0)
    assert await text(model, temperature=1.5, seed=7) == await text(model, temperature=1.5, seed=7)


@pytest.mark.parametrize("cap", [None, {"max_tokens": None}, {"max_completion_tokens": 20}, {"max_tokens": 20}])
async def test_an_answer_comes_to_an_end(
    model: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch, cap: dict[str, Any] | None
) -> None:
    monkeypatch.setattr(embedded, "UNSAID", 30)
    answer = json.loads((await send(model, **{"max_tokens": None, "ignore_eos": True, **(cap or {})})).body)
    said = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
    assert said == (20 if cap and 20 in cap.values() else 30, "length")


async def test_stop_ends_the_answer(model: EmbeddedProvider) -> None:
    whole = await text(model, temperature=0)
    assert await text(model, temperature=0, stop=whole[3]) == whole[: whole.index(whole[3])]


async def test_a_schema_is_kept(model: EmbeddedProvider) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    asked = {"type": "json_schema", "json_schema": {"name": "m", "strict": True, "schema": schema}}
    assert json.loads(await text(model, response_format=asked, max_tokens=60))["mood"] in ("good", "bad")


async def test_tools_and_their_history_are_tolerated(model: EmbeddedProvider) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    history = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    assert await text(model, tools=[WEATHER], messages=history)


async def test_logprobs(model: EmbeddedProvider) -> None:
    first = (await chat(model, logprobs=True, top_logprobs=2))["choices"][0]["logprobs"]["content"][0]
    assert len(first["top_logprobs"]) == 2


@pytest.mark.parametrize("prompt", ["Once upon a time", ["Once upon a time"], [28, 29, 30]])
async def test_completions(model: EmbeddedProvider, prompt: Any) -> None:
    answer = await send(model, Task.COMPLETIONS, prompt=prompt, max_tokens=4, **ON)
    said = json.loads(answer.body)
    assert (said["object"], said["usage"]["completion_tokens"]) == ("text_completion", 4)


@pytest.mark.parametrize("texts", ["hello", ["hello", "good bye"], [1, 2, 3]])
async def test_embeddings_as_floats_and_base64(model: EmbeddedProvider, texts: Any) -> None:
    floats = json.loads((await send(model, Task.EMBEDDINGS, input=texts)).body)
    packed = json.loads((await send(model, Task.EMBEDDINGS, input=texts, encoding_format="base64")).body)
    assert len(floats["data"]) == (2 if texts == ["hello", "good bye"] else 1)
    for one, other in zip(floats["data"], packed["data"], strict=True):
        vector = struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(other["embedding"]))
        assert one["embedding"] == pytest.approx(vector, abs=1e-6)
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-3)
    assert floats["usage"]["prompt_tokens"] > 0


async def test_chat_and_embeddings_at_once(model: EmbeddedProvider) -> None:
    alone = json.loads((await send(model, Task.EMBEDDINGS, input="hello")).body)["data"][0]["embedding"]
    chats = [text(model, temperature=0, max_tokens=12) for _ in range(6)]
    vectors = [send(model, Task.EMBEDDINGS, input="hello") for _ in range(6)]
    said = await asyncio.gather(*chats)
    assert all(said)
    for answer in await asyncio.gather(*vectors):
        assert json.loads(answer.body)["data"][0]["embedding"] == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize(
    ("task", "body", "code", "word"),
    [
        (Task.CHAT, {"temperature": "hot"}, "invalid_request", "temperature"),
        (Task.CHAT, {"messages": "x"}, "invalid_request", "messages"),
        (Task.CHAT, {"tools": 5}, "invalid_request", "tools"),
        (Task.CHAT, {"messages": [{"role": 5, "content": "x"}]}, "invalid_request", "string"),
        (Task.CHAT, {"max_tokens": -5}, "invalid_request", "max_tokens"),
        (Task.CHAT, {"response_format": {"type": "zz"}}, "invalid_request", "zz"),
        (Task.CHAT, {"n": 2}, "invalid_request", "one choice"),
        (Task.CHAT, {"grammar": 'root ::= "a"', "json_schema": {}}, "invalid_request", "grammar"),
        (Task.CHAT, {"reasoning_format": "zz"}, "invalid_request", "zz"),
        (Task.CHAT, {"tool_choice": "required", "tools": [WEATHER]}, "invalid_request", "tool"),
        (Task.CHAT, {"messages": [{"role": "user", "content": "word " * 5000}]}, "context_length_exceeded", "4096"),
        (
            Task.CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "not_supported",
            "image",
        ),
        (Task.COMPLETIONS, {"prompt": ["a", "b"]}, "invalid_request", "one prompt"),
        (Task.COMPLETIONS, {"prompt": None}, "invalid_request", "prompt"),
        (Task.EMBEDDINGS, {"input": ""}, "invalid_request", "empty"),
        (Task.EMBEDDINGS, {"input": "word " * 1500}, "context_length_exceeded", "1024"),
        (Task.EMBEDDINGS, {"input": "hi", "dimensions": 64}, "invalid_request", "576"),
    ],
)
async def test_a_bad_request_is_told_in_openais_shape(
    model: EmbeddedProvider, task: Task, body: dict[str, Any], code: str, word: str
) -> None:
    for stream in (False, True):
        answer = await send(model, task, **body, **({"stream": True} if stream else {}))
        error = json.loads(answer.body)["error"]
        assert (answer.status, answer.chunks) == (400, None)
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert word in error["message"]


async def test_another_model_is_not_pretended(model: EmbeddedProvider) -> None:
    answer = await send(model, model="gpt-4o")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "model_not_found")


async def test_leaving_a_stream_frees_its_slot(model: EmbeddedProvider) -> None:
    for _ in range(2 * embedded.SLOTS):
        answer = await send(model, stream=True, max_tokens=4000, **ON)
        assert answer.chunks is not None
        await anext(answer.chunks)
        await answer.chunks.aclose()
    async with asyncio.timeout(20):
        assert await text(model)


async def test_a_stranger_on_the_port_is_refused(model: EmbeddedProvider) -> None:
    assert model._child is not None
    transport = Transport()
    answer = await transport.post(f"{model._child.url}/v1/completions", b'{"prompt": "x"}', {}, 5.0, stream=False)
    assert answer.status == 401
    await transport.close()


async def test_a_killed_child_is_replaced(model: EmbeddedProvider) -> None:
    await text(model)
    first = pid(model)
    running = await send(model, stream=True, max_tokens=2000, **ON)
    assert running.chunks is not None
    await anext(running.chunks)
    died = model._changed
    os.kill(first, signal.SIGKILL)
    with pytest.raises(UpstreamFailed):
        async for _ in running.chunks:
            pass
    async with asyncio.timeout(10):
        await died.wait()
    assert model.status() == "loading"
    assert await text(model)
    assert pid(model) != first
    assert not alive(first)


async def test_ctrl_c_is_for_the_parent(model: EmbeddedProvider) -> None:
    await text(model)
    before = pid(model)
    assert os.getsid(before) == before
    os.kill(before, signal.SIGINT)
    assert await text(model)
    assert pid(model) == before


async def test_start_returns_at_once_and_close_ends_the_child_even_while_it_loads() -> None:
    transport = Transport()
    provider = EmbeddedProvider(ProviderSpec("local", "embedded"), transport)
    await provider.start()
    assert provider.status() == "loading"
    waiting = asyncio.create_task(send(provider))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await provider.close()
    assert time.monotonic() - began < 2
    with pytest.raises(UpstreamFailed):
        await waiting
    await provider.close()
    assert provider.status() == "failed: closed"
    await transport.close()


async def test_a_child_that_cannot_load_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"junk")
    monkeypatch.setattr(embedded, "_model_file", lambda: tmp_path / "junk.gguf")
    transport = Transport()
    provider = EmbeddedProvider(ProviderSpec("local", "embedded"), transport)
    await provider.start()
    with pytest.raises(UpstreamFailed, match="not running"):
        await send(provider)
    assert provider.status().startswith("failed: ended with status 1 (")
    await provider.close()
    await transport.close()


async def test_a_call_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PATIENCE", 0.01)
    transport = Transport()
    provider = EmbeddedProvider(ProviderSpec("local", "embedded"), transport)
    await provider.start()
    with pytest.raises(UpstreamTimeout) as caught:
        await send(provider)
    assert (caught.value.code, caught.value.retry_after) == ("model_loading", 5)
    await provider.close()
    await transport.close()


PARENT = """
import asyncio, signal, sys
from gateway.providers.embedded import EmbeddedProvider
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec

async def main():
    provider = EmbeddedProvider(ProviderSpec("local", "embedded"), Transport())
    await provider.start()
    await provider._ready()
    print(provider._child.process.pid, flush=True)
    await asyncio.sleep(20)

# Ctrl-C is ignored, also by a child, where a shell has put the tests into its background.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_child_does_not_outlive_its_parent(how: signal.Signals, loop: str) -> None:
    child = await asyncio.to_thread(_orphan, how, loop)
    async with asyncio.timeout(10):
        while alive(child):  # noqa: ASYNC110 (another process's end has no event)
            await asyncio.sleep(0.02)


def _orphan(how: signal.Signals, loop: str) -> int:
    """A child whose parent was ended by `how`."""
    command = [sys.executable, "-c", PARENT, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(how)
    return child
