"""`${NAME}` and `${file:path}` in `routes.yaml`: filled in where they may stand, and secrets written out refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import strict
from gateway.config_yaml import Document

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(
    r"(^|[-_])(api[-_]?key|key|secret|password|passwd|token|authorization|cookie)([-_]|$)", re.IGNORECASE
)
_FILE = "file:"
#: Where references may stand.
_FILLED = ("providers", "alerts")
_MAX_FILE = 64 * 1024


@dataclass(slots=True)
class Filled:
    """The data with its references filled in. `written` holds the text that stood at each such path."""

    data: Any
    written: dict[strict.Path, str] = field(default_factory=dict)
    failed: set[strict.Path] = field(default_factory=set)

    def hides(self, path: strict.Path) -> bool:
        """Whether a complaint about `path` only follows from a reference that could not be filled in."""
        return any(path[: len(failed)] == failed for failed in self.failed)

    def show(self, path: strict.Path, value: object) -> str:
        """`value` for a message: a reference as it was written, never a secret."""
        if path in self.written:
            return strict.shown(self.written[path])
        return strict.kind_of(value) if may_be_secret(path) else strict.shown(value)


def may_be_secret(path: strict.Path) -> bool:
    """Whether what stands at `path` could be a credential."""
    if path[:1] == ("alerts",):
        return path[1:2] in (("webhook",), ("secret",))
    if len(path) < 3 or path[0] != "providers":
        return False
    return path[2] in ("headers", "options", "api_keys", "proxy") or any(names_secret(str(part)) for part in path[2:])


def names_secret(name: str) -> bool:
    """Whether what is called `name` (a key, a header) is a credential by its name."""
    return _SECRET_NAME.search(name) is not None


def fill(document: Document, environment: Mapping[str, str]) -> Filled:
    """The document's data with references filled in where they may stand; what cannot be is noted as a problem."""
    filled = Filled(document.data)
    filler = _Filler(document, environment, filled)
    data = document.data
    if isinstance(data, dict):
        filled.data = {
            key: filler.value(child, (key,)) if key in _FILLED else filler.refuse_in(child, (key,))
            for key, child in data.items()
        }
    return filled


def files(document: Document) -> list[Path]:
    """The files that `document` takes secrets from, in its order."""
    found: dict[Path, None] = {}
    texts = [document.data.get(name) for name in _FILLED] if isinstance(document.data, dict) else []
    while texts:
        one = texts.pop(0)
        if isinstance(one, str):
            names = [match[1].strip() for match in _REFERENCE.finditer(one) if match[1]]
            found |= {_place(document, name): None for name in names if name.startswith(_FILE)}
        elif isinstance(one, dict | list):
            texts += one.values() if isinstance(one, dict) else one
    return list(found)


def _place(document: Document, name: str) -> Path:
    """Where `file:path` leads: beside the document, unless it says otherwise."""
    return Path(document.source).parent / Path(name.removeprefix(_FILE).strip()).expanduser()


class _Filler:
    """One pass over a document."""

    def __init__(self, document: Document, environment: Mapping[str, str], filled: Filled) -> None:
        self._document = document
        self._environment = environment
        self._filled = filled

    def value(self, value: Any, path: strict.Path) -> Any:
        """`value` with its references filled in."""
        if isinstance(value, dict):
            return {key: self.value(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [self.value(child, (*path, index)) for index, child in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) else value

    def refuse_in(self, value: Any, path: strict.Path) -> Any:
        """`value` as it is; a reference in it is a problem, because names there appear in logs and metrics."""
        if isinstance(value, dict):
            for key, child in value.items():
                self.refuse_in(child, (*path, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                self.refuse_in(child, (*path, index))
        elif isinstance(value, str) and "${" in value:
            self._fail(path, "holds '${…}', which is read under 'providers' and 'alerts' only. Write it out.")
        return value

    def _text(self, text: str, path: strict.Path) -> str:
        references = [match for match in _REFERENCE.finditer(text) if match[0] != "$$"]
        if not references and (_is_secret(path) or (path[2:] == ("proxy",) and "@" in text)):
            self._refuse_literal(text, path)
        if "$" not in text:
            return text
        if references:
            self._filled.written[path] = text
        return _REFERENCE.sub(lambda match: self._fill(match, path), text)

    def _fill(self, match: re.Match[str], path: strict.Path) -> str:
        if match[0] == "$$":
            return "$"
        name = match[1].strip()
        if name.startswith(_FILE) and match[0].endswith("}"):
            return self._file(_place(self._document, name), path)
        if not _NAME.fullmatch(name) or not match[0].endswith("}"):
            known = "${NAME} or ${file:path}; a dollar sign itself is $$"
            return self._fail(path, f"{strict.shown(match[0])} is not understood. Write {known}.")
        value = self._environment.get(name)
        if value:
            return value
        state = "not set" if value is None else "empty"
        return self._fail(path, f"the environment variable {name} is {state}. Set it: export {name}=…")

    def _file(self, place: Path, path: strict.Path) -> str:
        """The text of a secret's file without its last line end."""
        try:
            with place.open("rb") as file:
                raw = file.read(_MAX_FILE + 1)
        except OSError as error:
            return self._fail(path, f"cannot read the file {strict.shown(str(place))}: {error.strerror}.")
        if len(raw) > _MAX_FILE:
            return self._fail(path, f"the file {strict.shown(str(place))} is longer than 64 KiB.")
        try:
            text = raw.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            return self._fail(path, f"the file {strict.shown(str(place))} is not UTF-8 text.")
        return text or self._fail(path, f"the file {strict.shown(str(place))} is empty.")

    def _refuse_literal(self, text: str, path: strict.Path) -> None:
        if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", text):
            self._fail(path, f'a variable is written "${{{text[1:]}}}", in braces.')
            return
        name = f"api_key_{path[-1] + 1}" if isinstance(path[-1], int) else path[-1]
        whose = path[0] if len(path) < 3 else path[1]
        words = re.sub(r"[^A-Za-z0-9]+", "_", f"{whose}_{name}").upper().lstrip("0123456789_")
        self._fail(
            path,
            f'a secret may not stand in this file. Set it in the environment and write "${{{words}}}", '
            'or keep it in a file and write "${file:path}".',
        )

    def _fail(self, path: strict.Path, message: str) -> str:
        self._document.refuse(path, message)
        self._filled.failed.add(path)
        return ""


def _is_secret(path: strict.Path) -> bool:
    """Whether `path` certainly names a secret: its own key says so."""
    if path[0] == "alerts":
        return path[1:] == ("secret",)
    if len(path) == 3:
        return path[2] == "api_key"
    if path[2:3] == ("api_keys",):
        return True
    within = len(path) > 3 and path[2] in ("headers", "options") and isinstance(path[-1], str)
    return within and names_secret(str(path[-1]))
