"""Providers that speak OpenAI's own dialect: the caller's JSON goes up, the provider's bytes come down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects import lenient
from gateway.errors import UpstreamFailed, to_openai
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

_SPOKEN = frozenset((Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS))


class OpenAIProvider:
    """OpenAI, and every server that speaks as it does, at `spec.base_url` with `spec.api_key` as Bearer."""

    def __init__(self, spec: ProviderSpec, transport: Transport) -> None:
        self.name = spec.name
        self._base = (spec.base_url or "").rstrip("/")
        self._transport = transport
        self._headers = {name: value.get_secret_value() for name, value in spec.headers.items()}
        if spec.api_key is not None:
            self._headers["authorization"] = f"Bearer {spec.api_key.get_secret_value()}"

    def speaks(self, task: Task, model: str) -> bool:
        """Whatever the older of OpenAI's own tasks are (`Provider.speaks`)."""
        return task in _SPOKEN

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """Not known to be possible (`Provider.prefill`)."""
        return None

    async def start(self) -> None:
        """Nothing runs beside the calls."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """The provider's answer, byte for byte, if it is one (`Provider.send`)."""
        body = orjson.dumps({**request.body, "model": request.model})
        headers = {"content-type": "application/json", **request.headers, **self._headers}
        url = f"{self._base}/{request.task}"
        answer = await self._transport.post(url, body, headers, request.connect, stream=request.stream)
        return await checked(answer, self.name)

    async def close(self) -> None:
        """The shared transport is closed by its owner."""

    def status(self) -> str:
        """Always ready: whether the address answers is known at a call."""
        return "ready"


async def checked(answer: Answer, provider: str) -> Answer:
    """`answer` if a client can read it; else `UpstreamFailed`, or an error in OpenAI's shape with its status kept."""
    kind = _called(answer.headers.get("content-type", ""))
    wrong = _not_an_answer(answer, kind)
    if wrong is not None:
        if answer.chunks is not None:
            await answer.chunks.aclose()
        raise UpstreamFailed(f"Provider '{provider}' answered {wrong}.")
    if answer.chunks is not None:
        return answer
    if answer.status in (401, 403):
        # Its text may quote our credential, and its status would tell the caller that *its* key is bad.
        raise UpstreamFailed(
            f"Provider '{provider}' refused our credential (HTTP {answer.status}). "
            "Whoever runs this gateway has to look at its api_key.",
            code="upstream_refused_credential",
        )
    document = _object(answer.body)
    if answer.status >= 400:
        return answer if document is not None and "error" in document else _worded(answer, provider, document)
    if document is None:
        raise UpstreamFailed(f"Provider '{provider}' answered with {kind}, not with a JSON object.")
    answer.document = document
    return answer


def _not_an_answer(answer: Answer, kind: str) -> str | None:
    """How the provider answered, where its status or media type already says that no client can read it."""
    if not 200 <= answer.status < 600:
        return f"with status {answer.status}, which HTTP does not have"
    if 300 <= answer.status < 400:
        return "with a redirect, which is not followed"
    if answer.chunks is not None and kind.lower() != "text/event-stream":
        return f"a stream with {kind}, not with events"
    return None


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = lenient.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _worded(answer: Answer, provider: str, document: dict[str, Any] | None) -> Answer:
    """The same status and retry-after, told as OpenAI would: for proxies' HTML pages and FastAPI's `detail`."""
    said = next((document[word] for word in ("message", "detail") if word in document), None) if document else None
    message = f"Provider '{provider}' answered HTTP {answer.status}" + (f": {lenient.said(said)}" if said else ".")
    _, headers, body = to_openai(UpstreamFailed(message))
    kept = {"retry-after": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
    return Answer(answer.status, {**headers, **kept}, body)


def _called(kind: str) -> str:
    return kind.split(";", 1)[0].strip() or "something without a content type"
