"""Tools, and the choice among them, between the Responses dialect (flat) and chat (nested)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.reading import need_list, need_object, need_text
from gateway.dialects.responses_fields import kind, lose_rest, some
from gateway.errors import BadRequest

_FUNCTION = ("name", "description", "parameters", "strict")
_CUSTOM = ("name", "description", "format")
#: What says no more of a tool than its absence.
_NOTHING = {"defer_loading": False, "allowed_callers": ["direct"]}
_HOSTED = "the provider of this model does not run this tool."
_MODES = ("none", "auto", "required")


def to_chat(tools: Any, losses: Losses) -> list[Document]:
    """Chat's tools. Those that a provider runs itself are lost."""
    said = []
    for at, tool in enumerate(need_list(tools, "tools")):
        path = f"tools[{at}]"
        tool = need_object(tool, path)
        match kind(tool, path):
            case "function":
                said.append({"type": "function", "function": _flat(tool, _FUNCTION, path, losses)})
            case "custom":
                custom = _flat(tool, _CUSTOM, path, losses)
                if "format" in custom:
                    custom["format"] = _format_to_chat(custom["format"], f"{path}.format", losses)
                said.append({"type": "custom", "custom": custom})
            case _:
                losses.lose(path, _HOSTED)
    return said


def _flat(tool: Document, names: tuple[str, ...], path: str, losses: Losses) -> Document:
    need_text(tool.get("name"), f"{path}.name")
    if tool.get("parameters") is not None:
        need_object(tool["parameters"], f"{path}.parameters")
    told = {name: value for name, value in tool.items() if name not in _NOTHING or value != _NOTHING[name]}
    lose_rest(told, (*names, "type"), path, losses)
    return some(tool, *names)


def _format_to_chat(value: Any, path: str, losses: Losses) -> Document:
    shape = need_object(value, path)
    if kind(shape, path) != "grammar":
        return shape
    lose_rest(shape, ("type", "syntax", "definition"), path, losses)
    return {"type": "grammar", "grammar": some(shape, "syntax", "definition")}


def choice_to_chat(choice: Any, losses: Losses) -> Any:
    """Chat's `tool_choice`; None where it is lost."""
    if isinstance(choice, str):
        return _mode(choice)
    choice = need_object(choice, "tool_choice")
    match kind(choice, "tool_choice"):
        case "function" | "custom":
            return _nested(choice, "tool_choice")
        case "allowed_tools":
            allowed = []
            for at, tool in enumerate(need_list(choice.get("tools"), "tool_choice.tools")):
                path = f"tool_choice.tools[{at}]"
                if kind(need_object(tool, path), path) in ("function", "custom"):
                    allowed.append(_nested(tool, path))
                else:
                    losses.lose(path, _HOSTED)
            mode = need_text(choice.get("mode"), "tool_choice.mode")
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
        case _:
            losses.lose("tool_choice", _HOSTED)
            return None


def _mode(choice: str) -> str:
    if choice not in _MODES:
        raise BadRequest(f"'tool_choice' must be one of {', '.join(_MODES)}, or an object.", param="tool_choice")
    return choice


def _nested(choice: Document, path: str) -> Document:
    return {"type": choice["type"], choice["type"]: {"name": need_text(choice.get("name"), f"{path}.name")}}


def from_chat(tools: Any, losses: Losses) -> list[Document]:
    """Tools from chat's. A function is strict only where it says so: here it would be so unless it says not."""
    said: list[Document] = []
    for at, tool in enumerate(need_list(tools, "tools")):
        path = f"tools[{at}]"
        tool = need_object(tool, path)
        match kind(tool, path):
            case "function":
                function = _inner(tool, "function", path, _FUNCTION, losses)
                said.append({"type": "function", "parameters": None, "strict": False, **function})
            case "custom":
                custom = _inner(tool, "custom", path, _CUSTOM, losses)
                if "format" in custom:
                    custom["format"] = _format_from_chat(custom["format"], f"{path}.custom.format", losses)
                said.append({"type": "custom", **custom})
            case _:
                losses.lose(path, "it takes functions and custom tools from other dialects only.")
    return said


def _inner(tool: Mapping[str, Any], name: str, path: str, names: tuple[str, ...], losses: Losses) -> Document:
    inner = need_object(tool.get(name), f"{path}.{name}")
    need_text(inner.get("name"), f"{path}.{name}.name")
    lose_rest(tool, ("type", name), path, losses, "the Responses API has no word for it.")
    lose_rest(inner, names, f"{path}.{name}", losses, "the Responses API has no word for it.")
    return some(inner, *names)


def _format_from_chat(value: Any, path: str, losses: Losses) -> Document:
    shape = need_object(value, path)
    if kind(shape, path) != "grammar":
        return shape
    return {"type": "grammar", **some(need_object(shape.get("grammar"), f"{path}.grammar"), "syntax", "definition")}


def choice_from_chat(choice: Any, losses: Losses) -> Any:
    """`tool_choice` from chat's; None where it is lost."""
    if isinstance(choice, str):
        return _mode(choice)
    choice = need_object(choice, "tool_choice")
    match kind(choice, "tool_choice"):
        case "function" | "custom":
            return _unnested(choice, "tool_choice")
        case "allowed_tools":
            path = "tool_choice.allowed_tools"
            allowed = need_object(choice.get("allowed_tools"), path)
            tools = [
                _unnested(need_object(tool, f"{path}.tools[{at}]"), f"{path}.tools[{at}]")
                for at, tool in enumerate(need_list(allowed.get("tools"), f"{path}.tools"))
            ]
            return {"type": "allowed_tools", "mode": need_text(allowed.get("mode"), f"{path}.mode"), "tools": tools}
        case other:
            losses.lose("tool_choice", f"the Responses API has no choice '{other[:80]}'.")
            return None


def _unnested(choice: Document, path: str) -> Document:
    of = kind(choice, path)
    inner = need_object(choice.get(of), f"{path}.{of}")
    return {"type": of, "name": need_text(inner.get("name"), f"{path}.{of}.name")}
