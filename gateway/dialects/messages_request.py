"""Requests: Anthropic's Messages as chat, and chat as Anthropic's Messages. What one cannot say is lost by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.dialects import messages_tools, messages_turns
from gateway.dialects.dialect import Document, Losses
from gateway.dialects.messages_words import NOT_IN_CHAT, NOT_IN_MESSAGES, lose_rest, says_nothing
from gateway.dialects.numbers import positive
from gateway.dialects.reading import need_list, need_number, need_object, need_text, wrong

#: How many tokens an answer may have where nobody says: Anthropic wants it said.
DEFAULT_CAP = 4096
_SAME = ("model", "stream", "temperature", "top_p", "top_k")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
#: Tokens of thinking that an effort stands for, where a model thinks by budget.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 65536}
_LEAST_BUDGET = 1024
# Models before 4.6 think by budget; those from 4.7 refuse one.
# https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
_GENERATION = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:[-.@](\d+))?)")

_KNOWN_MESSAGES = {
    *_SAME,
    *("system", "messages", "max_tokens", "stop_sequences", "tools", "tool_choice", "metadata", "thinking"),
    *("output_config", "output_format", "service_tier", "inference_geo", "speed"),
}
_WHY_NOT_CHAT = {
    "cache_control": "only Anthropic caches what it is told to.",
    "mcp_servers": "only Anthropic calls MCP servers by itself.",
    "container": "only Anthropic runs code in its own containers.",
    "context_management": "only Anthropic edits a conversation by itself.",
}
_KNOWN_CHAT = {
    *_SAME,
    *("messages", "max_tokens", "max_completion_tokens", "stop", "stream_options", "tools", "tool_choice", "user"),
    *("parallel_tool_calls", "safety_identifier", "response_format", "reasoning_effort", "thinking", "service_tier"),
    *("n", "frequency_penalty", "presence_penalty", "modalities"),
}
_WHY_NOT_MESSAGES = {
    "functions": "the older functions became `tools`, which it can be sent.",
    "function_call": "the older functions became `tools` and `tool_choice`, which it can be sent.",
}
#: Fields of chat that say nothing with these values.
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
}


def to_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """An Anthropic request as a chat request (`Dialect.to_chat`)."""
    for name, value in body.items():
        if name not in _KNOWN_MESSAGES:
            lose_rest({name: value}, (), "", losses, _WHY_NOT_CHAT.get(name, NOT_IN_CHAT))
    said = _same(body)
    said["messages"] = messages_turns.to_chat(body, losses)
    cap = positive(body, "max_tokens")
    if cap is not None:
        said["max_completion_tokens"] = cap
    if not says_nothing(body.get("stop_sequences")):
        said["stop"] = _texts(body["stop_sequences"], "stop_sequences")
    said |= messages_tools.to_chat(body, losses)
    said |= _user(body, losses)
    said |= _tier_to_chat(body, losses)
    return said | _output_to_chat(body, losses)


def _same(body: Mapping[str, Any]) -> Document:
    said = {name: body[name] for name in _SAME if body.get(name) is not None}
    for name in ("temperature", "top_p", "top_k"):
        if name in said:
            need_number(said[name], name)
    return said


def _texts(value: Any, path: str) -> list[str]:
    return [need_text(text, f"{path}[{at}]") for at, text in enumerate(need_list(value, path))]


def _user(body: Mapping[str, Any], losses: Losses) -> Document:
    metadata = need_object(body.get("metadata") or {}, "metadata")
    lose_rest(metadata, ("user_id",), "metadata", losses, "chat completions know only who the user is.")
    user = metadata.get("user_id")
    return {} if user is None else {"user": need_text(user, "metadata.user_id")}


def _tier_to_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    for name, usual in (("speed", "standard"), ("inference_geo", None)):
        if body.get(name) not in (None, usual):
            losses.lose(name, "it chooses among Anthropic's own servers.")
    match body.get("service_tier"):
        case None:
            return {}
        case "auto":
            return {"service_tier": "auto"}
        case "standard_only":
            return {"service_tier": "default"}
        case _:
            raise wrong("service_tier", "'auto' or 'standard_only'")


def _output_to_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """What is said of the answer's form and of the thinking before it.

    A budget becomes the effort nearest to it. `adaptive` and `between_tools` leave it to the model, as chat does where
    nothing is said; `disabled` keeps thinking out of the answer (`messages_words.shows_reasoning`).
    """
    config = need_object(body.get("output_config") or {}, "output_config")
    lose_rest(config, ("effort", "format"), "output_config", losses, NOT_IN_CHAT)
    said: Document = {}
    for given, path in ((config.get("format"), "output_config.format"), (body.get("output_format"), "output_format")):
        if given is not None:
            said["response_format"] = _format_to_chat(need_object(given, path), path, losses)
    effort = config.get("effort")
    if effort is None:
        effort = _effort_of(need_object(body.get("thinking") or {}, "thinking"), losses)
    if effort is not None:
        said["reasoning_effort"] = need_text(effort, "output_config.effort")
    return said


def _effort_of(thinking: Document, losses: Losses) -> str | None:
    known = ("type", "budget_tokens", "display")
    lose_rest(thinking, known, "thinking", losses, NOT_IN_CHAT)
    kind = thinking.get("type")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or isinstance(budget, bool):
            raise wrong("thinking.budget_tokens", "a whole number")
        return "low" if budget < 4096 else "medium" if budget < 16384 else "high"
    if thinking and kind not in ("adaptive", "between_tools", "disabled"):
        raise wrong("thinking.type", "'adaptive', 'enabled', 'between_tools' or 'disabled'")
    return None


def _format_to_chat(given: Document, path: str, losses: Losses) -> Document:
    if given.get("type") != "json_schema":
        raise wrong(f"{path}.type", "'json_schema'")
    lose_rest(given, ("type", "schema"), path, losses, NOT_IN_CHAT)
    schema = need_object(given.get("schema"), f"{path}.schema")
    # OpenAI is strict only about schemas that leave nothing open, and refuses others.
    json_schema = {"name": "answer", "schema": schema, "strict": _closed(schema)}
    return {"type": "json_schema", "json_schema": json_schema}


def _closed(schema: Any) -> bool:
    """Whether every object in `schema` names all it may and must have."""
    rest = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest += value
        if not isinstance(value, dict):
            continue
        rest += value.values()
        properties = value.get("properties")
        if value.get("type") == "object" or isinstance(properties, dict):
            required = value.get("required")
            names = set(properties) if isinstance(properties, dict) else set()
            if value.get("additionalProperties") is not False or not isinstance(required, list):
                return False
            if not names <= {name for name in required if isinstance(name, str)}:
                return False
    return True


def from_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """A chat request as an Anthropic one (`Dialect.from_chat`). `model` tells which way of thinking it knows."""
    for name, value in body.items():
        if name not in _KNOWN_CHAT:
            why = _WHY_NOT_MESSAGES.get(name, NOT_IN_MESSAGES)
            lose_rest({name: value}, (), "", losses, why)
    for name, idle in _IDLE.items():
        if body.get(name) is not None and body[name] not in idle:
            losses.lose(name, NOT_IN_MESSAGES)
    # Whether usage is told is settled with the caller; Anthropic's streams always say it.
    options = need_object(body.get("stream_options") or {}, "stream_options")
    lose_rest(options, ("include_usage",), "stream_options", losses, NOT_IN_MESSAGES)
    said = _same(body)
    temperature = said.get("temperature", 0)
    if not 0 <= temperature <= 1:
        losses.lose("temperature", "Anthropic's goes from 0 to 1.")
        del said["temperature"]
    cap = positive(body, "max_completion_tokens") or positive(body, "max_tokens") or DEFAULT_CAP
    said["max_tokens"] = cap
    said |= messages_turns.from_chat(body, losses)
    said |= _stop(body, losses)
    said |= messages_tools.from_chat(body, losses)
    said |= _metadata(body, losses)
    said |= _tier(body, losses)
    return said | _output(body, cap, losses)


def _stop(body: Mapping[str, Any], losses: Losses) -> Document:
    stop = body.get("stop")
    if stop is None:
        return {}
    kept = []
    for at, text in enumerate([stop] if isinstance(stop, str) else _texts(stop, "stop")):
        if text.strip():
            kept.append(text)
        else:
            losses.lose("stop" if isinstance(stop, str) else f"stop[{at}]", "Anthropic stops at no white space alone.")
    return {"stop_sequences": kept} if kept else {}


def _metadata(body: Mapping[str, Any], losses: Losses) -> Document:
    user, newer = body.get("user"), body.get("safety_identifier")
    if user is not None and newer is not None and user != newer:
        losses.lose("user", "Anthropic takes one name for a user, here `safety_identifier`.")
    name = "user" if newer is None else "safety_identifier"
    said = body.get(name)
    return {} if said is None else {"metadata": {"user_id": need_text(said, name)}}


def _tier(body: Mapping[str, Any], losses: Losses) -> Document:
    match body.get("service_tier"):
        case None:
            return {}
        case "auto":
            return {"service_tier": "auto"}
        case "default":
            return {"service_tier": "standard_only"}
        case _:
            losses.lose("service_tier", "Anthropic's are 'auto' and 'default'.")
            return {}


def _output(body: Mapping[str, Any], cap: int, losses: Losses) -> Document:
    """Anthropic's `output_config` and `thinking`."""
    said = _thinking(body, cap, losses)
    given = body.get("response_format")
    schema = None if given is None else _schema(need_object(given, "response_format"), losses)
    if schema is not None:
        said["output_config"] = {**said.get("output_config", {}), "format": {"type": "json_schema", "schema": schema}}
    return said


