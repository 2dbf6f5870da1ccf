"""What a route in `routes.yaml` may say: each key with its type, range, example and meaning."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway import strict
from gateway.strict import Strict
from gateway.windows import is_duration


def _model_name(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise strict.refusal("must not have spaces around it or control characters.")
    return value


def _duration(value: str) -> str:
    if not is_duration(value):
        raise strict.refusal("must be a duration such as 15m, 1h, 1d, 1w, 30d or 1mo, of 366 days at most.")
    return value


KeyRoute = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_model_name)]


class LimitsModel(Strict):
    """Shared by all callers of the route; a limit that is not written is not there."""

    rpm: int | None = Field(None, ge=1, le=10**9, description="Requests a minute", examples=["600"])
    tpm: int | None = Field(None, ge=1, le=10**12, description="Tokens a minute, in and out", examples=["200000"])
    concurrency: int | None = Field(None, ge=1, le=10**6, description="Calls at once", examples=["8"])
    rpd: int | None = Field(None, ge=1, le=10**9, description="Requests a day, UTC", examples=["50000"])
    tpd: int | None = Field(None, ge=1, le=10**12, description="Tokens a day, UTC, in and out", examples=["20000000"])
    max_budget: Decimal | None = Field(
        None, gt=0, le=9 * 10**6, strict=False, description="USD, at most nine digits behind the point", examples=["50"]
    )
    soft_budget: Decimal | None = Field(
        None,
        gt=0,
        le=9 * 10**6,
        strict=False,
        description="USD that refuse nothing; `alerts` tell of it",
        examples=["40"],
    )
    budget_duration: Annotated[str, AfterValidator(_duration)] | None = Field(
        None, description="In which budgets are spent: 15m, 1h, 1d, 1w, 30d, 1mo; for ever where not written"
    )

    window: Literal["sliding", "fixed"] = Field(
        "sliding", description="Whether a minute is the last 60 s before each call, or the clock's"
    )

    @model_validator(mode="after")
    def _budget(self) -> Self:
        if self.budget_duration is not None and self.max_budget is None and self.soft_budget is None:
            raise strict.refusal("budget_duration needs a max_budget or a soft_budget.")
        if self.max_budget is not None and self.soft_budget is not None and self.soft_budget > self.max_budget:
            raise strict.refusal("soft_budget is more than max_budget: no call gets that far.")
        return self


class UserLimitsModel(LimitsModel):
    """What each end user may use."""

    @model_validator(mode="after")
    def _no_alerts(self) -> Self:
        if self.soft_budget is not None:
            raise strict.refusal("soft_budget is not there for users: nobody is told of theirs.")
        return self


class KeyModel(Strict):
    """A key by the hash of its secret: `promptyard keys declare` makes both."""

    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its secret, hex", examples=["9f86d0…"])
    scopes: Annotated[
        list[Literal["inference", "tracking", "tracking:read", "viewer", "admin"]], Field(min_length=1)
    ] = Field(["inference", "tracking"], description="What it may be used for")
    routes: list[KeyRoute] | None = Field(
        None, description="Routes it may call, `*` for anything; all where not written"
    )
    denied_routes: list[KeyRoute] = Field([], description="Routes it may not call all the same")
    limits: LimitsModel = Field(LimitsModel.model_validate({}), description="Shared by all who use it")
    user_limits: UserLimitsModel = Field(
        UserLimitsModel.model_validate({}), description="What each end user of it may use"
    )
    tags: list[str] = Field([], max_length=50, description="Words to find it by")


class TimeoutsModel(Strict):
    """Seconds before an attempt is given up."""

    connect: float = Field(5.0, gt=0, le=3600, description="To reach the upstream", examples=["5"])
    first_token: float = Field(60.0, gt=0, le=86400, description="To a stream's first chunk", examples=["30"])
    idle: float = Field(60.0, gt=0, le=86400, description="Between two chunks of a stream", examples=["30"])
    total: float | None = Field(
        None, gt=0, le=86400, examples=["600"],
        description="For the whole answer (600 where not written); a stream has no such end unless it is written",
    )  # fmt: skip


class RetriesModel(Strict):
    """How often all deployments of the route are asked again when every one of them has failed."""

    times: int = Field(1, ge=0, le=10, description="Rounds after the first", examples=["2"])
    backoff: float = Field(
        0.5, gt=0, le=60, description="Seconds before the first, doubled for each next, less a random part"
    )
    longest: float = Field(
        10.0, gt=0, le=600, description="A Retry-After of more seconds than this is not waited for", examples=["10"]
    )


class CooldownModel(Strict):
    """When a deployment is left alone for a while: after failures in a row, or for as long as its Retry-After says."""

    failures: int = Field(5, ge=1, le=1000, description="Failures in a row before it rests", examples=["3"])
    seconds: float = Field(
        10.0, ge=0, le=3600, description="How long it rests; then one call tries it before the others. 0: never"
    )


class QueueModel(Strict):
    """Where calls wait for a deployment that has its `concurrency` in hand."""

    size: int = Field(100, ge=0, le=100_000, description="How many may wait", examples=["100"])
    timeout: float = Field(5.0, gt=0, le=600, description="Seconds one waits at most", examples=["5"])


class HedgeModel(Strict):
    """A second try beside the first, for whoever answers sooner."""

    after: float = Field(gt=0, le=600, description="Seconds without a first token before it starts", examples=["0.8"])


class _SometimesModel(Strict):
    rate: float = Field(1.0, ge=0, le=1, description="Share of the attempts it happens to", examples=["0.2"])


class FaultErrorModel(_SometimesModel):
    """An error instead of an answer, without asking the upstream."""

    status: int = Field(503, ge=400, le=599, description="HTTP status", examples=["429"])
    retry_after: float | None = Field(
        None, ge=0, le=86400, description="Seconds for the Retry-After header", examples=["1"]
    )


class FaultEndModel(_SometimesModel):
    """An answer that does not come to its end."""

    after: int = Field(
        0, ge=0, le=10**6, description="Pieces of a stream that come before; 0 is before its first", examples=["3"]
    )


class FaultSlowModel(_SometimesModel):
    """An answer that comes slowly."""

    seconds: float = Field(
        gt=0, le=3600, description="Seconds before each piece; of a whole answer, for each token", examples=["0.05"]
    )


class FaultModel(Strict):
    """Faults to inject, as if the upstream had them. For tests: such a route is unfit for anything else."""

    seed: int = Field(0, description="The same seed has the same faults at the same attempts", examples=["7"])
    error: FaultErrorModel | None = Field(
        None, description="Answer with an error", examples=["{rate: 0.2, status: 429, retry_after: 1}"]
    )
    stall: FaultEndModel | None = Field(None, description="Fall silent for ever", examples=["{rate: 0.05}"])
    cut: FaultEndModel | None = Field(None, description="Break the connection", examples=["{rate: 0.1, after: 3}"])
    slow: FaultSlowModel | None = Field(None, description="Slow the tokens down", examples=["{seconds: 0.05}"])

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.error or self.stall or self.cut or self.slow):
            raise strict.refusal("says no fault. Write one of error, stall, cut and slow, or remove it.")
        return self


class DeploymentModel(Strict):
    """A provider and one of its models."""

    provider: str = Field(description="A name under `providers`", examples=["local"])
    model: Annotated[str, AfterValidator(_model_name)] = Field(
        min_length=1, max_length=256, description="The upstream's own model id", examples=["smollm2"]
    )
    weight: float = Field(1.0, ge=0, le=10**6, description="Share among the deployments; 0 rests it", examples=["1"])
    order: int = Field(1, ge=1, le=1000, description="Those of a lower order are asked before the others")
    concurrency: int | None = Field(None, ge=1, le=10**6, description="Calls it takes at once", examples=["8"])
    queue: QueueModel = Field(
        QueueModel.model_validate({}), description="Where calls beyond `concurrency` wait", examples=["{size: 100}"]
    )


class CacheModel(Strict):
    """How long an answer is given again to whoever asks exactly the same."""

    ttl: float = Field(gt=0, le=366 * 86400, description="Seconds an answer is kept", examples=["300"])
    shared: bool = Field(
        False, description="Whether keys get each other's answers; else each its own only", examples=["true"]
    )
    max_bytes: int = Field(
        4 * 2**20, ge=1024, le=16 * 2**20, description="Largest answer that is kept", examples=["4194304"]
    )


class ShadowModel(Strict):
    """A second route that is asked the same, for comparison. Its answers go to no caller, its cost to no key."""

    route: str = Field(description="The route that gets the copies", examples=["candidate"])
    percent: float = Field(gt=0, le=100, description="How many of a hundred calls are copied", examples=["5"])


class TraceModel(Strict):
    """An experiment that keeps a trace of each call, or of some: both sides' text, tokens, cost, attempts."""

    experiment: Annotated[str, AfterValidator(_model_name)] = Field(
        min_length=1, max_length=500, description="Its name; it is made where there is none", examples=["support"]
    )
    sample: float = Field(1.0, gt=0, le=1, description="Share of the calls", examples=["0.1"])


