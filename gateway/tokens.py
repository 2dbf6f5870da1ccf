"""How many tokens a text or a request has: exactly, with tiktoken; or quickly and rather too many."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway import settings

if TYPE_CHECKING:
    from tiktoken import Encoding

#: Tokens of one image, whatever its size: what GPT-4o (1,445) and Claude (1,600) take at most.
IMAGE = 1600
#: Models that take more for an image, by a part of their names, and how many tokens at most.
#: https://platform.openai.com/docs/guides/images-vision#calculating-costs
_DEAR_IMAGES = (("gpt-4o-mini", 48_169), ("-nano", 3_779), ("-mini", 2_642))
#: Tenths of GPT-4o's tokens that Claude's tokenizer makes of a text.
_CLAUDE = 14
#: No token of the encodings here is longer, in bytes.
LONGEST = 128

_SHIPPED = ("o200k_base", "cl100k_base", "p50k_base")
_PROMPT = frozenset(
    (
        "messages",
        "prompt",
        "input",
        "tools",
        "functions",
        "response_format",
        "prediction",
        "suffix",
        "system",
        "instructions",
        "output_config",
        "query",
        "documents",
    )
)
_BESIDE = _PROMPT - {"messages"}
#: What a chat template puts around the messages, with a default system text.
_TEMPLATE = 32
_IMAGES = frozenset(("image_url", "input_image", "image"))
#: Characters of base64 for a token, and under which name a part of that type carries them.
_CARRIED = {
    "input_audio": (200, "input_audio"),
    "file": (16, "file"),
    "input_file": (16, "file_data"),
    "document": (16, "source"),
}

# Texts of fewer characters than this are remembered with their estimate.
_SHORT = 24

# Counted in parts of so many characters: a million spaces overflow tiktoken's stack, and one long word takes seconds.
_PART = 50_000

_encodings: dict[str, Encoding] = {}
_loading = threading.Lock()


def count(text: str, model: str) -> int:
    """Tokens of `text` in the encoding of `model`; of one tiktoken does not know, in GPT-4o's.

    The first call for an encoding reads its file, in 0.1 to 0.4 s. Safe from any thread.
    """
    return len(_encoding(model).encode_ordinary(text))


def estimate(body: Mapping[str, Any]) -> int:
    """An upper estimate of the input tokens of a request, without a tokenizer: a few microseconds a message.

    About twice the truth for prose and code, three to four times for JSON, Chinese or
    base64. A text made to defeat it can have more: what was really used is settled afterwards.
    """
    messages = body.get("messages")
    if type(messages) is not list:
        return _measured(_prompt(body), _quickly)
    rest = [body[name] for name in _BESIDE.intersection(body)]
    total = _plain_messages(messages, rest)
    return total + (_measured(rest, _quickly) if rest else _TEMPLATE)


def dear(body: Mapping[str, Any]) -> bool:
    """Whether a request may be billed otherwise than as plain text: kept in a cache, sound, served out of turn."""
    if body.get("service_tier") not in (None, "default", "standard_only") or "audio" in body or "modalities" in body:
        return True
    rest: list[Any] = [body.get(name) for name in ("messages", "input", "system", "tools", "cache_control")]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            if value.get("type") == "input_audio" or value.get("ttl") == "1h":
                return True
            rest += [one for one in value.values() if isinstance(one, dict | list)]
    return False


def likely(body: Mapping[str, Any]) -> int:
    """About the input tokens of a request, where nobody counted them: four bytes a token. 0 where it has no text."""
    rest, size, messages = _prompt(body), 0, 0
    if not rest:
        return 0
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, dict):
            messages += "role" in value
            if value.get("type") in ("image_url", "input_image", "image"):
                size += 4 * IMAGE
            else:
                rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)
        else:
            size += 4
    return max(1, size // 4 + 3 * messages)


def counted(body: Mapping[str, Any], model: str) -> int:
    """The input tokens of a request, its texts counted with `model`'s encoding. Takes milliseconds: not on the loop."""
    return _measured(_prompt(body), lambda text: sum(count(part, model) for part in _parts(text)))


