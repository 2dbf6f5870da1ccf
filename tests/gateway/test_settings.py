"""Settings from the environment: defaults, forms, refusals, and no secret shown."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from gateway import settings
from gateway.errors import ConfigError
from gateway.settings import Settings

SECRET = "s3cret-value"
BAD_KEY = "must be printable ASCII without spaces, and not empty. For example the output of: openssl rand -hex 32"


def test_defaults_without_any_variable() -> None:
    found = Settings.load({"PATH": "/bin"})
    assert (found.data, found.config) == (Path("data"), Path("routes.yaml"))
    assert (found.host, found.port, found.max_body) == ("127.0.0.1", 4000, 64 * 2**20)
    assert (found.body_timeout, found.log_level, found.lab) == (60.0, "info", True)
    assert found.admin_key is found.redis_url is found.database_url is None


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("DATA", "~/yard", "data", Path.home() / "yard"),
        ("PORT", "0", "port", 0),
        ("PORT", "", "port", 4000),
        ("MAX_BODY", "1048576", "max_body", 2**20),
        ("MAX_BODY", "64MiB", "max_body", 64 * 2**20),
        ("MAX_BODY", "1.5 kb", "max_body", 1500),
        ("MAX_BODY", "2GiB", "max_body", 2**31),
        ("BODY_TIMEOUT", "2.5", "body_timeout", 2.5),
        ("LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("LAB", "false", "lab", False),
        ("LAB", "0", "lab", False),
    ],
)
def test_forms_of_a_value(name: str, text: str, field: str, value: object) -> None:
    assert getattr(Settings.load({f"PROMPTYARD_{name}": text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("PORT", "abc", "PROMPTYARD_PORT: must be a whole number, not 'abc'. For example: 4000"),
        ("PORT", "65536", "PROMPTYARD_PORT: must be at most 65535, not '65536'. For example: 4000"),
        ("MAX_BODY", "64XB", "PROMPTYARD_MAX_BODY: must be a size, not '64XB'. For example: 64MiB"),
        ("MAX_BODY", "0", "PROMPTYARD_MAX_BODY: must be at least 1, not 0. For example: 64MiB"),
        ("BODY_TIMEOUT", "-1", "PROMPTYARD_BODY_TIMEOUT: must be more than 0, not '-1'. For example: 60"),
        ("BODY_TIMEOUT", "nan", "PROMPTYARD_BODY_TIMEOUT: must be a finite number, not 'nan'. For example: 60"),
        ("LAB", "maybe", "PROMPTYARD_LAB: must be true or false, not 'maybe'. For example: false"),
        (
            "LOG_LEVEL",
            "warn",
            "PROMPTYARD_LOG_LEVEL: must be 'debug', 'info', 'warning' or 'error', not 'warn'. Did you mean 'warning'?",
        ),
        ("PROT", "4000", "PROMPTYARD_PROT: is not a setting. Did you mean 'PROMPTYARD_PORT'?"),
        (
            "REDIS_URL",
            f"http://:{SECRET}@redis",
            (
                "PROMPTYARD_REDIS_URL: must begin with one of redis://, rediss://, unix://. "
                "For example: redis://127.0.0.1:6379/0"
            ),
        ),
        (
            "DATABASE_URL",
            f"mysql://u:{SECRET}@db",
            (
                "PROMPTYARD_DATABASE_URL: must begin with one of postgresql://, postgres://, postgresql+psycopg://. "
                "For example: postgresql://user:password@host/promptyard"
            ),
        ),
        (
            "ADMIN_KEY",
            "",
            f"PROMPTYARD_ADMIN_KEY: {BAD_KEY}",
        ),
        (
            "ADMIN_KEY",
            f"{SECRET} {SECRET}",
            f"PROMPTYARD_ADMIN_KEY: {BAD_KEY}",
        ),
    ],
)
def test_refusals_name_the_variable_the_value_and_the_fix(name: str, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({f"PROMPTYARD_{name}": text})
    assert str(caught.value) == line
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}/x@r:6379",
        f"redis://:123/{SECRET}@r:6379",
        f"redis://:{SECRET}?x@r:6379",
        f"rediss://:{SECRET}#x@r:6379",
        f"redis://:{SECRET}[@r",
        f"redis://r:{SECRET}",
        "redis://r:65536",
    ],
)
def test_a_redis_address_that_cannot_be_taken_apart_is_refused_unseen(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"PROMPTYARD_REDIS_URL": text})
    assert str(caught.value).startswith("PROMPTYARD_REDIS_URL: must be an address with a number for its port. ")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "text", ["redis://r", "rediss://u:p%2Fw@[::1]:6379/1?db=2", "unix:///run/a@b.sock?db=1", "redis://:a@b@r:1/0"]
)
def test_a_redis_address_is_taken_as_it_is(text: str) -> None:
    found = Settings.load({"PROMPTYARD_REDIS_URL": text}).redis_url
    assert found is not None
    assert found.get_secret_value() == text


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"PROMPTYARD_PORT": "x", "PROMPTYARD_LAB": "x", "PROMPTYARD_HOTS": "x"})
    assert {problem.key for problem in caught.value.problems} == {
        "PROMPTYARD_PORT",
        "PROMPTYARD_LAB",
        "PROMPTYARD_HOTS",
    }


def test_variables_of_the_tests_and_the_benchmark_are_left_alone() -> None:
    assert Settings.load({"PROMPTYARD_TEST_SOAK": "1", "PROMPTYARD_BENCH_SECONDS": "9"}) == Settings.load({})


def test_flags_come_before_the_environment_and_are_named_in_refusals() -> None:
    given = {"PROMPTYARD_PORT": "5000", "PROMPTYARD_HOST": "::1"}
    found = Settings.load(given, port=6000, host=None)
    assert (found.port, found.host) == (6000, "::1")
    with pytest.raises(ConfigError, match=r"^--port: must be at most 65535, not 70000\. For example: 4000$"):
        Settings.load(given, port=70000)


def test_secrets_cannot_be_printed() -> None:
    found = Settings.load(
        {
            "PROMPTYARD_ADMIN_KEY": SECRET,
            "PROMPTYARD_REDIS_URL": f"redis://:{SECRET}@r",
            "PROMPTYARD_DATABASE_URL": f"postgresql://u:{SECRET}@d/p",
        }
    )
    assert SECRET not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"
    assert found.admin_key is not None
    assert found.admin_key.get_secret_value() == SECRET


def test_the_admin_key_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    found = Settings.load({"PROMPTYARD_ADMIN_KEY_FILE": str(tmp_path / "key")})
    assert found.admin_key is not None
    assert found.admin_key.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("content", "also", "message"),
    [
        (None, {}, "cannot read 'key': No such file or directory."),
        (b"\xff\xfe", {}, "cannot read 'key': not UTF-8 text."),
        (
            b"",
            {},
            BAD_KEY,
        ),
        (b"one", {"PROMPTYARD_ADMIN_KEY": "two"}, "is set together with PROMPTYARD_ADMIN_KEY. Set one of the two."),
    ],
)
def test_a_bad_admin_key_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, also: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("key").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Settings.load({"PROMPTYARD_ADMIN_KEY_FILE": "key", **also})
    assert str(caught.value) == f"PROMPTYARD_ADMIN_KEY_FILE: {message}"


def test_the_table_has_a_row_for_each_setting_and_its_defaults_are_the_real_ones() -> None:
    rows = settings.table()
    assert [row.variable for row in rows] == [f"PROMPTYARD_{name.upper()}" for name in Settings.model_fields]
    assert all(row.description and row.kind for row in rows)
    stated = {row.variable: row.default for row in rows if row.default}
    assert Settings.load(stated) == Settings.load({})
    unstated = {row.variable.removeprefix("PROMPTYARD_").lower() for row in rows if not row.default}
    assert all(getattr(Settings.load({}), name) is None for name in unstated)


def test_the_markdown_shows_every_row() -> None:
    lines = settings.as_markdown().splitlines()
    assert len(lines) == len(settings.table()) + 2
    assert lines[2] == "| `PROMPTYARD_DATA` | path | `./data` | Folder for databases, journal and artifacts |"


def test_litellm_s_files_are_found_without_importing_it() -> None:
    before = "litellm" in sys.modules
    prices, encodings = settings.price_map_file(), settings.tokenizer_folder()
    assert prices is not None
    assert prices.is_file()
    assert encodings is not None
    assert any(encodings.iterdir())
    assert ("litellm" in sys.modules) == before


def test_without_litellm_there_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert settings.price_map_file() is settings.tokenizer_folder() is None


def test_libraries_are_kept_off_the_network_unless_the_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "TIKTOKEN_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # noted, so that it is restored
        monkeypatch.delenv(name)
    settings.quieten_libraries()
    found = settings.environment()
    assert found["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert found["TIKTOKEN_CACHE_DIR"] == str(settings.tokenizer_folder())
    assert found["GRADIO_ANALYTICS_ENABLED"] == "True"
