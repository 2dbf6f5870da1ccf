"""Each row of `providers.yaml` against the exchange its provider documents: what goes over the wire, and what comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import SecretStr

from gateway.errors import UpstreamFailed
from gateway.providers import rows
from gateway.providers.http import HttpProvider
from gateway.providers.make import make
from gateway.providers.rows import Row
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.settings import price_map_file
from gateway.types import UpstreamRequest
from tests.services.upstream import Answer, Upstream, running, stream, whole

DATA = yaml.load((Path(__file__).parent / "data" / "contracts.yaml").read_text("utf-8"), yaml.CSafeLoader)
CONTRACTS: dict[str, dict[str, Any]] = DATA["providers"]
DIALECTS: dict[str, dict[str, Any]] = DATA["dialects"]
HTTP = {name: row for name, row in rows.rows().items() if row.litellm is None}
EXCHANGES = [(name, task) for name, contract in CONTRACTS.items() for task in contract["asks"]]


def test_every_row_has_its_contract_and_every_dialect_of_it() -> None:
    assert set(CONTRACTS) == set(HTTP)
    asked = {name: {Task[task.upper()] for task in contract["asks"]} for name, contract in CONTRACTS.items()}
    assert asked == {name: set(row.paths) for name, row in HTTP.items()}


def test_every_row_is_whole() -> None:
    table = json.loads((price_map_file() or Path()).read_text("utf-8"))
    sellers = {str(entry.get("litellm_provider")) for entry in table.values()}
    for name, row in rows.rows().items():
        assert row.about, name
        assert row.auth in rows.AUTH, name
        assert row.max_tokens in (None, "max_tokens", "max_completion_tokens"), name
        assert row.seller is None or row.seller in sellers, name
        assert (row.litellm is None) == bool(row.paths), name


async def test_each_type_has_its_class(transport: Transport) -> None:
    classes = {
        kind: type(make(ProviderSpec("p", kind, "http://h/v1"), transport)).__name__
        for kind in ("embedded", "fake", "litellm", *rows.rows())
    }
    own = {"embedded": "EmbeddedProvider", "fake": "FakeProvider"}
    signed = dict.fromkeys(("litellm", "bedrock", "vertex"), "LiteLLMProvider")
    assert classes == {**dict.fromkeys(HTTP, "HttpProvider"), **own, **signed}


@pytest.mark.parametrize("task", Task)
async def test_only_what_can_be_sent_is_spoken(transport: Transport, task: Task) -> None:
    three = task in (Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS)
    for kind in ("embedded", "litellm", "bedrock"):
        assert make(ProviderSpec("p", kind), transport).speaks(task, "m") is three
    assert make(ProviderSpec("p", "fake"), transport).speaks(task, "m") is (task is not Task.COUNT_TOKENS)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as one:
        yield one


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()
    await asyncio.sleep(0)


def model_of(contract: dict[str, Any]) -> str:
    return str(contract.get("model", "MODEL"))


def provider(row: Row, upstream: Upstream, transport: Transport, *, secret: str = "KEY") -> HttpProvider:
    """The row's provider, whose host alone is changed: to the upstream here."""
    documented = urlsplit(row.base_url or row.example_url)
    base = f"http://127.0.0.1:{upstream.port}{documented.path}"
    options = {"api_version": "2024-10-21"} if row.api_version else {}
    return HttpProvider(row, ProviderSpec("p", row.name, base, SecretStr(secret), options=options), transport)


def asking(contract: dict[str, Any], task: str, *, streamed: bool = False) -> UpstreamRequest:
    ask, model = DIALECTS[task]["ask"], model_of(contract)
    if isinstance(ask, str):
        kind, _, form = ask.partition(": ")
        return UpstreamRequest(Task[task.upper()], model, form.encode(), {}, streamed, 5.0, content_type=kind)
    body = {**ask, "stream": True} if streamed else ask
    return UpstreamRequest(Task[task.upper()], model, body, {"accept": "a/b"}, streamed, 5.0)


def answering(contract: dict[str, Any], task: str) -> tuple[Answer, bytes]:
    answer = contract.get("answers", {}).get(task, DIALECTS[task]["answer"])
    if isinstance(answer, str):
        kind, _, text = answer.partition(": ")
        return whole(text.encode(), kind=kind), text.encode()
    body = json.dumps(answer).encode()
    return whole(body), body


