"""What the registry's names, tags and aliases may be: MLflow's limits and its texts.

Source: https://github.com/mlflow/mlflow/blob/master/mlflow/utils/validation.py
"""

from __future__ import annotations

import posixpath
import re

from promptlab.entities import Tag
from promptlab.entities_registry import ACTIVE_STAGES, LATEST, PROMPT_TEXT, STAGES
from promptlab.errors import InvalidParameter
from promptlab.limits import MAX_KEY, check_key, invalid_value

# Also the most that a prompt's text may be: it is a tag of its version.
MAX_TAG_VALUE = 100_000
MAX_ALIAS = 255
MAX_NAME = 256
# MLflow's PostgreSQL has room for less and answers 500, its SQLite for any; so these are ours.
MAX_DESCRIPTION = 100_000
MAX_SOURCE = 2048
MAX_RUN_ID = 256

_ALIAS = re.compile(r"[\w\-]+")
_VERSION_ALIAS = re.compile(r"[vV]\d+")


def check_name(name: str, path: str = "name") -> None:
    """Raise unless `name` can name a registered model."""
    if not name.strip():
        raise InvalidParameter(f"Missing value for required parameter '{path}'.")
    if "/" in name or ":" in name:
        raise InvalidParameter(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    normal = posixpath.normpath(name)
    if normal != name or normal == "." or normal.startswith(".."):
        raise InvalidParameter(
            invalid_value(
                "name",
                name,
                "Names may be treated as files in certain cases, and must not resolve to other names when "
                f"treated as such. This name would resolve to '{normal}'",
            )
        )
    check_length("name", MAX_NAME, name)


def check_length(what: str, limit: int, value: str | None) -> None:
    """Raise when `value` has more than `limit` letters."""
    if value is not None and len(value) > limit:
        raise InvalidParameter(f"'{what}' exceeds the maximum length of {limit} characters")


def check_tag(tag: Tag) -> None:
    """Raise unless `tag` may be set on a registered model or a version."""
    check_key(tag.key, "key")
    check_length("key", MAX_KEY, tag.key)
    if tag.key == PROMPT_TEXT and len(tag.value) > MAX_TAG_VALUE:
        raise InvalidParameter(f"Prompt text exceeds max length of {MAX_TAG_VALUE} characters.")
    check_length("value", MAX_TAG_VALUE, tag.value)


def check_alias(alias: str, *, new: bool) -> None:
    """Raise unless `alias` is one; a new one must not be reserved either."""
    if not alias:
        raise InvalidParameter("Registered model alias name cannot be empty.")
    if not _ALIAS.fullmatch(alias):
        raise InvalidParameter(
            f"Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    check_length("Registered model alias name", MAX_ALIAS, alias)
    if new and alias.lower() == LATEST:
        raise InvalidParameter("'latest' alias name (case insensitive) is reserved.")
    if new and _VERSION_ALIAS.fullmatch(alias):
        raise InvalidParameter(f"Version alias name '{alias}' is reserved.")


def parse_version(version: str) -> int:
    """The number of a version, from its string on the wire. Beyond 64 bits it is one that cannot exist."""
    if not re.fullmatch(r"[+-]?[0-9]+", version):
        raise InvalidParameter(f"Parameter 'version' must be an integer, got '{version}'.")
    return max(-(2**63), min(2**63 - 1, int(version[:40])))


def parse_stage(stage: str) -> str:
    """The stage of that name, in any case."""
    for known in STAGES:
        if known.lower() == stage.lower():
            return known
    raise InvalidParameter(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES)}.")


def check_archiving(stage: str) -> None:
    """Raise unless the other versions in `stage` may be archived: those in use only."""
    if parse_stage(stage) not in ACTIVE_STAGES:
        raise InvalidParameter(
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are {list(ACTIVE_STAGES)}"
        )
