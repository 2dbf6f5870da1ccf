"""`promptyard import` as a person and a script use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.test_cli import printed, run

THEIRS = {
    "litellm": "model_list:\n"
    "  - {model_name: chat, litellm_params: {model: openai/m, api_base: 'http://h/v1', api_key: s3cret-word, n: 2}}\n",
    "mlflow": "endpoints:\n"
    "  - {name: chat, endpoint_type: llm/v1/chat, wombat: 1, model: {provider: ollama, name: m, config: "
    "{api_key: s3cret-word}}}\n",
}


@pytest.mark.parametrize("kind", THEIRS)
def test_a_file_is_printed_and_the_rest_is_listed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.yaml").write_text(THEIRS[kind])
    done = run("import", kind, "theirs.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "Not all of theirs.yaml could be said here:\n  theirs.yaml:2: " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Set before you serve: ")
    assert "s3cret-word" not in done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.yaml"]
    name = done.stderr.splitlines()[-1].removeprefix("Set before you serve: ").rstrip(".")
    (tmp_path / "routes.yaml").write_text(done.stdout.replace(f"${{{name}}}", "${THEIR_KEY}"))
    monkeypatch.setenv("THEIR_KEY", "x")
    assert "routes.yaml is good: 1 providers, 1 routes." in printed("check", cwd=tmp_path)


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(THEIRS["litellm"])
    ours = tmp_path / "routes.yaml"
    command = ["import", "litellm", "theirs.yaml", "--output", "routes.yaml"]
    ours.write_text("mine")
    done = run(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "'routes.yaml' exists. --force replaces it.\n"
    assert ours.read_text() == "mine"
    assert printed(*command, "--force", cwd=tmp_path) == ""
    assert ours.read_text().startswith("# Written by `promptyard import litellm theirs.yaml`.")


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), ("a: [", "is not YAML"), ("a: 1\n", "'model_list'")])
def test_a_file_that_is_not_understood(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    done = run("import", "litellm", "theirs.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.startswith("theirs.yaml")


def test_no_such_file(tmp_path: Path) -> None:
    done = run("import", "mlflow", "theirs.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("theirs.yaml: no such file.")
