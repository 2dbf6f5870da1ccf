"""What each call used: measured as its answer passes, journalled before the answer ends, filled into SQL behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson

from gateway import tokens
from gateway.dialects import sse
from gateway.errors import ClientGone, GatewayError, Overloaded, UpstreamFailed
from gateway.journal import Journal, Position
from gateway.limits import Limiter
from gateway.prices import Price
from gateway.routes import Deployment, Task
from gateway.store.usage import UsageStore
from gateway.types import Answer, Call, Key, Request, Tokens, UsageFilter, UsageRecord, UsageSum

log = logging.getLogger(__name__)
calls = logging.getLogger("gateway.calls")
T = TypeVar("T")
_FIELDS = {field.name for field in dataclasses.fields(UsageRecord)}

#: How often the journal is brought to the disk and into SQL, in seconds.
FILL = 0.1
#: How long an upstream may take to close a stream it has ended, in seconds.
_GRACE = 1.0


class Meter:
    """Measures answers and settles calls, each exactly once, however it ends."""

    def __init__(
        self, ledger: Ledger, limiter: Limiter, price: Callable[[Deployment], Price | None], clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._limiter = limiter
        self._price = price
        self._clock = clock

    def close(self, call: Call, error: BaseException) -> None:
        """Settle a call that failed, or whose caller left, before there was an answer."""
        if isinstance(error, GatewayError):
            self._settle(call, error.status, error.code, Tokens(), estimated=False)
        elif isinstance(error, Exception):
            self._settle(call, GatewayError.status, GatewayError.code, Tokens(), estimated=False)
        else:
            # Cancelled: the upstream may have read the prompt, so the prompt stays counted.
            read = Tokens(input=_input(call)) if call.deployment else Tokens()
            self._settle(call, ClientGone.status, ClientGone.code, read, estimated=True)

    def refuse(self, request: Request, key: Key, error: GatewayError) -> None:
        """Record a call that was never admitted."""
        self._write(request, key, "", "", error.status, error.code, self._clock(), None, Tokens(), 0, priced=True)

    def metered(self, call: Call, answer: Answer) -> Answer:
        """`answer`, measured. One that is whole is settled now; a stream settles when it ends, however it ends."""
        if answer.chunks is None:
            self._settle_whole(call, answer)
            return answer
        return Answer(answer.status, answer.headers, chunks=self._metered(call, answer.status, answer.chunks))

    def _settle_whole(self, call: Call, answer: Answer) -> None:
        if answer.status >= 400:
            self._settle(call, answer.status, "upstream_error", Tokens(), estimated=False)
            return
        usage = (answer.document or orjson.loads(answer.body)).get("usage")
        counted = sse.read_usage(usage) if isinstance(usage, dict) else None
        written = 0 if call.request.task is Task.EMBEDDINGS else len(answer.body) // 4
        used = counted or Tokens(input=_input(call), output=written)
        self._settle(call, answer.status, None, used, estimated=counted is None)

    async def _metered(
        self, call: Call, status: int, chunks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        tally = sse.Tally(hide_usage=not call.request.wants_usage)
        end: type[GatewayError] | GatewayError | None = GatewayError  # what it is unless an end below is reached
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    passed = tally.feed(chunk)
                    if tally.done:
                        # Before the last byte goes out, so that a caller who has seen the end is in the ledger.
                        self._settle_stream(call, tally, status, None)
                    if passed:
                        yield passed
                    if tally.failed:
                        raise tally.failed
                    if tally.done:
                        await _ended(chunks)
            if rest := tally.close():
                self._settle_stream(call, tally, status, None)
                yield rest
            end = None
        except (GeneratorExit, asyncio.CancelledError):
            end = ClientGone
            raise
        except UpstreamFailed as error:
            end = error
            self._settle_stream(call, tally, error.status, error.code)
            yield sse.error_event(error)
        finally:
            self._settle_stream(call, tally, end.status if end else status, end.code if end else None)

    def _settle_stream(self, call: Call, tally: sse.Tally, status: int, code: str | None) -> None:
        if call.settled:
            return
        # A stream that was cut brought no usage: each piece is a token or more, of four bytes or so.
        used = tally.usage or Tokens(input=_input(call), output=max(tally.pieces, len(tally.text) // 4))
        self._settle(call, status, code, used, estimated=tally.usage is None)

    def _settle(self, call: Call, status: int, code: str | None, used: Tokens, *, estimated: bool) -> None:
        if call.settled:
            return
        call.settled = True
        self._limiter.settle(call, used.input + used.output)
        deployment = call.deployment
        price = self._price(deployment) if deployment else None
        self._write(
            call.request,
            call.key,
            call.request.model,  # what was asked for; the deployment tells where a fallback took it
            deployment.id if deployment else "",
            status,
            code,
            call.started,
            call.first_token,
            used,
            price.cost(used) if price else 0,
            priced=price is not None or deployment is None,
            estimated=estimated,
        )

    def _write(
        self,
        request: Request,
        key: Key,
        route: str,
        deployment: str,
        status: int,
        code: str | None,
        started: float,
        first_token: float | None,
        used: Tokens,
        cost: int,
        *,
        priced: bool,
        estimated: bool = False,
    ) -> None:
        latency = self._clock() - started
        record = UsageRecord(
            request_id=request.id,
            time=time.time() - latency,
            key_id=key.id,
            key_name=key.name,
            route=route,
            deployment=deployment,
            task=request.task.value,
            status=status,
            error=code,
            stream=request.stream,
            input_tokens=used.input,
            output_tokens=used.output,
            cached_tokens=used.cached,
            cost=cost,
            priced=priced,
            estimated=estimated,
            latency=latency,
            first_token=first_token,
        )
        self._ledger.add(record)


async def _ended(chunks: AsyncGenerator[bytes, None]) -> None:
    """Let an upstream that has said all close: then its connection is used again. One that stays is left."""
    with contextlib.suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(_GRACE):
            async for _ in chunks:
                pass
    await chunks.aclose()


def line(record: Mapping[str, Any]) -> str:
    """One call as a line of the log, with the time at which it ended."""
    ended = time.strftime("%H:%M:%S", time.localtime(record["time"] + record["latency"]))
    return (
        f"{ended} {record['status']} {record['task']} {record['route'] or '-'} -> {record['deployment'] or '-'} "
        f"{record['latency'] * 1000:.0f} ms, {record['input_tokens']}+{record['output_tokens']} tokens, "
        f"key {record['key_id']}, {record['request_id']}" + (f", {record['error']}" if record["error"] else "")
    )


def _input(call: Call) -> int:
    call.input_estimate = call.input_estimate or tokens.estimate(call.request.body)
    return call.input_estimate


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except GatewayError:
        raise
    except Exception as error:
        log.debug("SQL does not answer", exc_info=True)
        raise Overloaded("The database does not answer.", code="database_unavailable") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of the journal as a record; one that is damaged is told of and passed over, lest it stop all others."""
    try:
        record = orjson.loads(line)
        if record.keys() >= _FIELDS:
            return {name: record[name] for name in _FIELDS}
    except (orjson.JSONDecodeError, AttributeError):
        pass
    log.error("A line of the usage journal is damaged and passed over: %r", line[:200])
    return None


