"""What a message holds: Anthropic's content blocks and chat's content parts, each as the other. Text, images, files."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from gateway.dialects.dialect import Document, Losses
from gateway.dialects.messages_words import NOT_IN_CHAT, NOT_IN_MESSAGES, lose_rest, says_nothing
from gateway.dialects.reading import need_flag, need_list, need_object, need_text, wrong

_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+/-]+)(?:;[a-zA-Z0-9-]+=[^;,]*)*;base64,(.*)", re.DOTALL)
_PDF = "application/pdf"
#: What chat needs a file to be called where Anthropic's document has no title.
_NAMELESS = "document.pdf"
_FILES = "a file uploaded to one provider is not known to another."


def parts(content: Any, path: str, losses: Losses) -> list[Document]:
    """Anthropic's `content` as chat's parts: a string or blocks of text, images and documents."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise wrong(path, "a string or a list of content blocks")
    found = []
    for at, block in enumerate(content):
        found += part(need_object(block, f"{path}[{at}]"), f"{path}[{at}]", losses)
    return found


def part(block: Document, path: str, losses: Losses) -> list[Document]:
    """One of Anthropic's blocks as chat's parts: none where it is lost, several where a document holds several."""
    kind = need_text(block.get("type"), f"{path}.type")
    match kind:
        case "text":
            found = [{"type": "text", "text": need_text(block.get("text"), f"{path}.text")}]
            known = {"text"}
        case "image":
            found, known = _image(block, path, losses), {"source"}
        case "document":
            found, known = _document(block, path, losses), {"source", "title", "context", "citations"}
        case "search_result":
            found, known = _search_result(block, path, losses), {"source", "title", "content", "citations"}
        case _:
            losses.lose(path, f"chat completions know no block of type '{kind[:80]}'.")
            return []
    lose_rest(block, known | {"type", "cache_control"}, path, losses, NOT_IN_CHAT)
    return mark(found, block.get("cache_control"))


