"""Browser pages that keep watch: errors in the console and requests that leave this machine fail the test."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, WebSocket

LOCAL = {"127.0.0.1", "localhost"}


class Watch:
    """Opens pages and collects what must not happen on them. `expect` names what this test provokes."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._expected: list[str] = []
        self.errors: list[str] = []
        self.foreign: list[str] = []

    def open(self, url: str | None = None, *, width: int = 1280, height: int = 800, **options: object) -> Page:
        """A page in a fresh context (its own cookies). `options` are Playwright's, such as `color_scheme="dark"`."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        self._contexts.append(context)
        context.on("page", self._follow)
        context.on("request", self._requested)
        page = context.new_page()
        if url is not None:
            page.goto(url)
        return page

    def expect(self, pattern: str) -> None:
        """Let console errors and page errors that match `pattern` (a regular expression) pass."""
        self._expected.append(pattern)

    def _follow(self, page: Page) -> None:
        page.on("console", self._printed)
        page.on("pageerror", self._raised)
        page.on("websocket", self._socket)

    def _printed(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _raised(self, error: Error) -> None:
        self.errors.append(str(error))

    def _requested(self, request: Request) -> None:
        self._check(request.url)

    def _socket(self, socket: WebSocket) -> None:
        self._check(socket.url)

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOCAL:
            self.foreign.append(url)

    def screenshots(self, folder: Path) -> list[Path]:
        """A picture of every open page, for a person to look at after a failure."""
        taken = []
        for page in [page for context in self._contexts for page in context.pages]:
            taken.append(folder / f"page-{len(taken) + 1}.png")
            page.screenshot(path=taken[-1], full_page=True)
        return taken

    def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            context.close()

    def complaints(self) -> list[str]:
        """What happened that this test had not announced."""
        unexpected = [error for error in self.errors if not any(re.search(each, error) for each in self._expected)]
        return [*unexpected, *(f"left this machine: {url}" for url in self.foreign)]
