"""Settings of this process, from the environment: the only module that reads it."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from gateway import strict
from gateway.errors import ConfigError, Problem

log = logging.getLogger(__name__)

PREFIX = "PROMPTYARD_"
# Read by the tests and the benchmark alone, so `serve` must not refuse to start beside them.
_FOREIGN = (PREFIX + "TEST_", PREFIX + "BENCH_")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SQL = ("postgresql", "postgres", "postgresql+psycopg")
_REDIS = ("redis", "rediss", "unix")


def _size(value: object) -> object:
    """Bytes of `64MiB`, `100 MB` or `1048576`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise strict.refusal(f"must be a size, not {strict.shown(value)}. For example: 64MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _home(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) else value


def _address(schemes: tuple[str, ...], example: str) -> BeforeValidator:
    """Accept an address with one of `schemes`. Its text may hold a password, so it is never shown."""

    def check(value: object) -> object:
        if isinstance(value, str) and value.partition("://")[0] not in schemes:
            kinds = ", ".join(f"{scheme}://" for scheme in schemes)
            raise strict.refusal(f"must begin with one of {kinds}. For example: {example}")
        return value

    return BeforeValidator(check)


def _redis_parts(value: object) -> object:
    """Refuse what cannot be taken apart: the library behind repeats the part of a password it takes for a port."""
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        whole = (parts.port or 1) > 0
    except ValueError:
        whole = False
    # Where a bare / ends the host early, the rest of the password follows, and the host behind its @.
    if not whole or (parts.scheme != "unix" and "@" in parts.path + parts.fragment):
        raise strict.refusal(
            "must be an address with a number for its port. In a password write / as %2F, ? as %3F, # as %23, "
            "[ as %5B and ] as %5D. For example: redis://:password@127.0.0.1:6379/0"
        )
    return value


def _admin_key(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value):
        raise strict.refusal(
            "must be printable ASCII without spaces, and not empty. For example the output of: openssl rand -hex 32"
        )
    return value


def _place(value: object) -> object:
    if isinstance(value, str) and not re.match(r"[a-z][a-z0-9+.-]*://.", value):
        raise strict.refusal("must be an address that fsspec knows. For example: s3://bucket/folder")
    return value


Location = Annotated[Path, BeforeValidator(_home)]


class Settings(BaseModel):
    """What this process was told by its environment and command line. Immutable; secrets cannot be printed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    data: Location = Field(Path("./data"), description="Folder for databases, journal and artifacts")
    config: Location = Field(Path("routes.yaml"), description="The file that describes providers and routes")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; a public one needs an admin key")
    port: int = Field(4000, ge=0, le=65535, examples=["4000"], description="Port to listen on; 0 picks a free one")
    database_url: Annotated[SecretStr, _address(_SQL, "postgresql://user:password@host/promptyard")] | None = Field(
        None, description="PostgreSQL to use instead of SQLite files in the data folder"
    )
    redis_url: (
        Annotated[SecretStr, BeforeValidator(_redis_parts), _address(_REDIS, "redis://127.0.0.1:6379/0")] | None
    ) = Field(None, description="Redis that counts limits, and keeps cached answers, for several processes")
    admin_key: Annotated[SecretStr, BeforeValidator(_admin_key)] | None = Field(
        None, description="Key that may manage; without one the server is protected: loopback only"
    )
    admin_key_file: Location | None = Field(None, description="File that holds the admin key")
    max_body: Annotated[int, BeforeValidator(_size)] = Field(
        64 * 2**20, ge=1, examples=["64MiB"], description="Largest body of an inference request, in bytes or as 64MiB"
    )
    body_timeout: float = Field(
        60.0,
        gt=0,
        le=86400,
        examples=["60"],
        description="Seconds a caller may take to send the body of an inference request",
    )
    artifacts: Annotated[SecretStr, BeforeValidator(_place)] | None = Field(
        None, description="Where artifacts are kept instead of the data folder, such as s3://bucket/folder"
    )
    max_artifact: Annotated[int, BeforeValidator(_size)] | None = Field(
        None, ge=1, description="Largest artifact, in bytes or as 5GiB"
    )
    drain: float = Field(
        30.0,
        ge=0,
        le=86400,
        examples=["30"],
        description="Seconds that calls under way may take to end after SIGTERM; Ctrl-C gives them less than two",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        examples=["2"],
        description="Processes that answer calls; more than one needs a Redis, and shares one port with the rest",
    )
    private_webhooks: bool = Field(
        False,
        examples=["true"],
        description="Whether webhooks of the registry may go inside your own network",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least level that is logged: debug, info, warning or error"
    )
    lab: bool = Field(True, examples=["false"], description="Whether the lab is served")

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **flags: object) -> Self:
        """Settings from the environment, with `flags` of the command line (None: not given) over it.

        An empty variable counts as unset, but for the admin key: there an empty value would
        silently open the server. Raises `ConfigError` with every problem at once.
        """
        environment = os.environ if environment is None else environment
        given, names, problems = _read(cls, environment)
        for name, value in flags.items():
            if value is not None:
                given[name], names[name] = value, "--" + name.replace("_", "-")
        problems += _read_admin_key(given, names)
        try:
            settings = cls.model_validate(given)
            problems += _check_workers(settings, names)
        except ValidationError as error:
            found = strict.complaints(error, cls, given, lambda path, value: _show(cls, path, value))
            problems += [Problem("", None, names[str(path[0])], message) for path, message in found]
        if problems:
            # `from None`: pydantic's own report would print the values we hide.
            raise ConfigError.of(problems) from None
        return settings


def _read(
    model: type[Settings], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """Values by field, the variable each came from, and the variables nobody knows."""
    variables = {PREFIX + name.upper(): name for name in model.model_fields}
    given: dict[str, Any] = {}
    problems = []
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable.startswith(_FOREIGN):
            continue
        if variable not in variables:
            fix = strict.nearest(variable, variables) or f" Known: {', '.join(variables)}."
            problems.append(Problem("", None, variable, f"is not a setting.{fix}"))
        elif environment[variable] or variables[variable] == "admin_key":
            given[variables[variable]] = environment[variable]
    return given, {name: variable for variable, name in variables.items()}, problems


def _read_admin_key(given: dict[str, Any], names: dict[str, str]) -> list[Problem]:
    """Put the content of the admin key's file where the key itself would stand."""
    if "admin_key_file" not in given:
        return []
    name = names["admin_key_file"]
    if "admin_key" in given:
        return [Problem("", None, name, f"is set together with {names['admin_key']}. Set one of the two.")]
    try:
        given["admin_key"] = Path(given["admin_key_file"]).expanduser().read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return [Problem("", None, name, f"cannot read {strict.shown(str(given['admin_key_file']))}: {why}.")]
    names["admin_key"] = name
    return []


def _check_workers(settings: Settings, names: Mapping[str, str]) -> list[Problem]:
    """Several processes that each counted alone would each let a limit's whole height through."""
    if settings.workers == 1 or settings.redis_url is not None:
        return []
    why = (
        f"{settings.workers} workers need a Redis to count limits and budgets in: each process alone would let all of "
        f"them through. Set {PREFIX}REDIS_URL, for example to redis://127.0.0.1:6379/0, or leave it at 1."
    )
    return [Problem("", None, names["workers"], why)]


def _show(model: type[Settings], path: strict.Path, value: object) -> str:
    secret = "SecretStr" in str(model.model_fields[str(path[0])].annotation)
    return "what it is" if secret else strict.shown(value)


class Row(NamedTuple):
    """One setting as the manual shows it."""

    variable: str
    kind: str
    default: str
    description: str


_KINDS = {"data": "path", "config": "path", "admin_key_file": "path", "max_body": "size", "body_timeout": "seconds",
          "drain": "seconds", "artifacts": "secret", "max_artifact": "size",
          "database_url": "secret", "redis_url": "secret", "admin_key": "secret", "host": "text", "port": "number",
          "workers": "number",
          "log_level": "word", "lab": "true/false", "private_webhooks": "true/false"}  # fmt: skip
_DEFAULTS = {
    "data": "./data",
    "max_body": "64MiB",
    "body_timeout": "60",
    "drain": "30",
    "lab": "true",
    "private_webhooks": "false",
}


def table() -> list[Row]:
    """Every setting in the order of the manual."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = _DEFAULTS.get(name) or ("" if field.default is None else str(field.default))
        rows.append(Row(PREFIX + name.upper(), _KINDS[name], default, field.description or ""))
    return rows


def as_markdown() -> str:
    """The table of settings as README shows it."""
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for row in table():
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.variable}` | {row.kind} | {default} | {row.description} |")
    return "\n".join(lines) + "\n"


def environment() -> Mapping[str, str]:
    """A copy of the environment as it is now, for the `${NAME}` in `routes.yaml`."""
    return dict(os.environ)


class Tracing(NamedTuple):
    """How traces are handed over: calls that may wait, calls a request carries, seconds between two requests."""

    waiting: int
    batch: int
    delay: float


def tracing(environment: Mapping[str, str] | None = None) -> Tracing | None:
    """How traces are exported, by OpenTelemetry's own variables; None: they are not.

    Where to, with which headers and how many is read by its SDK itself, from the same environment:
    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
    """
    said = os.environ if environment is None else environment
    places = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    exporters = said.get("OTEL_TRACES_EXPORTER") or "otlp"
    disabled = said.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or "otlp" not in re.split(r"[,\s]+", exporters) or not any(said.get(place) for place in places):
        return None
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := said.get(variable):
            if protocol != "http/protobuf":
                log.warning("No traces are exported: %s must be http/protobuf, the one protocol spoken here.", variable)
                return None
            break
    most = _whole(said.get("OTEL_BSP_MAX_QUEUE_SIZE"), 2048)
    batch = min(most, _whole(said.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 512))
    return Tracing(most, batch, _whole(said.get("OTEL_BSP_SCHEDULE_DELAY"), 5000) / 1000)


def _whole(text: str | None, default: int) -> int:
    """A number of one or more. What is none counts as unset, as OpenTelemetry's SDK has it."""
    return int(text) if text and re.fullmatch(r"0*[1-9]\d{0,8}", text.strip()) else default


def price_map_file() -> Path | None:
    """The price table that litellm ships, found without importing litellm. None: not installed."""
    return _shipped("model_prices_and_context_window_backup.json")


def tokenizer_folder() -> Path | None:
    """The encodings that litellm ships under tiktoken's cache names. None: not installed."""
    return _shipped("litellm_core_utils/tokenizers")


def _shipped(name: str) -> Path | None:
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, name)).exists():
            return path
    return None


def quieten_libraries() -> None:
    """Keep libraries off the network: tiktoken, litellm and Gradio read these when they are imported.

    What the operator has set stays. Called once, before any of them is imported.
    """
    wanted = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "GRADIO_ANALYTICS_ENABLED": "False"}
    if (folder := tokenizer_folder()) is not None:
        wanted["TIKTOKEN_CACHE_DIR"] = str(folder)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
