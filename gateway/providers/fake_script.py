"""What a fake provider may be told to do, call by call."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gateway import strict
from gateway.strict import Strict

#: What a fake may speak, by the words of `routes.yaml`: the tasks are named as their paths.
FakeDialect = Literal["chat", "completions", "embeddings", "messages", "responses"]


class FakeError(Strict):
    """An error, in the shape of the dialect that was asked in."""

    status: int = Field(500, ge=400, le=599, description="HTTP status", examples=["429"])
    message: str = Field("scripted error", description="What the caller reads")
    type: str = Field("server_error", description="OpenAI's error type")
    code: str | None = Field(None, description="OpenAI's error code", examples=["rate_limit_exceeded"])
    retry_after: float | None = Field(None, ge=0, le=86400, description="Seconds for the Retry-After header")


class FakeToolCall(Strict):
    """A call of one of the caller's tools."""

    name: str = Field(min_length=1, description="The tool's name")
    arguments: dict[str, Any] = Field({}, description="Its arguments", examples=["{city: Oslo}"])


class FakeUsage(Strict):
    """Tokens as the answer states them; what is not written is counted from the text."""

    prompt_tokens: int | None = Field(None, ge=0, description="Tokens in")
    completion_tokens: int | None = Field(None, ge=0, description="Tokens out")
    cached_tokens: int = Field(0, ge=0, description="Part of the prompt's tokens that were cached")
    reasoning_tokens: int | None = Field(None, ge=0, description="Part of the completion's tokens that were reasoning")


class FakeStep(Strict):
    """What one call gets. At most one of the keys that say what; without any, an echo of the request.

    A chunk is a piece of reasoning or text, or a call of a tool: each is one, whatever events its dialect makes of it.
    """

    answer: str | None = Field(None, description="The text; a stream sends it word by word", examples=["Hello"])
    chunks: list[str] | None = Field(None, description="The text in the pieces a stream sends", examples=["[Hel, lo]"])
    tool_call: FakeToolCall | None = Field(None, description="A call of a tool instead of text")
    tool_calls: list[FakeToolCall] | None = Field(
        None, min_length=1, description="Calls of tools, after the text if there is any", examples=["[{name: weather}]"]
    )
    reasoning: str | None = Field(
        None, min_length=1, description="What is thought before the answer", examples=["Let me see."]
    )
    signature: str | None = Field(
        None, min_length=1, description="The seal on the reasoning, where the dialect has one: messages, responses"
    )
    embedding: list[float] | None = Field(
        None, min_length=1, description="The vector for every input", examples=["[0.6, 0.8]"]
    )
    error: FakeError | None = Field(None, description="An error in the caller's dialect", examples=["{status: 429}"])
    html: bool = Field(False, description="A 503 with an HTML page, as a load balancer sends")
    garbage: bool = Field(False, description="A 200 with half a JSON; a stream ends in half an event")
    raw: str | None = Field(None, description="Exactly these characters as the body", examples=["'data: {}'"])
    status: int = Field(200, ge=200, le=599, description="HTTP status of `raw`")
    content_type: str | None = Field(None, description="Content type of `raw`")
    delay: float = Field(0, ge=0, le=86400, description="Seconds before the status and headers", examples=["0.5"])
    pause: float = Field(0, ge=0, le=86400, description="Seconds between two chunks", examples=["0.05"])
    cut: int | None = Field(None, ge=0, description="The connection breaks after so many chunks", examples=["2"])
    truncate: int | None = Field(None, ge=0, description="The stream ends after so many chunks, without [DONE]")
    stall: int | None = Field(None, ge=0, description="Silent for ever after so many chunks", examples=["1"])
    split: int | None = Field(None, ge=1, description="Cut a stream's bytes into pieces of this size", examples=["1"])
    finish_reason: str | None = Field(None, description="Why the answer ends", examples=["length"])
    usage: FakeUsage | None = Field(None, description="Token counts to state")
    no_usage: bool = Field(False, description="State no token counts at all")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        for said in (_KINDS, ("tool_calls", *_KINDS[2:]), ("reasoning", *_KINDS[3:])):
            given = [name for name in said if getattr(self, name) not in (None, False)]
            if len(given) > 1:
                raise strict.refusal(
                    f"says {' and '.join(given)}. Keep one of them, and make the others steps of their own."
                )
        if self.signature is not None and self.reasoning is None:
            raise strict.refusal("says signature, which seals a reasoning. Write the reasoning too.")
        return self


#: What an answer may be: one of these. Those from the third on leave no room for `tool_calls`, from the fourth none
#: for `reasoning`.
_KINDS = ("answer", "chunks", "tool_call", "embedding", "error", "html", "garbage", "raw")


class FakeScript(Strict):
    """The steps in order; then the last one again and again, or all from the start where `cycle` is set."""

    script: list[FakeStep] | None = Field(None, min_length=1, description="What it answers, call by call")
    cycle: bool = Field(False, description="After the last step begin again; false repeats the last step")
    prefill: bool = Field(False, description="Whether it goes on where an assistant's last message ends")
    dialects: list[FakeDialect] | None = Field(
        None, min_length=1, description="What it speaks; all, where not written", examples=["[messages]"]
    )