class RouteModel(Strict):
    """A name callers send as `model`, and what answers it."""

    task: Literal["chat", "embeddings", "moderations", "images", "speech", "transcriptions", "rerank"] = Field(
        "chat", description="`chat` answers every dialect of a conversation, the others one task", examples=["chat"]
    )
    deployments: list[DeploymentModel] = Field(
        min_length=1, description="What answers, shared by weight", examples=["[{provider: local, model: smollm2}]"]
    )
    strategy: Literal["weighted", "priority", "latency", "least_busy", "cheapest"] = Field(
        "weighted", description="Which deployment of an order comes first", examples=["latency"]
    )
    sticky: str | None = Field(
        None,
        pattern=r"^(user|[Xx]-[A-Za-z0-9-]{1,60})$",
        examples=["user"],
        description="What keeps to one deployment: calls of one `user`, or with one value of a header `x-…`",
    )
    fallbacks: list[str] = Field([], description="Routes to try, in order, when this one fails", examples=["[chat]"])
    context_fallbacks: list[str] = Field(
        [], description="Routes with larger windows, for what is too long for this one", examples=["[long]"]
    )
    retries: RetriesModel | None = Field(
        None, description="Ask again when all deployments failed; not, where not written", examples=["{times: 2}"]
    )
    cooldown: CooldownModel | None = Field(
        None,
        description="When a deployment rests; where not written, after 5 failures if there is another to ask",
        examples=["{failures: 3, seconds: 30}"],
    )
    hedge: HedgeModel | None = Field(
        None, description="Ask a second deployment when the first is slow", examples=["{after: 0.8}"]
    )
    limits: LimitsModel = Field(
        LimitsModel.model_validate({}), description="What all callers together may use", examples=["{rpm: 600}"]
    )
    timeouts: TimeoutsModel = Field(
        TimeoutsModel.model_validate({}), description="When to give up", examples=["{idle: 30}"]
    )
    unsupported: Literal["refuse", "drop"] = Field(
        "refuse",
        description="What becomes of a field that a deployment's dialect cannot say",
        examples=["drop"],
    )
    rescue: bool = Field(
        False, description="Continue a stream that breaks off on the next deployment", examples=["true"]
    )
    max_output_tokens: int | None = Field(
        None,
        ge=1,
        le=10**9,
        examples=["4096"],
        description="Most tokens an answer may have; a request for more is refused, or as a fallback's cut to it",
    )
    unpriced: Literal["refuse", "free"] = Field(
        "refuse",
        description="What becomes, where a budget applies, of a deployment that nobody knows the price of",
        examples=["free"],
    )
    byok: bool = Field(
        False, description="A caller may bring its own credential for the provider, in x-promptyard-provider-key"
    )
    cache: CacheModel | None = Field(
        None, description="Give answers again, and let identical calls at once share one", examples=["{ttl: 300}"]
    )
    shadow: ShadowModel | None = Field(
        None, description="Copy calls to another route beside this one", examples=["{route: candidate, percent: 5}"]
    )
    trace: TraceModel | None = Field(
        None, description="Keep traces of calls in an experiment", examples=["{experiment: support, sample: 0.1}"]
    )
    fault: FaultModel | None = Field(
        None,
        description="Faults to inject, for tests of what calls this route",
        examples=["{seed: 7, error: {rate: 0.2, status: 429}}"],
    )
