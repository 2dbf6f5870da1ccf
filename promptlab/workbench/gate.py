"""The lab's door, in front of Gradio: who may come in, which of Gradio's paths exist, and how pages leave."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from promptlab.client import CallFailed, Server
from promptlab.workbench import shell
from promptlab.workbench.downloads import download
from promptlab.workbench.sessions import COOKIE, Sessions

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ROOT = shell.ROOT
_BODY_LIMIT = 4 * 1024 * 1024

# All of Gradio the lab's pages use. Uploads, files, proxies, deep links and docs do not exist here.
_GET = ("theme.css", "assets/", "static/", "gradio_api/queue/data", "gradio_api/heartbeat/")
_POST = ("gradio_api/queue/join", "gradio_api/cancel")

# Gradio evaluates component scripts; everything else is held to this host by the browser itself.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_SAFE: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]


class Gate:
    """Answers `/lab/**`: sign-in, sign-out and status itself, the rest through Gradio for those let in.

    That a protected server is only asked under this machine's own names is the gateway's to check.
    """

    def __init__(
        self,
        gradio: App,
        server: Server,
        sessions: Sessions,
        pages: tuple[tuple[str, str], ...],
        *,
        visitor_key: str | None,
        version: str,
    ) -> None:
        """`pages`: path below `/lab/` and name of each. With a `visitor_key` (protected mode) nobody signs in."""
        self._gradio = gradio
        self._server = server
        self._sessions = sessions
        self._pages = pages
        self._visitor_key = visitor_key
        self._version = version
        self._protected = visitor_key is not None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._foreign(headers):
            await _json(send, 403, {"error": refusal})
            return
        path = scope["path"].removeprefix(ROOT)
        if path == "":
            await _redirect(send, f"{ROOT}/")
            return
        path, method = path.removeprefix("/"), scope["method"]
        if path == "sign-in":
            await self._sign_in(method, headers, scope, receive, send)
            return
        session_id = _session_id(headers)
        session = self._sessions.get(session_id)
        if not self._protected and session is None:
            if method == "GET" and self._is_page(path):
                query = scope["query_string"].decode("latin-1")
                await _redirect(send, f"{ROOT}/sign-in?{urlencode({'next': path + ('?' + query if query else '')})}")
            else:
                await _json(send, 401, {"error": "Sign in to the lab first."})
            return
        who = "protected mode" if session is None else session.name
        key = self._visitor_key if session is None else session.key.get_secret_value()
        if path == "sign-out" and method == "POST":
            self._sessions.close(session_id)
            await _redirect(send, f"{ROOT}/sign-in", cookie=_cookie("", headers, scope, age=0))
        elif (path, method) == ("status", "GET"):
            await _json(send, 200, await self._status(key))
        elif (path, method) == ("artifact", "GET"):
            await self._download(key, scope, receive, send)
        elif method == "GET" and self._is_page(path):
            await self._page(path, who, scope, receive, send)
        else:
            await self._pass(path, None if self._protected else session_id, scope, receive, send)

    def _is_page(self, path: str) -> bool:
        return any(path == page for page, _ in self._pages)

    def _foreign(self, headers: dict[str, str]) -> str | None:
        """Why a request that another site caused is refused; None for our own."""
        hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc not in hosts:
            return "The lab takes no requests from other sites."
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return "The lab takes no requests from other sites."
        return None

    async def _sign_in(self, method: str, headers: dict[str, str], scope: Any, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        following = query.get("next", [""])[0]
        # Only our own pages: a link must not be able to lead anywhere else after signing in.
        if not self._is_page(following.partition("?")[0]):
            following = ""
        following = quote(f"{ROOT}/{following}", safe="/?&=%+!$'()*,;:@~")
        if self._protected:
            await _redirect(send, following)
            return
        if method != "POST" and headers.get("accept") == "application/json":
            await _json(send, 200, {"signed_in": self._sessions.get(_session_id(headers)) is not None})
            return
        if method != "POST":
            await _html(send, 200, shell.sign_in(following))
            return
        body = await _read(receive, 16 * 1024)
        form = parse_qs((body or b"").decode("utf-8", "replace"))
        key = form.get("key", [""])[0].strip()
        try:
            name = await self._name_of(key)
        except CallFailed as error:
            await _html(send, 401, shell.sign_in(following, str(error)))
            return
        await _redirect(send, following, cookie=_cookie(self._sessions.open(key, name), headers, scope))

    async def _name_of(self, key: str) -> str:
        """The name of a key that may use the lab. Raises `CallFailed` saying why it may not."""
        if not key or not key.isascii() or not key.isprintable():
            raise CallFailed("That is not a key. Keys begin with sk-py- and are letters and digits.")
        visitor = self._server.visitor(key)
        try:
            await visitor.routes()
            return await visitor.key_name()
        except CallFailed as error:
            known = error.status in (401, 403)
            raise CallFailed(f"{'This key does not open the lab' if known else 'Not checked'}: {error}") from error

    async def _status(self, key: str | None) -> dict[str, str]:
        try:
            found = await self._server.visitor(key).ready()
        except CallFailed as error:
            return {"tone": "bad", "text": "server unreachable", "detail": str(error)}
        return described(found)

    async def _download(self, key: str | None, scope: Any, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        try:
            await download(self._server.visitor(key), query, receive, send)
        except CallFailed as error:
            await _answer(send, error.status or 502, b"text/plain; charset=utf-8", f"Not downloaded: {error}".encode())

    async def _page(self, path: str, who: str, scope: Any, receive: Receive, send: Send) -> None:
        names = dict(self._pages)
        frame = shell.Frame(
            title=names[path],
            path=path,
            pages=self._pages,
            who=who,
            version=self._version,
            can_leave=not self._protected,
            columns=2 if path == "" else 1,
        )
        # Uncompressed, to be framed.
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        status, body = 500, b""

        async def collect(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        await self._gradio({**scope, "headers": plain}, receive, collect)
        page = body.decode("utf-8")
        await _html(send, status, shell.framed(page, frame) if status == 200 else page)

    async def _pass(self, path: str, session_id: str | None, scope: Any, receive: Receive, send: Send) -> None:
        """Let Gradio answer, if the path is one the lab uses and the loaded page it names is this visitor's."""
        allowed = {"GET": _GET, "POST": _POST}.get(scope["method"], ())
        if ".." in path or not any(path.startswith(start) if start[-1] == "/" else path == start for start in allowed):
            await _json(send, 404, {"error": "There is nothing at this address in the lab."})
            return
        pages = [path.partition("heartbeat/")[2]]
        if scope["method"] == "POST":
            body = await _read(receive, _BODY_LIMIT)
            if body is None:
                await _json(send, 413, {"error": "More than 4 MB in one call."})
                return
            receive = _replay(body, receive)
            pages.append(_page_of(body))
        # Every name of a page there is: of several, Gradio might read another one than was looked at here.
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        pages = [page for page in pages if page] + query.get("session_hash", [])
        if session_id is not None and pages and not (len(pages) == 1 and self._sessions.owns(session_id, pages[0])):
            await _json(send, 403, {"error": "This page belongs to another visitor."})
            return
        await self._gradio(scope, receive, _guarded(send, keep=path.startswith("assets/")))


