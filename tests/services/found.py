"""What a look for a program comes to: `Found` with its version and origin, or `Missing` with the way to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A program that runs here. `origin` says where it came from, as the check prints it."""

    name: str
    program: str
    version: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.origin}: {self.program})"


@dataclass(frozen=True)
class Missing:
    """A program that cannot be had here. `sentence` names the command that brings it."""

    name: str
    why: str
    brings: str

    @property
    def sentence(self) -> str:
        """What is missing, why, and the command that brings it."""
        return f"{self.name} is missing: {self.why}. This brings it: {self.brings}"

    def __str__(self) -> str:
        return self.sentence


def under_ci() -> bool:
    """Whether a missing program is a failure (CI=true) rather than a skipped test."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def services_home() -> Path:
    """Where fetched programs live: in the virtual environment, so that `make clean` takes them too."""
    return Path(sys.prefix) / "services"


def version_of(program: str | Path) -> str | None:
    """What `program --version` prints, or None where it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def on_path(names: Iterable[str], folders: Iterable[str | Path] = ()) -> str | None:
    """The first of `names` on PATH, else in `folders`."""
    for where in (os.environ.get("PATH", ""), os.pathsep.join(map(str, folders))):
        for name in names:
            if found := shutil.which(name, path=where):
                return found
    return None


def install_command(apt: str, brew: str) -> str:
    """How this machine's package manager brings a program."""
    if platform.system() == "Darwin":
        return f"brew install {brew}"
    return f"apt-get install -y {apt} (as root)"
