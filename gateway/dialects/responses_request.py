"""Requests between the Responses dialect and chat. What passes and what is lost is said field by field.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.dialects import responses_tools as tools
from gateway.dialects.dialect import Document, Losses
from gateway.dialects.numbers import positive
from gateway.dialects.reading import need_flag, need_list, need_object, need_text
from gateway.dialects.responses_fields import NO_WORD, kind, lose_rest, some
from gateway.dialects.responses_input import to_messages
from gateway.dialects.responses_messages import from_messages
from gateway.errors import BadRequest

_NOT_HERE = "the Responses API has no word for it."
#: The same in both.
_SAME = (
    *("model", "stream", "temperature", "top_p", "metadata", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "prompt_cache_options", "service_tier", "parallel_tool_calls", "moderation"),
)
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
#: What other parts of a translation read.
_READ = ("input", "instructions", "tools", "tool_choice", "max_output_tokens", "top_logprobs")
_READ_CHAT = (
    *("messages", "tools", "tool_choice", "max_completion_tokens", "max_tokens", "logprobs", "top_logprobs"),
    *("reasoning_effort", "thinking", "response_format", "verbosity"),
)
#: Values that ask for nothing beyond what is so anyway.
_NOTHING: Mapping[str, tuple[Any, ...]] = {"store": (False,), "background": (False,), "truncation": ("disabled",)}
_NOTHING_CHAT: Mapping[str, tuple[Any, ...]] = {
    "store": (False,),
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "stop": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
}


def to_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """A request as a chat request (`Dialect.to_chat`)."""
    chat = some(body, *_SAME)
    chat["messages"] = to_messages(body.get("instructions"), body.get("input"), losses)
    cap = positive(body, "max_output_tokens")
    if cap is not None:
        chat["max_completion_tokens"] = cap
    _tools_to_chat(body, chat, losses)
    if body.get("top_logprobs"):
        chat |= {"logprobs": True, "top_logprobs": body["top_logprobs"]}
    for name, value in body.items():
        if value is None or name in _SAME or name in _READ or value in _NOTHING.get(name, ()):
            continue
        if name in _TO_CHAT:
            _TO_CHAT[name](value, chat, losses)
        else:
            losses.lose(name, NO_WORD)
    return chat


def _tools_to_chat(body: Mapping[str, Any], chat: Document, losses: Losses) -> None:
    if body.get("tools"):
        chat["tools"] = tools.to_chat(body["tools"], losses)
    choice = body.get("tool_choice")
    if choice is not None:
        choice = tools.choice_to_chat(choice, losses)
    if chat.get("tools"):
        chat |= {} if choice is None else {"tool_choice": choice}
        return
    # Servers of chat refuse to hear of a choice where there is none.
    for name in ("tools", "parallel_tool_calls"):
        chat.pop(name, None)
    if choice not in (None, "auto", "none"):
        losses.lose("tool_choice", "there are no tools to choose from.")


def _reasoning(value: Any, chat: Document, losses: Losses) -> None:
    reasoning = need_object(value, "reasoning")
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = need_text(reasoning["effort"], "reasoning.effort")
    for name in ("summary", "generate_summary"):
        # `auto` is what there is to be had: whatever a model shows of its reasoning comes anyway.
        if reasoning.get(name) not in (None, "auto"):
            losses.lose(f"reasoning.{name}", "chat completions know no kinds of summary, ask for auto.")
    lose_rest(reasoning, ("effort", "summary", "generate_summary"), "reasoning", losses)


def _text(value: Any, chat: Document, losses: Losses) -> None:
    shape = need_object(value, "text")
    lose_rest(shape, ("format", "verbosity"), "text", losses)
    chat |= some(shape, "verbosity")
    if shape.get("format") is None:
        return
    form = need_object(shape["format"], "text.format")
    match kind(form, "text.format"):
        case "text":
            pass
        case "json_object":
            chat["response_format"] = {"type": "json_object"}
        case "json_schema":
            lose_rest(form, ("type", "name", "schema", "strict", "description"), "text.format", losses)
            need_text(form.get("name"), "text.format.name")
            need_object(form.get("schema"), "text.format.schema")
            schema = some(form, "name", "description", "schema", "strict")
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            losses.lose("text.format", NO_WORD)


def _include(value: Any, chat: Document, losses: Losses) -> None:
    for at, name in enumerate(need_list(value, "include")):
        if name == _LOGPROBS:
            chat["logprobs"] = True
        elif name != _ENCRYPTED:  # what a provider of another dialect seals for its own use comes anyway
            losses.lose(f"include[{at}]", "chat completions answer with nothing of the kind.")


def _stream_options(value: Any, chat: Document, losses: Losses) -> None:
    options = need_object(value, "stream_options")
    lose_rest(options, ("include_obfuscation",), "stream_options", losses)
    if options.get("include_obfuscation") and need_flag(options["include_obfuscation"], "stream_options"):
        losses.lose("stream_options.include_obfuscation", "a translated stream is not obfuscated.")


_TO_CHAT: Mapping[str, Callable[[Any, Document, Losses], None]] = {
    "reasoning": _reasoning,
    "text": _text,
    "include": _include,
    "stream_options": _stream_options,
}


def from_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """A chat request as one of the Responses dialect (`Dialect.from_chat`)."""
    said = some(body, *_SAME)
    said |= from_messages(body.get("messages"), losses)
    said["store"] = False
    caps = [cap for name in ("max_completion_tokens", "max_tokens") if (cap := positive(body, name)) is not None]
    if caps:
        said["max_output_tokens"] = max(caps)
    if body.get("tools"):
        said["tools"] = tools.from_chat(body["tools"], losses)
    if body.get("tool_choice") is not None:
        choice = tools.choice_from_chat(body["tool_choice"], losses)
        said |= {} if choice is None else {"tool_choice": choice}
    include = _reasoning_from_chat(body, said, losses) + _logprobs_from_chat(body, said)
    if include:
        said["include"] = include
    _text_from_chat(body, said, losses)
    for name, value in body.items():
        if value is None or name in _SAME or name in _READ_CHAT or value in _NOTHING_CHAT.get(name, ()):
            continue
        if name == "stream_options":
            # A stream of this dialect always says its usage.
            options = need_object(value, name)
            lose_rest(options, ("include_usage", "include_obfuscation"), name, losses, _NOT_HERE)
            said |= {name: passed} if (passed := some(options, "include_obfuscation")) else {}
        else:
            losses.lose(name, _NOT_HERE)
    return said


def _reasoning_from_chat(body: Mapping[str, Any], said: Document, losses: Losses) -> list[str]:
    """What to include: reasoning that was asked for comes encrypted, else it could not be sent back."""
    reasoning = some(body, "reasoning_effort")
    if reasoning:
        reasoning = {"effort": need_text(reasoning["reasoning_effort"], "reasoning_effort")}
    thinking = need_object(body.get("thinking") or {}, "thinking")
    # A budget stands in `reasoning_effort` too, as the effort nearest to it.
    lose_rest(thinking, ("type", "budget_tokens", "display"), "thinking", losses, _NOT_HERE)
    thinks = bool(thinking) and kind(thinking, "thinking") != "disabled"
    if thinks and thinking.get("display") != "omitted":
        reasoning["summary"] = "auto"
    if not (reasoning or thinks):
        return []
    said["reasoning"] = reasoning
    return [_ENCRYPTED]


def _logprobs_from_chat(body: Mapping[str, Any], said: Document) -> list[str]:
    if body.get("logprobs") is None or not need_flag(body["logprobs"], "logprobs"):
        return []
    said |= some(body, "top_logprobs")
    return [_LOGPROBS]


def _text_from_chat(body: Mapping[str, Any], said: Document, losses: Losses) -> None:
    shape = some(body, "verbosity")
    if body.get("response_format") is not None:
        form = need_object(body["response_format"], "response_format")
        of = kind(form, "response_format")
        if of == "json_schema":
            path = "response_format.json_schema"
            schema = need_object(form.get("json_schema"), path)
            lose_rest(schema, ("name", "schema", "strict", "description"), path, losses, _NOT_HERE)
            if not isinstance(schema.get("schema"), dict):
                raise BadRequest(f"'{path}.schema' must be an object.", param=f"{path}.schema")
            shape["format"] = {"type": of, **some(schema, "name", "description", "schema", "strict")}
        elif of == "json_object":
            shape["format"] = {"type": of}
        elif of != "text":
            losses.lose("response_format", _NOT_HERE)
    if shape:
        said["text"] = shape
