"""The locks are complete, hashed, free of addresses, and agree with pyproject and with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RUNTIME, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
LOCKS = [RUNTIME, DEV]
# Published by a thief of the project's credentials: https://github.com/BerriAI/litellm/issues/24512
MALICIOUS = {"litellm": {"1.82.7", "1.82.8"}}


def pins(lock: str) -> dict[str, tuple[Requirement, list[str]]]:
    """The requirement and hashes of each entry, by `name==version ; marker`."""
    found = {}
    for line in lock.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        specification, *hashes = line.split("--hash=")
        requirement = Requirement(specification.strip())
        found[str(requirement)] = (requirement, [each.strip() for each in hashes])
    return found


def names(lock: Path) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement, _ in pins(lock.read_text()).values()}


def declared(*groups: str) -> list[Requirement]:
    """What pyproject asks for directly: the project's dependencies and those of `groups`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = list(project["project"]["dependencies"])
    for group in groups:
        texts += project["dependency-groups"][group]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_entry_is_one_exact_version_with_hashes(lock: Path) -> None:
    entries = pins(lock.read_text())
    assert len(entries) > 50
    for text, (requirement, hashes) in entries.items():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), text
        assert hashes, text
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_entry_says_where_to_download(lock: Path) -> None:
    """Whoever installs chooses the index; an address here would overrule their mirror, or leak ours."""
    assert [
        line for line in lock.read_text().splitlines() if re.search(r"://|--(extra-)?index|--find-links|@ ", line)
    ] == []


def test_development_adds_to_the_runtime_and_changes_nothing() -> None:
    runtime, dev = pins(RUNTIME.read_text()), pins(DEV.read_text())
    assert {text: runtime[text][1] for text in runtime} == {text: dev[text][1] for text in runtime if text in dev}
    assert len(dev) > len(runtime)


@pytest.mark.parametrize(
    ("lock", "groups"), [(RUNTIME, ("build", "model")), (DEV, ("build", "model", "dev"))], ids=["runtime", "dev"]
)
def test_what_pyproject_asks_for_is_locked_at_a_version_it_allows(lock: Path, groups: tuple[str, ...]) -> None:
    locked = [requirement for requirement, _ in pins(lock.read_text()).values()]
    for wanted in declared(*groups):
        versions = [
            next(iter(pin.specifier)).version
            for pin in locked
            if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        ]
        assert versions, f"{wanted} is not in {lock.name}: make lock"
        assert all(wanted.specifier.contains(version, prereleases=True) for version in versions), (wanted, versions)


def test_nothing_malicious_is_locked_or_allowed() -> None:
    for name, bad in MALICIOUS.items():
        [wanted] = [each for each in declared() if each.name == name]
        assert not [version for version in bad if wanted.specifier.contains(version)]
        for lock in LOCKS:
            assert not [
                text for text in pins(lock.read_text()) if text.split(";")[0].strip() in {f"{name}=={v}" for v in bad}
            ]


def test_the_reader_sees_what_it_must() -> None:
    """The checks above rest on this reader: continued lines, markers and every hash."""
    text = "a==1.0 ; python_version < '3.12' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n# why\nb[x]==2\n"
    [(first, hashes), (second, none)] = pins(text).values()
    assert (first.name, str(first.marker), hashes) == ("a", 'python_version < "3.12"', ["sha256:00", "sha256:11"])
    assert (second.name, second.extras, none) == ("b", {"x"}, [])
