"""OpenAI's Responses, without the state that a provider keeps of them.

What is stored with a provider's credential can be read by whoever may use that credential: by every caller of this
gateway. So nothing is stored, and nothing stored is referred to.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects import responses_decoder, responses_encoder, responses_request, responses_usage, sse
from gateway.dialects.dialect import Document, Losses, Output
from gateway.dialects.numbers import positive
from gateway.dialects.responses_decoder import Decoder
from gateway.dialects.responses_encoder import Encoder
from gateway.dialects.responses_tally import ResponsesTally
from gateway.dialects.sse import Through
from gateway.dialects.stored import STORED, refuse
from gateway.errors import BadRequest, GatewayError, to_openai
from gateway.money import Tokens

_STORES = "it would be stored with the provider's credential, which callers of this gateway share."
#: Fields that refer to, or leave behind, what a provider stores.
_REFUSED = {
    "previous_response_id": STORED,
    "conversation": STORED,
    "prompt": STORED,
    "background": f"{_STORES} Ask for the answer at once.",
    "store": f"{_STORES} Leave it out.",
}
#: Where a tool names files or a machine of its own.
_TOOL_FILES = ("container", "environment", "input_image_mask")
# Where a stream breaks off nobody knows its count of events, only that this one is the last.
_LAST = 2**31 - 1


class ResponsesDialect:
    """Responses."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what has no input, and whatever is stored from one call to the next (`Dialect.check`)."""
        for name, why in _REFUSED.items():
            if body.get(name) not in (None, False):
                raise BadRequest(f"'{name}' is refused: {why}", param=name, code="unsupported_parameter")
        said = body.get("input")
        if not isinstance(said, str) and not (isinstance(said, list) and said):
            raise BadRequest("'input' must be a string or a list of at least one item.", param="input")
        for at, item in enumerate(said if isinstance(said, list) else ()):
            if not isinstance(item, dict):
                raise BadRequest("An item must be an object.", param=f"input[{at}]")
            _check_item(item, f"input[{at}]")
        tools = body.get("tools")
        for at, tool in enumerate(tools if isinstance(tools, list) else ()):
            for path, found in _stored_of_tool(tool, f"tools[{at}]"):
                refuse(found, path)

    def output(self, body: Mapping[str, Any]) -> Output:
        """One answer of at most `max_output_tokens` (`Dialect.output`)."""
        return Output(positive(body, "max_output_tokens"), 1, "max_output_tokens")

    def prepare(self, body: Mapping[str, Any], cap: int | None, *, stream: bool) -> Document:
        """With nothing stored, which is OpenAI's default, and `cap` where it is lower (`Dialect.prepare`)."""
        said = body.get("input")
        for at, item in enumerate(said if isinstance(said, list) else ()):
            if _is_looked_up(item):
                raise BadRequest(
                    f"'input[{at}]' holds no reasoning, only its id: {STORED} "
                    'Ask for it with "include": ["reasoning.encrypted_content"].',
                    param=f"input[{at}]",
                )
        prepared = {**body, "store": False}
        if cap is not None:
            asked = positive(body, "max_output_tokens")
            prepared["max_output_tokens"] = cap if asked is None else min(asked, cap)
        return prepared

    def usage(self, document: Mapping[str, Any]) -> Tokens | None:
        """The tokens a whole answer states (`Dialect.usage`)."""
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return None
        found = responses_usage.read(usage)
        found.tier = sse.served(document)
        return found

    def tally(self, body: Mapping[str, Any], through: Through | None) -> ResponsesTally:
        """Reads events; every stream says its usage (`Dialect.tally`)."""
        return ResponsesTally(through)

    def refusal(self, error: GatewayError) -> tuple[int, Mapping[str, str], bytes]:
        """OpenAI's error (`Dialect.refusal`)."""
        return to_openai(error)

    def broken_off(self, error: GatewayError) -> bytes:
        """OpenAI's `error` event, in its two forms at once (`Dialect.broken_off`).

        The reference has the fields on the event itself; OpenAI sends them under `error`, which is what its own
        client raises (https://github.com/openai/openai-dotnet/issues/881).
        """
        facts = {"code": error.code, "message": error.message, "param": error.param}
        nested = {"type": error.type, **facts}
        return sse.event({"type": "error", **facts, "sequence_number": _LAST, "error": nested}, "error")

    def to_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """The request as one of chat (`Dialect.to_chat`)."""
        return responses_request.to_chat(body, losses)

    def from_chat(self, body: Mapping[str, Any], losses: Losses) -> Document:
        """The request from chat's (`Dialect.from_chat`)."""
        return responses_request.from_chat(body, losses)

    def answer_to_chat(self, document: Mapping[str, Any]) -> Document:
        """The answer as a chat completion (`Dialect.answer_to_chat`)."""
        return responses_decoder.whole(document)

    def answer_from_chat(self, document: Mapping[str, Any], body: Mapping[str, Any]) -> Document:
        """The answer from a chat completion (`Dialect.answer_from_chat`)."""
        return responses_encoder.whole(document, body)

    def decoder(self) -> Decoder:
        """Reads events (`Dialect.decoder`)."""
        return Decoder()

    def encoder(self, body: Mapping[str, Any]) -> Encoder:
        """Writes events (`Dialect.encoder`)."""
        return Encoder(body)

    def refused_to_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """The error itself: both are OpenAI's (`Dialect.refused_to_chat`)."""
        return dict(document)

    def refused_from_chat(self, document: Mapping[str, Any], status: int) -> Document:
        """The error itself: both are OpenAI's (`Dialect.refused_from_chat`)."""
        return dict(document)


def _check_item(item: Mapping[str, Any], path: str) -> None:
    """Refuse an item that stands for a stored one, or that has a stored file."""
    if item.get("type") == "item_reference" or (item.get("type") is None and "role" not in item):
        refuse("a reference", path)
    for name in ("content", "output"):
        parts = item.get(name)
        for at, part in enumerate(parts if isinstance(parts, list) else [parts]):
            if isinstance(part, dict) and part.get("file_id") is not None:
                refuse(
                    "a file", f"{path}.{name}[{at}].file_id" if isinstance(parts, list) else f"{path}.{name}.file_id"
                )


def _is_looked_up(item: Any) -> bool:
    """Whether a provider has to look an item's reasoning up among what it stored."""
    return (
        isinstance(item, dict)
        and item.get("type") == "reasoning"
        and item.get("id") is not None
        and not (item.get("encrypted_content") or item.get("content"))
    )


def _stored_of_tool(tool: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where a tool names stored files, or a machine that other calls have used."""
    if isinstance(tool, dict) and tool.get("vector_store_ids"):
        yield f"{path}.vector_store_ids", "files"
    for name in _TOOL_FILES:
        found = tool.get(name) if isinstance(tool, dict) else None
        if isinstance(found, str):
            yield f"{path}.{name}", "a container"
        elif isinstance(found, dict):
            for within, what in (("file_ids", "files"), ("file_id", "a file"), ("container_id", "a container")):
                if found.get(within):
                    yield f"{path}.{name}.{within}", what
            skills = found.get("skills")
            for at, skill in enumerate(skills if isinstance(skills, list) else ()):
                if isinstance(skill, dict) and skill.get("skill_id"):
                    yield f"{path}.{name}.skills[{at}].skill_id", "a skill"
