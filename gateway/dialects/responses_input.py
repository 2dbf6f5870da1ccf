"""The input of a Responses request as chat messages."""

from __future__ import annotations

from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.reading import need_list, need_object, need_text
from gateway.dialects.responses_fields import NO_WORD, kind, lose_rest, some
from gateway.errors import BadRequest

#: Stands before the data of a redacted block, so that it is not taken for a signature when it comes back.
REDACTED = "redacted_thinking:"
#: What output items carry of their own making, and no model reads.
_ABOUT = ("id", "status", "type")
_DIRECT = {"type": "direct"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def to_messages(instructions: Any, said: Any, losses: Losses) -> list[Document]:
    """Chat messages: `instructions` as the first one, then the input. Raises `BadRequest`."""
    messages = _Messages(losses)
    if instructions is not None:
        messages.add({"role": "system", "content": need_text(instructions, "instructions")})
    if isinstance(said, str):
        messages.add({"role": "user", "content": said})
        return messages.all
    if not isinstance(said, list) or not said:
        raise BadRequest("'input' must be a string or a list of at least one item.", param="input")
    for at, item in enumerate(said):
        messages.read(need_object(item, f"input[{at}]"), f"input[{at}]")
    messages.end()
    return messages.all


class _Messages:
    """Messages as they grow: what an assistant thought, said and called before a result came is one of them."""

    def __init__(self, losses: Losses) -> None:
        self.all: list[Document] = []
        self._losses = losses
        # Chat's tools answer in text: images and files follow from the user, once all results are there.
        self._beside: list[Document] = []

    def add(self, message: Document) -> None:
        """`message`, after what results left to be said."""
        self.end()
        self.all.append(message)

    def end(self) -> None:
        """Say what results left to be said."""
        if self._beside:
            self.all.append({"role": "user", "content": self._beside})
            self._beside = []

    def read(self, item: Document, path: str) -> None:
        """Take in one item of the input."""
        of = kind(item, path) if item.get("type") is not None or "role" not in item else "message"
        if of == "message":
            self._message(item, path)
        elif of == "reasoning":
            self._reasoning(item, path)
        elif of == "function_call":
            self._call(item, path, "function", "arguments")
        elif of == "custom_tool_call":
            self._call(item, path, "custom", "input")
        elif of in _OUTPUTS:
            self._output(item, path)
        else:
            self._losses.lose(path, f"chat completions have no item of type '{of[:80]}'.")

    def _message(self, item: Document, path: str) -> None:
        role = need_text(item.get("role"), f"{path}.role")
        if role not in ("user", "assistant", "system", "developer"):
            raise BadRequest(f"'{path}.role' must be user, assistant, system or developer.", param=f"{path}.role")
        lose_rest(item, (*_ABOUT, "role", "content"), path, self._losses)
        content = _content(item.get("content"), f"{path}.content", self._losses)
        if role != "assistant":
            self.add({"role": role, "content": content})
            return
        message = self._assistant(joins_text=False)
        if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "refusal":
            message["refusal"] = content[0]["refusal"]
        elif message["content"] is None:
            message["content"] = content
        else:
            message["content"] = [*_listed(message["content"]), *_listed(content)]

    def _reasoning(self, item: Document, path: str) -> None:
        lose_rest(item, (*_ABOUT, "summary", "content", "encrypted_content"), path, self._losses)
        thought = reasoning_text(item, path)
        message = self._assistant(joins_text=False)
        if thought:
            before = message.get("reasoning_content")
            message["reasoning_content"] = f"{before}\n\n{thought}" if before else thought
        if item.get("encrypted_content") is not None:
            sealed = need_text(item["encrypted_content"], f"{path}.encrypted_content")
            block = {"type": "thinking", "thinking": thought, "signature": sealed}
            if sealed.startswith(REDACTED):
                block = {"type": "redacted_thinking", "data": sealed.removeprefix(REDACTED)}
            message.setdefault("thinking_blocks", []).append(block)

    def _call(self, item: Document, path: str, of: str, says: str) -> None:
        if item.get("caller") == _DIRECT:
            item = {name: value for name, value in item.items() if name != "caller"}
        lose_rest(item, (*_ABOUT, "call_id", "name", says), path, self._losses)
        call = {
            "id": need_text(item.get("call_id"), f"{path}.call_id"),
            "type": of,
            of: {
                "name": need_text(item.get("name"), f"{path}.name"),
                says: need_text(item.get(says), f"{path}.{says}"),
            },
        }
        self._assistant().setdefault("tool_calls", []).append(call)

    def _output(self, item: Document, path: str) -> None:
        if item.get("caller") == _DIRECT:
            item = {name: value for name, value in item.items() if name != "caller"}
        # A result's `name` repeats its call's.
        lose_rest(item, (*_ABOUT, "call_id", "output", "name"), path, self._losses)
        call = need_text(item.get("call_id"), f"{path}.call_id")
        content = _content(item.get("output"), f"{path}.output", self._losses)
        if not isinstance(content, str):
            beside = [part for part in content if part["type"] != "text"]
            if beside:
                self._beside += [{"type": "text", "text": f"Result of {call}:"}, *beside]
                content = [part for part in content if part["type"] == "text"] or "The result follows."
        self.all.append({"role": "tool", "tool_call_id": call, "content": content})

    def _assistant(self, *, joins_text: bool = True) -> Document:
        """The assistant's message under way, or a new one.

        Its results must follow its calls, so whatever comes before them joins it; else a second text, or the
        thought that leads to it, begins a message of its own.
        """
        last = self.all[-1] if self.all else {}
        has_text = last.get("content") is not None or "refusal" in last
        if last.get("role") != "assistant" or (has_text and "tool_calls" not in last and not joins_text):
            last = {"role": "assistant", "content": None}
            self.add(last)
        return last


def reasoning_text(item: Document, path: str) -> str:
    """What a reasoning item lets be read: its summary, or else its own text."""
    for name in ("summary", "content"):
        parts = need_list(item[name], f"{path}.{name}") if item.get(name) is not None else []
        said = [
            need_text(need_object(part, f"{path}.{name}[{at}]").get("text"), f"{path}.{name}[{at}].text")
            for at, part in enumerate(parts)
        ]
        if any(said):
            return "\n\n".join(said)
    return ""


def _listed(content: str | list[Document]) -> list[Document]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(value: Any, path: str, losses: Losses) -> str | list[Document]:
    """Chat's content: one text alone as text, since not every server of chat reads parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadRequest(f"'{path}' must be a string or a list of parts.", param=path)
    parts = []
    for at, part in enumerate(value):
        read = _part(need_object(part, f"{path}[{at}]"), f"{path}[{at}]", losses)
        if read is not None:
            parts.append(read)
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _part(part: Document, path: str, losses: Losses) -> Document | None:
    mark = some(part, "prompt_cache_breakpoint")
    match kind(part, path):
        case "input_text" | "output_text":
            # Where a text's claims came from, and how likely it was, are notes about it.
            known = ("type", "text", "annotations", "logprobs", *mark)
            lose_rest(part, known, path, losses)
            return {"type": "text", "text": need_text(part.get("text"), f"{path}.text"), **mark}
        case "refusal":
            return {"type": "refusal", "refusal": need_text(part.get("refusal"), f"{path}.refusal")}
        case "input_image":
            lose_rest(part, ("type", "image_url", "detail", *mark), path, losses)
            image = {"url": need_text(part.get("image_url"), f"{path}.image_url")}
            if part.get("detail") == "original":
                losses.lose(f"{path}.detail", "chat completions know low, high and auto.")
            else:
                image |= some(part, "detail")
            return {"type": "image_url", "image_url": image, **mark}
        case "input_file":
            if part.get("file_data") is None:
                given = next((name for name in ("file_url", "file_id") if part.get(name) is not None), None)
                if given is None:
                    raise BadRequest(f"'{path}' needs 'file_data'.", param=path)
                losses.lose(f"{path}.{given}", "chat completions take the file itself, as file_data.")
                return None
            lose_rest(part, ("type", "file_data", "filename", *mark), path, losses)
            return {"type": "file", "file": some(part, "file_data", "filename"), **mark}
        case "input_audio":
            return {"type": "input_audio", "input_audio": need_object(part.get("input_audio"), f"{path}.input_audio")}
        case _:
            losses.lose(path, NO_WORD)
            return None
