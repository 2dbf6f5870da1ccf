"""The command line as a person and a script use it: what it prints where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.conftest import ROOT
from tests.services.promptyard import environment

GOOD = """\
providers:
  fake: {type: fake}
routes:
  chat: {deployments: [{provider: fake, model: echo}]}
  other: {deployments: [{provider: fake, model: echo}], fallbacks: [chat]}
"""


def run(*arguments: str | Path, cwd: Path, timeout: float = 30, **env: str) -> subprocess.CompletedProcess[str]:
    """`promptyard` with `arguments` in a folder, and no setting but `env`."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment({f"PROMPTYARD_{name}": value for name, value in env.items()}, "cli"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_here(*arguments: str, monkeypatch: pytest.MonkeyPatch, cwd: Path) -> Result:
    """The same in this process, for what ends before anything is opened: sixty processes take a minute."""
    monkeypatch.chdir(cwd)
    for name in [name for name in os.environ if name.startswith("PROMPTYARD_")]:
        monkeypatch.delenv(name)
    return CliRunner().invoke(main, list(arguments), prog_name="promptyard")


def printed(*arguments: str | Path, cwd: Path, **env: str) -> str:
    """What a command that succeeds prints."""
    done = run(*arguments, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def data(*arguments: str | Path, cwd: Path, **env: str) -> Any:
    """What a command prints with `--json`, which is JSON alone and nothing beside it."""
    done = run(*arguments, "--json", cwd=cwd, **env)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


COMMANDS: list[Sequence[str]] = [(), ("serve",), ("check",), ("schema",), ("usage",), ("ledger",), ("ledger", "check"),
                                 ("ledger", "export"), ("keys",), ("keys", "create"),
                                 ("keys", "list"), ("keys", "revoke"), ("import",), ("plan",),
                                 ("explain",)]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [run_here(*command, option, monkeypatch=monkeypatch, cwd=tmp_path) for option in ("-h", "--help")]
    assert [answer.exit_code for answer in answers] == [0, 0]
    short, long = (answer.stdout for answer in answers)
    assert short == long
    assert short.startswith(f"Usage: {' '.join(('promptyard', *command))} [OPTIONS]")
    if command not in [(), ("keys",), ("ledger",), ("schema",), ("import",)]:
        assert "--data " in short
    assert list(tmp_path.iterdir()) == []


def test_it_runs_as_a_process(tmp_path: Path) -> None:
    assert printed("--help", cwd=tmp_path).startswith("Usage: python -m gateway.cli [OPTIONS] COMMAND")
    done = run("keys", "create", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing option '--name'" in done.stderr


def test_the_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"promptyard \d+\.\d+\.\d+\S*\n", printed("--version", cwd=tmp_path))


def test_the_schema_accepts_what_check_accepts(tmp_path: Path) -> None:
    schema = json.loads(printed("schema", cwd=tmp_path))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    jsonschema.validate(yaml.safe_load((ROOT / "routes.yaml").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(GOOD.replace("fallbacks", "fallback")), schema)


@pytest.mark.parametrize("how", ["argument", "default", "setting"])
def test_a_good_file_is_checked(tmp_path: Path, how: str) -> None:
    path = tmp_path / ("routes.yaml" if how == "default" else "mine.yaml")
    path.write_text(GOOD)
    arguments = ["check", path.name] if how == "argument" else ["check"]
    env = {"CONFIG": path.name} if how == "setting" else {}
    said = printed(*arguments, cwd=tmp_path, **env)
    assert path.name in said
    assert "chat: fake/echo" in said
    assert data(*arguments, cwd=tmp_path, **env) == {
        "file": path.name,
        "providers": ["fake"],
        "routes": {"chat": ["fake/echo"], "other": ["fake/echo"]},
    }
    assert list(tmp_path.iterdir()) == [path]


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    bad = """\
providers:
  fake: {type: fake, modle: x}
  gpu: {type: openai_compatible, base_url: "${NOT_SET}"}
routes:
  chat: {deployments: [{provider: fak, model: echo}], fallbacks: [nowhere]}
  chat: {deployments: []}
  slow: {deployments: [{provider: fake, model: echo}], limits: {rpm: fast}}
"""
    (tmp_path / "routes.yaml").write_text(bad)
    done = run("check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert all(re.match(r"routes\.yaml:\d+: \S+: ", line) for line in lines), done.stderr
    for number, word in ((2, "modle"), (3, "NOT_SET"), (5, "fak"), (5, "nowhere"), (6, "chat"), (7, "rpm")):
        assert any(line.startswith(f"routes.yaml:{number}:") and word in line for line in lines), (number, word, lines)
    again = run("serve", "--port", "0", cwd=tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (1, "", done.stderr)
    assert not (tmp_path / "data").exists()


USAGE_ERRORS: dict[str, tuple[Sequence[str], str]] = {
    "no such command": (["sevre"], "No such command 'sevre'"),
    "no such option": (["serve", "--prot", "1"], "No such option"),
    "a port that is no number": (["serve", "--port", "http"], "'http' is not a valid integer"),
    "a stray argument": (["serve", "here"], "unexpected extra argument"),
    "a key without a name": (["keys", "create"], "Missing option '--name'"),
    "no requests at all": (["keys", "create", "--name", "a", "--rpm", "0"], "--rpm"),
    "too many tokens": (["keys", "create", "--name", "a", "--tpm", "9999999999"], "--tpm"),
    "no money": (["keys", "create", "--name", "a", "--max-budget", "0"], "--max-budget"),
    "money by the letter": (["keys", "create", "--name", "a", "--max-budget", "ten"], "--max-budget"),
    "money that is not a number": (["keys", "create", "--name", "a", "--max-budget", "nan"], "--max-budget"),
    "time without money": (["keys", "create", "--name", "a", "--budget-duration", "1d"], "--max-budget"),
    "no such time": (["keys", "create", "--name", "a", "--max-budget", "1", "--budget-duration", "1y"], "--budget-dur"),
    "calls by the letter": (["keys", "create", "--name", "a", "--concurrency", "x"], "--concurrency"),
    "an unknown scope": (["keys", "create", "--name", "a", "--scopes", "inference,root"], "'root' is none of"),
    "no scope": (["keys", "create", "--name", "a", "--scopes", ","], "--scopes"),
    "no unit": (["keys", "create", "--name", "a", "--expires", "30"], "'30' is not a time such as 30d"),
    "at once": (["keys", "create", "--name", "a", "--expires", "0d"], "--expires"),
    "in the past": (["keys", "create", "--name", "a", "--expires", "-1d"], "--expires"),
    "no key to revoke": (["keys", "revoke"], "Missing argument 'KEY_ID'"),
    "an unknown group": (["usage", "--by", "key,age"], "Invalid value for --by: 'age' is none of organisation, team"),
    "no date": (["usage", "--since", "yesterday"], "Invalid value for --since: 'yesterday' is not an ISO 8601 date"),
    "no date either": (["usage", "--until", "1767225600"], "Invalid value for --until"),
}


@pytest.mark.parametrize(("arguments", "said"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_wrong_options(arguments: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_here(*arguments, monkeypatch=monkeypatch, cwd=tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Usage: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_life_of_a_key_without_a_server(tmp_path: Path) -> None:
    assert "There are no keys yet" in printed("keys", "list", cwd=tmp_path)
    assert data("keys", "list", cwd=tmp_path) == []
    options = ["--rpm", "5", "--tpm", "1000", "--concurrency", "2", "--routes", "chat, other", "--expires", "30d"]
    options += ["--max-budget", "12.5", "--budget-duration", "30d"]
    created = data("keys", "create", "--name", "bot", *options, "--scopes", "tracking,admin", cwd=tmp_path)
    assert next(iter(created)) == "id"
    secret = created.pop("key")
    assert re.fullmatch(r"sk-py-[\w-]{43}", secret)
    assert created | {"created_at": 0, "expires_at": 0} == {
        "id": created["id"],
        "name": "bot",
        "team_id": None,
        "organisation_id": None,
        "scopes": ["admin", "tracking"],
        "routes": ["chat", "other"],
        "denied_routes": [],
        "rpm": 5,
        "tpm": 1000,
        "concurrency": 2,
        "rpd": None,
        "window": "sliding",
        "tpd": None,
        "max_budget": 12.5,
        "budget_duration": "30d",
        "soft_budget": None,
        "user_limits": None,
        "created_at": 0,
        "expires_at": 0,
        "revoked_at": None,
        "blocked_at": None,
        "tags": [],
        "metadata": {},
        "state": "active",
    }
    assert created["expires_at"] - created["created_at"] == pytest.approx(30 * 86400, abs=1)
    assert data("keys", "list", cwd=tmp_path) == [created]
    table = printed("keys", "list", cwd=tmp_path)
    assert secret not in table
    assert re.search(rf"{created['id']} +bot +active +admin,tracking +chat,other +5 +1000 +2 +12\.5 +\d{{4}}-", table)
    assert data("keys", "revoke", created["id"], cwd=tmp_path) == {"id": created["id"], "revoked": True}
    assert "is revoked" in printed("keys", "revoke", created["id"], cwd=tmp_path)
    assert data("keys", "list", cwd=tmp_path)[0]["state"] == "revoked"
    done = run("keys", "revoke", "key_nope", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "key_nope" in done.stderr


def test_a_script_reads_the_secret_alone(tmp_path: Path) -> None:
    done = run("keys", "create", "--name", "bot", cwd=tmp_path)
    assert re.fullmatch(r"sk-py-[\w-]{43}\n", done.stdout)
    assert "only time" in done.stderr


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x1b[31m", "a\nb", os.fsdecode(b"a\xff")], ids=repr)
def test_a_name_that_cannot_be_shown(name: str, tmp_path: Path) -> None:
    done = run("keys", "create", "--name", name, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for --name: A key needs a name of 1 to 200 printable characters." in done.stderr
    assert data("keys", "list", cwd=tmp_path) == []


def test_a_secret_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    secret = data("keys", "create", "--name", "bot", cwd=tmp_path)["key"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.removeprefix("sk-py-").encode() in path.read_bytes()]


@pytest.mark.parametrize("where", ["option", "setting", "default", "home"])
def test_the_data_folder(where: str, tmp_path: Path) -> None:
    folder = {"default": "data", "home": "mine"}.get(where, "a b%41#?ü")
    option = {"option": ["--data", folder], "home": ["--data", "~/mine"]}.get(where, [])
    env = {"DATA": folder} if where == "setting" else {}
    home = {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "keys", "create", "--name", "bot", *option],
        cwd=tmp_path,
        env=environment({f"PROMPTYARD_{name}": value for name, value in env.items()}, "cli") | home,
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"sk-py-")
    assert (tmp_path / folder / "gateway.db").is_file()


def unusable(kind: str, home: Path) -> Path:
    """A data folder that cannot be one."""
    path = home / "data"
    match kind:
        case "a file":
            path.touch()
        case "below a file":
            path.touch()
            return path / "deeper"
        case "a garbled database":
            path.mkdir()
            (path / "gateway.db").write_bytes(b"this is not a database" * 100)
        case "a folder as database":
            (path / "gateway.db").mkdir(parents=True)
        case "not ours to write":
            path.mkdir()
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
            if os.access(path, os.W_OK):
                pytest.skip("root may write everywhere")
    return path


@pytest.mark.parametrize(
    "kind", ["a file", "below a file", "a garbled database", "a folder as database", "not ours to write"]
)
@pytest.mark.parametrize("command", ["serve --port 0 --no-lab", "keys list", "keys create --name a", "usage"])
def test_a_data_folder_that_cannot_be_used(kind: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(GOOD)
    path = unusable(kind, tmp_path)
    done = run(*command.split(), "--data", path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(path) in done.stderr


def test_a_journal_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(GOOD)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "journal").touch()
    done = run("serve", "--port", "0", "--no-lab", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "journal" in done.stderr


@pytest.mark.parametrize("url", ["postgresql://me:s3cret-word@127.0.0.1:1/db", "postgresql://me:s3cret-word@[::1/db",
                                 "postgresql://me:s3cret-word@no.such.host.invalid/db", "mysql://me:s3cret-word@h/db",
                                 "postgresql://me:s3cret-word@127.0.0.1:port/db"])  # fmt: skip
@pytest.mark.parametrize("command", ["serve --port 0 --no-lab", "keys list", "usage --json"])
def test_a_database_that_cannot_be_used(url: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(GOOD)
    done = run(*command.split(), cwd=tmp_path, DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "database" in done.stderr.lower()
    assert "s3cret-word" not in done.stderr
