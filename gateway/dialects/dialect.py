"""What the gateway must know of a wire format: how to check, meter, translate and refuse in it. Pure.

Chat completions are the pivot. A dialect that a deployment does not speak is translated into chat (`to_chat`) and from
chat into one it does (`from_chat`); its answers come back the same way. What chat has no word for travels through the
pivot under the names below, which only translators read and `ChatDialect.from_chat` takes out again:

- on messages and deltas `reasoning_content` (text) and `thinking_blocks` (Anthropic's `thinking` and
  `redacted_thinking` blocks with their signatures; a delta carries pieces of one, `{"type": "thinking", "thinking"}` or
  `{"type": "thinking", "signature"}`);
- `cache_control` on content parts, tools and messages, as Anthropic writes it;
- `top_k`, and `thinking` as Anthropic writes it, on requests;
- on `usage`: `cache_creation_input_tokens` beside OpenAI's own details.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gateway.dialects.sse import Tally, Through
from gateway.errors import BadRequest, GatewayError
from gateway.money import Tokens

Document = dict[str, Any]
#: Characters of a field's path that are told.
_LONGEST = 200


@dataclass(slots=True)
class Losses:
    """What a translation could not carry: refused by name, or dropped and named, as the route says (`unsupported`)."""

    drop: bool = False
    names: list[str] = field(default_factory=list)

    def lose(self, param: str, why: str) -> None:
        """`param` (a path as `messages[2].content[0]`) cannot be said to this deployment. `why` is a sentence.

        Raises `BadRequest` naming it, unless the route drops what it cannot send. Of a path longer than any field of
        an API the beginning is said: it holds the caller's own words.
        """
        param = param if len(param) <= _LONGEST else f"{param[: _LONGEST - 3]}..."
        if not self.drop:
            raise BadRequest(
                f"{param} cannot be sent to this model: {why} Leave it out, or have `unsupported: drop` on its route.",
                param=param,
                code="unsupported_parameter",
            )
        if param not in self.names:
            self.names.append(param)


class Output(NamedTuple):
    """What a request says of its answer: the caller's cap in tokens on each (None: none), how many there will be.

    `param` is the field that says the cap.
    """

    cap: int | None
    answers: int
    param: str = "max_tokens"


class Decoder(Protocol):
    """Turns the events of one upstream stream into chat completion chunks. One object a stream."""

    def feed(self, document: Document) -> Iterable[Document]:
        """The chunks that one event (its parsed `data`) stands for; the last carry `finish_reason`, then `usage`."""


class Encoder(Protocol):
    """Turns chat completion chunks into the events of one caller's stream. One object a stream."""

    def feed(self, chunk: Document) -> bytes:
        """The bytes of the events that `chunk` stands for; empty where there is nothing to say yet."""

    def end(self) -> bytes:
        """What closes the stream once the upstream has said all. Called once, only when it ended well."""


class Dialect(Protocol):
    """One wire format."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what the gateway itself has to understand of a request. Raises `BadRequest` naming the field."""

    def output(self, body: Mapping[str, Any]) -> Output:
        """What the request says of its answer's size. Raises `BadRequest` for numbers that are none."""

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """The request as an upstream of this dialect gets it: usage asked for, no more than `cap` tokens of output."""

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """The tokens a whole answer states."""

    def tally(self, body: Mapping[str, Any], through: Through | None) -> Tally:
        """What reads an upstream's stream. `body` is the caller's request, in another dialect if there is `through`."""

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of `error` as callers of this dialect read it."""

    def broken_off(self, error: GatewayError) -> bytes:
        """The event that ends a stream which cannot be finished."""


class Conversation(Dialect, Protocol):
    """A dialect of conversations, which any other of them can be translated into and from."""

    def to_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """A request of this dialect as a chat request. Raises `BadRequest`; what chat cannot say goes to `losses`."""

    def from_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """A chat request as one of this dialect. Raises `BadRequest`; what it cannot say goes to `losses`."""

    def answer_to_chat(self, document: Mapping[str, Any]) -> Document:
        """An upstream's whole answer as a chat completion."""

    def answer_from_chat(self, document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
        """A chat completion as an answer to `body`, a request of this dialect."""

    def decoder(self) -> Decoder:
        """Reads one upstream's stream."""

    def encoder(self, body: Mapping[str, Any]) -> Encoder:
        """Writes one caller's stream, the answer to `body`."""

    def refused_to_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """An upstream's error body of this dialect as OpenAI's `{"error": {message, type, param, code}}`."""

    def refused_from_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """OpenAI's error body as one of this dialect."""
