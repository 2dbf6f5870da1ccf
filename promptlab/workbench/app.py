"""The lab as one ASGI application. Importing it imports Gradio, which takes seconds: do it in a thread."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.routes

from promptlab.client import Server
from promptlab.workbench.gate import ROOT, Gate, Receive, Send, refuse_stopping
from promptlab.workbench.lab import Lab
from promptlab.workbench.pages.keys import Keys
from promptlab.workbench.pages.playground import Playground
from promptlab.workbench.pages.prompts import Prompts
from promptlab.workbench.pages.runs import Runs
from promptlab.workbench.pages.traces import Traces
from promptlab.workbench.sessions import Sessions
from promptlab.workbench.theme import theme

# Path below /lab/, name, and what builds the page. Adding a page is one line here and one file.
PAGES: tuple[tuple[str, str, Callable[[Lab, gr.Blocks], object]], ...] = (
    ("", "Playground", Playground),
    ("runs", "Runs", Runs),
    ("traces", "Traces", Traces),
    ("prompts", "Prompts", Prompts),
    ("keys", "Keys & spend", Keys),
)

_CLOSE_WITHIN = 1.5

# Said whatever `ssr_mode` is. Pages are drawn in the browser: the other way needs Node.
warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)


class Workbench:
    """Everything below `/lab`. It speaks HTTP to `base_url` like any client, with its visitors' keys."""

    def __init__(self, base_url: str, visitor_key: str | None, version: str, data: Path) -> None:
        """`visitor_key`: the key everyone acts with (protected mode); None: visitors sign in with their own."""
        self._server = Server(base_url)
        sessions = Sessions()
        self._lab = Lab(self._server, sessions, visitor_key)
        # Gradio makes a folder for its (here unreachable) editor; in /tmp it could be another user's.
        gradio.routes.DEFAULT_TEMP_DIR = str(data / "lab")  # type: ignore[attr-defined]  # theirs, not exported
        self._parent = gradio.routes.App()
        gr.mount_gradio_app(
            self._parent,
            _blocks(self._lab),
            path=ROOT,
            theme=theme(),
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            blocked_paths=["/"],
            show_error=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=0,
        )
        pages = tuple((path, name) for path, name, _ in PAGES)
        self._gate = Gate(self._parent, self._server, sessions, pages, visitor_key=visitor_key, version=version)
        self._closing = asyncio.Event()
        self._lifespan: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Enter Gradio's lifespan on the running loop. Returns when pages can be served."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # In a task of its own: it has to be left by the task that entered it.
        self._lifespan = asyncio.create_task(self._live(started))
        await started

    async def close(self) -> None:
        """End every stream and request, within two seconds."""
        self._closing.set()
        self._lab.stop_all()
        if self._requests:
            await asyncio.wait(self._requests, timeout=_CLOSE_WITHIN / 2)
        if self._lifespan is not None:
            await asyncio.wait({self._lifespan}, timeout=_CLOSE_WITHIN / 2)
            self._lifespan.cancel()
        await self._server.close()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request below `/lab`."""
        if self._closing.is_set():  # on a connection that is still open: nobody is left to ask
            await refuse_stopping(send)
            return
        started = ended = False

        async def watched(message: Any) -> None:
            nonlocal started, ended
            started = started or message["type"] == "http.response.start"
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body"))
            await send(message)

        async def until_closing() -> Any:
            return await _first(receive(), self._closing)

        request = asyncio.create_task(self._gate(scope, until_closing, watched))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        try:
            await request
        except asyncio.CancelledError:
            # The server stops and did not wait for us: the answer still gets its end, and nobody a traceback.
            request.cancel()
            await asyncio.wait({request})
        if started and not ended:
            # Gradio leaves its event streams open-ended; an HTTP answer has an end.
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, started: asyncio.Future[None]) -> None:
        try:
            async with self._parent.router.lifespan_context(self._parent):
                started.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
                return
            raise


def _blocks(lab: Lab) -> gr.Blocks:
    blocks: gr.Blocks = gr.Blocks(title="Promptyard", analytics_enabled=False, fill_width=True)
    for path, name, page in PAGES:
        with blocks.route(name, path, show_in_navbar=False) if path else blocks:
            page(lab, blocks)
    # No limit of Gradio's: the gateway limits each visitor's key.
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


async def _first(receiving: Any, closing: asyncio.Event) -> Any:
    """The next message, or a disconnect when the lab closes first."""
    message = asyncio.ensure_future(receiving)
    closed = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait({message, closed}, return_when=asyncio.FIRST_COMPLETED)
        return message.result() if message.done() else {"type": "http.disconnect"}
    finally:
        message.cancel()
        closed.cancel()
