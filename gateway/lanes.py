"""A lane beside a stream: chunks that need no thought pass where they come in, and wake nobody.

To wake the task of a call for each chunk, and to go up and down through all that stands between an upstream and its
caller, takes longer than all that is done with the chunk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

#: Is offered a chunk, and says whether it took it.
Taker = Callable[[bytes], bool]


class Chunks(AsyncGenerator[bytes, None]):
    """A stream's chunks, and a way to have them taken before they are waited for.

    Whoever wraps them in something that knows nothing of lanes has them all by iteration.
    """

    @abstractmethod
    def divert(self, taker: Taker) -> None:
        """Have `taker` offered each chunk that comes while the next is waited for.

        What it takes never comes by iteration; what it leaves does, and the next is offered again. So order is kept,
        and a stream's end and its failures come by iteration only.
        """


class Beside(Chunks):
    """`chunks` as they are, with `divert` for a lane."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], divert: Callable[[Taker], None]) -> None:
        self._chunks = chunks
        self._divert = divert

    def divert(self, taker: Taker) -> None:
        """Have `taker` offered what comes (`Chunks.divert`)."""
        self._divert(taker)

    # What is awaited is the generator's own: another coroutine around it would run for each chunk.

    def __anext__(self) -> Awaitable[bytes]:  # type: ignore[override]  # as typeshed has it for what `async def` makes
        return self._chunks.__anext__()

    def asend(self, value: None) -> Any:
        """The next chunk."""
        return self._chunks.asend(value)

    def athrow(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        """Have `kind` raised where the chunks are made."""
        return self._chunks.athrow(kind, value, trace)

    def aclose(self) -> Any:
        """End the chunks."""
        return self._chunks.aclose()
