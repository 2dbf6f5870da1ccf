"""Where a model version may say that its files are. Pure; errors in MLflow's words.

A source is never opened by this server, but clients open it, and a path on somebody else's machine, or
in another run's folder, would hand out what its reader may not see.

Source: https://github.com/mlflow/mlflow/blob/master/mlflow/server/handlers.py
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus, urlsplit

from promptlab.errors import InvalidParameter

PROMPT_SOURCES = ("dummy-source", "prompt-template")
_PROXY = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass(frozen=True, slots=True)
class ModelUri:
    """What a `models:/` URI names: a logged model by its id, or a version by its number, stage or alias."""

    model_id: str | None = None
    name: str | None = None
    version: str | None = None
    stage: str | None = None
    alias: str | None = None


def parse_models_uri(source: str) -> ModelUri | None:
    """What `source` names, or None where it is no `models:` URI. Raises for one that names nothing."""
    scheme, authority, path = _split(source)
    if scheme != "models":
        return None
    if authority:
        raise InvalidParameter(
            f"Invalid model version source: '{source}'. Registered model sources must use the active model registry."
        )
    parts = path.lstrip("/").split("/")
    if not path.startswith("/") or len(parts) > 2 or not all(part.strip() for part in parts):
        raise foreign(source, "model_id")
    if len(parts) == 1:
        name, at, alias = parts[0].rpartition("@")
        if not at:
            return ModelUri(model_id=parts[0])
        if not alias.strip():
            raise foreign(source, "model_id")
        return ModelUri(name=name, alias=alias)
    name, suffix = parts
    if suffix.isascii() and suffix.isdigit():
        return ModelUri(name=name, version=suffix)
    return ModelUri(name=name) if suffix.lower() == "latest" else ModelUri(name=name, stage=suffix)


def check_prompt(source: str) -> None:
    """Raise unless `source` is one of the words that stand where a prompt has no files."""
    if source not in PROMPT_SOURCES:
        raise InvalidParameter(f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder.")


def check(source: str, owner: str, owner_id: str, root: str | None) -> None:
    """Raise unless `source` is elsewhere, or within `root`: the artifacts of the run or logged model it is of.

    `owner` is the field that names it, `run_id` or `model_id`; `root` is None where it names nothing.
    """
    scheme, authority, path = _split(source)
    if scheme in ("", "file"):
        if root is None or not _is_local_within(source, root):
            raise InvalidParameter(
                f"Invalid model version source: '{source}'. To use a local path as a model version source, the {owner} "
                "request parameter has to be specified and the local path has to be contained within the artifact "
                f"directory of the run specified by the {owner}."
            )
        return
    _check_absolute(source)
    if scheme in ("runs", "models"):
        named = path.lstrip("/").partition("/")[0]
        fits = scheme == ("runs" if owner == "run_id" else "models") and named == owner_id
        if authority or (not fits and not _is_version(source)):
            raise foreign(source, "model_id" if scheme == "models" else owner)
    elif _is_proxied(source) and (root is None or not _is_within(source, root)):
        raise foreign(source, owner)


def foreign(source: str, owner: str) -> InvalidParameter:
    """The error that says that `owner` does not name what `source` is part of."""
    return InvalidParameter(
        f"Invalid model version source: '{source}'. The {owner} request parameter must identify the resource that "
        "contains the source."
    )


def _is_version(source: str) -> bool:
    uri = parse_models_uri(source)
    return uri is not None and uri.name is not None


def _split(uri: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise InvalidParameter(f"Invalid model version source: '{uri}'.") from None
    return parts.scheme.lower(), parts.netloc.lower(), parts.path


def _check_absolute(source: str) -> None:
    plain = source
    while (unquoted := unquote_plus(plain)) != plain:
        plain = unquoted
    path = re.sub(r"/+", "/", _split(plain)[2].rstrip("/"))
    absolute = path.startswith("/") and posixpath.normpath(path) == path
    if "\0" in path or ".." in plain.split("/") or not absolute:
        raise InvalidParameter(
            f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, "
            "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references "
            "present. Please provide an absolute path."
        )


def _is_local_within(source: str, root: str) -> bool:
    if _split(root)[0] not in ("", "file"):
        return False
    folder = _local_path(root)
    inside = _local_path(source)
    return folder.startswith("/") and (inside == folder or inside.startswith(f"{folder.rstrip('/')}/"))


def _local_path(uri: str) -> str:
    scheme, authority, path = _split(uri)
    if scheme == "file":
        return posixpath.normpath(unquote(path)) if authority in ("", "localhost") else ""
    return posixpath.normpath(uri)


def _is_proxied(source: str) -> bool:
    scheme, _, parts = _parts(source)
    return scheme == "mlflow-artifacts" or (scheme in ("http", "https") and _PROXY in f"/{'/'.join(parts)}/")


def _is_within(source: str, root: str) -> bool:
    scheme, authority, parts = _parts(source)
    root_scheme, root_authority, root_parts = _parts(root)
    same = (scheme, authority) == (root_scheme, root_authority)
    return same and bool(root_parts) and parts[: len(root_parts)] == root_parts


def _parts(uri: str) -> tuple[str, str, tuple[str, ...]]:
    scheme, authority, path = _split(uri)
    return scheme, authority, tuple(_unquoted(part) for part in path.split("/") if part)


def _unquoted(part: str) -> str:
    while (unquoted := unquote(part)) != part:
        part = unquoted
    return part