class Ledger:
    """Usage records: appended to the journal at once; every 100 ms, and after a crash at the start, copied into SQL
    and written to the log.
    """

    def __init__(self, journal: Journal, store: UsageStore) -> None:
        self._journal = journal
        self._store = store
        self._position: Position | None = None
        self._logged = journal.end
        self._filling = asyncio.Lock()
        self._troubled = False

    def add(self, record: UsageRecord) -> None:
        """Journal one record. Raises `Overloaded` when the disk is full: an unrecorded answer is not given."""
        try:
            self._journal.append(orjson.dumps(record))
        except OSError as error:
            log.error("A usage record cannot be journalled: %s", error.strerror)
            raise Overloaded("The usage journal cannot be written.", code="journal_unavailable") from None

    async def flush(self) -> None:
        """Return once everything added so far can be read from SQL. Raises `Overloaded` where SQL is away."""
        async with self._filling:
            await _answered(asyncio.to_thread(self._fill))

    async def run(self) -> None:
        """Sync and fill for ever. While SQL is away the journal grows, and nothing is lost."""
        while True:
            await asyncio.sleep(FILL)
            try:
                await self.flush()
                self._troubled = False
            except Exception as error:
                if not self._troubled:
                    cause = type(error.__cause__ or error).__name__
                    log.warning("Usage waits in the journal: SQL does not take it (%s).", cause)
                self._troubled = True

    async def close(self) -> None:
        """Bring everything to its place and let the journal go."""
        with contextlib.suppress(Exception):
            await self.flush()
        self._journal.close()

    async def find(self, request_id: str) -> UsageRecord | None:
        """The record of one call, also of one that ended just now."""
        await self.flush()
        return await _answered(asyncio.to_thread(self._store.find, request_id))

    async def sums(self, by: list[str], only: UsageFilter) -> list[UsageSum]:
        """Usage summed by groups, up to this moment."""
        await self.flush()
        return await _answered(asyncio.to_thread(self._store.sums, by, only))

    def _fill(self) -> None:
        if self._position is None:
            self._position = Position(*self._store.position(self._journal.id))
        while True:
            lines, end = self._journal.read(self._position)
            if not lines:
                if end != self._position:
                    self._position = end
                return
            self._journal.sync()
            records = [record for one in lines if (record := _record(one)) is not None]
            if end > self._logged and calls.isEnabledFor(logging.INFO):
                # Here, not in the call's way: a line of the log costs more than all of its admission.
                calls.info("\n".join(map(line, records)))
            self._logged = max(self._logged, end)
            self._store.fill(self._journal.id, records, end.segment, end.offset)
            self._position = end
            self._journal.forget(end)
