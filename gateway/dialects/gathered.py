"""A stream's pieces as the whole answer they make, in the dialect of its caller: for who reads it afterwards. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects import sse
from gateway.dialects.dialect import Document
from gateway.dialects.registry import CONVERSATIONS
from gateway.dialects.responses_tally import ENDS
from gateway.errors import GatewayError
from gateway.routes import Task

#: What is said anew in each chunk, or once; any other text of a delta goes on where the last one ended.
_SAID_ONCE = frozenset({"role", "id", "type", "name", "index", "call_id"})
#: What ends an event's `type` that holds all there is, of images and transcriptions.
_LAST = (".done", ".completed")


def gathered(task: Task, raw: bytes, body: Mapping[str, Any]) -> Document | None:
    """The answer to `body` that these events say, as far as they came; None where they say none."""
    documents = list(sse.documents(raw))
    if task in CONVERSATIONS:
        whole = next((one["response"] for one in documents if one.get("type") in ENDS and "response" in one), None)
        return whole if isinstance(whole, dict) else _conversation(task, documents, body)
    if task is Task.COMPLETIONS:
        return _Fold().over(documents)
    return next((one for one in reversed(documents) if str(one.get("type")).endswith(_LAST)), None)


def _conversation(task: Task, documents: list[Document], body: Mapping[str, Any]) -> Document | None:
    dialect, fold = CONVERSATIONS[task], _Fold()
    decoder = dialect.decoder()
    try:
        for document in documents:
            for chunk in decoder.feed(document):
                fold.add(chunk)
    except GatewayError:
        pass  # it broke off there
    chat = fold.answer()
    return None if chat is None else dialect.answer_from_chat(chat, body)


class _Fold:
    """Chat completion chunks, and those of the older completions, folded into one answer."""

    def __init__(self) -> None:
        self._head: Document = {}
        self._choices: dict[int, Document] = {}

    def over(self, chunks: list[Document]) -> Document | None:
        """The answer of all these."""
        for chunk in chunks:
            self.add(chunk)
        return self.answer()

    def add(self, chunk: Document) -> None:
        """Go on with one chunk."""
        choices = chunk.get("choices")
        self._head |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                index = index if isinstance(index, int) else 0
                _merge(self._choices.setdefault(index, {"index": index}), choice)

    def answer(self) -> Document | None:
        """All of it; None where there is no choice."""
        if not self._choices:
            return None
        kind = str(self._head.get("object", "")).removesuffix(".chunk")
        return {**self._head, "object": kind, "choices": [_whole(self._choices[at]) for at in sorted(self._choices)]}


def _whole(choice: Document) -> Document:
    """A choice with a message where its chunks had deltas."""
    if "delta" not in choice:
        return choice
    delta = choice["delta"]
    message = {"role": "assistant", "content": None, **delta}
    for tool in message.get("tool_calls") or ():
        tool.pop("index", None)
    rest = {name: value for name, value in choice.items() if name != "delta"}
    return {"message": message, "finish_reason": None, **rest}


def _merge(whole: Document, part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        before = whole.get(name)
        if value is None:
            continue
        if isinstance(value, dict):
            if not isinstance(before, dict):
                before = whole[name] = {}
            _merge(before, value)
        elif isinstance(value, list):
            _extend(whole.setdefault(name, []) if isinstance(before, list | None) else [], value)
        elif isinstance(value, str) and isinstance(before, str) and name not in _SAID_ONCE and name != "finish_reason":
            whole[name] = before + value
        elif value != "" or before is None:
            whole[name] = value


def _extend(whole: list[Any], parts: list[Any]) -> None:
    """Go on with a list: with the item of the same index, or (of thinking) of the same kind; else with new ones."""
    for part in parts:
        if not isinstance(part, dict):
            whole.append(part)
            continue
        item = next((one for one in whole if _is_same(one, part)), None)
        if item is None:
            item = {}
            whole.append(item)
        _merge(item, part)


def _is_same(one: Any, part: Document) -> bool:
    """Whether `part` goes on where `one` ended."""
    if not isinstance(one, dict):
        return False
    if "index" in part:
        return bool(one.get("index") == part["index"])
    # Signed, a block of thinking is over: the next one is another.
    return one.get("type") == part.get("type") == "thinking" and not one.get("signature")