def at_most(body: Mapping[str, Any], model: str) -> int:
    """As `counted`, with room for a tokenizer that makes more tokens of the same text. On the loop as little."""
    found = counted(body, model)
    return min(estimate(body), -(-found * _CLAUDE // 10)) if "claude" in model else found


def surplus(body: Mapping[str, Any], model: str) -> int:
    """Tokens that the images in a request may have beyond `IMAGE` each, with a model that takes more for one."""
    most = next((most for name, most in _DEAR_IMAGES if name in model), IMAGE)
    if most == IMAGE:
        return 0
    rest, images = _prompt(body), 0
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            images += value.get("type") in _IMAGES
            rest += [one for one in value.values() if isinstance(one, dict | list)]
    return images * (most - IMAGE)


def size(body: Mapping[str, Any]) -> int:
    """Characters of the texts in a request, and a little for what is around them: at most `LONGEST` times `counted`."""
    return _measured(_prompt(body), len)


def _prompt(body: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in body.items() if name in _PROMPT]


def _plain_messages(messages: list[Any], rest: list[Any]) -> int:
    """What a list of messages comes to whose parts are texts, as nearly all are; every other message joins `rest`."""
    total = 1 + len(messages)
    for message in messages:
        if type(message) is dict and len(message) == 2:
            role, content = message.get("role"), message.get("content")
            if type(role) is str and type(content) is str:
                total += _PLAIN_MESSAGE + _quickly(role) + _text(content)
                continue
        rest.append(message)
    return total


def _measured(rest: list[Any], measure: Callable[[str], int]) -> int:
    """What a prompt comes to, whose parts are in `rest`."""
    total = _TEMPLATE
    # Not recursive: a body may be nested deeper than Python's stack.
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            total += measure(value)
        elif isinstance(value, dict):
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = None
            if kind in _IMAGES:
                total += IMAGE
            elif kind in _CARRIED and (carried := _length(value.get(_CARRIED[kind][1]))):
                total += IMAGE + carried // _CARRIED[kind][0]
            else:
                total += _object(value, rest, measure)
        elif isinstance(value, list):
            if value and type(value[0]) is int:
                total += len(value)
            else:
                total += 1 + len(value)
                rest.extend(value)
        else:
            total += 8 if isinstance(value, float) else 4
    return total


def _object(value: Mapping[str, Any], rest: list[Any], measure: Callable[[str], int]) -> int:
    """What an object's keys and texts come to; whatever else is in it joins `rest`."""
    total = 2 + 2 * len(value)
    for name, part in value.items():
        total += measure(name)
        if isinstance(part, str):
            total += measure(part)
        else:
            rest.append(part)
    return total


def _parts(text: str) -> list[str]:
    return [text[at : at + _PART] for at in range(0, len(text), _PART)]


def _text(text: str) -> int:
    characters = len(text)
    # Bytes beyond one a character. No token is shorter than a byte, so their sum is a bound for any text.
    beyond = 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - characters
    if characters > 10 * (text.count(" ") + text.count("\n") + 1):
        return characters + beyond
    # Words of ordinary length: two bytes a token hold in every language, one where a letter takes several.
    return min(characters + beyond, characters // 2 + 1 + beyond * 3 // 2)


def _quickly(text: str) -> int:
    """`_text`, which for short texts (a request's keys are the same every time) is known."""
    return _known(text) if len(text) < _SHORT else _text(text)


_known = functools.lru_cache(4096)(_text)
#: An object of two keys, and the keys.
_PLAIN_MESSAGE = 2 + 2 * 2 + _text("role") + _text("content")


def _length(part: Any) -> int:
    """Characters of base64 in a part that carries a file or sound; 0 for one that carries text."""
    if isinstance(part, str):
        return len(part)
    if not isinstance(part, dict) or part.get("type") in ("text", "content"):
        return 0
    return sum(len(value) for value in part.values() if isinstance(value, str))


def _encoding(model: str) -> Encoding:
    name = model.rpartition("/")[2]
    known = _encodings.get(name)
    return _load(name) if known is None else known


def _load(name: str) -> Encoding:
    settings.quieten_libraries()
    import tiktoken

    with _loading:
        try:
            base = tiktoken.encoding_name_for_model(name)
        except KeyError:
            base = _SHIPPED[0]
        if base not in _SHIPPED:
            base = _SHIPPED[0]
        # Bounded: model names may come from callers.
        if len(_encodings) >= 1000:
            _encodings.clear()
        encoding = _encodings[name] = tiktoken.get_encoding(base)
        return encoding