def _thinking(body: Mapping[str, Any], cap: int, losses: Losses) -> Document:
    """Thinking as the caller wrote it for Anthropic; else as its effort says, in the way this model knows."""
    given, effort = body.get("thinking"), body.get("reasoning_effort")
    said: Document = {} if given is None else {"thinking": need_object(given, "thinking")}
    if effort is None:
        return said
    effort = need_text(effort, "reasoning_effort")
    if effort == "none":
        return said or {"thinking": {"type": "disabled"}}
    effort = "low" if effort == "minimal" else effort
    if effort not in _EFFORTS:
        losses.lose("reasoning_effort", f"Anthropic's are none, minimal, {', '.join(_EFFORTS)}.")
        return said
    if not _by_budget(body.get("model")):
        return {"thinking": {"type": "adaptive"}} | said | {"output_config": {"effort": effort}}
    # Half of the answer at most: what thinking takes is missing from it.
    budget = min(_BUDGETS[effort], cap // 2)
    if said:
        return said
    if budget < _LEAST_BUDGET:
        losses.lose(
            "reasoning_effort", f"this model thinks by budget, which needs a cap of {2 * _LEAST_BUDGET} tokens."
        )
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _by_budget(model: Any) -> bool:
    found = _GENERATION.search(model) if isinstance(model, str) else None
    # What follows a 4 is a minor version, or the day of a model that has none.
    return found is not None and (found[1] is None or len(found[1]) > 2 or int(found[1]) < 6)


def _schema(given: Document, losses: Losses) -> Document | None:
    """The schema an answer has to keep to. Anthropic has no name for one, and reads what it is for in the schema."""
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            losses.lose("response_format", "Anthropic writes JSON by a schema only: ask for 'json_schema'.")
            return None
        case "json_schema":
            path = "response_format.json_schema"
            wanted = need_object(given.get("json_schema"), path)
            known = ("name", "schema", "strict", "description")
            lose_rest(wanted, known, path, losses, NOT_IN_MESSAGES)
            if wanted.get("schema") is None:
                losses.lose(path, "Anthropic needs its 'schema'.")
                return None
            schema = need_object(wanted["schema"], f"{path}.schema")
            about = wanted.get("description")
            return schema if about is None else {"description": need_text(about, f"{path}.description"), **schema}
        case _:
            raise wrong("response_format.type", "'text', 'json_object' or 'json_schema'")
