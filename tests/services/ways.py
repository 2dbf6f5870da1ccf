"""Every way to ask for inference: each path with a request it takes, and what an upstream answers on its own paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.services.upstream import END, Answer, Asked, Peer, chat, delta, event, head, piece, usage, whole

SAID: Any = [{"role": "user", "content": "Say hello."}]
SOUND = b"RIFF\0\r\n--\xff" * 50


@dataclass(frozen=True)
class Way:
    """One path, the route asked there and the rest of the request; `{route}` in a path names it, else the body does."""

    path: str
    route: str
    body: Mapping[str, Any]
    streams: bool = False
    form: bool = False

    def request(self, route: str | None = None, **more: Any) -> dict[str, Any]:
        """The arguments of httpx's `request`, asking `route` where one is given."""
        route = route or self.route
        named = {} if "{route}" in self.path else {"model": route}
        asked: dict[str, Any] = {"method": "POST", "url": self.path.format(route=route)}
        body = {**self.body, **more, **named}
        if not self.form:
            return {**asked, "json": body}
        data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
        return {**asked, "data": data, "files": {"file": ("a.mp3", SOUND, "audio/mpeg")}}


_CHAT = {"messages": SAID}
_MESSAGES = {"messages": SAID, "max_tokens": 9}
_RESPONSES = {"input": "Say hello."}
#: By name. Routes are called after the dialect or task that their upstream speaks.
WAYS: Mapping[str, Way] = {
    "chat": Way("/v1/chat/completions", "chat", _CHAT, True),
    "chat, of messages": Way("/v1/chat/completions", "messages", _CHAT, True),
    "completions": Way("/v1/completions", "chat", {"prompt": "Say hello."}, True),
    "embeddings": Way("/v1/embeddings", "embeddings", {"input": "Say hello."}),
    "messages": Way("/v1/messages", "messages", _MESSAGES, True),
    "messages, of chat": Way("/v1/messages", "chat", _MESSAGES, True),
    "count_tokens": Way("/v1/messages/count_tokens", "messages", {"messages": SAID}),
    "responses": Way("/v1/responses", "responses", _RESPONSES, True),
    "responses, of chat": Way("/v1/responses", "chat", _RESPONSES, True),
    "responses, of messages": Way("/v1/responses", "messages", _RESPONSES, True),
    "moderations": Way("/v1/moderations", "moderations", {"input": "Say hello."}),
    "images": Way("/v1/images/generations", "images", {"prompt": "Say hello."}, True),
    "speech": Way("/v1/audio/speech", "speech", {"input": "Say hello.", "voice": "alloy"}),
    "transcriptions": Way("/v1/audio/transcriptions", "transcriptions", {}, True, form=True),
    "rerank": Way("/v1/rerank", "rerank", {"query": "hello", "documents": ["Say hello."]}),
    "invocations": Way("/gateway/{route}/invocations", "chat", _CHAT, True),
    "invocations, a prompt": Way("/endpoints/{route}/invocations", "chat", {"prompt": "Say hello."}, True),
    "invocations, an input": Way("/endpoints/{route}/invocations", "embeddings", {"input": "Say hello."}),
    "mlflow's own": Way("/gateway/{route}/mlflow/invocations", "chat", _CHAT, True),
    "mlflow's chat": Way("/gateway/mlflow/v1/chat/completions", "chat", _CHAT, True),
    "mlflow's openai": Way("/gateway/openai/v1/responses", "responses", _RESPONSES, True),
    "mlflow's anthropic": Way("/gateway/anthropic/v1/messages", "messages", _MESSAGES, True),
}
#: Routes that are no conversation have their task's name.
KINDS = ("embeddings", "moderations", "images", "speech", "transcriptions", "rerank")

LATE = {"first_token": 0.8, "idle": 0.8}


