"""What a provider stores with the operator's credential can be read by all who share it: it is not referred to here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import BadRequest

#: Why a reference is refused, and what to do instead.
STORED = (
    "it is stored with the provider's credential, which callers of this gateway share. "
    "Send what it holds in the request itself."
)


def refuse(what: str, path: str) -> None:
    """Refuse the reference at `path` to `what` is stored. Raises `BadRequest`."""
    raise BadRequest(f"'{path}' is refused, {what}: {STORED}", param=path, code="unsupported_parameter")


def check_chat(messages: list[Any]) -> None:
    """Refuse files in the parts of chat's `messages` that are there by their id alone."""
    for path, part in _parts(messages):
        file = part.get("file")
        if isinstance(file, dict) and file.get("file_id") is not None:
            refuse("a file", f"{path}.file.file_id")


def check_messages(body: Mapping[str, Any]) -> None:
    """Refuse files, containers and skills of one's own in a request of Anthropic's dialect."""
    container = body.get("container")
    if isinstance(container, str):
        refuse("a container", "container")
    if isinstance(container, dict):
        if container.get("id") is not None:
            refuse("a container", "container.id")
        skills = container.get("skills")
        for at, skill in enumerate(skills if isinstance(skills, list) else ()):
            if isinstance(skill, dict) and skill.get("type") == "custom":
                refuse("a skill", f"container.skills[{at}].skill_id")
    for path, part in _parts(body["messages"]):
        _check_part(path, part)
        for within, inner in _listed(part.get("content"), f"{path}.content"):
            _check_part(within, inner)


def _check_part(path: str, part: Mapping[str, Any]) -> None:
    source = part.get("source")
    if isinstance(source, dict) and source.get("file_id") is not None:
        refuse("a file", f"{path}.source.file_id")
    if part.get("file_id") is not None:
        refuse("a file", f"{path}.file_id")


def _parts(messages: list[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each part of each message's content is, and the part; plain text has none."""
    for number, message in enumerate(messages):
        content = message.get("content")
        if type(content) is list:
            yield from _listed(content, f"messages[{number}].content")


def _listed(parts: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for at, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict):
            yield f"{path}[{at}]", part
