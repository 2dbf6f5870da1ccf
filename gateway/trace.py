"""What is noted of a call while it runs: moments for `server-timing`, and its place in a distributed trace."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.money import Tokens
from gateway.routes import Deployment

#: Bytes of an answer that are noted; of a longer one the rest is left out.
MOST_HEARD = 2**20
# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may add fields, and `ff` is none.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(slots=True)
class Marks:
    """Moments of a call, `time.perf_counter()` seconds, in the order they come.

    `upstream` is no moment: seconds waited for upstreams, failed attempts included, until
    the answer was there whole or a stream's first chunk was.
    """

    received: float
    authenticated: float = 0.0
    read: float = 0.0
    admitted: float = 0.0
    answered: float = 0.0
    upstream: float = 0.0


class Parent(NamedTuple):
    """The caller's span, as its `traceparent` names it. `flags`: 1 is "sampled"."""

    trace: int
    span: int
    flags: int


def parent(traceparent: str | None) -> Parent | None:
    """The caller's span; None where the header is missing or no such header."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    said = Parent(int(found[2], 16), int(found[3], 16), int(found[4], 16))
    return said if said.trace and said.span else None


def new_span() -> int:
    """A fresh span id."""
    return random.getrandbits(64) or 1


@dataclass(slots=True)
class AttemptSpan:
    """One try of one deployment. Times are `time.perf_counter()` seconds.

    One that nobody `end`s ends with its call, and as that did.
    """

    span: int
    deployment: Deployment
    started: float
    first_token: float | None = None
    ended: float | None = None
    status: int | None = None
    error: str | None = None
    #: The route it was made for, where that is not the one that was asked.
    fallback: str | None = None
    #: What it used and, in nano-dollars, cost, once that was settled.
    used: Tokens | None = None
    cost: int = 0

    def end(self, status: int | None, error: str | None = None) -> None:
        """It is over: `status` is the upstream's (None: none came), `error` one of our codes."""
        self.ended, self.status, self.error = time.perf_counter(), status, error


@dataclass(slots=True)
class Note:
    """What a call said and was told, for an experiment that keeps its trace.

    `size` is in bytes, of all that is held; `heard` those of the answer, of which `parts` has the first `most`.
    """

    id: int
    experiment: str
    size: int
    most: int = MOST_HEARD
    parts: list[bytes] = field(default_factory=list)
    heard: int = 0
    hit: bool = False

    def hear(self, part: bytes) -> None:
        """Note what the caller is sent, as it is sent."""
        if self.heard < self.most:
            self.parts.append(part)
            self.size += len(part)
        self.heard += len(part)


@dataclass(slots=True)
class Trace:
    """A call's place in a trace that is recorded, and what is told of it there.

    `asked` holds attributes of the request, `model` and `finish_reasons` are the answer's own words. Where it is
    `exported` it goes to an OTLP receiver, without the text of either side; that is in a `note` alone.
    """

    id: int
    span: int
    parent: Parent | None
    started: float
    asked: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    attempts: list[AttemptSpan] = field(default_factory=list)
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    exported: bool = True
    note: Note | None = None

    def attempt(self, deployment: Deployment) -> AttemptSpan:
        """A new attempt, begun now."""
        attempt = AttemptSpan(new_span(), deployment, time.perf_counter())
        self.attempts.append(attempt)
        return attempt

    def traceparent(self, attempt: AttemptSpan) -> str:
        """The header under which an upstream's own spans hang below `attempt`."""
        return f"00-{self.id:032x}-{attempt.span:016x}-01"

    def read(self, answer: Mapping[str, Any]) -> None:
        """Note which model answered and why it stopped, from a whole answer in any dialect."""
        if isinstance(model := answer.get("model"), str):
            self.model = model
        choices = answer.get("choices")
        listed = choices if isinstance(choices, list) else []
        reasons = [one.get("finish_reason") for one in listed if isinstance(one, dict)]
        reasons.append(answer.get("stop_reason"))
        self.finish_reasons = tuple(reason for reason in reasons if isinstance(reason, str))


#: Numbers of a request by their names in the GenAI conventions, under each name a dialect gives them.
_NUMBERS = {
    "gen_ai.request.max_tokens": ("max_completion_tokens", "max_tokens", "max_output_tokens"),
    "gen_ai.request.temperature": ("temperature",),
    "gen_ai.request.top_p": ("top_p",),
    "gen_ai.request.top_k": ("top_k",),
    "gen_ai.request.frequency_penalty": ("frequency_penalty",),
    "gen_ai.request.presence_penalty": ("presence_penalty",),
    "gen_ai.request.seed": ("seed",),
    "gen_ai.request.choice.count": ("n",),
}
_WHOLE = {"gen_ai.request.max_tokens", "gen_ai.request.seed", "gen_ai.request.choice.count"}


def asked(body: Mapping[str, Any], *, stream: bool) -> dict[str, bool | int | float | str]:
    """The settings in a request as GenAI attributes: numbers of the right kind, and no text of the caller's."""
    found: dict[str, bool | int | float | str] = {"gen_ai.request.stream": True} if stream else {}
    for attribute, names in _NUMBERS.items():
        for name in names:
            value = body.get(name)
            if value is None:
                continue
            if type(value) is int and -(2**63) <= value < 2**63:
                found[attribute] = value if attribute in _WHOLE else float(value)
            elif type(value) is float and attribute not in _WHOLE:
                found[attribute] = value
            break
    if found.get("gen_ai.request.choice.count") == 1:
        del found["gen_ai.request.choice.count"]
    return found
