"""The house as data: every module of the two packages with what it imports, defines and reads.

Nothing is imported to find out: the sources are parsed, so a rule can be fed a bad source.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("gateway", "promptlab")


@dataclass(frozen=True)
class Import:
    """One imported module. `lazy`: inside a function. `typing`: under `if TYPE_CHECKING`, never run."""

    name: str
    line: int
    lazy: bool
    typing: bool

    @property
    def library(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]

    @property
    def foreign(self) -> bool:
        """Whether somebody else's library is imported: neither ours nor Python's own."""
        return self.library not in {*PACKAGES, *sys.stdlib_module_names}


@dataclass(frozen=True)
class Definition:
    """A function, method or class. `public`: no part of its dotted name is private or local to a function.

    `shape_only`: its body is `...`, as in a `Protocol` or an overload; what it does is said elsewhere.
    """

    name: str
    line: int
    lines: int
    is_class: bool
    public: bool
    docstring: str | None
    shape_only: bool


@dataclass
class Module:
    """One source file, parsed."""

    name: str
    path: str
    source: str
    docstring: str | None = None
    imports: list[Import] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    identifiers: dict[str, int] = field(default_factory=dict)
    names_read: dict[str, int] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        """How long the file is."""
        return len(self.source.splitlines())


House = Mapping[str, Module]


def house_of(sources: Mapping[str, str]) -> dict[str, Module]:
    """The modules of `sources` (path below the project's root → text), by dotted name."""
    names = {module_name(path): path for path in sources}
    return {name: parsed(name, path, sources[path], set(names)) for name, path in names.items()}


def read_house(root: Path, folders: tuple[str, ...] = PACKAGES) -> dict[str, Module]:
    """The modules in `folders` below `root`."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    return house_of({file.relative_to(root).as_posix(): file.read_text() for file in files})


def module_name(path: str) -> str:
    """`gateway/api/keys.py` → `gateway.api.keys`; a package's `__init__.py` is the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def parsed(name: str, path: str, source: str, known: set[str]) -> Module:
    """The module of one source. `known` tells `from gateway import keys` (a module) from a name in a package."""
    tree = ast.parse(source, path)
    module = Module(name, path, source, ast.get_docstring(tree))
    reader = Reader(module, known)
    reader.visit(tree)
    return module


class Reader(ast.NodeVisitor):
    """Fills a module from its tree, keeping track of where in it we are."""

    def __init__(self, module: Module, known: set[str]) -> None:
        self.module = module
        self.known = known
        self.scope: list[ast.AST] = []
        self.typing = False

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before, self.typing = self.typing, self.typing or ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in node.body:
            self.visit(child)
        self.typing = before
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported(alias.name, node.lineno)
            self.defined(alias.asname, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            package = self.module.name.split(".")
            keep = len(package) - node.level + self.module.path.endswith("__init__.py")
            base = ".".join([*package[:keep], *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            self.imported(whole if whole in self.known or base not in self.known else base, node.lineno)
            self.defined(alias.asname, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"} and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                self.imported(named.value, node.lineno)
        self.generic_visit(node)

    def imported(self, name: str, line: int) -> None:
        lazy = any(not isinstance(node, ast.ClassDef) for node in self.scope)
        self.module.imports.append(Import(name, line, lazy, self.typing))

    def visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.defined(node.name, node.lineno)
        dotted = [getattr(each, "name", "") for each in self.scope] + [node.name]
        local = any(not isinstance(each, ast.ClassDef) for each in self.scope)
        public = not local and not any(part.startswith("_") for part in dotted)
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        is_class = isinstance(node, ast.ClassDef)
        shape_only = [ast.unparse(each) for each in node.body] == ["..."]
        self.module.definitions.append(
            Definition(".".join(dotted), node.lineno, length, is_class, public, ast.get_docstring(node), shape_only)
        )
        self.scope.append(node)
        self.generic_visit(node)
        self.scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit_definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_definition(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.scope.append(node)
        self.generic_visit(node)
        self.scope.pop()

    def visit_arg(self, node: ast.arg) -> None:
        self.defined(node.arg, node.lineno)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.defined(node.id, node.lineno)
        else:
            self.module.names_read.setdefault(node.id, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        # What is set on somebody else's object has somebody else's name.
        if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in {"self", "cls"}:
            self.defined(node.attr, node.lineno)
        self.module.names_read.setdefault(ast.unparse(node), node.lineno)
        self.generic_visit(node)

    def defined(self, name: str | None, line: int) -> None:
        if name:
            self.module.identifiers.setdefault(name, line)


def words(identifier: str) -> list[str]:
    """`UpstreamTimeout`, `upstream_timeout` → `upstream`, `timeout`."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", identifier)
    return [word for word in apart.lower().split("_") if word]


def our_imports(house: House, module: Module) -> Iterator[Import]:
    """What `module` imports of the house's own modules; `gateway.keys.Key` counts as `gateway.keys`."""
    for each in module.imports:
        name = each.name
        while name and name not in house:
            name = name.rpartition(".")[0]
        if name and name != module.name:
            yield Import(name, each.line, each.lazy, each.typing)
