"""Providers that are rows of `providers.yaml`: the caller's JSON goes up, the provider's bytes come down."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
from pydantic import SecretStr

from gateway.config_secrets import names_secret
from gateway.dialects import lenient
from gateway.dialects.plain import NOT_JSON
from gateway.dialects.sse import EVENTS, error_in, said
from gateway.errors import UpstreamFailed, to_openai
from gateway.providers.credentials import REFUSED, Credentials, told_apart
from gateway.providers.rows import AUTH, Row
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

#: Characters a credential has at least, to be looked for in what an upstream says.
_SHORTEST = 8


class HttpProvider:
    """A provider as its row says, with what the configuration adds to that."""

    def __init__(self, row: Row, spec: ProviderSpec, transport: Transport) -> None:
        self.name = spec.name
        self._row = row
        self._defaults = dict(row.headers)
        self._fitted = row.max_tokens is not None or not row.stream_options
        self._base = (spec.base_url or "").rstrip("/")
        self._version = str(spec.options.get("api_version", ""))
        self._urls: dict[tuple[Task, str], str] = {}
        self._transport = transport.through(spec.proxy, spec.ca_bundle)
        self._headers = {name.lower(): value.get_secret_value() for name, value in spec.headers.items()}
        self._credentials = Credentials(spec.name, spec.credentials, self._ours)
        secrets = [*spec.credentials, *(value for name, value in spec.headers.items() if names_secret(name))]
        # Longest first: one may be a part of another. Those that are short words would be found in any text.
        texts = sorted({secret.get_secret_value() for secret in secrets}, key=len, reverse=True)
        self.secrets: Sequence[str] = [text for text in texts if len(text) >= _SHORTEST]

    async def start(self) -> None:
        """Nothing runs beside the calls."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """The provider's answer, byte for byte, if it is one (`Provider.send`)."""
        url = self._urls.get((request.task, request.model)) or self._url(request.task, request.model)
        body = self._body(request)
        headers = {"content-type": request.content_type, **self._defaults, **request.headers}
        if request.credential is not None:
            headers |= self._theirs(request.credential)
            answer = told_apart(await self._transport.post(url, body, headers, request.connect, stream=request.stream))
            if answer.status in REFUSED:
                return _theirs_refused(answer, self.name, request.task)
            return await checked(answer, self.name, request.task)
        for credential in self._credentials.turn():
            headers |= credential.headers
            answer = told_apart(await self._transport.post(url, body, headers, request.connect, stream=request.stream))
            if not self._credentials.refused(credential, answer):
                break
        if answer.status >= 400:
            # Some quote the credential they do not like, and not only under 401.
            for secret in self.secrets:
                answer.body = answer.body.replace(secret.encode(), b"***")
        return await checked(answer, self.name, request.task)

    def speaks(self, task: Task, model: str) -> bool:
        """Whether its row names the dialect."""
        return task in self._row.paths

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """As its row says (`Provider.prefill`)."""
        return self._row.prefill

    async def close(self) -> None:
        """The shared transport is closed by its owner."""

    def status(self) -> str:
        """Always ready: whether the address answers is known at a call."""
        return "ready"

    def _url(self, task: Task, model: str) -> str:
        path = self._row.paths.get(task, task.value)
        filled = path.replace("{model}", quote(model, safe="")).replace("{api_version}", quote(self._version))
        url = self._urls[task, model] = join(self._base, filled)
        return url

    def _body(self, request: UpstreamRequest) -> bytes:
        if isinstance(request.body, bytes):
            return request.body
        document = {**request.body, "model": request.model}
        if self._fitted and request.task in (Task.CHAT, Task.COMPLETIONS):
            _fit(document, self._row)
        return orjson.dumps(document)

    def _ours(self, secret: SecretStr | None) -> dict[str, str]:
        """The operator's headers, with one of the credentials."""
        return {**self._headers, **({} if secret is None else self._auth(secret))}

    def _theirs(self, secret: SecretStr) -> dict[str, str]:
        """The operator's headers without what may be a credential, with the caller's own."""
        return {name: value for name, value in self._headers.items() if not names_secret(name)} | self._auth(secret)

    def _auth(self, secret: SecretStr) -> dict[str, str]:
        name, before = AUTH[self._row.auth]
        return {name: before + secret.get_secret_value()}


def join(base: str, path: str) -> str:
    """`path` after `base`, which has no last slash; each `..` in front takes a part of the base's own path away."""
    if not path.startswith(".."):
        return f"{base}/{path}"
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}{posixpath.normpath(f'{parts.path}/{path}')}"


