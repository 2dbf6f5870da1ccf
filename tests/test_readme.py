"""The README is true: its blocks run in order, its examples load, its tables and help texts equal the code's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import Block, Reader, blocks, command_of, placeholders, stray_marks
from tests.services.promptyard import Server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = blocks(README)


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and block.left_out is None]


@pytest.fixture(scope="module")
def reader(protected_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A stranger with the README in an empty folder, and the server `make serve` gives them."""
    protected_server.wait_ready()
    environment = {"PROMPTYARD_DATA": str(protected_server.data)}
    return Reader(tmp_path_factory.mktemp("reader"), protected_server.url.removeprefix("http://"), environment)


@pytest.mark.parametrize("block", of("bash", "python"), ids=lambda block: block.id)
def test_the_block_runs(block: Block, reader: Reader) -> None:
    reader.follow(block)


@pytest.mark.parametrize("block", of("yaml"), ids=lambda block: block.id)
def test_the_configuration_loads(block: Block, tmp_path: Path) -> None:
    from gateway import config

    path = tmp_path / "routes.yaml"
    path.write_text(block.text)
    assert config.load(path, placeholders(block.text)).routes


def test_the_json_parses() -> None:
    for block in of("json"):
        json.loads(block.text)


@pytest.mark.parametrize("kind", ["bash", "python", "yaml"])
def test_the_manual_shows_something_that_runs(kind: str) -> None:
    assert of(kind)


def test_every_block_left_out_says_why() -> None:
    assert stray_marks(README) == []


def test_every_block_says_what_it_is() -> None:
    assert [block.id for block in BLOCKS if not block.language] == []


def test_the_settings_are_those_of_the_code() -> None:
    from gateway import settings

    assert settings.as_markdown() in README


def test_the_providers_are_those_of_the_code() -> None:
    from gateway.providers.rows import rows

    for row in rows().values():
        spoken = ", ".join(task.name.lower() for task in row.paths) if row.litellm is None else "what litellm speaks"
        assert f"| `{row.name}` | {row.about} | {spoken} |" in README


def test_every_key_of_a_route_is_in_the_manual() -> None:
    from gateway.config_routes import DeploymentModel, RouteModel

    table = README.partition("A **route** is a name")[2].partition("Secrets never stand")[0]
    assert [name for name in (*RouteModel.model_fields, *DeploymentModel.model_fields) if name not in table] == []


HELP = [block for block in of("text", "console") if block.text.startswith("Usage: promptyard")]


@pytest.mark.parametrize("block", HELP, ids=lambda block: block.text.splitlines()[0])
def test_the_help_is_what_the_command_prints(block: Block) -> None:
    program = Path(sys.executable).with_name("promptyard")
    done = subprocess.run(
        [program, *command_of(block.text.splitlines()[0]), "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == block.text.strip()


def test_the_help_of_the_whole_command_is_shown() -> None:
    assert [] in [command_of(block.text.splitlines()[0]) for block in HELP]


# The machinery itself, on a manual of its own.

SAMPLE = """\
# Sample

```bash
NAME="a value"
echo "$NAME at http://127.0.0.1:4000/health" > made
```

1. In a list:

   ```python
   import os
   assert os.environ["NAME"] == "a value"
   if True:
       print(open("made").read(), "http://localhost:4000/v1")
   ```

<!-- not run: it never ends -->

```bash
sleep infinity
```

~~~yaml
routes: {a: "${A_KEY}", b: "${file:secret}"}
~~~

````text
```
not a block of its own
```
````
"""


def test_the_sample_is_followed(tmp_path: Path) -> None:
    shell, python, endless, example, text = blocks(SAMPLE)
    assert [block.language for block in blocks(SAMPLE)] == ["bash", "python", "bash", "yaml", "text"]
    assert (shell.line, python.line, endless.left_out) == (4, 11, "it never ends")
    assert "not a block" in text.text
    assert placeholders(example.text) == {"A_KEY": "an-example-secret"}
    reader = Reader(tmp_path, "127.0.0.1:9999")
    assert reader.follow(shell) == ""
    assert reader.follow(python) == "a value at http://127.0.0.1:9999/health\n http://127.0.0.1:9999/v1\n"


@pytest.mark.parametrize(
    ("language", "text"),
    [("bash", "false\necho later"), ("bash", "false | cat"), ("python", "raise SystemExit(3)"), ("bash", "echo $(")],
)
def test_a_block_that_fails_fails_the_test(language: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"{language}-line-7 ended with"):
        Reader(tmp_path, "127.0.0.1:1").follow(Block(language, text, 7))


@pytest.mark.parametrize(
    ("markdown", "lines"),
    [
        ("<!-- not run: why -->\n```bash\nx\n```\n", []),
        ("<!-- not run: why -->\ntext\n```bash\nx\n```\n", [1]),
        ("<!-- not run: -->\n```bash\nx\n```\n", [1]),
    ],
)
def test_a_mark_stands_above_its_block_and_gives_a_reason(markdown: str, lines: list[int]) -> None:
    assert stray_marks(markdown) == lines


def test_an_open_fence_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1 is never closed"):
        blocks("```bash\necho\n")


def test_the_command_of_a_usage_line() -> None:
    assert command_of("Usage: promptyard [OPTIONS] COMMAND [ARGS]...") == []
    assert command_of("Usage: promptyard keys create [OPTIONS]") == ["keys", "create"]