def assert_asked(upstream: Upstream, contract: dict[str, Any], row: Row, task: str, request: UpstreamRequest) -> None:
    """The request that arrived is the documented one: its URL, every header, its body."""
    documented, asked = urlsplit(contract["asks"][task]), upstream.last
    assert documented.netloc == urlsplit(row.base_url or row.example_url).netloc
    assert asked.method == "POST"
    assert asked.path == documented.path + (f"?{documented.query}" if documented.query else "")
    name, _, value = contract["key"].partition(": ")
    framing = {
        "host": f"127.0.0.1:{upstream.port}",
        "accept-encoding": "identity",
        "content-length": str(len(asked.body)),
    }
    expected = {"content-type": request.content_type, **request.headers, name: value, **contract.get("headers", {})}
    assert dict(asked.headers) == framing | expected
    assert len(dict(asked.headers)) == len(asked.headers)
    if isinstance(request.body, bytes):
        assert asked.body == request.body
    else:
        assert asked.json == {**request.body, "model": request.model}


@pytest.mark.parametrize(("name", "task"), EXCHANGES)
async def test_a_whole_answer(transport: Transport, upstream: Upstream, name: str, task: str) -> None:
    contract, row = CONTRACTS[name], HTTP[name]
    scripted, body = answering(contract, task)
    upstream.then(scripted)
    request = asking(contract, task)
    up = provider(row, upstream, transport)
    answer = await up.send(request)
    assert_asked(upstream, contract, row, task, request)
    assert (answer.status, answer.body) == (200, body)
    assert up.speaks(request.task, request.model)


@pytest.mark.parametrize(("name", "task"), [one for one in EXCHANGES if "stream" in DIALECTS[one[1]]])
async def test_a_stream(transport: Transport, upstream: Upstream, name: str, task: str) -> None:
    contract, row = CONTRACTS[name], HTTP[name]
    events = [f"{event}\n\n".encode() for event in DIALECTS[task]["stream"]]
    upstream.then(stream(*events, kind="text/event-stream; charset=utf-8"))
    request = asking(contract, task, streamed=True)
    answer = await provider(row, upstream, transport).send(request)
    assert_asked(upstream, contract, row, task, request)
    assert answer.chunks is not None
    assert b"".join([chunk async for chunk in answer.chunks]) == b"".join(events)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["error", "limited"])
@pytest.mark.parametrize("name", CONTRACTS)
async def test_a_refusal(transport: Transport, upstream: Upstream, name: str, kind: str, streamed: bool) -> None:
    contract, row = CONTRACTS[name], HTTP[name]
    refusal = contract[kind]
    status, told = refusal.get("status", 429), refusal["body"]
    page = isinstance(told, str)
    body = told.encode() if page else json.dumps(told).encode()
    after = {"retry_after": refusal["after"]} if "after" in refusal else {}
    upstream.then(whole(body, status, "text/html" if page else "application/json", **after))
    task = next(iter(contract["asks"]))
    answer = await provider(row, upstream, transport).send(asking(contract, task, streamed=streamed))
    assert (answer.status, answer.headers.get("retry-after")) == (status, refusal.get("after"))
    error = json.loads(answer.body)["error"]
    assert refusal["says"] in error["message"]
    assert error.get("code") == refusal.get("code", error.get("code"))
    if isinstance(told, dict) and isinstance(told.get("error"), dict):
        assert answer.body == body, "a body that clients can read passes as it came"


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_ours_to_mend(
    transport: Transport, upstream: Upstream, name: str, status: int
) -> None:
    upstream.then(whole({"error": {"message": "Incorrect API key provided: KEY"}}, status))
    task = next(iter(CONTRACTS[name]["asks"]))
    with pytest.raises(UpstreamFailed) as caught:
        await provider(HTTP[name], upstream, transport).send(asking(CONTRACTS[name], task))
    assert (caught.value.code, "KEY" in caught.value.message) == ("upstream_refused_credential", False)


FITTED = [name for name, row in HTTP.items() if row.max_tokens or not row.stream_options]


@pytest.mark.parametrize("name", FITTED)
async def test_what_a_provider_would_refuse_is_said_in_its_words(
    transport: Transport, upstream: Upstream, name: str
) -> None:
    row = HTTP[name]
    sent = {"messages": [], "max_tokens": 5, "max_completion_tokens": 7, "stream_options": {"include_usage": True}}
    upstream.then(whole({}))
    up = provider(row, upstream, transport)
    await up.send(UpstreamRequest(Task.CHAT, "m", sent, {}, False, 5.0))
    arrived = upstream.last.json
    assert ("stream_options" in arrived) == row.stream_options
    if row.max_tokens == "max_tokens":
        assert (arrived["max_tokens"], "max_completion_tokens" in arrived) == (5, False)
        await up.send(UpstreamRequest(Task.CHAT, "m", {"max_completion_tokens": 7}, {}, False, 5.0))
        assert upstream.last.json == {"model": "m", "max_tokens": 7}
    assert sent["max_completion_tokens"] == 7
