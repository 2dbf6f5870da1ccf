"""The house keeps its shape: floors, cycles, doors, ceilings, docstrings, words.

Each rule is a table and a function from modules to complaints; `house_broken` shows each a source that breaks it.
"""

from __future__ import annotations

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

ROOT = Path(__file__).parents[1]

# Imports point down or stay on their floor; the first floor that matches counts. TYPE_CHECKING imports obey too:
# a name that cannot be written without looking up is a word on the wrong floor.
FLOORS = {
    "composition": ["gateway.server*", "gateway.cli*"],
    "edges": ["gateway.api*", "promptlab.api*", "promptlab.workbench*"],
    "words": [
        *[
            "gateway",
            "gateway.types",
            "gateway.errors",
            "gateway.routes",
            "gateway.strict",
            "gateway.money",
            "gateway.dialects*",
            "gateway.trace",
        ],
        *["promptlab", "promptlab.entities*", "promptlab.errors", "promptlab.filters*"],
        *["promptlab.templates", "promptlab.ports", "promptlab.limits", "promptlab.names"],
    ],
    "machinery": [
        *[
            "gateway.settings",
            "gateway.config*",
            "gateway.counters*",
            "gateway.cache_*",
            "gateway.journal",
            "gateway.database*",
        ],
        *["gateway.tokens", "gateway.prices", "gateway.timing", "gateway.store*", "gateway.providers*"],
        "gateway.importers*",
        "gateway.telemetry",
        *["promptlab.store*", "promptlab.artifacts", "promptlab.client"],
    ],
    "policy": [
        *["gateway.proxy", "gateway.keys", "gateway.limits", "gateway.budgets", "gateway.routing", "gateway.fallback"],
        *["gateway.attempts", "gateway.health", "gateway.rescue", "gateway.byok"],
        *["gateway.usage", "gateway.ledger", "gateway.cache", "gateway.flights", "gateway.streaming"],
        *[
            "promptlab.lab",
            "promptlab.prompts",
            "promptlab.existing",
            "promptlab.promptlab_runs",
            "promptlab.evaluation*",
            "promptlab.recipes*",
        ],
    ],
}
UPWARDS = ["words", "machinery", "policy", "edges", "composition"]

# Each foreign library has one door: the modules that may import it. ruff's TID251 holds the same table (pyproject).
# `*` in these patterns stands for anything, dots too.
DOORS = {
    "fastapi": ["gateway.api.*", "gateway.server", "promptlab.api.*"],
    "starlette": ["gateway.api.*", "gateway.server", "promptlab.api.*"],
    "anyio": ["promptlab.api.*"],
    "gradio": ["promptlab.workbench.*"],
    "sqlalchemy": ["gateway.store*", "gateway.database*", "promptlab.store*"],
    "alembic": ["gateway.store*", "gateway.database*", "promptlab.store*"],
    "redis": ["gateway.counters*", "gateway.cache*"],
    "aiohappyeyeballs": ["gateway.providers.transport"],
    "httptools": ["gateway.providers.connection"],
    "httpx": ["promptlab.client", "gateway.providers.litellm"],  # litellm is configured with httpx's, raises httpx's
    "opentelemetry": ["gateway.telemetry"],
    "litellm": ["gateway.providers.litellm"],
    "xllamacpp": ["gateway.providers.llama_child", "gateway.providers.embedded"],
    "tiktoken": ["gateway.tokens"],
    "yaml": ["gateway.config*", "gateway.prices"],
    "uvicorn": ["gateway.server_process", "gateway.api.protocol"],
    "click": ["gateway.cli*"],
}
# Libraries that are like Python's own here: they shape data and do no IO.
EVERYWHERE = {"orjson", "pydantic", "pydantic_core"}
# What is imported though pyproject does not ask for it by name: it is part of what does.
COMES_WITH = {
    "starlette": "fastapi",
    "anyio": "fastapi",
    "pydantic_core": "pydantic",
    "opentelemetry": "opentelemetry-sdk",
}
# For annotations only: `promptlab.ports` names the connection it hands out.
TYPING_ONLY = {"promptlab.ports": {"alembic", "sqlalchemy"}}
# The process's environment is a door too.
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}
ENVIRONMENT_DOORS = ["gateway.settings"]
# Too slow to be loaded before the first answer, or not wanted by most: imported inside functions only.
LAZY = {
    "litellm": "*",
    "opentelemetry": "*",
    "xllamacpp": "*",
    "promptlab.workbench*": "gateway.*",
    "gradio": "gateway.*",
}
# What importing the server must not load (the lab and litellm cost seconds and hundreds of megabytes).
NOT_AT_START = ["gradio", "litellm", "opentelemetry", "xllamacpp", "pandas", "numpy", "promptlab.workbench.app"]

# What looks right and is not, wherever it is imported from.
TRAPS = {
    "BaseHTTPMiddleware": "it breaks streaming and cancellation",
    "ASGITransport": "it hands a stream over in one piece: test streams over a real socket",
}

FILE_CEILING, FUNCTION_CEILING = 400, 60

# The design's table *Words*: what we never say, and the word we say instead.
NEVER_SAY = {
    "endpoint": "route",
    "endpoints": "routes",
    "backend": "deployment",
    "backends": "deployments",
    "target": "deployment",
    "targets": "deployments",
    "vendor": "provider",
    "vendors": "providers",
    "payload": "answer",
    "payloads": "answers",
    "quota": "limit",
    "quotas": "limits",
    "failover": "fallback",
    "failovers": "fallbacks",
    "evaluator": "scorer",
    "evaluators": "scorers",
    "trial": "run",
    "trials": "runs",
}
# Where such a word is somebody else's (MLflow's wire says ENDPOINT_NOT_FOUND) or means another thing (a file's place).
SAID_HERE = {
    "promptlab.errors": {"endpoint"},
    "promptlab.api*": {"endpoint", "endpoints"},
    "promptlab.artifacts": {"target"},
}

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")

# Files of store/ that serve the other files there; every other one is named for a noun its package's api/ knows.
STORE_TOOLS = {"tables", "migrations", "search", "paging", "filters", "schema", "tags", "upsert"}


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
    asked = {re.match(r"[A-Za-z0-9_-]+", text)[0].replace("pyyaml", "yaml") for text in project["dependencies"]}  # type: ignore[index]
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
