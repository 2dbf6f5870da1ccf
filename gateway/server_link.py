"""What the control process and a worker say to each other: lines of JSON through a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import SecretStr

from gateway.settings import Settings

#: The longest line: what every embedded model of a large file says of itself fits in.
_LONGEST = 2**20


class Line:
    """One end of it. What cannot be said any more is dropped: the other's end is then the end of this."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Line:
        """A line over one end of a pair of sockets, which is this one's from now on."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LONGEST))

    def say(self, what: Mapping[str, Any]) -> None:
        """Send one message."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(what) + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the other is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        heard: dict[str, Any] = orjson.loads(line)
        return heard

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def told(settings: Settings) -> dict[str, Any]:
    """Settings as a worker is told them: secrets too, so never in an argument, which others on the machine can read."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {
        name: value.get_secret_value()
        if isinstance(value, SecretStr)
        else value
        if isinstance(value, int | float | str | None)
        else str(value)
        for name, value in values.items()
    }
