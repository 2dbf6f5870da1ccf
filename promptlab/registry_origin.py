"""The rule of where a model version comes from: its source, where its files are, and the run it is of."""

from __future__ import annotations

from typing import NamedTuple

from promptlab import existing, existing_registry, limits_registry, sources
from promptlab.entities_models import LoggedModel
from promptlab.entities_registry import ModelVersion, NewVersion, says_prompt
from promptlab.errors import InvalidParameter, NotFound
from promptlab.store import Connection, logged_models


class Origin(NamedTuple):
    """What is stored: the source as it is told to clients, where the files are, and the run or an empty string."""

    source: str
    location: str
    run_id: str


def origin_of(connection: Connection, new: NewVersion) -> Origin:
    """Where `new` comes from. Raises `InvalidParameter` for what is not its run's or logged model's own."""
    if says_prompt(new.tags):
        sources.check_prompt(new.source)
        return Origin(new.source, new.source, new.run_id or "")
    uri = sources.parse_models_uri(new.source)
    if uri is not None and uri.name is not None:
        return _of_version(connection, new, uri.name, uri)
    logged = None
    if new.model_id:
        logged = _logged_model(connection, new.model_id)
        sources.check(new.source, "model_id", new.model_id, None if logged is None else logged.artifact_uri)
        if logged is None:
            raise sources.foreign(new.source, "model_id")
    else:
        run_id = new.run_id or ""
        sources.check(new.source, "run_id", run_id, _run_artifacts(connection, run_id))
    location = new.source if uri is None or logged is None else logged.artifact_uri
    return Origin(new.source, location, new.run_id or ("" if logged is None else logged.source_run_id))


def _logged_model(connection: Connection, model_id: str) -> LoggedModel | None:
    found = logged_models.find(connection, model_id)
    return None if found is None or found.deleted else found


def _run_artifacts(connection: Connection, run_id: str) -> str | None:
    if not run_id:
        return None
    try:
        return existing.run(connection, run_id).artifact_uri
    except NotFound:
        return None


def _of_version(connection: Connection, new: NewVersion, name: str, uri: sources.ModelUri) -> Origin:
    model = existing_registry.model(connection, name)
    if says_prompt(model.tags):
        raise InvalidParameter(
            f"Invalid model version source: '{new.source}'. Prompt versions cannot be used as model version sources."
        )
    found = _named(connection, name, uri)
    if new.run_id not in (None, found.run_id) or new.model_id:
        raise InvalidParameter(
            f"Invalid model version source: '{new.source}'. The run_id and model_id request parameters must match "
            "the referenced model version."
        )
    return Origin(f"models:/{name}/{found.version}", found.location, found.run_id)


def _named(connection: Connection, name: str, uri: sources.ModelUri) -> ModelVersion:
    if uri.version is not None:
        return existing_registry.version(connection, name, limits_registry.parse_version(uri.version))
    if uri.stage is None:
        return existing_registry.version_by_alias(connection, name, uri.alias or "latest")
    stage = limits_registry.parse_stage(uri.stage)
    for found in existing_registry.model(connection, name).latest:
        if found.stage == stage:
            return found
    raise NotFound(f"No versions of model with name '{name}' and stage '{uri.stage}' found")
