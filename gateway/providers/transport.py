"""The one HTTP door to upstreams: POST a body, get an `Answer`, in bytes as the upstream sent them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import aiohttp

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.types import Answer

#: A whole (not streamed) answer larger than this is an upstream gone wrong.
MAX_ANSWER = 256 * 1024 * 1024
#: Below the five seconds after which uvicorn, behind most self-hosted models, closes an idle connection:
#: a POST that meets a closing connection fails, and may not be sent twice.
KEEPALIVE = 4.5
_PASSED_DOWN = ("content-type", "retry-after")


class Transport:
    """A pool of connections shared by every provider. Redirects are not followed, cookies not kept, proxies not read
    from the environment: nothing but the configured address ever sees the credential.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], connect: float, *, stream: bool) -> Answer:
        """The upstream's answer to `body`; its `chunks` are set when `stream` and the status is below 400.

        `connect` is in seconds and covers name, TCP and TLS; how long to wait for the answer is
        the caller's to bound, by cancelling. Raises `UpstreamFailed` or `UpstreamTimeout`.
        """
        session = self._session or self._open()
        try:
            response = await session.post(
                url,
                data=body,
                headers={**headers, "accept-encoding": "identity"},
                timeout=self._timeout(connect),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise failure(error) from error
        passed = {name: response.headers[name] for name in _PASSED_DOWN if name in response.headers}
        if stream and response.status < 400:
            return Answer(response.status, passed, chunks=_chunks(response))
        try:
            return Answer(response.status, passed, await _whole(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise failure(error) from error
        finally:
            response.release()

    async def close(self) -> None:
        """Close every connection, those in use too."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        # Made at the first call: a session belongs to the loop it was made on.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Content-Type"),
            read_bufsize=256 * 1024,
        )
        return self._session

    def _timeout(self, connect: float) -> aiohttp.ClientTimeout:
        known = self._timeouts.get(connect)
        if known is None:
            known = self._timeouts[connect] = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect)
        return known


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    if (response.content_length or 0) > MAX_ANSWER:
        response.close()
        raise UpstreamFailed(f"The provider's answer is larger than {MAX_ANSWER >> 20} MiB.")
    if response.content_length is not None:
        return await response.read()
    parts = bytearray()
    async for part in response.content.iter_any():
        parts += part
        if len(parts) > MAX_ANSWER:
            response.close()
            raise UpstreamFailed(f"The provider's answer is larger than {MAX_ANSWER >> 20} MiB.")
    return bytes(parts)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise failure(error) from error
    finally:
        # At its end the connection goes back to the pool by itself; before it, closing is
        # what tells the upstream to stop generating.
        response.close()


def failure(error: Exception) -> UpstreamFailed:
    """What went wrong on the way to the upstream, in words without its address."""
    if isinstance(error, UpstreamFailed):
        return error
    if isinstance(error, TimeoutError):
        return UpstreamTimeout("The provider did not accept a connection in time.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UpstreamFailed("The provider's host name is not known.")
    if isinstance(error, aiohttp.ClientSSLError):
        return UpstreamFailed("The provider's TLS certificate or handshake was not accepted.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamFailed("The provider could not be reached: the connection was refused or has no route.")
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamFailed("The provider's base_url is not a usable address.")
    return UpstreamFailed("The provider broke the connection off before its answer was complete.")
