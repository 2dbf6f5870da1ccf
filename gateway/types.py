"""The gateway's words: what a call, an answer, a key and a usage record are. No behaviour, no IO."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from pydantic import SecretStr

from gateway.money import Tokens
from gateway.owners import Key
from gateway.routes import Deployment, Route, Task
from gateway.trace import AttemptSpan, Marks, Trace


class Rule(StrEnum):
    """The limits there are, named as in `routes.yaml`."""

    RPM = "rpm"
    TPM = "tpm"
    CONCURRENCY = "concurrency"
    BUDGET = "max_budget"
    RPD = "rpd"
    TPD = "tpd"


class Claim(NamedTuple):
    """What one call asks of one limit.

    `scope` is `key:<id>`, `team:<id>`, `organisation:<id>`, one of these for an end user (`user:key:<id>/<user>`), or
    `route:<name>`; of a budget and of limits a day, whose windows are opened (`Counters.open`),
    `<scope>@<window's start>`; of a limit whose minutes are the clock's, `<minute's start>@<scope>`.
    Amounts are requests, tokens or calls; of a budget, nano-dollars.

    Where less than `amount` is left, anything down to `least` is granted instead:
    a call that does not say how much it will use is not made to wait for all it could.
    """

    scope: str
    rule: Rule
    limit: int
    amount: int = 1
    least: int = 1


class Refusal(NamedTuple):
    """Why nothing was granted: the first claim that did not fit, what is used, and seconds until it would fit.

    Of what is used of a budget, `held` may come back: running calls hold it, and will cost less.
    """

    claim: Claim
    used: int
    retry_after: float
    held: int = 0


class Unknown(NamedTuple):
    """Nothing was granted, since nobody has said yet what was spent of this claim's budget (`Counters.open`)."""

    claim: Claim


class Standing(NamedTuple):
    """How a limit stands after a grant: what is left, and seconds until the window is empty again."""

    claim: Claim
    left: int
    reset: float


@dataclass(slots=True)
class Grant:
    """Claims that were all taken together, until `settle`. `held` is the counters' own note of them.

    `money` is their note of what is held of budgets, which is settled apart (`Counters.spend`): by attempts.
    """

    standings: list[Standing]
    held: list[object] = field(default_factory=list)
    money: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart request as it came. The model's name stands in `raw` from `begin` to `end`."""

    raw: bytes = field(repr=False)
    content_type: str
    begin: int
    end: int

    def naming(self, model: str) -> bytes:
        """The same bytes, but for the model's name."""
        return b"".join((self.raw[: self.begin], model.encode(), self.raw[self.end :]))


@dataclass(slots=True)
class Request:
    """One inference request as the caller sent it. `body` is its JSON object; nobody changes it in place.

    Of a `form` it holds the fields, and of each file what tells it from others. `headers` are those an upstream gets
    to see.
    """

    id: str
    task: Task
    model: str
    body: Mapping[str, Any]
    stream: bool
    headers: Mapping[str, str]
    #: All headers of the caller, secrets too: none of them leaves this process by this way.
    given: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    marks: Marks = field(default_factory=lambda: Marks(0.0))
    #: Its place in a distributed trace, where one is recorded.
    trace: Trace | None = None
    #: The caller's own credential for the provider, on a route that takes one.
    credential: SecretStr | None = None
    form: Form | None = None
    #: The caller's own cap on the tokens of an answer and how many it asks for, once they were found to be numbers.
    output: tuple[int | None, int] | None = None
    #: For whom its caller asks (`users.named`); "": nobody was named.
    user: str = ""
    #: Bytes of its body.
    size: int = 0
    #: The prompt that this was made from, with its version (`support/3`); "": none.
    prompt: str = ""


class Place(Protocol):
    """What an attempt occupies of its deployment."""

    def leave(self, *, broken: bool) -> None:
        """Give it back; `broken` where an answer had begun and broke off."""


@dataclass(slots=True)
class Attempt:
    """One try of a call at one deployment, asked in the dialect of `task`. Times as those of `Call`.

    `body`, where there is one, is asked instead of the call's own: a rescue goes on where another attempt broke off.
    `dropped` names what was left out of the request for that dialect. `asked`: an upstream has it, and has not said
    that it failed.
    """

    deployment: Deployment
    task: Task
    started: float = 0.0
    asked: bool = False
    first_token: float | None = None
    body: Mapping[str, Any] | None = None
    dropped: list[str] = field(default_factory=list)
    span: AttemptSpan | None = None
    place: Place | None = None
    #: What it used, where its answer was one but could not be passed on.
    used: Tokens | None = None
    #: What no error of its provider's may hold (`Provider.secrets`).
    secrets: Sequence[str] = ()
    #: Which of its call's attempts it is, from 1, once it is journalled.
    number: int = 0
    #: The route it is made for, where that is not the one that was asked.
    fallback: str | None = None
    #: What it holds of budgets until it is recorded (`Grant.money`).
    reservation: Sequence[object] = ()

    def end(self, *, broken: bool = False) -> None:
        """It is over, and its place at the deployment free again. Saying so again does nothing."""
        place, self.place = self.place, None
        if place is not None:
            place.leave(broken=broken)


@dataclass(slots=True)
class Call:
    """One request on its way, from admission to settlement.

    `route` and `attempt` are those under way, `attempts` counts those that were begun. `reservation` is what its
    first attempt will hold of budgets, if that is one of the route `reserved`. `input_estimate` is an upper estimate
    in tokens, exact where `counted`. `error` is how it was settled. `wasted` are tokens of attempts that did not become
    its answer. `cost` is what all its attempts came to, in nano-dollars; None where one was unpriced. Times are
    `time.perf_counter()` seconds but `time`, which is UTC epoch.
    """

    key: Key
    route: Route
    request: Request
    time: float
    started: float
    grants: list[Grant]
    input_estimate: int = 0
    counted: bool = False
    attempt: Attempt | None = None
    attempts: int = 0
    reservation: Sequence[object] = ()
    reserved: Route | None = None
    wasted: int = 0
    settled: bool = False
    error: str | None = None
    cost: int | None = 0


@dataclass(slots=True)
class UpstreamRequest:
    """One attempt's request, ready for a provider.

    `body` is the caller's JSON object and must not be changed in place: a fallback
    sends it again. Bytes are sent as they are, under `content_type`: a form that names the
    upstream's model already. `model` is the upstream's own id. `headers` passed the allow-list.
    `connect` is in seconds; every other timeout is kept by the caller of `send`.
    `credential` is the caller's own: it is sent in place of ours.
    """

    task: Task
    model: str
    body: Mapping[str, Any] | bytes
    headers: Mapping[str, str]
    stream: bool
    connect: float
    content_type: str = "application/json"
    credential: SecretStr | None = None

    @property
    def document(self) -> Mapping[str, Any]:
        """The JSON object in `body`; empty where it is a form."""
        return {} if isinstance(self.body, bytes) else self.body


@dataclass(slots=True)
class Answer:
    """What a provider answered, in OpenAI's wire format.

    Either `body` is the whole answer, or `chunks` yields server-sent-event bytes (or audio) cut
    anywhere (its `aclose` leaves the upstream at once). `headers` passed the allow-list
    (content-type, retry-after). A status of 400 or more keeps the upstream's own body.
    `document` is `body` parsed, where its provider had to look into it anyway.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: AsyncGenerator[bytes, None] | None = None
    document: dict[str, Any] | None = None


class Provider(Protocol):
    """Who serves upstream models. One object for each entry under `providers:`.

    `secrets` are what no error of its may hold, the longest first.
    """

    name: str
    secrets: Sequence[str]

    def speaks(self, task: Task, model: str) -> bool:
        """Whether requests in the dialect of `task` can be sent as they are."""

    def prefill(self, model: str) -> Mapping[str, Any] | None:
        """What a request says besides, to have an answer that the assistant began in it continued. None: it cannot."""

    async def start(self) -> None:
        """Begin whatever runs beside the calls (a child process). Returns at once, never raises."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer one attempt.

        For a stream it returns when the status and headers are known. Raises
        `UpstreamFailed` or `UpstreamTimeout`, nothing else.
        """

    async def close(self) -> None:
        """Release connections and children. Safe to call twice."""

    def status(self) -> str:
        """One word for `/health/ready`: "ready", "loading" or "failed: <why>"."""


@dataclass  # without slots: orjson writes those three times as fast
class UsageRecord:
    """One call, or (not `final`) an attempt of it that used tokens and did not become its answer.

    As it is written to the journal and to SQL: money in integer nano-dollars, time in UTC epoch seconds.

    `status` is the HTTP status the caller got (499: it left before the end).
    `estimated` says the provider gave no usage and the tokens are our own tally.
    """

    request_id: str
    time: float
    key_id: str
    key_name: str
    route: str
    deployment: str
    task: str
    status: int
    error: str | None = None
    stream: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int = 0
    priced: bool = True
    estimated: bool = False
    latency: float = 0.0
    first_token: float | None = None
    final: bool = True
    #: The route that was under way, where it is not the one that was asked.
    fallback: str | None = None
    #: Which of its call's attempts this is, from 1. 0: no upstream was asked.
    attempt: int = 0
    #: Those of its key at the time; "" for none.
    team_id: str = ""
    organisation_id: str = ""
    #: For whom it was (`Request.user`); "" for nobody who was named.
    end_user: str = ""
    #: The version of a prompt that it was made from (`support/3`); "" for none.
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Much of a budget is spent: `percent` of it, or more. Money in nano-dollars, times in UTC epoch seconds.

    `scope` and `name` are whose it is (`Claim`), `team_id` the team that has to do with it ("" for none). A `soft`
    budget refuses nothing. `window_end` is None where it does not begin anew. Somebody was told at `told_at`, or is to
    be (again) at `next_try`.
    """

    id: str
    time: float
    scope: str
    name: str
    team_id: str
    soft: bool
    percent: int
    spent: int
    budget: int
    duration: str | None
    window_start: int
    window_end: int | None
    tries: int = 0
    next_try: float | None = None
    told_at: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage records to sum: from `since` (inclusive) until `until`, UTC epoch; of one key, team and so on."""

    since: float | None = None
    until: float | None = None
    key_id: str | None = None
    team_id: str | None = None
    organisation_id: str | None = None
    end_user: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage of one group, `cost` in nano-dollars. Of the calls that failed, `refused` asked nobody.

    `group` maps what was grouped by to its value; a day is days since 1970.
    """

    group: Mapping[str, str | int]
    calls: int
    failed: int
    refused: int
    input_tokens: int
    output_tokens: int
    cost: int
