"""Who is signed in to the lab: random session ids and the keys behind them, in memory only."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

COOKIE = "promptyard_lab"
IDLE = 12 * 3600.0
LIMIT = 2_000
# Gradio's own names for a loaded page; each belongs to the visitor who used it first.
PAGES_LIMIT = 20_000


@dataclass(slots=True)
class Session:
    """A signed-in visitor."""

    key: SecretStr
    name: str
    used: float


class Sessions:
    """Sessions that end after twelve idle hours, at most two thousand; the longest unused goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._pages: OrderedDict[str, str] = OrderedDict()

    def open(self, key: str, name: str) -> str:
        """The id of a new session that acts with `key`, which is called `name`."""
        found = secrets.token_urlsafe(32)
        self._open[found] = Session(SecretStr(key), name, self._clock())
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        return found

    def get(self, session_id: str | None) -> Session | None:
        """The session, kept alive by asking; None when it never was, has ended or has expired."""
        if session_id is None or (session := self._open.get(session_id)) is None:
            return None
        if self._clock() - session.used > IDLE:
            del self._open[session_id]
            return None
        session.used = self._clock()
        self._open.move_to_end(session_id)
        return session

    def close(self, session_id: str | None) -> None:
        """End a session; an unknown one is no error."""
        if session_id is not None:
            self._open.pop(session_id, None)

    def owns(self, session_id: str, page: str) -> bool:
        """Whether the loaded page `page` (Gradio's session hash) is this visitor's. First come, first owned.

        Gradio lets whoever names the hash read that page's events; the hash is chosen by the browser.
        """
        owner = self._pages.setdefault(page, session_id)
        while len(self._pages) > PAGES_LIMIT:
            self._pages.popitem(last=False)
        return owner == session_id
