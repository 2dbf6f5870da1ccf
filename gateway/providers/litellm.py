"""Providers reached through litellm: every upstream with a wire or a signature of its own. The only door to litellm."""

from __future__ import annotations

import asyncio
import base64
import importlib
import logging
import re
import struct
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from pydantic import SecretStr

from gateway import settings
from gateway.errors import BadRequest, UpstreamFailed, UpstreamTimeout, to_openai
from gateway.providers.credentials import REFUSED
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

_FUNCTIONS = {Task.CHAT: "acompletion", Task.COMPLETIONS: "atext_completion", Task.EMBEDDINGS: "aembedding"}

#: What a caller may set as an argument of litellm: OpenAI's parameters that are nothing else to litellm.
#: Anything else it would take for orders of its own (`api_base`, `mock_response`, …), so the rest
#: travels in `extra_body`, which litellm only ever puts into the upstream's JSON.
_SHARED = frozenset((
    "stream", "stream_options", "temperature", "top_p", "n", "stop", "max_tokens", "presence_penalty",
    "frequency_penalty", "logit_bias", "user", "seed", "logprobs",
))  # fmt: skip
_CHAT = frozenset((
    "messages", "functions", "function_call", "max_completion_tokens", "modalities", "prediction", "audio",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs", "reasoning_effort", "verbosity",
    "safety_identifier", "service_tier", "store", "prompt_cache_key", "prompt_cache_retention", "web_search_options",
    "thinking",
))  # fmt: skip
PARAMETERS = {
    Task.CHAT: _SHARED | _CHAT,
    Task.COMPLETIONS: _SHARED | {"prompt", "best_of", "echo", "suffix"},
    # Not encoding_format: few upstreams know base64, so we make it here.
    Task.EMBEDDINGS: frozenset(("input", "dimensions", "user")),
}
_OURS = frozenset(("model", "encoding_format"))
# litellm writes `extra_body` itself into Anthropic's JSON; there, these go as arguments.
_ANTHROPIC_EXTRAS = frozenset(("top_k",))
_HEADERS_UP = ("anthropic-beta", "idempotency-key", "traceparent")
#: Longer than any route waits: the caller of `send` keeps the time.
_LONGEST = 86400.0

_PREFIX = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout): )+")
_ADVICE = re.compile(r"\s*(?:To drop these, set|\. Handle with|Traceback \(most recent).*", re.DOTALL)
_SECRET_OPTION = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
_CODES = {"ContextWindowExceededError": "context_length_exceeded", "ContentPolicyViolationError": "content_filter",
          "UnsupportedParamsError": "unsupported_parameter"}  # fmt: skip
_STATUS = {400: ("invalid_request_error", "invalid_request"), 404: ("invalid_request_error", "not_found"),
           429: ("rate_limit_error", "rate_limit_exceeded")}  # fmt: skip