def configuration(url: str) -> dict[str, Any]:
    """Routes by what their upstream at `url` speaks; `late-…` have little patience, `brief-…` a total time."""
    types = {"chat": "openai_compatible", "messages": "anthropic", "responses": "openai"}
    providers = {name: {"type": kind, "base_url": url, "api_key": "${UP_KEY}"} for name, kind in types.items()}
    routes: dict[str, Any] = {}
    for name in (*types, *KINDS):
        provider = name if name in types else "chat"
        route: dict[str, Any] = {"deployments": [{"provider": provider, "model": f"up-{name}"}]}
        if name in KINDS:
            route["task"] = name
        routes |= {name: route, f"late-{name}": {**route, "timeouts": LATE}}
        routes[f"brief-{name}"] = {**route, "timeouts": {"total": 0.8}}
    return {"providers": providers, "routes": routes}


_SEEN = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up", "stop_sequence": None}
_WROTE = {"id": "m1", "type": "message", "role": "assistant", "status": "completed"}
_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "up",
    "usage": _SEEN,
    "status": "completed",
}
_TEXT = {"type": "output_text", "text": "Hello", "annotations": []}
_PATHS: Mapping[str, Answer] = {
    "chat/completions": whole(chat()),
    "completions": whole({"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}], "usage": usage()}),
    "embeddings": whole({"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}),
    "messages": whole(
        {**_MESSAGE, "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "usage": _SEEN}
    ),
    "messages/count_tokens": whole({"input_tokens": 9}),
    "responses": whole({**_RESPONSE, "status": "completed", "output": [{**_WROTE, "content": [_TEXT]}]}),
    "audio/speech": whole(SOUND, kind="audio/mpeg"),
}


async def good(asked: Asked, peer: Peer) -> None:
    """A whole answer in the dialect of the path that was asked."""
    await _PATHS.get(asked.path.removeprefix("/v1/"), whole({"results": [], "text": "Hello"}))(asked, peer)


def _named(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"event: " + each["type"].encode() + b"\n" + event(each) for each in documents)


_BEGUN: Mapping[str, bytes] = {
    "chat/completions": delta("Hel", role="assistant"),
    "completions": event({"choices": [{"index": 0, "text": "Hel", "finish_reason": None}]}),
    "messages": _named(
        {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None, "usage": _SEEN}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    ),
    "responses": _named(
        {"type": "response.created", "sequence_number": 0, "response": {**_RESPONSE, "status": "in_progress"}},
        {"type": "response.output_text.delta", "item_id": "m1", "output_index": 0, "content_index": 0, "delta": "Hel"},
    ),
    "audio/speech": b"\xff\xfbone",
}


async def begun(asked: Asked, peer: Peer) -> None:
    """The beginning of a stream in the dialect of the path that was asked, and then nothing."""
    name = asked.path.removeprefix("/v1/")
    first = _BEGUN.get(name, event({"type": "something.partial", "data": "a"}))
    await peer.send(head(kind="audio/mpeg" if name == "audio/speech" else "text/event-stream") + piece(first))
    await peer.left()


def broken(document: dict[str, Any]) -> Answer:
    """The beginning of a stream as `begun`, then `document` as an event, and the stream's end."""

    async def answer(asked: Asked, peer: Peer) -> None:
        await peer.send(head() + piece(_BEGUN[asked.path.removeprefix("/v1/")]) + piece(_named(document)) + END)

    return answer


@dataclass
class Said:
    """What an error says, whichever shape its path has; `shape` are the keys of its document."""

    message: str
    shape: set[str] = field(default_factory=set)


def error_said(answer: httpx.Response) -> Said:
    """The error in `answer`."""
    document = answer.json()
    shape = set(document)
    return Said(document["message"] if "message" in shape else document["error"]["message"], shape)


def shape_of(way: Way) -> set[str]:
    """The keys an error on this path has at least."""
    if "{route}" in way.path:
        return {"error_code", "message"}
    return {"type", "error"} if "messages" in way.path else {"error"}
