"""The house keeps its shape: floors, cycles, doors, ceilings, docstrings, words.

Each rule is a table and a function from modules to complaints; `house_broken` shows each a source that breaks it.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.house import House, house_of, our_imports, read_house, words
from tests.house_broken import BAD
from tests.house_rules import (
    COMES_WITH,
    DOORS,
    ENVIRONMENT,
    ENVIRONMENT_DOORS,
    EVERYWHERE,
    FILE_CEILING,
    FLOORS,
    FUNCTION_CEILING,
    LAZY,
    NEVER_SAY,
    NOT_AT_START,
    SAID_HERE,
    STORE_TOOLS,
    TRAPS,
    TYPING_ONLY,
    UNFINISHED,
    UPWARDS,
)

ROOT = Path(__file__).parents[1]


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def floor(name: str) -> int | None:
    """How high a module stands (0: words), or None where no floor names it."""
    found = next((floor for floor, patterns in FLOORS.items() if matches(name, patterns)), None)
    return None if found is None else UPWARDS.index(found)


def homeless(house: House) -> list[str]:
    return [
        f"{module.path}: on no floor; give it a place in FLOORS"
        for module in house.values()
        if floor(module.name) is None
    ]


def upward_imports(house: House) -> list[str]:
    return [
        f"{module.path}:{each.line}: {UPWARDS[mine]} imports {each.name} above it ({UPWARDS[theirs]})"
        for module in house.values()
        for each in our_imports(house, module)
        if (mine := floor(module.name)) is not None and (theirs := floor(each.name)) is not None and theirs > mine
    ]


def imports_across(house: House) -> list[str]:
    """The lab is a client: it never imports the gateway, and only the composition imports the lab."""
    return [
        f"{module.path}:{each.line}: {module.name} imports {each.name}"
        for module in house.values()
        for each in our_imports(house, module)
        if module.name.partition(".")[0] != each.library
        and not (each.library == "promptlab" and matches(module.name, FLOORS["composition"]))
    ]


def cycles(house: House) -> list[str]:
    """Rings of imports that run, lazy ones too: an import hidden in a function hides a ring, it does not open it."""
    after = {
        name: {each.name for each in our_imports(house, module) if not each.typing} for name, module in house.items()
    }
    found, done = [], set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" → ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for each in sorted(after[name]):
                walk(each, [*path, name])
            done.add(name)

    for name in sorted(house):
        walk(name, [])
    return found


def closed_doors(house: House) -> list[str]:
    complaints = []
    for module in house.values():
        for each in [each for each in module.imports if each.foreign and each.library not in EVERYWHERE]:
            if each.typing and each.library in TYPING_ONLY.get(module.name, ()):
                continue
            if not matches(module.name, DOORS.get(each.library, ())):
                doors = ", ".join(DOORS.get(each.library, ["none: give it a door in DOORS"]))
                complaints.append(f"{module.path}:{each.line}: {each.library} has another door ({doors})")
    return complaints


def environment_readers(house: House) -> list[str]:
    return [
        f"{module.path}:{line}: {name} belongs to {', '.join(ENVIRONMENT_DOORS)}"
        for module in house.values()
        if not matches(module.name, ENVIRONMENT_DOORS)
        for name, line in [
            *module.names_read.items(),
            *((each.name, each.line) for each in module.imports),
        ]
        if name in ENVIRONMENT
    ]


def eager_imports(house: House) -> list[str]:
    return [
        f"{module.path}:{each.line}: {each.name} must be imported inside the function that needs it"
        for module in house.values()
        for each in module.imports
        for name, importers in LAZY.items()
        if fnmatchcase(module.name, importers)
        and (fnmatchcase(each.name, name) or each.library == name)
        and not (each.lazy or each.typing)
    ]


def traps(house: House) -> list[str]:
    return [
        f"{module.path}:{line}: {name}: {TRAPS[last]}"
        for module in house.values()
        for name, line in module.names_read.items()
        if (last := name.rpartition(".")[2]) in TRAPS
    ]


def too_long(house: House) -> list[str]:
    files = [
        f"{module.path}: {module.lines} lines, at most {FILE_CEILING}"
        for module in house.values()
        if module.lines > FILE_CEILING
    ]
    functions = [
        f"{module.path}:{each.line}: {each.name} has {each.lines} lines, at most {FUNCTION_CEILING}"
        for module in house.values()
        for each in module.definitions
        if not each.is_class and each.lines > FUNCTION_CEILING
    ]
    return files + functions


def undocumented(house: House) -> list[str]:
    complaints = []
    for module in house.values():
        if module.source.strip() and not is_sentence(module.docstring):
            complaints.append(f"{module.path}: its docstring does not begin with a sentence: {module.docstring!r}")
        complaints += [
            f"{module.path}:{each.line}: {each.name}'s docstring does not begin with a sentence: {each.docstring!r}"
            for each in module.definitions
            if each.public and not each.shape_only and not is_sentence(each.docstring)
        ]
    return complaints


def is_sentence(docstring: str | None) -> bool:
    """Whether the first line begins like a sentence (a capital, a figure, a library's name) and one ends in it."""
    first = (docstring or "").partition("\n")[0].strip()
    starts = bool(re.match(r"[A-Z0-9`\"'“(/]", first)) or first.startswith(tuple(DOORS))
    return starts and bool(re.search(r"[.?!:…][`\"'”)]*( |$)", first))


def wrong_words(house: House) -> list[str]:
    complaints = []
    for module in house.values():
        allowed = {word for pattern, said in SAID_HERE.items() if fnmatchcase(module.name, pattern) for word in said}
        file_name = module.name.rpartition(".")[2]
        for identifier, line in {file_name: 1, **module.identifiers}.items():
            complaints += [
                f"{module.path}:{line}: {identifier}: we say {NEVER_SAY[word]}, not {word}"
                for word in words(identifier)
                if word in NEVER_SAY and word not in allowed
            ]
    return complaints


def unfinished(house: House) -> list[str]:
    return [
        f"{module.path}:{number}: {line.strip()}"
        for module in house.values()
        for number, line in enumerate(module.source.splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def unnamed_stores(house: House) -> list[str]:
    """SQL of a noun nobody above speaks of: store/keys.py wants an api/keys.py or a keys.py."""
    complaints = []
    for module in house.values():
        package, _, noun = module.name.rpartition(".")
        if not package.endswith(".store") or noun in STORE_TOOLS:
            continue
        top = package.removesuffix(".store")
        if f"{top}.{noun}" not in house and f"{top}.api.{noun}" not in house:
            complaints.append(f"{module.path}: neither {top}/api/{noun}.py nor {top}/{noun}.py speaks of {noun}")
    return complaints


RULES: list[Callable[[House], list[str]]] = [
    *[homeless, upward_imports, imports_across, cycles, closed_doors, environment_readers, eager_imports],
    *[traps, too_long, undocumented, wrong_words, unfinished, unnamed_stores],
]


@pytest.fixture(scope="module")
def house() -> House:
    return read_house(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Callable[[House], list[str]], house: House) -> None:
    complaints = rule(house)
    assert not complaints, "\n".join(["", *complaints])


@pytest.mark.parametrize(("name", "sources", "complaint"), BAD)
def test_the_rule_can_fail(name: str, sources: dict[str, str], complaint: str) -> None:
    [rule] = [rule for rule in RULES if rule.__name__ == name]
    complaints = rule(house_of(sources))
    assert len(complaints) == 1, complaints
    assert complaint in complaints[0]


def test_every_rule_is_shown_to_fail() -> None:
    assert {name for name, _, _ in BAD} == {rule.__name__ for rule in RULES}


def test_the_tests_keep_the_ceilings() -> None:
    complaints = too_long(read_house(ROOT, ("tests",)))
    assert not complaints, "\n".join(["", *complaints])


def test_the_tests_avoid_the_traps() -> None:
    complaints = traps(read_house(ROOT, ("tests",)))
    assert not complaints, "\n".join(["", *complaints])


def test_every_floor_and_door_leads_somewhere(house: House) -> None:
    """A table that names what is gone would hold nothing: each library with a door is imported somewhere."""
    imported = {each.library for module in house.values() for each in module.imports}
    assert set(DOORS) <= imported, set(DOORS) - imported


def test_what_is_imported_is_asked_for(house: House) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    asked = {re.match(r"[A-Za-z0-9_-]+", text)[0].replace("pyyaml", "yaml") for text in dependencies}  # type: ignore[index]
    imported = {each.library for module in house.values() for each in module.imports if each.foreign}
    assert {COMES_WITH.get(library, library) for library in imported} <= asked


def test_ruff_holds_the_same_doors() -> None:
    """TID251 bans every library with a door; in the files that are some library's door it is off, and we alone hold."""
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    banned = set(ruff["flake8-tidy-imports"]["banned-api"])
    assert {*DOORS, "os.environ", "os.getenv"} <= banned
    doors = {pattern for patterns in [*DOORS.values(), ENVIRONMENT_DOORS, TYPING_ONLY] for pattern in patterns}
    open_files = {path for path, codes in ruff["per-file-ignores"].items() if "TID251" in codes and path != "tests/**"}
    assert open_files == {door_path(pattern) for pattern in doors}


def door_path(pattern: str) -> str:
    """`gateway.api.*` → `gateway/api/*`, `gateway.cache` → `gateway/cache.py`."""
    path = pattern.replace(".", "/")
    return path if path.endswith("*") else f"{path}.py"


def test_starting_loads_nothing_slow() -> None:
    """Importing the server and the command line leaves out what costs seconds; checked in a fresh interpreter."""
    code = f"import sys, gateway.server, gateway.cli; print([m for m in {NOT_AT_START!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr
