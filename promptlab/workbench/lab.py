"""What every page is given: the server, the visitor behind a request, and their running calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import gradio as gr

from promptlab.client import CallFailed, Server, Visitor
from promptlab.workbench.asking import Asking
from promptlab.workbench.form import Form
from promptlab.workbench.sessions import COOKIE, Sessions


class Lab:
    """Shared by all pages and visitors; what belongs to one visitor is found through their request."""

    def __init__(self, server: Server, sessions: Sessions, visitor_key: str | None) -> None:
        self._server = server
        self._sessions = sessions
        self._visitor_key = visitor_key
        self._asking: dict[str, Asking] = {}

    def visitor(self, request: gr.Request) -> Visitor:
        """The calls, made as whoever sent `request`. Raises `CallFailed` once they are signed out."""
        if self._visitor_key is not None:
            return self._server.visitor(self._visitor_key)
        session = self._sessions.get(request.cookies.get(COOKIE))
        if session is None:
            raise CallFailed("You are signed out. Reload the page and sign in again.", status=401)
        return self._server.visitor(session.key.get_secret_value())

    def query(self, request: gr.Request) -> list[tuple[str, str]]:
        """What the page's address says, in order, repeated names kept."""
        assert request.request is not None  # noqa: S101
        return list(request.request.query_params.multi_items())

    def address(self, request: gr.Request) -> str:
        """The server's address as this visitor's browser knows it."""
        origin = urlsplit(request.headers.get("origin") or request.headers.get("referer") or "")
        return f"{origin.scheme}://{origin.netloc}" if origin.netloc else self._server.base_url

    @asynccontextmanager
    async def asking(self, request: gr.Request, form: Form) -> AsyncIterator[Asking]:
        """Ask; one run at a time for each loaded page, and `stop` finds it."""
        page = request.session_hash or ""
        self.stop(request)
        async with Asking(form, self.visitor(request)).open() as asking:
            self._asking[page] = asking
            try:
                yield asking
            finally:
                if self._asking.get(page) is asking:
                    del self._asking[page]

    def stop(self, request: gr.Request) -> None:
        """Close the streams of this loaded page, if any run."""
        if (asking := self._asking.get(request.session_hash or "")) is not None:
            asking.stop()

    def stop_all(self) -> None:
        """Close every stream."""
        for asking in list(self._asking.values()):
            asking.stop()
