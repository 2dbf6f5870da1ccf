"""The README as a test: its fenced blocks, and a reader who follows them from top to bottom.

A block is left out only by an HTML comment right above it, which GitHub does not show:
`<!-- not run: it starts the server this page is read against -->`. The reason is required.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
NOT_RUN = re.compile(r"^\s*<!--\s*not run:\s*(?P<reason>.*?)\s*-->\s*$")
# What the README says, for the reader's own machine; the tests' server listens elsewhere.
WRITTEN_ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|localhost):4000\b")
LANGUAGES = {"sh": "bash", "shell": "bash", "py": "python", "yml": "yaml"}


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is where its text begins; `left_out` is the reason it is not run, if any."""

    language: str
    text: str
    line: int
    left_out: str | None = None

    @property
    def id(self) -> str:
        """How pytest names it."""
        return f"{self.language}-line-{self.line}"


def blocks(markdown: str) -> list[Block]:
    """Every fenced block of `markdown`, in order. Raises ValueError for a fence that is never closed."""
    found: list[Block] = []
    lines = iter(enumerate(markdown.splitlines(), 1))
    reason = None
    for number, line in lines:
        fence = FENCE.match(line)
        if fence is None:
            mark = NOT_RUN.match(line)
            # A blank line between the comment and its block is fine, any other text is not.
            reason = mark["reason"] if mark else reason if not line.strip() else None
            continue
        text, indent = [], len(fence["indent"])
        for _, inside in lines:
            if inside.strip().startswith(fence["fence"]) and not inside.strip(" `~"):
                break
            text.append(inside[min(indent, len(inside) - len(inside.lstrip(" "))) :])
        else:
            raise ValueError(f"the block that begins in line {number} is never closed")
        language = fence["info"].strip().partition(" ")[0].lower()
        found.append(Block(LANGUAGES.get(language, language), "\n".join(text) + "\n", number + 1, reason))
        reason = None
    return found


def stray_marks(markdown: str) -> list[int]:
    """Lines with a `not run` comment that stands above no block, or gives no reason."""
    used = sum(1 for block in blocks(markdown) if block.left_out)
    marks = [number for number, line in enumerate(markdown.splitlines(), 1) if NOT_RUN.match(line)]
    return marks if used != len(marks) else []


@dataclass
class Reader:
    """Follows a README in one folder against one server, as one shell session would.

    Variables set in one `bash` block are there in the next, and in `python` blocks.
    """

    folder: Path
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = self.folder / ".shell-state"

    def follow(self, block: Block) -> str:
        """What the block prints. Raises AssertionError with all its output where it fails."""
        text = WRITTEN_ADDRESS.sub(self.address, block.text)
        path = self.folder / f"{block.id}.{'py' if block.language == 'python' else 'sh'}"
        run = shlex.join([sys.executable, str(path)])
        if block.language == "bash":
            # Prompts are for the eye.
            text = re.sub(r"^\$ ", "", text, flags=re.MULTILINE)
            run = shlex.join([".", str(path)])
        path.write_text(text)
        state = shlex.quote(str(self._state))
        script = f"[ -f {state} ] && . {state}\nset -aeo pipefail\n{run}\nset +aeo pipefail\nexport -p > {state}\n"
        bash = shutil.which("bash")
        assert bash, "the README's shell blocks need bash"
        done = subprocess.run(
            [bash, "-c", script],
            cwd=self.folder,
            env=self._outer(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{block.id} ended with {done.returncode}:\n{text}\n→\n{done.stdout}"
        return done.stdout

    def _outer(self) -> dict[str, str]:
        """The reader's environment: this one's, without Promptyard's settings, with its programs first on PATH."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTYARD_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), outer.get("PATH", os.defpath)])
        return {**outer, "PATH": path, **self.environment}


def placeholders(text: str) -> dict[str, str]:
    """A value for each `${NAME}` of a configuration, so that an example can be loaded without real secrets."""
    return dict.fromkeys(re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", text), "an-example-secret")


def command_of(usage: str) -> list[str]:
    """`Usage: promptyard keys create [OPTIONS]` → `["keys", "create"]`."""
    spoken = usage.removeprefix("Usage:").split()[1:]
    return [word for word in spoken if re.fullmatch(r"[a-z][a-z-]*", word)]
