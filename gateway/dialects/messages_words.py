"""What the translators of Anthropic's Messages share: checked reading of a caller's body, and words that differ.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.dialects import sse
from gateway.dialects.dialect import Document, Losses
from gateway.errors import UpstreamFailed
from gateway.money import Tokens

#: Levels that are left for arguments of a call: what writes JSON goes no deeper than 254.
_DEPTH = 240
NOT_IN_CHAT = "chat completions have no word for it."
NOT_IN_MESSAGES = "Anthropic's Messages have no word for it."
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP = {"length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use", "function_call": "tool_use"}


def says_nothing(value: Any) -> bool:
    """Whether a field with this value might as well be absent. Zero says something."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def lose_rest(holder: Mapping[str, Any], known: Collection[str], path: str, losses: Losses, why: str) -> None:
    """Name every field of `holder` that is none of `known` and says something."""
    for name, value in holder.items():
        if name not in known and not says_nothing(value):
            losses.lose(f"{path}.{short(name)}" if path else short(name), why)


def short(name: str) -> str:
    """A caller's own word as it can be shown in an error."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def too_deep(value: Any, text: str) -> bool:
    """Whether `value`, read from `text`, is nested deeper than it could be written inside a request or an answer."""
    if text.count("[") + text.count("{") <= _DEPTH:
        return False
    level = [value]
    for _ in range(_DEPTH):
        level = [part for one in level if isinstance(one, dict | list) for part in _inside(one)]
    return bool(level)


def _inside(value: Document | list[Any]) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value


def odd(what: str) -> UpstreamFailed:
    """The error for an upstream's answer that is none, in a sentence that begins with what is wrong in it."""
    return UpstreamFailed(f"The provider's answer cannot be translated: {what}.")


def finish_reason(stop_reason: Any) -> str:
    """Chat's word for why Anthropic stopped; one that is new means an end."""
    return _FINISH.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def stopped(
    choice: Mapping[str, Any], body: Mapping[str, Any], *, tools: bool, refused: bool
) -> tuple[str, str | None]:
    """Anthropic's `stop_reason` and `stop_sequence` for a chat choice; `tools` says that it calls some.

    Which sequence stopped it is known only where the server says so (vLLM does, as `stop_reason`).
    """
    finish = choice.get("finish_reason")
    reason = _STOP.get(finish) if isinstance(finish, str) else None
    # Servers of chat say `stop` after a call, too; and `tool_calls` where the call was left out.
    if reason in (None, "tool_use"):
        reason = "tool_use" if tools else "refusal" if refused else None
    matched, sequences = choice.get("stop_reason"), body.get("stop_sequences")
    if reason is None and isinstance(matched, str) and isinstance(sequences, list) and matched in sequences:
        return "stop_sequence", matched
    return reason or "end_turn", None


def shows_reasoning(body: Mapping[str, Any]) -> bool:
    """Whether the caller is shown reasoning that nobody signed: unless it said no, as newer models think unasked.

    What is signed it has to send back, and always gets.
    """
    thinking = body.get("thinking")
    return not isinstance(thinking, dict) or (
        thinking.get("type") != "disabled" and thinking.get("display") != "omitted"
    )


def tokens(usage: Mapping[str, Any]) -> Tokens:
    """Tokens from Anthropic's `usage`, whose `input_tokens` leave out what was read from a cache or written to one."""
    cached, created = sse.count(usage, "cache_read_input_tokens"), sse.count(usage, "cache_creation_input_tokens")
    kept = min(created, sse.count(usage.get("cache_creation"), "ephemeral_1h_input_tokens"))
    return Tokens(
        input=sse.count(usage, "input_tokens") + cached + created,
        output=sse.count(usage, "output_tokens"),
        cached=cached,
        reasoning=sse.count(usage.get("output_tokens_details"), "thinking_tokens"),
        written=created - kept,
        kept=kept,
    )


def usage_to_chat(usage: Mapping[str, Any]) -> Document:
    """Anthropic's `usage` as OpenAI's: one sum of all input, and what was written to a cache beside it."""
    used = tokens(usage)
    said: Document = {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": {"cached_tokens": used.cached},
    }
    if used.reasoning:
        said["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    if usage.get("cache_creation_input_tokens") is not None:
        said["cache_creation_input_tokens"] = sse.count(usage, "cache_creation_input_tokens")
    return said


def usage_from_chat(usage: Any) -> Document:
    """OpenAI's `usage` as Anthropic's: input without what a cache gave or took."""
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = sse.count(details, "cached_tokens")
    created = sse.count(usage, "cache_creation_input_tokens") or sse.count(details, "cache_write_tokens")
    said: Document = {
        "input_tokens": max(0, sse.count(usage, "prompt_tokens") - cached - created),
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "output_tokens": sse.count(usage, "completion_tokens"),
    }
    reasoning = sse.count(usage.get("completion_tokens_details"), "reasoning_tokens") if isinstance(usage, dict) else 0
    if reasoning:
        said["output_tokens_details"] = {"thinking_tokens": reasoning}
    return said