def blocks(content: Any, path: str, losses: Losses) -> list[Document]:
    """Chat's `content` as Anthropic's blocks: a string, parts, or nothing. It refuses empty text: left out."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise wrong(path, "a string or a list of parts")
    found = []
    for at, one in enumerate(content):
        found += _block(need_object(one, f"{path}[{at}]"), f"{path}[{at}]", losses)
    return found


def _block(one: Document, path: str, losses: Losses) -> list[Document]:
    kind = need_text(one.get("type"), f"{path}.type")
    match kind:
        case "text" | "refusal":
            text = need_text(one.get(kind), f"{path}.{kind}")
            found = [{"type": "text", "text": text}] if text else []
        case "image_url":
            found = _image_block(need_object(one.get(kind), f"{path}.{kind}"), f"{path}.{kind}", losses)
        case "file":
            found = _file_block(need_object(one.get(kind), f"{path}.{kind}"), f"{path}.{kind}", losses)
        case _:
            losses.lose(path, f"Anthropic's Messages know no part of type '{kind[:80]}'.")
            return []
    lose_rest(one, {"type", kind, "cache_control"}, path, losses, NOT_IN_MESSAGES)
    return mark(found, one.get("cache_control"))


def mark(found: list[Document], cache_control: Any) -> list[Document]:
    """`found`, the last of it marked: a cache ends there."""
    if cache_control is not None and found:
        found[-1] = {**found[-1], "cache_control": cache_control}
    return found


def collapsed(found: list[Document]) -> str | list[Document]:
    """`found` as a string where it is one plain text, which every server understands, else as it is."""
    if len(found) == 1 and found[0].keys() == {"type", "text"}:
        text: str = found[0]["text"]
        return text
    return found


def _image(block: Document, path: str, losses: Losses) -> list[Document]:
    source = need_object(block.get("source"), f"{path}.source")
    match source.get("type"):
        case "base64":
            url = _data_url(source, f"{path}.source")
        case "url":
            url = need_text(source.get("url"), f"{path}.source.url")
        case "file":
            losses.lose(f"{path}.source", _FILES)
            return []
        case _:
            raise wrong(f"{path}.source.type", "'base64', 'url' or 'file'")
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(block: Document, path: str, losses: Losses) -> list[Document]:
    """A PDF as a file, anything readable as text under its title."""
    source = need_object(block.get("source"), f"{path}.source")
    title = block.get("title")
    heading = [need_text(block[name], f"{path}.{name}") for name in ("title", "context") if block.get(name)]
    _no_citations(block, path, losses)
    match source.get("type"):
        case "base64":
            if block.get("context"):
                losses.lose(f"{path}.context", NOT_IN_CHAT)
            file = {"filename": title or _NAMELESS, "file_data": _data_url(source, f"{path}.source")}
            return [{"type": "file", "file": file}]
        case "text":
            return _text("\n".join([*heading, need_text(source.get("data"), f"{path}.source.data")]))
        case "content":
            return _text("\n".join(heading)) + parts(source.get("content"), f"{path}.source.content", losses)
        case "url":
            losses.lose(f"{path}.source", "chat completions take no document by its address.")
        case "file":
            losses.lose(f"{path}.source", _FILES)
        case _:
            raise wrong(f"{path}.source.type", "'base64', 'url', 'text', 'content' or 'file'")
    return []


def _search_result(block: Document, path: str, losses: Losses) -> list[Document]:
    _no_citations(block, path, losses)
    heading = "\n".join(need_text(block.get(name), f"{path}.{name}") for name in ("title", "source"))
    return _text(heading) + parts(need_list(block.get("content"), f"{path}.content"), f"{path}.content", losses)


def _no_citations(block: Document, path: str, losses: Losses) -> None:
    citations = need_object(block.get("citations") or {}, f"{path}.citations")
    if need_flag(citations.get("enabled"), f"{path}.citations.enabled"):
        losses.lose(f"{path}.citations", "only Anthropic's models cite what they were given.")


def _text(text: str) -> list[Document]:
    return [{"type": "text", "text": text}] if text else []


def _data_url(source: Document, path: str) -> str:
    media = need_text(source.get("media_type"), f"{path}.media_type")
    return f"data:{media};base64,{need_text(source.get('data'), f'{path}.data')}"


def _image_block(image: Document, path: str, losses: Losses) -> list[Document]:
    url = need_text(image.get("url"), f"{path}.url")
    if image.get("detail") not in (None, "auto"):
        losses.lose(f"{path}.detail", "Anthropic chooses an image's detail by its size.")
    lose_rest(image, {"url", "detail"}, path, losses, NOT_IN_MESSAGES)
    if url[:5].lower() != "data:":
        return [{"type": "image", "source": {"type": "url", "url": url}}]
    media, data = _read_data_url(url, f"{path}.url")
    return [{"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}]


def _file_block(file: Document, path: str, losses: Losses) -> list[Document]:
    lose_rest(file, {"file_id", "file_data", "filename"}, path, losses, NOT_IN_MESSAGES)
    if not says_nothing(file.get("file_id")):
        losses.lose(f"{path}.file_id", _FILES)
        return []
    said, name = need_text(file.get("file_data"), f"{path}.file_data"), file.get("filename")
    # Base64 without a word on what it is: PDFs, which chat was made to take, begin so.
    media, data = (_PDF, said) if said.startswith("JVBERi") else _read_data_url(said, f"{path}.file_data")
    source: Document = {"type": "base64", "media_type": media, "data": data}
    if media.startswith("image/"):
        return [{"type": "image", "source": source}]
    if media == "text/plain":
        source = {"type": "text", "media_type": media, "data": _decoded(data, f"{path}.file_data")}
    elif media != _PDF:
        losses.lose(path, f"Anthropic reads PDFs, images and plain text, not {media[:80]}.")
        return []
    block: Document = {"type": "document", "source": source}
    if name is not None and name != _NAMELESS:
        block["title"] = need_text(name, f"{path}.filename")
    return [block]


def _read_data_url(url: str, path: str) -> tuple[str, str]:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise wrong(path, "a data URL in base64, as 'data:image/png;base64,…'")
    return found[1], found[2]


def _decoded(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise wrong(path, "text in UTF-8, written in base64") from None
