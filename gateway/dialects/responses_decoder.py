"""The events of a Responses stream as chat completion chunks, and a whole answer as a chat completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects import responses_usage
from gateway.dialects.dialect import Document
from gateway.dialects.reading import need_list, need_object, need_text
from gateway.dialects.responses_fields import from_upstream, kind, some, tail
from gateway.dialects.responses_input import reasoning_text
from gateway.dialects.responses_tally import ENDS, failure
from gateway.errors import BadRequest, UpstreamFailed

_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
#: The events that carry a piece of an item: what of chat's message it is, and which of its parts is under way.
_PIECES = {
    "response.output_text.delta": ("content", ""),
    "response.refusal.delta": ("refusal", ""),
    "response.reasoning_summary_text.delta": ("reasoning_content", "summary_index"),
    "response.reasoning_text.delta": ("reasoning_content", "content_index"),
    "response.function_call_arguments.delta": ("arguments", ""),
    "response.custom_tool_call_input.delta": ("input", ""),
}
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
#: No answer was made later, in seconds: what is beyond, infinity too, is no time.
_LATEST = 2**53
_BETWEEN = "\n\n"


def whole(document: Mapping[str, Any]) -> Document:
    """A whole answer as a chat completion (`Dialect.answer_to_chat`). Raises `UpstreamFailed` for what is none."""
    with from_upstream("answer"):
        need_list(document.get("output"), "output")
        chunks = list(Decoder().finish(dict(document)))
    message: Document = {"role": "assistant", "content": None, "refusal": None}
    choice: Document = {"index": 0, "message": message, "logprobs": None, "finish_reason": None}
    answer = {**chunks[0], "object": "chat.completion", "choices": [choice]}
    for chunk in chunks:
        answer |= some(chunk, "usage")
        for one in chunk["choices"]:
            _add(message, one["delta"])
            choice["finish_reason"] = one["finish_reason"]
            choice["logprobs"] = _joined(choice["logprobs"], one["logprobs"])
    signed = [block for block in message.pop("thinking_blocks", ()) if "signature" in block]
    # Only what is signed is kept apart from the text: it has to be sent back as it is.
    message |= {"thinking_blocks": signed} if signed else {}
    return answer


def _add(message: Document, delta: Document) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            _add_call(message.setdefault(name, []), value[0])
        elif name == "thinking_blocks":
            _add_thought(message.setdefault(name, []), value[0])
        elif name == "annotations":
            message.setdefault(name, []).append(_unnumbered(value[0]))
        elif name != "role" and value:
            message[name] = (message.get(name) or "") + value


def _add_call(calls: list[Document], piece: Document) -> None:
    if "id" in piece:
        calls.append(_unnumbered(piece))
        return
    of = calls[piece["index"]]["type"]
    calls[piece["index"]][of] = {
        name: value + piece[of].get(name, "") for name, value in calls[piece["index"]][of].items()
    }


def _add_thought(blocks: list[Document], piece: Document) -> None:
    if piece["index"] == len(blocks):
        blocks.append({"type": "thinking", "thinking": ""})
    blocks[-1]["thinking"] += piece.get("thinking", "")
    blocks[-1] |= some(piece, "signature")


def _unnumbered(piece: Document) -> Document:
    return {name: value for name, value in piece.items() if name != "index"}


def _joined(before: Document | None, after: Document | None) -> Document | None:
    return {**after, "content": before["content"] + after["content"]} if before and after else before or after


@dataclass(slots=True)
class _Item:
    """What has been passed on of one output item: its texts by chat's name for them, and how many annotations.

    `number` is its place among the calls, or the thoughts. `begins` is where its text begins in the message's, `part`
    the part of a thought under way. `done` says that it is known whole.
    """

    kind: str
    number: int
    begins: int = 0
    said: dict[str, list[str]] = field(default_factory=dict)
    part: tuple[str, Any] = ("", 0)
    notes: int = 0
    done: bool = False


class Decoder:
    """Reads one upstream's stream (`dialect.Decoder`)."""

    def __init__(self) -> None:
        self._shared: Document = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": ""}
        self._begun = False
        self._items: dict[int, _Item] = {}
        self._ids: list[Any] = []
        # Pieces in lists of chat's are numbered: by that OpenAI's client puts them together.
        self._calls = self._thoughts = self._notes = 0
        # By chat's name for a text: which item said some of it last. And how long the content is.
        self._last: dict[str, int] = {}
        self._length = 0

    def feed(self, document: Document) -> list[Document]:
        """The chunks of one event. Raises `UpstreamFailed` for an event that says so, or that cannot be read."""
        with from_upstream("stream"):
            return list(self._read(document))

    def finish(self, response: Document) -> Iterator[Document]:
        """The last chunks: items that came with no event of their own, why it ended, and what was used."""
        status = response.get("status") or "completed"
        if status == "failed" or (response.get("error") and not response.get("output")):
            raise failure(response)
        if status not in ("completed", "incomplete"):
            raise UpstreamFailed("The provider's answer is not complete, and will be stored for later.")
        yield from self._begin(response)
        seen = list(self._ids)
        for at, item in enumerate(need_list(response.get("output") or [], "output")):
            item, known = need_object(item, f"output[{at}]"), self._items.get(at)
            # Not every server counts its items here as it did on the way.
            fresh = item.get("id") not in seen if known is None else not known.done
            if fresh and (known is None or known.kind == item.get("type")):
                yield from self._settle(item, at, f"output[{at}]")
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        finish = "tool_calls" if self._calls else "stop"
        if status == "incomplete":
            finish = _REASONS.get(reason, "length") if isinstance(reason, str) else "length"
        yield self._chunk({}, finish=finish)
        usage = responses_usage.to_chat(response.get("usage"))
        if usage is not None:
            yield {**self._shared, "choices": [], "usage": usage}

    def _read(self, event: Document) -> Iterator[Document]:
        of = event.get("type")
        if of in ("error", "response.failed") or (of is None and event.get("error")):
            raise failure(event)
        of = of if isinstance(of, str) else ""
        if of in ENDS:
            response = need_object(event.get("response"), "response")
            yield from self.finish({**response, "status": of.removeprefix("response.")})
        elif of in ("response.created", "response.in_progress"):
            yield from self._begin(need_object(event.get("response"), "response"))
        elif of in ("response.output_item.added", "response.output_item.done"):
            item, at = need_object(event.get("item"), "item"), _place(event)
            yield from self._settle(item, at, "item") if of.endswith("done") else self._open(item, at, "item")
        elif of in _PIECES:
            yield from self._piece(event, *_PIECES[of])
        elif of == "response.output_text.annotation.added":
            yield from self._note([event.get("annotation")], self._item(_place(event), "message"))

    def _begin(self, response: Document) -> Iterator[Document]:
        created, model = response.get("created_at"), response.get("model")
        if isinstance(created, int | float) and abs(created) < _LATEST:
            self._shared["created"] = int(created)
        self._shared |= {"model": model} if isinstance(model, str) else {}
        self._shared |= some(response, "service_tier")
        if not self._begun:
            self._begun = True
            self._shared["id"] = f"chatcmpl-{tail(response.get('id'))}"
            yield self._chunk({"role": "assistant", "content": ""})

    def _chunk(self, delta: Document, *, finish: str | None = None, logprobs: Any = None) -> Document:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._shared, "choices": [choice]}

    def _item(self, at: int, of: str) -> _Item:
        if at not in self._items:
            self._items[at] = _Item(of, self._calls if of in _CALLS else self._thoughts)
            self._calls += of in _CALLS
            self._thoughts += of == "reasoning"
        return self._items[at]

    def _open(self, item: Document, at: int, path: str) -> Iterator[Document]:
        of = kind(item, path)
        if at in self._items:
            return
        number = self._item(at, of).number
        if item.get("id") is not None:
            self._ids.append(item["id"])
        if of not in _CALLS:
            return
        name, says = _CALLS[of]
        inner = {"name": need_text(item.get("name"), f"{path}.name"), says: ""}
        call = {"index": number, "id": need_text(item.get("call_id"), f"{path}.call_id"), "type": name, name: inner}
        yield self._chunk({"tool_calls": [call]})

    def _piece(self, event: Document, says: str, index: str) -> Iterator[Document]:
        at, said = _place(event), need_text(event.get("delta"), "delta")
        if says in ("arguments", "input") and at not in self._items:
            raise UpstreamFailed("The provider's stream goes on with a call that it has not begun.")
        item = self._item(at, "reasoning" if index else "message")
        part = (index, event.get(index))
        if item.said.get(says) and item.part != part:
            if item.part[0] != index:
                return  # a summary of what was said in full, or the other way round
            said = _BETWEEN + said
        item.part = part
        yield from self._say(item, at, says, said, event.get("logprobs"))

    def _say(self, item: _Item, at: int, says: str, said: str, logprobs: Any = None) -> Iterator[Document]:
        if not said:
            return
        before = _BETWEEN if self._last.get(says, at) != at else ""
        pieces = item.said.setdefault(says, [])
        pieces.append(said)
        if says in ("arguments", "input"):
            of = _CALLS.get(item.kind, ("function", ""))[0]
            yield self._chunk({"tool_calls": [{"index": item.number, of: {says: said}}]})
            return
        self._last[says] = at
        delta: Document = {says: before + said}
        if says == "content":
            item.begins = self._length + len(before) if len(pieces) == 1 else item.begins
            self._length += len(before + said)
        elif says == "reasoning_content":
            delta["thinking_blocks"] = [{"index": item.number, "type": "thinking", "thinking": said}]
        yield self._chunk(delta, logprobs=_logprobs(logprobs) if says == "content" else None)

    def _note(self, notes: list[Any], item: _Item) -> Iterator[Document]:
        item.notes += len(notes)
        for note in notes:
            note = need_object(note, "annotation")
            if note.get("type") == "url_citation":  # chat has no word for the others, which tools of OpenAI's give
                cited = _cited(note, item.begins)
                yield self._chunk(
                    {"annotations": [{"index": self._notes, "type": note["type"], "url_citation": cited}]}
                )
                self._notes += 1

    def _settle(self, item: Document, at: int, path: str) -> Iterator[Document]:
        """What of a finished `item` no event has said before."""
        yield from self._open(item, at, path)
        known, of = self._items[at], kind(item, path)
        known.done = True
        if of == "message":
            parts = [
                need_object(part, f"{path}.content") for part in need_list(item.get("content") or [], f"{path}.content")
            ]
            texts = [part for part in parts if part.get("type") == "output_text"]
            logprobs = [
                one for part in texts for one in need_list(part.get("logprobs") or [], f"{path}.content.logprobs")
            ]
            fresh = not known.said.get("content")
            yield from self._rest(known, at, "content", _all(texts, "text", path), logprobs if fresh else None)
            yield from self._rest(known, at, "refusal", _all(parts, "refusal", path))
            notes = [note for part in texts for note in need_list(part.get("annotations") or [], f"{path}.annotations")]
            yield from self._note(notes[known.notes :], known)
        elif of == "reasoning":
            yield from self._rest(known, at, "reasoning_content", reasoning_text(item, path))
            if item.get("encrypted_content") is not None:
                sealed = need_text(item["encrypted_content"], f"{path}.encrypted_content")
                piece = {"index": known.number, "type": "thinking", "signature": sealed}
                yield self._chunk({"thinking_blocks": [piece]})
        elif of in _CALLS:
            says = _CALLS[of][1]
            yield from self._rest(known, at, says, need_text(item.get(says), f"{path}.{says}"))

    def _rest(self, item: _Item, at: int, says: str, said: str, logprobs: Any = None) -> Iterator[Document]:
        before = "".join(item.said.get(says, ()))
        if said.startswith(before):
            yield from self._say(item, at, says, said[len(before) :], logprobs)


def _place(event: Document) -> int:
    place = event.get("output_index")
    if not isinstance(place, int):
        raise BadRequest("'output_index' must be a number.", param="output_index")
    return place


def _all(parts: list[Document], name: str, path: str) -> str:
    return "".join(need_text(part[name], f"{path}.content.{name}") for part in parts if part.get(name) is not None)


def _cited(note: Document, begins: int) -> Document:
    """A citation whose places are counted in the whole message, as chat does."""
    cited = {name: value for name, value in note.items() if name != "type"}
    for name in ("start_index", "end_index"):
        if isinstance(cited.get(name), int):
            cited[name] += begins
    return cited


def _logprobs(found: Any) -> Document | None:
    """Chat's log probabilities; where there are none it says null."""
    if not isinstance(found, list) or not found:
        return None
    return {"content": [_bytes(one) for one in found if isinstance(one, dict)], "refusal": None}


def _bytes(one: Document) -> Document:
    top = one.get("top_logprobs")
    others = [{"bytes": None, **other} for other in top if isinstance(other, dict)] if isinstance(top, list) else []
    return {"bytes": None, **one, "top_logprobs": others}
