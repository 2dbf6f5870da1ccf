"""Tokens as the Responses dialect counts them: to ours, to chat's and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import sse
from gateway.dialects.dialect import Document
from gateway.money import Tokens


def read(usage: Mapping[str, Any]) -> Tokens:
    """Tokens from a `usage` object; what is missing or not a number counts as none."""
    read = usage.get("input_tokens_details")
    return Tokens(
        input=sse.count(usage, "input_tokens"),
        output=sse.count(usage, "output_tokens"),
        cached=sse.count(read, "cached_tokens"),
        reasoning=sse.count(usage.get("output_tokens_details"), "reasoning_tokens"),
        written=sse.count(read, "cache_write_tokens"),
    )


def to_chat(usage: Any) -> Document | None:
    """Chat's `usage`; None where the provider counted nothing."""
    if not isinstance(usage, dict):
        return None
    tokens, written = read(usage), sse.count(usage.get("input_tokens_details"), "cache_write_tokens")
    prompt = {"cached_tokens": tokens.cached, **({"cache_write_tokens": written} if written else {})}
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        **({"cache_creation_input_tokens": written} if written else {}),
    }


def from_chat(usage: Any) -> Document | None:
    """`usage` from chat's; None where there was none."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    written = sse.count(details, "cache_write_tokens") or sse.count(usage, "cache_creation_input_tokens")
    counted, answered = sse.count(usage, "prompt_tokens"), sse.count(usage, "completion_tokens")
    return {
        "input_tokens": counted,
        "input_tokens_details": {"cached_tokens": sse.count(details, "cached_tokens"), "cache_write_tokens": written},
        "output_tokens": answered,
        "output_tokens_details": {
            "reasoning_tokens": sse.count(usage.get("completion_tokens_details"), "reasoning_tokens")
        },
        "total_tokens": counted + answered,
    }