class LiteLLMProvider:
    """Anything litellm knows, under litellm's own names (`anthropic/…`, `bedrock/…`), or those of one `seller` there.

    litellm is imported at the first call, in a thread: that takes about 3 s and 180 MB.
    """

    def __init__(self, spec: ProviderSpec, seller: str | None = None) -> None:
        self.name = spec.name
        self._prefix = f"{seller}/" if seller else ""
        self._fixed = {name: _plain(value) for name, value in spec.options.items()}
        if spec.api_key is not None:
            self._fixed["api_key"] = spec.api_key.get_secret_value()
        if spec.base_url is not None:
            self._fixed["api_base"] = spec.base_url
        self._headers = {name: value.get_secret_value() for name, value in spec.headers.items()}
        hidden = [str(value) for name, value in self._fixed.items() if _SECRET_OPTION.search(name) and value]
        # Longest first: one may be a part of another.
        self.secrets: Sequence[str] = sorted((*hidden, *self._headers.values()), key=len, reverse=True)
        self._litellm: Any = None

    def speaks(self, task: Task, model: str) -> bool:
        """What litellm has a function for (`Provider.speaks`)."""
        return task in _FUNCTIONS

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """Not known to be possible (`Provider.prefill`)."""
        return None

    async def start(self) -> None:
        """Nothing runs beside the calls."""

    async def close(self) -> None:
        """litellm keeps its own connections."""

    def status(self) -> str:
        """Always ready: whether the upstream answers is known at a call."""
        return "ready"

    async def send(self, request: UpstreamRequest) -> Answer:
        """The upstream's answer in OpenAI's shape, its errors too (`Provider.send`)."""
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_load)
        try:
            arguments = self._arguments(request)
            result = await getattr(self._litellm, _FUNCTIONS[request.task])(**arguments)
            if not request.stream:
                return Answer(200, {"content-type": "application/json"}, orjson.dumps(_whole(result, request)))
            # Some of litellm's streams ask the upstream only when they are read, so its refusal comes with the first.
            stream = aiter(result)
            first = await anext(stream, None)
        except BadRequest as error:
            status, headers, body = to_openai(error)
            return Answer(status, dict(headers), body)
        except Exception as error:  # noqa: BLE001, RUF100 (litellm lets any error of its parts through)
            return self._refused(error)
        return Answer(200, {"content-type": "text/event-stream"}, chunks=self._events(result, stream, first))

    def _arguments(self, request: UpstreamRequest) -> dict[str, Any]:
        import httpx

        known = PARAMETERS[request.task]
        model = request.model if request.model.startswith(self._prefix) else self._prefix + request.model
        arguments = {name: value for name, value in request.document.items() if name in known}
        extra = {name: value for name, value in request.document.items() if name not in known | _OURS}
        if extra and self._is_anthropic(model):
            arguments |= {name: extra.pop(name) for name in _ANTHROPIC_EXTRAS & extra.keys()}
            if extra:
                raise BadRequest(f"This model does not take: {', '.join(extra)}.", param=next(iter(extra)))
        if extra:
            arguments["extra_body"] = extra
        headers = {name: request.headers[name] for name in _HEADERS_UP if name in request.headers} | self._headers
        if headers:
            arguments["extra_headers"] = headers
        timeout = httpx.Timeout(_LONGEST, connect=request.connect)
        quiet = {"timeout": timeout, "num_retries": 0, "max_retries": 0, "caching": False, "no-log": True}
        return arguments | quiet | self._fixed | {"model": model}

    def _is_anthropic(self, model: str) -> bool:
        _, provider, _, _ = self._litellm.get_llm_provider(model)
        return provider in ("anthropic", "bedrock") or (provider == "vertex_ai" and "claude" in model)

    async def _events(self, result: Any, stream: AsyncIterator[Any], first: Any) -> AsyncGenerator[bytes, None]:
        try:
            while first is not None:
                yield b"data: " + orjson.dumps(_chunk(first)) + b"\n\n"
                first = await anext(stream, None)
            yield b"data: [DONE]\n\n"
        except Exception as error:  # noqa: BLE001, RUF100 (litellm lets any error of its parts through)
            raise self._failure(error) from None
        finally:
            if hasattr(result, "aclose"):
                await result.aclose()

    def _refused(self, error: Exception) -> Answer:
        """The upstream's refusal with its own status; raises where there was no answer to pass on."""
        status = getattr(error, "status_code", None)
        if self._is_silence(error) or not isinstance(status, int) or not 400 <= status < 600 or status in REFUSED:
            raise self._failure(error) from None
        kind, code = _STATUS.get(status, ("invalid_request_error" if status < 500 else "server_error", str(status)))
        code = _CODES.get(type(error).__name__, code)
        body = {"error": {"message": self._words(error), "type": kind, "param": None, "code": code}}
        headers = {"content-type": "application/json"}
        if (wait := _retry_after(error)) is not None:
            headers["retry-after"] = wait
        return Answer(status, headers, orjson.dumps(body))

    def _is_silence(self, error: Exception) -> bool:
        """Whether no answer came at all: litellm calls that a status 500 of the upstream, for most providers."""
        import httpx

        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, (self._litellm.Timeout, self._litellm.APIConnectionError, httpx.TransportError)):
                return True
            cause = cause.__cause__ or cause.__context__
        return False

    def _failure(self, error: Exception) -> UpstreamFailed:
        if isinstance(error, self._litellm.Timeout):
            return UpstreamTimeout(f"Provider '{self.name}' did not answer in time.")
        status = getattr(error, "status_code", None)
        if status in REFUSED:
            # Its text may quote our credential, and its status would tell the caller that *its* key is bad.
            return UpstreamFailed(
                f"Provider '{self.name}' refused our credential (HTTP {status}). "
                "Whoever runs this gateway has to look at its api_key, and the account behind it.",
                code="upstream_refused_credential",
            )
        return UpstreamFailed(f"Provider '{self.name}' failed: {self._words(error)}")

    def _words(self, error: Exception) -> str:
        """What the upstream said, without litellm's frame around it and without our secrets."""
        text = _ADVICE.sub("", _PREFIX.sub("", str(getattr(error, "message", "") or error)))
        _, dash, said = text.partition(" - ")
        if dash:
            with suppress(ValueError, KeyError, TypeError):
                text = str(orjson.loads(said)["error"]["message"])
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text.strip()[:2000] or type(error).__name__


def _load() -> Any:
    settings.quieten_libraries()
    with warnings.catch_warnings():
        # Deprecations inside litellm are for its makers.
        warnings.simplefilter("ignore")
        litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    litellm.cache = None
    litellm.callbacks = []
    litellm.disable_aiohttp_transport = True
    # It would log prompts and upstream errors, which may quote credentials.
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _whole(result: Any, request: UpstreamRequest) -> dict[str, Any]:
    answer: dict[str, Any] = result.model_dump(exclude_none=True)
    for choice in answer.get("choices", ()):
        if isinstance(choice.get("message"), dict):
            choice["message"].setdefault("content", None)
    if request.task is Task.EMBEDDINGS and request.document.get("encoding_format") == "base64":
        for item in answer["data"]:
            if isinstance(vector := item["embedding"], list):
                item["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return answer


def _chunk(part: Any) -> dict[str, Any]:
    chunk: dict[str, Any] = part.model_dump(exclude_none=True)
    for choice in chunk.get("choices", ()):
        choice.setdefault("finish_reason", None)
    # OpenAI's usage chunk has no choices; litellm's has one that says nothing.
    if chunk.get("usage") and not any(map(_speaks, chunk.get("choices", ()))):
        chunk["choices"] = []
    return chunk


def _speaks(choice: Mapping[str, Any]) -> bool:
    return bool(choice.get("delta") or choice.get("text") or choice.get("finish_reason"))


def _retry_after(error: Exception) -> str | None:
    for holder in (getattr(error, "response", None), error):
        for name in ("headers", "litellm_response_headers"):
            headers = getattr(holder, name, None)
            if headers is not None and (value := headers.get("retry-after")) is not None:
                return str(value)
    return None