def _fit(document: dict[str, Any], row: Row) -> None:
    """Say in the provider's words what it would refuse in OpenAI's."""
    if not row.stream_options:
        document.pop("stream_options", None)
    if row.max_tokens is not None:
        other = "max_completion_tokens" if row.max_tokens == "max_tokens" else "max_tokens"
        if other in document:
            cap = document.pop(other)
            document.setdefault(row.max_tokens, cap)


async def checked(answer: Answer, provider: str, task: Task) -> Answer:
    """`answer` if a client can read it; else `UpstreamFailed`, or an error in OpenAI's shape with its status kept."""
    kind = _called(answer.headers.get("content-type", ""))
    if (answer.status != 200 or answer.chunks is not None) and (wrong := _not_an_answer(answer, kind, task)):
        if answer.chunks is not None:
            await answer.chunks.aclose()
        raise UpstreamFailed(f"Provider '{provider}' answered {wrong}.")
    if answer.chunks is not None:
        return answer
    if answer.status in REFUSED:
        # Its text may quote our credential, and its status would tell the caller that *its* key is bad.
        raise UpstreamFailed(
            f"Provider '{provider}' refused our credential (HTTP {answer.status}). "
            "Whoever runs this gateway has to look at its api_key, and the account behind it.",
            code="upstream_refused_credential",
        )
    if answer.status >= 400:
        return _error(answer, provider, task)
    document = _object(answer.body)
    if document is not None:
        # A response that failed is one in its own dialect, and says why.
        if task is not Task.RESPONSES and (error := error_in(document)):
            raise UpstreamFailed(f"Provider '{provider}' sent an error as if it were an answer: {said(error)}")
        answer.document = document
    elif task not in NOT_JSON or not answer.body:
        raise UpstreamFailed(f"Provider '{provider}' answered with {kind}, not with a JSON object.")
    return answer


def _not_an_answer(answer: Answer, kind: str, task: Task) -> str | None:
    """How the provider answered, where its status or media type already says that no client can read it."""
    if not 200 <= answer.status < 600:
        return f"with status {answer.status}, which HTTP does not have"
    if 300 <= answer.status < 400:
        return "with a redirect, which is not followed"
    if answer.chunks is not None and kind.lower() != EVENTS and task not in NOT_JSON:
        return f"a stream with {kind}, not with events"
    return None


def _object(body: bytes) -> dict[str, Any] | None:
    document = _parsed(body)
    return document if type(document) is dict else None


def _parsed(body: bytes) -> Any:
    try:
        return lenient.loads(body)
    except ValueError:
        return None


def _error(answer: Answer, provider: str, task: Task) -> Answer:
    """The upstream's error as it is where a client finds its message, else told anew around the same message."""
    document = _parsed(answer.body)
    # Google puts its error into a list of one.
    listed = isinstance(document, list) and len(document) == 1
    found = document[0] if listed else document
    if not isinstance(found, dict):
        return _worded(answer, provider, task, None)
    if "error" in found and not isinstance(found["error"], str):
        if listed:
            answer.body = orjson.dumps(found)
        return answer
    return _worded(answer, provider, task, found)


#: Where providers put their message: Mistral, Cohere, Databricks; FastAPI; Hugging Face, xAI; RFC 9457.
_MESSAGES = ("message", "detail", "error", "title")


def _worded(answer: Answer, provider: str, task: Task, document: dict[str, Any] | None) -> Answer:
    """The same status and retry-after, told as OpenAI would: for proxies' HTML pages and FastAPI's `detail`.

    Anthropic's clients read the same where it begins with `type`.
    """
    said = next((document[word] for word in _MESSAGES if document.get(word)), None) if document else None
    message = f"Provider '{provider}' answered HTTP {answer.status}" + (f": {lenient.said(said)}" if said else ".")
    return _told(answer, task, message, _code(document or {}))


def _told(answer: Answer, task: Task, message: str, code: str | None) -> Answer:
    _, headers, body = to_openai(UpstreamFailed(message, code=code))
    if task in (Task.MESSAGES, Task.COUNT_TOKENS):
        body = b'{"type":"error",' + body[1:]
    kept = {"retry-after": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
    return Answer(answer.status, {**headers, **kept}, body)


def _code(document: Mapping[str, Any]) -> str | None:
    """The upstream's own word for what is wrong, as Mistral and Cerebras give it beside the message."""
    code = document.get("code")
    return code if isinstance(code, str) and code.isascii() and code.isprintable() and len(code) <= 100 else None


def _theirs_refused(answer: Answer, provider: str, task: Task) -> Answer:
    """The upstream's refusal of a credential the caller brought: its status is for the caller, its text is kept out."""
    message = f"Provider '{provider}' refused the credential you brought (HTTP {answer.status})."
    return _told(answer, task, message, "upstream_refused_credential")


def _called(kind: str) -> str:
    return kind.split(";", 1)[0].strip() or "something without a content type"