def described(ready: dict[str, Any]) -> dict[str, str]:
    """The server's state in words and a tone (`good`, `warn`, `bad`), from what `/health/ready` says."""
    providers = {str(name): str(state) for name, state in (ready.get("providers") or {}).items()}
    parts = dict(providers)
    parts.update((name, str(ready[name])) for name in ("control", "tracking") if name in ready)
    detail = "\n".join(f"{name}: {state}" for name, state in parts.items())
    status = str(ready.get("status", "unknown"))
    failed = [name for name, state in parts.items() if state.startswith("failed")]
    if failed:
        return {"tone": "bad", "text": f"{failed[0]} {parts[failed[0]]}", "detail": detail}
    if "loading" in providers.values():
        return {"tone": "warn", "text": "model loading", "detail": detail}
    tone = "good" if status == "ready" else "bad" if status == "failed" else "warn"
    return {"tone": tone, "text": status, "detail": detail}


def _session_id(headers: dict[str, str]) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _cookie(value: str, headers: dict[str, str], scope: Any, age: int | None = None) -> str:
    secure = "https" in (scope.get("scheme"), headers.get("x-forwarded-proto"))
    parts = [f"{COOKIE}={value}", f"Path={ROOT}", "HttpOnly", "SameSite=Strict"]
    return "; ".join(parts + (["Secure"] if secure else []) + ([] if age is None else [f"Max-Age={age}"]))


def _page_of(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    page = found.get("session_hash") if isinstance(found, dict) else None
    return page if isinstance(page, str) else ""


async def _read(receive: Receive, limit: int) -> bytes | None:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _guarded(send: Send, *, keep: bool) -> Send:
    """`send` with our headers; Gradio's assets carry a hash in their name and may be kept for good."""
    cache = b"private, max-age=31536000, immutable" if keep else b"no-store"

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            theirs = [(n, v) for n, v in message.get("headers", ()) if n.lower() != b"cache-control"]
            message = {**message, "headers": [*theirs, *_SAFE, (b"cache-control", cache)]}
        await send(message)

    return guarded


async def _answer(send: Send, status: int, kind: bytes, body: bytes, extra: Headers | None = None) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_SAFE, *(extra or [])]})
    await send({"type": "http.response.body", "body": body})


async def refuse_stopping(send: Send) -> None:
    """Tell a caller that the server is stopping."""
    await _answer(send, 503, b"text/plain; charset=utf-8", b"The server is stopping.", [(b"retry-after", b"1")])


async def _html(send: Send, status: int, page: str) -> None:
    await _answer(send, status, b"text/html; charset=utf-8", page.encode())


async def _json(send: Send, status: int, found: dict[str, Any]) -> None:
    await _answer(send, status, b"application/json", json.dumps(found).encode())


async def _redirect(send: Send, where: str, cookie: str | None = None) -> None:
    extra = [(b"location", where.encode())] + ([(b"set-cookie", cookie.encode())] if cookie else [])
    await _answer(send, 303, b"text/plain", b"", extra)
