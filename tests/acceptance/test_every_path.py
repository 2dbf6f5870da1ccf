"""What users of other gateways suffer on one path or another happens on none of ours (test_field_notes has the list).

One server, and every way there is to ask it; its upstreams are scripted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from gateway.dialects.registry import DIALECTS
from tests.conftest import StartServer
from tests.services.gateway import CREDENTIAL, connected, make_key, received
from tests.services.promptyard import Server
from tests.services.upstream import DONE, Upstream, delta, event, head, raw, silence, stream, usage_chunk, whole
from tests.services.ways import WAYS, Way, begun, configuration, error_said, good, shape_of


@pytest.fixture(scope="module")
def server(upstream: Upstream, start_servers: StartServer) -> Server:
    """The routes of `ways.configuration`."""
    return start_servers(json.dumps(configuration(upstream.url)), env={"UP_KEY": CREDENTIAL})


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
STREAMED = {name: way for name, way in WAYS.items() if way.streams}


async def at_once(server: Server, ways: dict[str, Way], prefix: str, **more: Any) -> dict[str, httpx.Response]:
    """The answers to one call each way, all asked together."""
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as client:
        asked = [client.request(**way.request(prefix + way.route, **more)) for way in ways.values()]
        return dict(zip(ways, await asyncio.gather(*asked), strict=True))


def spoken(way: Way) -> str:
    """The dialect a conversation is held in."""
    return next((name for name in ("messages", "responses") if way.path.endswith(f"/v1/{name}")), "chat")


def test_no_task_is_forgotten() -> None:
    assert {way.path for way in WAYS.values()} >= {f"/v1/{task.value}" for task in DIALECTS}


def test_limits_hold_everywhere_and_are_the_keys_own(server: Server, http: httpx.Client, upstream: Upstream) -> None:
    upstream.then(good)
    one, other = ({"authorization": f"Bearer {make_key(server, rpm=len(WAYS))}"} for _ in range(2))
    for way in WAYS.values():
        assert http.request(**way.request(), headers=one).status_code == 200
    for number, way in enumerate(WAYS.values()):  # were one of them free, there would be room for another
        address = f"203.0.113.{number}"
        refused = http.request(**way.request(), headers={**one, "x-forwarded-for": address, "x-real-ip": address})
        assert (way, refused.status_code) == (way, 429)
        assert 0 < int(refused.headers["retry-after"]) <= 61
        assert f"This key allows {len(WAYS)} requests a minute (rpm)" in error_said(refused).message
        assert error_said(refused).shape >= shape_of(way)
        assert http.request(**way.request(), headers=other).status_code == 200  # from the same address
    assert len(upstream.asked) == 2 * len(WAYS)


@every_way
def test_an_unknown_model_is_a_404(http: httpx.Client, way: Way) -> None:
    answer = http.request(**way.request("nope"))
    assert answer.status_code == 404
    assert "'nope' does not exist" in error_said(answer).message
    assert error_said(answer).shape >= shape_of(way)


@every_way
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_refusal_is_told_as_it_was(
    http: httpx.Client, upstream: Upstream, way: Way, streamed: bool
) -> None:
    more = {"stream": True} if streamed and way.streams else {}
    slow = {"message": "slow down a bit", "type": "rate_limit_error", "param": None, "code": None}
    bad = {"message": "the sky is not a colour", "type": "invalid_request_error", "param": None, "code": None}
    upstream.then(
        whole({"type": "error", "error": slow}, 429, retry_after="7"),
        whole({"type": "error", "error": bad}, 400),
        whole(b"<html>Service Unavailable</html>", 503, kind="text/html", retry_after="9"),
    )
    answers = [http.request(**way.request(**more)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 400, 503]
    assert [answer.headers.get("retry-after") for answer in answers] == ["7", None, "9"]
    for answer, said in zip(answers, (slow["message"], bad["message"], "answered HTTP 503"), strict=True):
        assert said in error_said(answer).message
        assert error_said(answer).shape >= shape_of(way)
    assert len(upstream.asked) == 3


async def test_the_upstream_is_left_before_its_answer_begins(server: Server, upstream: Upstream) -> None:
    upstream.then(silence)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as client:
        calls = [way.request() for way in WAYS.values()]
        calls += [way.request(stream=True) for way in STREAMED.values()]
        asking = [asyncio.create_task(client.request(**call)) for call in calls]
        await asyncio.to_thread(upstream.wait_asked, len(calls))
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.to_thread(upstream.wait_idle, 3)


async def test_the_upstream_is_left_amid_a_stream(server: Server, upstream: Upstream) -> None:
    upstream.then(begun)
    streamed = {**STREAMED, "speech": WAYS["speech"]}
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as client:

        async def leave(way: Way) -> bytes:
            async with client.stream(**way.request(stream=True)) as answer:
                return await anext(answer.aiter_raw())

        assert all(await asyncio.gather(*map(leave, streamed.values())))
        await asyncio.to_thread(upstream.wait_idle, 3)
    assert len(upstream.asked) == len(streamed)


async def test_silence_is_not_waited_for(server: Server, upstream: Upstream) -> None:
    for nothing_more in (silence, raw(head(length=9, kind="application/json"), close=False)):
        upstream.then(nothing_more)
        for name, answer in (await at_once(server, WAYS, "brief-")).items():
            assert (name, answer.status_code) == (name, 504)
            assert "answer within 0.8 s" in error_said(answer).message
    upstream.then(silence)
    answers = await at_once(server, {**STREAMED, "speech": WAYS["speech"]}, "late-", stream=True)
    for name, answer in answers.items():
        assert (name, answer.status_code) == (name, 504)
        assert "did not begin to answer within 0.8 s" in error_said(answer).message
    upstream.wait_idle(3)


@pytest.mark.parametrize(
    ("prefix", "said"), [("late-", "silent for 0.8 s"), ("brief-", "longer than the route's total timeout")]
)
async def test_silence_amid_a_stream_is_its_end_and_no_good_one(
    server: Server, upstream: Upstream, prefix: str, said: str
) -> None:
    upstream.then(begun)
    for name, answer in (await at_once(server, STREAMED, prefix, stream=True)).items():
        assert (name, answer.status_code) == (name, 200)
        last = answer.text.rstrip().rpartition("\n\n")[2]
        assert said in last, name
        assert '"error"' in last
    upstream.wait_idle(3)


ENDS = {"chat": "[DONE]", "messages": "message_stop", "responses": "response.completed"}


async def test_a_live_stream_may_take_as_long_as_it_likes(server: Server, upstream: Upstream) -> None:
    upstream.then(stream(*(part for n in range(6) for part in (delta(str(n)), 0.2)), delta(finish="stop"), DONE))
    ways = {name: way for name, way in STREAMED.items() if way.route == "chat" and way.path != "/v1/completions"}
    for name, answer in (await at_once(server, ways, "late-", stream=True)).items():
        assert ENDS[spoken(ways[name])] in answer.text, name
        assert '"error":{' not in answer.text.replace(" ", "")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tree": {"$ref": "#/$defs/node"},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
        "how": {"oneOf": [{"const": 1}, {"enum": ["a", "b"]}], "x-ours": {"kept": True}},
    },
    "allOf": [{"required": ["tree"]}],
    "patternProperties": {"^x-": {"not": {"type": "null"}}},
    "additionalProperties": False,
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}
TOOLS: dict[str, Any] = {
    "chat": {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
    "messages": {"name": "f", "input_schema": SCHEMA},
    "responses": {"type": "function", "name": "f", "parameters": SCHEMA},
}
TALKS = {name: way for name, way in STREAMED.items() if {"messages", "input"} & set(way.body)}


@pytest.mark.parametrize("way", TALKS.values(), ids=TALKS)
def test_a_tools_schema_goes_up_whole(http: httpx.Client, upstream: Upstream, way: Way) -> None:
    upstream.then(good)
    answer = http.request(**way.request(tools=[TOOLS[spoken(way)]]))
    assert answer.status_code == 200, answer.text
    [tool] = upstream.last.json["tools"]
    assert (tool.get("function", tool).get("parameters") or tool["input_schema"]) == SCHEMA


EXTRAS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [
        {"role": "system", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "y", "reasoning_content": "hm", "x_ours": [1]},
        {"role": "user", "content": "z", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]},
    "messages": {"messages": [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s", "x_ours": 1}]},
        {"role": "user", "content": [{"type": "text", "text": "z", "cache_control": {"type": "ephemeral"}}]},
    ]},
    "responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "z", "x_ours": {"a": 1}}]}]},
}  # fmt: skip
ALIKE = {name: way for name, way in TALKS.items() if way.route == spoken(way)}


@pytest.mark.parametrize("way", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_message_has_besides_is_kept(http: httpx.Client, upstream: Upstream, way: Way, streamed: bool) -> None:
    upstream.then(begun if streamed else good)
    said = {**EXTRAS[spoken(way)], "x_ours": {"b": None}, "stop": "END", **({"stream": True} if streamed else {})}
    asked = way.request(**said)
    with http.stream(**asked):
        sent = upstream.last.json
    if streamed and spoken(way) == "chat":
        assert sent.pop("stream_options") == {"include_usage": True}
    if spoken(way) == "responses":
        assert sent.pop("store") is False  # what is kept with our credential, other callers could read
    assert sent == {**asked["json"], "model": f"up-{way.route}"}


@pytest.mark.parametrize("name", ["completions", "invocations, a prompt"])
@pytest.mark.parametrize(
    "fields", [{"stop": "END"}, {"prompt": ["one", "two"], "stop": ["a", "b"]}, {"prompt": [1, 2]}]
)
def test_prompts_and_stops_in_all_their_forms(
    http: httpx.Client, upstream: Upstream, name: str, fields: dict[str, Any]
) -> None:
    upstream.then(good)
    assert http.request(**WAYS[name].request(**fields)).status_code == 200
    assert upstream.last.json == {"prompt": "Say hello.", "model": "up-chat", **fields}


@pytest.mark.parametrize("way", TALKS.values(), ids=TALKS)
def test_a_long_prompt_and_a_long_answer_arrive_whole(http: httpx.Client, upstream: Upstream, way: Way) -> None:
    for size in (32 * 1024 - 1, 32 * 1024 + 1, 1024 * 1024):
        long = "x" * size
        upstream.then(stream(delta(long), delta(finish="stop"), usage_chunk(), DONE) if way.route == "chat" else begun)
        said = {"input": long} if "input" in way.body else {"messages": [{"role": "user", "content": long}]}
        with http.stream(**way.request(**said, stream=True)) as answer:
            assert long in upstream.last.body.decode()
            assert way.route != "chat" or long in answer.read().decode()


#: 10 MB of base64.
PICTURE = "iVBORw0K" * (10 * 1024 * 1024 // 8)


def image(dialect: str, data: str) -> dict[str, Any]:
    """A request with one picture."""
    url, text = f"data:image/png;base64,{data}", "What is it?"
    if dialect == "responses":
        parts: Any = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": url}]
        return {"input": [{"role": "user", "content": parts}]}
    source = {"type": "base64", "media_type": "image/png", "data": data}
    part = (
        {"image_url": {"url": url}, "type": "image_url"} if dialect == "chat" else {"type": "image", "source": source}
    )
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": text}, part]}]}


@pytest.mark.parametrize("way", [WAYS[name] for name in ("chat", "messages, of chat", "messages", "responses")])
def test_a_picture_of_10_mb_costs_little_and_holds_nobody_up(server: Server, upstream: Upstream, way: Way) -> None:
    upstream.then(good)
    process = psutil.Process(server.process.pid)
    with server.client() as http, server.client() as other:
        asked = http.build_request(**way.request(**image(spoken(way), PICTURE)))
        raw = asked.read()
        before = sum(process.cpu_times()[:2])
        with connected(server) as sock:
            lines = [f"POST {asked.url.path} HTTP/1.1", "host: localhost", f"authorization: Bearer {server.admin_key}"]
            lines += ["content-type: application/json", f"content-length: {len(raw)}", "connection: close"]
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + raw[: len(raw) // 2])
            # Half of it is there: others are answered meanwhile.
            assert other.request(**WAYS["chat"].request()).status_code == 200
            sock.sendall(raw[len(raw) // 2 :])
            assert received(sock).startswith(b"HTTP/1.1 200 ")
        # CPU, which a busy machine adds little to, not time. To count the tokens of its text would take seconds.
        assert sum(process.cpu_times()[:2]) - before < 0.25
    assert len(upstream.asked) == 2
    assert PICTURE.encode() in upstream.last.body


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_of_10_mb_comes_down_as_cheaply(
    server: Server, http: httpx.Client, upstream: Upstream, streamed: bool
) -> None:
    drawn = {"type": "image_generation.completed", "b64_json": PICTURE}
    said = event(drawn)  # one event, in the pieces that TLS would bring it in
    pieces = [said[at : at + 16384] for at in range(0, len(said), 16384)]
    upstream.then(stream(*pieces) if streamed else whole({"data": [drawn]}))
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    answer = http.request(**WAYS["images"].request(stream=streamed))
    assert sum(process.cpu_times()[:2]) - before < 1
    assert PICTURE in answer.text
