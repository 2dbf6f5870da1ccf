"""What each call used: measured as its answer passes, and settled once, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import orjson

from gateway import measures
from gateway.dialects.plain import NOT_JSON
from gateway.dialects.plain_tally import BytesTally
from gateway.dialects.registry import DIALECTS, tally_of
from gateway.dialects.sse import Tally
from gateway.dialects.translation import Translator
from gateway.errors import (
    ClientGone,
    GatewayError,
    Overloaded,
    UpstreamFailed,
    UpstreamSilent,
    UpstreamTimeout,
)
from gateway.lanes import Beside, Chunks
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.money import Tokens
from gateway.owners import Key
from gateway.recording import Recorder
from gateway.routes import CONVERSATIONS, Route, Task
from gateway.streaming import over, tallied
from gateway.telemetry import Tracer
from gateway.trace import Note
from gateway.types import Answer, Attempt, Call, Request, UsageRecord

log = logging.getLogger(__name__)
#: The word a task is cancelled with when its caller has left.
LEFT = "the caller left"
#: Tasks whose answers are written in tokens.
_WRITTEN = frozenset((*CONVERSATIONS, Task.COMPLETIONS))
#: A task in a record. Asked of the task itself, it costs a call.
_WORD = {task: task.value for task in Task}


class Rescue(Protocol):
    """Continues a stream that broke off after its first byte, on another deployment."""

    def watch(self, tally: Tally) -> None:
        """Hear what the first stream says, from its beginning."""

    async def continued(self, error: UpstreamFailed, tally: Tally) -> tuple[AsyncGenerator[bytes, None], Tally] | None:
        """The next attempt's stream and what puts it into the caller's; None where nobody can go on."""


class Meter:
    """Measures answers and settles calls, each exactly once, however it ends."""

    def __init__(
        self,
        ledger: Ledger,
        limiter: Limiter,
        clock: Callable[[], float] = time.perf_counter,
        tracer: Tracer | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._ledger = ledger
        self._tracer = tracer
        self._recorder = recorder
        self._limiter = limiter
        self._clock = clock

    def close(self, call: Call, error: BaseException) -> None:
        """Settle a call that failed, or whose caller left, before there was an answer."""
        if isinstance(error, UpstreamSilent):
            self._settle(call, error.status, error.code, measures.prompt(call, call.attempt), estimated=True)
        elif isinstance(error, GatewayError):
            used = call.attempt.used if call.attempt else None
            self._settle(call, error.status, error.code, used or Tokens(), estimated=False)
        elif isinstance(error, Exception):
            self._settle(call, GatewayError.status, GatewayError.code, Tokens(), estimated=False)
        else:
            # Cancelled: an upstream that was asked may have read the prompt, so the prompt stays counted.
            read = measures.prompt(call, call.attempt)
            end = _cancelled_by(error)
            self._settle(call, end.status, end.code, read, estimated=True)

    def refuse(self, request: Request, key: Key, route: Route | None, error: BaseException) -> None:
        """Record a call that was never admitted. It is refused even where it cannot be recorded.

        A name that is no route is the caller's own text, and kept out of the records.
        """
        end = error if isinstance(error, GatewayError) else _cancelled_by(error)
        record = UsageRecord(
            request_id=request.id, time=time.time(), key_id=key.id, key_name=key.name,
            route=route.name if route else "", deployment="", task=request.task.value,
            status=end.status, error=end.code, stream=request.stream,
            team_id=key.team_id, organisation_id=key.organisation_id, end_user=request.user, prompt=request.prompt,
        )  # fmt: skip
        with contextlib.suppress(Overloaded):
            self._write(record, request)

    def forsaken(self, call: Call, attempt: Attempt) -> None:
        """Record an attempt that was given up for another: an upstream that was asked may have read the prompt."""
        read = measures.prompt(call, attempt)
        self._part(call, attempt, ClientGone.status, "forsaken", read)

    def left(self, call: Call, attempt: Attempt) -> None:
        """Record an attempt whose caller left, beside another that settles the call; not one that asked nobody."""
        if attempt.asked and attempt.number:
            self.forsaken(call, attempt)
        self._limiter.spend(attempt, 0)

    def failed(self, call: Call, attempt: Attempt, outcome: Answer | GatewayError) -> None:
        """Record an attempt that failed and was followed by another; not one that never reached an upstream."""
        if not attempt.number:
            self._limiter.spend(attempt, 0)
            return
        read = attempt.used or measures.prompt(call, attempt)
        code = outcome.code if isinstance(outcome, GatewayError) else "upstream_error"
        self._part(call, attempt, outcome.status, code, read)

    def broken(self, call: Call, attempt: Attempt, tally: Tally, error: GatewayError) -> None:
        """Record an attempt whose stream broke off and is continued by another."""
        attempt.end(broken=True)
        self._part(call, attempt, error.status, error.code, measures.cut(call, tally))

    def _part(self, call: Call, attempt: Attempt, status: int, code: str, used: Tokens) -> None:
        call.wasted += used.input + used.output
        if attempt.span is not None and attempt.span.ended is None:
            attempt.span.end(None, code)
        with contextlib.suppress(Overloaded):
            self._record(call, attempt, status, code, used, estimated=used.input + used.output > 0, final=False)

    def metered(self, call: Call, answer: Answer, rescue: Rescue | None = None) -> Answer:
        """`answer`, measured. One that is whole is settled now; a stream settles when it ends, however it ends.

        A stream that breaks off is continued by `rescue` where it can.
        """
        if answer.chunks is None:
            self._settle_whole(call, answer)
            return answer
        chunks, tally = answer.chunks, _tally(call, answer.headers, rescue)
        metered = self._metered(call, answer.status, chunks, tally, rescue)
        if isinstance(chunks, Chunks):
            metered = Beside(metered, tallied(chunks, tally, _note_of(call)))
        return Answer(answer.status, answer.headers, chunks=metered)

    def hit(self, call: Call, answer: Answer) -> Answer:
        """`answer`, which cost nothing upstream, recorded as one that cost nothing: a stream when it ends."""
        if (note := _note_of(call)) is not None:
            note.hit = True
        _hearing(call)(answer.body)
        if answer.chunks is None:
            self._settle(call, answer.status, None, Tokens(), estimated=False)
            return answer
        return Answer(answer.status, answer.headers, chunks=self._hit(call, answer.status, answer.chunks))

    async def _hit(self, call: Call, status: int, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        code: str | None = GatewayError.code
        hear = _hearing(call)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    hear(chunk)
                    yield chunk
            code = None
        except (GeneratorExit, asyncio.CancelledError) as error:
            end = _cancelled_by(error)
            status, code = end.status, end.code
            raise
        except GatewayError as error:
            status, code = error.status, error.code
            raise
        finally:
            self._settle(call, status, code, Tokens(), estimated=False)

    def _settle_whole(self, call: Call, answer: Answer) -> None:
        _hearing(call)(answer.body)
        if answer.status >= 400:
            self._settle(call, answer.status, "upstream_error", Tokens(), estimated=False)
            return
        spoken = call.attempt.task if call.attempt else call.request.task
        document = _document(answer, spoken)
        counted = DIALECTS[spoken].usage(document)
        if call.request.trace is not None:
            call.request.trace.read(document)
        written = len(answer.body) // 4 if spoken in _WRITTEN else 0
        used = counted or Tokens(input=measures.input_of(call), output=written)
        guessed = measures.bill(call, used, document, counted=counted is not None)
        self._settle(call, answer.status, None, used, estimated=guessed)

    async def _metered(
        self, call: Call, status: int, chunks: AsyncGenerator[bytes, None], tally: Tally, rescue: Rescue | None
    ) -> AsyncGenerator[bytes, None]:
        hear = _hearing(call)
        end: type[GatewayError] | GatewayError | None = GatewayError  # what it is unless an end below is reached
        try:
            while end is GatewayError:
                try:
                    async with aclosing(chunks):
                        async for chunk in chunks:
                            passed = tally.feed(chunk)
                            hear(passed)
                            if tally.done:
                                # Before the last byte goes out: a caller who has seen the end is in the ledger.
                                self._settle_stream(call, tally, status, None)
                            if passed:
                                yield passed
                            if tally.failed or tally.done:
                                await over(tally, chunks)
                    if rest := tally.close():
                        hear(rest)
                        self._settle_stream(call, tally, status, None)
                        yield rest
                    end = None
                except UpstreamFailed as error:
                    error.hide(call.attempt.secrets if call.attempt else ())
                    again = await rescue.continued(error, tally) if rescue else None
                    if again:
                        chunks, tally = again
                        continue
                    end, last = self._last(call, tally, status, error)
                    yield last
        except (GeneratorExit, asyncio.CancelledError) as error:
            end = _cancelled_by(error)
            raise
        finally:
            self._settle_stream(call, tally, *((end.status, end.code) if end else (status, None)))

    def _last(
        self, call: Call, tally: Tally, status: int, error: UpstreamFailed
    ) -> tuple[UpstreamFailed | None, bytes]:
        """How a stream ends that nobody continues, and its last bytes: well, where only its end was not said."""
        rest = measures.rest(call, tally) if isinstance(error, UpstreamTimeout) else None
        if rest is None:
            return error, self._broken_off(call, tally, error)
        self._settle_stream(call, tally, status, None)
        return None, rest

    def _broken_off(self, call: Call, tally: Tally, error: UpstreamFailed) -> bytes:
        """What a caller is told whose stream broke off. Raises `error` amid bytes, which have no place for it."""
        if call.attempt is not None:
            call.attempt.end(broken=True)
        self._settle_stream(call, tally, error.status, error.code)
        if isinstance(tally, BytesTally):
            raise error
        return DIALECTS[call.request.task].broken_off(error)

    def _settle_stream(self, call: Call, tally: Tally, status: int, code: str | None) -> None:
        if call.settled:
            return
        counted = tally.usage if tally.done or tally.finished else None
        used = counted or measures.cut(call, tally)
        estimated = measures.bill(call, used, {}, counted=counted is not None)
        self._settle(call, status, code, used, estimated=estimated)

    def _settle(self, call: Call, status: int, code: str | None, used: Tokens, *, estimated: bool) -> None:
        if call.settled:
            return
        call.settled, call.error = True, code
        if call.reservation:
            self._limiter.spend(call, 0)  # nobody was asked
        if call.attempt is not None:
            call.attempt.end()
        self._limiter.settle(call, call.wasted + used.input + used.output)
        self._record(call, call.attempt, status, code, used, estimated=estimated)

    def _record(
        self,
        call: Call,
        attempt: Attempt | None,
        status: int,
        code: str | None,
        used: Tokens,
        *,
        estimated: bool,
        final: bool = True,
    ) -> None:
        request, key, latency = call.request, call.key, self._clock() - call.started
        deployment, price, first_token, fallback, cost, number = None, None, None, None, 0, 0
        if attempt is not None:
            number = attempt.number
            deployment, first_token, fallback = attempt.deployment, attempt.first_token, attempt.fallback
            price = deployment.listing.price
            cost = 0 if price is None else price.cost(used)
            call.cost = None if price is None or call.cost is None else call.cost + cost
            if attempt.reservation:
                self._limiter.spend(attempt, cost)
            if attempt.span is not None:
                attempt.span.used, attempt.span.cost = used, cost
            if cost:
                self._limiter.late(call, call.route, cost)
        record = UsageRecord(
            request_id=request.id,
            time=call.time,
            key_id=key.id,
            key_name=key.name,
            route=request.model,  # what was asked for; the deployment tells where a fallback took it
            deployment="" if deployment is None else deployment.id,
            task=_WORD[request.task],
            status=status,
            error=code,
            stream=request.stream,
            input_tokens=used.input,
            output_tokens=used.output,
            cached_tokens=used.cached,
            cost=cost,
            priced=price is not None or deployment is None,
            estimated=estimated,
            latency=latency,
            first_token=first_token,
            final=final,
            fallback=fallback,
            attempt=number,
            team_id=key.team_id,
            organisation_id=key.organisation_id,
            end_user=request.user,
            prompt=request.prompt,
        )
        self._write(record, request)

    def _write(self, record: UsageRecord, request: Request) -> None:
        self._ledger.add(record)
        trace = request.trace
        if trace is None or not record.final:
            return
        if trace.exported and self._tracer is not None:
            self._tracer.record(trace, record)
        if trace.note is not None and self._recorder is not None:
            self._recorder.record(trace, trace.note, request, record)


def _document(answer: Answer, spoken: Task) -> Mapping[str, Any]:
    """What a whole answer says; nothing, where it is sound or plain text."""
    if answer.document is not None:
        return answer.document
    document: Mapping[str, Any] = {} if spoken in NOT_JSON else orjson.loads(answer.body)
    return document


def _tally(call: Call, headers: Mapping[str, str], rescue: Rescue | None) -> Tally:
    """What reads the stream of the attempt under way, and puts it into the caller's dialect if that is another."""
    asked, spoken = call.request, call.attempt.task if call.attempt else call.request.task
    through = None if spoken is asked.task else Translator(asked.body, asked.task, spoken)
    tally = tally_of(spoken, asked.body, headers, through)
    if rescue is not None:
        rescue.watch(tally)
    return tally


def _note_of(call: Call) -> Note | None:
    """What is noted of the call for an experiment."""
    return None if call.request.trace is None else call.request.trace.note


def _hearing(call: Call) -> Callable[[bytes], None]:
    """Where what the caller is sent is noted, if anywhere."""
    note = _note_of(call)
    return _unheard if note is None else note.hear


def _unheard(_part: bytes) -> None:
    pass


def _cancelled_by(error: BaseException) -> type[GatewayError]:
    """Whether a cancelled call ended with its caller (`LEFT`) or with this process."""
    if isinstance(error, asyncio.CancelledError):
        return ClientGone if LEFT in error.args else Overloaded
    return ClientGone if isinstance(error, GeneratorExit) else GatewayError
