"""Tools and the choice among them: Anthropic's and chat's, each as the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.messages_words import NOT_IN_CHAT, NOT_IN_MESSAGES, lose_rest, short
from gateway.dialects.reading import need_flag, need_list, need_object, need_text, wrong

#: `eager_input_streaming` asks for what chat's streams do anyway.
_TOOL = {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_MODES = {chat: messages for messages, chat in _CHOICES.items()}


def to_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """Chat's `tools`, `tool_choice` and `parallel_tool_calls`. A schema stays as it was written."""
    given = body.get("tools")
    tools = []
    for at, tool in enumerate([] if given is None else need_list(given, "tools")):
        tools += _function(need_object(tool, f"tools[{at}]"), f"tools[{at}]", losses)
    choice = _choice(body, losses)
    if not tools:
        return _without_tools(choice.get("tool_choice"), losses)
    return {"tools": tools} | choice


def _without_tools(choice: Any, losses: Losses) -> Document:
    """Nothing: where there are no tools, no upstream wants to hear of a choice. One that insists on a call is lost."""
    if choice not in (None, "auto", "none"):
        losses.lose("tool_choice", "there are no tools to choose from.")
    return {}


def _function(tool: Document, path: str, losses: Losses) -> list[Document]:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        kind = need_text(kind, f"{path}.type")
        losses.lose(path, f"'{short(kind)}' is a tool that only Anthropic's models and servers know.")
        return []
    known = _TOOL | ({"allowed_callers"} if tool.get("allowed_callers") == ["direct"] else set())
    lose_rest(tool, known, path, losses, NOT_IN_CHAT)
    function: Document = {"name": need_text(tool.get("name"), f"{path}.name")}
    if tool.get("description") is not None:
        function["description"] = need_text(tool["description"], f"{path}.description")
    function["parameters"] = need_object(tool.get("input_schema"), f"{path}.input_schema")
    if tool.get("strict") is not None:
        function["strict"] = need_flag(tool["strict"], f"{path}.strict")
    said: Document = {"type": "function", "function": function}
    return [said | ({"cache_control": tool["cache_control"]} if tool.get("cache_control") is not None else {})]


def _choice(body: Mapping[str, Any], losses: Losses) -> Document:
    if body.get("tool_choice") is None:
        return {}
    choice = need_object(body["tool_choice"], "tool_choice")
    lose_rest(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice", losses, NOT_IN_CHAT)
    kind = choice.get("type")
    if kind == "tool":
        name = need_text(choice.get("name"), "tool_choice.name")
        said: Document = {"tool_choice": {"type": "function", "function": {"name": name}}}
    elif isinstance(kind, str) and kind in _CHOICES:
        said = {"tool_choice": _CHOICES[kind]}
    else:
        raise wrong("tool_choice.type", "'auto', 'any', 'tool' or 'none'")
    alone = choice.get("disable_parallel_tool_use")
    if alone is not None:
        said["parallel_tool_calls"] = not need_flag(alone, "tool_choice.disable_parallel_tool_use")
    return said


def from_chat(body: Mapping[str, Any], losses: Losses) -> Document:
    """Anthropic's `tools` and `tool_choice`."""
    given = body.get("tools")
    tools = []
    for at, tool in enumerate([] if given is None else need_list(given, "tools")):
        tools += _tool(need_object(tool, f"tools[{at}]"), f"tools[{at}]", losses)
    if not tools:
        return _without_tools(body.get("tool_choice"), losses)
    choice, allowed = _tool_choice(body.get("tool_choice"), losses)
    if allowed is not None:
        tools = [tool for tool in tools if tool["name"] in allowed]
    parallel = body.get("parallel_tool_calls")
    if parallel is not None:
        alone = not need_flag(parallel, "parallel_tool_calls")
        choice = {"type": "auto"} if choice is None and alone else choice
        if choice is not None and choice["type"] != "none":
            choice["disable_parallel_tool_use"] = alone
    return {"tools": tools} | ({"tool_choice": choice} if choice is not None else {})


def _tool(tool: Document, path: str, losses: Losses) -> list[Document]:
    kind = need_text(tool.get("type"), f"{path}.type")
    if kind != "function":
        losses.lose(path, f"Anthropic's tools take JSON; '{short(kind)}' is none of them.")
        return []
    lose_rest(tool, ("type", "function", "cache_control"), path, losses, NOT_IN_MESSAGES)
    function = need_object(tool.get("function"), f"{path}.function")
    known = ("name", "description", "parameters", "strict")
    lose_rest(function, known, f"{path}.function", losses, NOT_IN_MESSAGES)
    said: Document = {"name": need_text(function.get("name"), f"{path}.function.name")}
    if function.get("description") is not None:
        said["description"] = need_text(function["description"], f"{path}.function.description")
    parameters = function.get("parameters")
    schema = need_object({} if parameters is None else parameters, f"{path}.function.parameters")
    # Arguments are always an object, which Anthropic wants said.
    said["input_schema"] = schema if "type" in schema else {"type": "object", **schema}
    if function.get("strict") is not None:
        said["strict"] = need_flag(function["strict"], f"{path}.function.strict")
    return [said | ({"cache_control": tool["cache_control"]} if tool.get("cache_control") is not None else {})]


def _tool_choice(choice: Any, losses: Losses) -> tuple[Document | None, set[str] | None]:
    """Anthropic's choice, and the names of the tools it is restricted to where it is."""
    if choice is None:
        return None, None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise wrong("tool_choice", "'auto', 'required', 'none' or an object")
        return {"type": _MODES[choice]}, None
    choice = need_object(choice, "tool_choice")
    match choice.get("type"):
        case "function":
            function = need_object(choice.get("function"), "tool_choice.function")
            return {"type": "tool", "name": need_text(function.get("name"), "tool_choice.function.name")}, None
        case "allowed_tools":
            return _allowed(need_object(choice.get("allowed_tools"), "tool_choice.allowed_tools"))
        case "custom":
            losses.lose("tool_choice", "Anthropic has no custom tools.")
            return None, None
        case _:
            raise wrong("tool_choice.type", "'function', 'allowed_tools' or 'custom'")


def _allowed(allowed: Document) -> tuple[Document, set[str]]:
    path = "tool_choice.allowed_tools"
    mode = allowed.get("mode")
    if mode not in ("auto", "required"):
        raise wrong(f"{path}.mode", "'auto' or 'required'")
    names = set()
    for at, tool in enumerate(need_list(allowed.get("tools"), f"{path}.tools")):
        here = f"{path}.tools[{at}]"
        function = need_object(need_object(tool, here).get("function"), f"{here}.function")
        names.add(need_text(function.get("name"), f"{here}.function.name"))
    return {"type": _MODES[mode]}, names
