"""Chat messages as the input of a Responses request."""

from __future__ import annotations

from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.reading import need_list, need_object, need_text
from gateway.dialects.responses_fields import kind, lose_rest, some
from gateway.dialects.stored import refuse
from gateway.errors import BadRequest

_NO_WORD = "the Responses API has no word for it."
_UNSIGNED = "the Responses API takes back only reasoning that it encrypted itself."
#: A message's own words, and the pivot's.
_KNOWN = ("role", "content", "refusal", "tool_calls", "tool_call_id", "reasoning_content", "thinking_blocks")
#: What an assistant may have to say but for content.
_INSTEAD = ("refusal", "tool_calls", "thinking_blocks", "reasoning_content")


def from_messages(messages: Any, losses: Losses) -> Document:
    """`input`, and `instructions` where the first message is the system's. Raises `BadRequest`."""
    rest = list(enumerate(need_list(messages, "messages")))
    said: Document = {}
    if len(rest) > 1 and _is_plain(rest[0][1], "system"):
        said["instructions"] = rest.pop(0)[1]["content"]
    if len(rest) == 1 and _is_plain(rest[0][1], "user"):
        return {"input": rest[0][1]["content"], **said}
    reader = _Items(losses)
    for at, message in rest:
        reader.read(need_object(message, f"messages[{at}]"), f"messages[{at}]")
    return {"input": reader.items, **said}


def _is_plain(message: Any, role: str) -> bool:
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] == role
        and isinstance(message["content"], str)
    )


class _Items:
    """Items as they grow. A result is of the type of the call it answers."""

    def __init__(self, losses: Losses) -> None:
        self.items: list[Document] = []
        self._losses = losses
        self._custom: set[str] = set()

    def read(self, message: Document, path: str) -> None:
        role = need_text(message.get("role"), f"{path}.role")
        lose_rest(message, _KNOWN, path, self._losses, _NO_WORD)
        if role in ("user", "system", "developer"):
            content = _content(message.get("content"), f"{path}.content", "input_text", self._losses)
            self.items.append({"role": role, "content": content})
        elif role == "assistant":
            if message.get("content") is None and not any(message.get(name) for name in _INSTEAD):
                raise BadRequest(f"'{path}' says nothing: it needs 'content' or 'tool_calls'.", param=f"{path}.content")
            self._assistant(message, path)
        elif role == "tool":
            call = need_text(message.get("tool_call_id"), f"{path}.tool_call_id")
            of = "custom_tool_call_output" if call in self._custom else "function_call_output"
            output = _content(message.get("content"), f"{path}.content", "input_text", self._losses)
            self.items.append({"type": of, "call_id": call, "output": output})
        else:
            self._losses.lose(path, f"the Responses API has no role '{role[:32]}'.")

    def _assistant(self, message: Document, path: str) -> None:
        before = len(self.items)
        for at, block in enumerate(need_list(message.get("thinking_blocks") or [], f"{path}.thinking_blocks")):
            where = f"{path}.thinking_blocks[{at}]"
            self._thinking(need_object(block, where), where)
        if len(self.items) == before and message.get("reasoning_content"):
            self._losses.lose(f"{path}.reasoning_content", _UNSIGNED)
        content = message.get("content")
        if content is not None:
            content = _content(content, f"{path}.content", "output_text", self._losses)
        if message.get("refusal") is not None:
            refusal = {"type": "refusal", "refusal": need_text(message["refusal"], f"{path}.refusal")}
            listed = [{"type": "output_text", "text": content}] if isinstance(content, str) and content else content
            content = [*(listed or ()), refusal]
        # Beside calls an empty content is what many clients write for none.
        if content is not None and not (content == "" and message.get("tool_calls")):
            self.items.append({"role": "assistant", "content": content})
        calls = message.get("tool_calls")
        for at, call in enumerate(need_list(calls, f"{path}.tool_calls") if calls is not None else ()):
            where = f"{path}.tool_calls[{at}]"
            self._call(need_object(call, where), where)

    def _thinking(self, block: Document, path: str) -> None:
        if block.get("type") == "redacted_thinking":
            sealed, summary = block.get("data"), ""
        else:
            sealed, summary = block.get("signature"), need_text(block.get("thinking", ""), f"{path}.thinking")
        if not sealed:
            self._losses.lose(path, _UNSIGNED)
            return
        parts = [{"type": "summary_text", "text": summary}] if summary else []
        sealed = need_text(sealed, f"{path}.signature")
        self.items.append({"type": "reasoning", "summary": parts, "encrypted_content": sealed})

    def _call(self, call: Document, path: str) -> None:
        of, id_ = kind({"type": "function", **call}, path), need_text(call.get("id"), f"{path}.id")
        lose_rest(call, ("id", "type", "index", of), path, self._losses, _NO_WORD)
        inner = need_object(call.get(of), f"{path}.{of}")
        name = need_text(inner.get("name"), f"{path}.{of}.name")
        if of == "function":
            arguments = need_text(inner.get("arguments"), f"{path}.function.arguments")
            self.items.append({"type": "function_call", "call_id": id_, "name": name, "arguments": arguments})
        elif of == "custom":
            said = need_text(inner.get("input"), f"{path}.custom.input")
            self.items.append({"type": "custom_tool_call", "call_id": id_, "name": name, "input": said})
            self._custom.add(id_)
        else:
            self._losses.lose(path, f"the Responses API has no call of type '{of[:32]}'.")


def _content(value: Any, path: str, text_type: str, losses: Losses) -> str | list[Document]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadRequest(f"'{path}' must be a string or a list of parts.", param=path)
    parts = []
    for at, part in enumerate(value):
        read = _part(need_object(part, f"{path}[{at}]"), f"{path}[{at}]", text_type, losses)
        if read is not None:
            parts.append(read)
    return parts


def _part(part: Document, path: str, text_type: str, losses: Losses) -> Document | None:
    mark = some(part, "prompt_cache_breakpoint")
    of = kind(part, path)
    lose_rest(part, ("type", of, *mark), path, losses, _NO_WORD)
    match of:
        case "text":
            return {"type": text_type, "text": need_text(part.get("text"), f"{path}.text"), **mark}
        case "refusal":
            return {"type": "refusal", "refusal": need_text(part.get("refusal"), f"{path}.refusal")}
        case "image_url":
            image = part.get("image_url")
            image = {"url": image} if isinstance(image, str) else need_object(image, f"{path}.image_url")
            url = need_text(image.get("url"), f"{path}.image_url.url")
            return {"type": "input_image", "image_url": url, **some(image, "detail"), **mark}
        case "file":
            file = need_object(part.get("file"), f"{path}.file")
            if file.get("file_id") is not None:
                refuse("a file", f"{path}.file.file_id")
            return {"type": "input_file", **some(file, "file_data", "filename"), **mark}
        case "input_audio":
            return {"type": "input_audio", "input_audio": need_object(part.get("input_audio"), f"{path}.input_audio")}
        case _:
            losses.lose(path, _NO_WORD)
            return None
