"""YAML as plain data that remembers its lines: the one reader for `routes.yaml` and `prices.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway import strict
from gateway.errors import Problem

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40
# Counted after aliases are followed: what a few lines of anchors can grow to is what must be bounded.
MAX_NODES = 100_000

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_TIME = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class _TooMuch(Exception):
    """The document is deeper or longer than any configuration is."""


@dataclass(slots=True)
class Document:
    """What a YAML file says. `lines` maps each path in `data` to the line its key or item stands on."""

    source: str
    data: Any = None
    lines: dict[strict.Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: strict.Path) -> int | None:
        """The line of `path`, or of what holds it where `path` is missing."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def refuse(self, path: strict.Path, message: str) -> None:
        """Note a problem at `path`."""
        self.problems.append(Problem(self.source, self.line(path), strict.dotted(path), message))


def read(path: Path) -> Document:
    """What the file at `path` says, or why it cannot be read in `problems`; `data` is None then, and where it is empty.

    Only plain data: no other tags. Aliases and `<<` are followed within bounds, a key
    written twice in one mapping is a problem.
    """
    document = Document(str(path))
    text = _text(path, document)
    if text is None:
        return document
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=_Loader)
        document.data = None if node is None else _Reader(document).value(node, ())
    except yaml.YAMLError as error:
        document.problems.append(_syntax(document.source, text, error))
    except _TooMuch as error:
        document.problems.append(Problem(document.source, None, "", str(error)))
        document.data = None
    return document


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one: for data that may be wrong anywhere."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def value(text: str) -> Any:
    """What `text` of our own means as YAML."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (the safe loader, in C where there is one)


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the composer sees it: it recurses in C, and 100,000 brackets crash the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooMuch(_too_deep(event.start_mark.line if event.start_mark else 0))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_deep(line: int) -> str:
    return f"is nested more than {MAX_DEPTH} levels deep at line {line + 1}. Write it flatter."


def _text(path: Path, document: Document) -> str | None:
    """The file's text without a byte order mark."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = "no such file. Name one with --config, or create it: the manual shows a first routes.yaml."
    except OSError as error:
        message = f"cannot be read: {error.strerror}."
    else:
        if len(raw) <= MAX_BYTES:
            try:
                return raw.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = raw.count(b"\n", 0, error.start) + 1
                message = f"is not UTF-8: byte 0x{raw[error.start]:02x}. Save the file as UTF-8."
                document.problems.append(Problem(document.source, line, "", message))
                return None
        message = f"is longer than {MAX_BYTES // 2**20} MiB. Is it the right file?"
    document.problems.append(Problem(document.source, None, "", message))
    return None


def _syntax(source: str, text: str, error: yaml.YAMLError) -> Problem:
    """Where the file stops being YAML, without quoting it: the line may hold a secret."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Problem(source, line, "", "is not YAML: a control character. Remove it.")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(source, None, "", "is not YAML.")
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = text.splitlines()
    fix = "Look at this line and the one above it: indentation, a missing colon, quote or bracket."
    if 0 < line <= len(lines) and lines[line - 1].lstrip(" ").startswith("\t"):
        fix = "YAML is indented with spaces, not tabs."
    return Problem(source, line or None, "", f"is not YAML: {error.problem or error.context}. {fix}")


class _Reader:
    """Turns YAML nodes into plain data and notes their lines."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._scalars = yaml.constructor.SafeConstructor()
        self._count = 0
        self._merging: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: strict.Path) -> Any:
        """The plain data of `node`, which stands at `path`."""
        self._count += 1
        if self._count > MAX_NODES:
            raise _TooMuch(f"holds more than {MAX_NODES} values once its aliases are followed. Write it smaller.")
        # An alias inside its own anchor has no end, so the bound on depth refuses it too.
        if len(path) > MAX_DEPTH:
            raise _TooMuch(_too_deep(node.start_mark.line))
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: strict.Path) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: strict.Path) -> dict[str, Any]:
        # Merged keys first: where a key is written here too, its own line is the one to name.
        merged: dict[str, Any] = {}
        for key, child in node.value:
            if key.tag == _MERGE:
                merged = {**self._merge(child, path), **merged}
        own: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, child in node.value:
            if key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_PLAIN | {_TIME}):
                self._refuse(line, path, "a key must be text.")
                continue
            name = str(key.value)
            if name in first:
                message = f"is written twice, first on line {first[name]}. Keep one."
                self._refuse(line, (*path, name), message)
                continue
            first[name] = line
            self._document.lines[(*path, name)] = line
            own[name] = self.value(child, (*path, name))
        return {**merged, **own}

    def _merge(self, node: yaml.Node, path: strict.Path) -> dict[str, Any]:
        """What `<<: *anchor` (or a list of them) brings in; the first one wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for one in nodes:
            if not isinstance(one, yaml.MappingNode):
                self._refuse(node.start_mark.line + 1, path, "'<<' takes an alias of a mapping.")
                continue
            for name, value in self._mapping_within(one, path).items():
                found.setdefault(name, value)
        return found

    def _mapping_within(self, node: yaml.MappingNode, path: strict.Path) -> dict[str, Any]:
        self._count += 1
        if self._count > MAX_NODES or node in self._merging:
            raise _TooMuch("holds a mapping merged into itself, or too many merges. Write it out.")
        self._merging.append(node)
        try:
            return self._mapping(node, path)
        finally:
            self._merging.pop()

    def _scalar(self, node: yaml.Node, path: strict.Path) -> Any:
        line = node.start_mark.line + 1
        if node.tag == _TIME:
            # `2024-08-06` is an API version here, never a date.
            return str(node.value)
        if node.tag not in _PLAIN:
            self._refuse(line, path, f"the tag {node.tag} is not understood. Remove it.")
            return None
        try:
            return self._scalars.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            self._refuse(line, path, f"is not a {node.tag.rpartition(':')[2]}.")
            return None

    def _refuse(self, line: int, path: strict.Path, message: str) -> None:
        self._document.problems.append(Problem(self._document.source, line, strict.dotted(path), message))
