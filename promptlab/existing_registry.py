"""What a call to the registry names: the model or the version, or the error that says why it cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptlab.entities import Tag
from promptlab.entities_registry import IS_PROMPT, LATEST, ModelVersion, RegisteredModel
from promptlab.errors import AlreadyExists, InvalidParameter, NotFound
from promptlab.store import Connection, model_versions, registered_models


def model(connection: Connection, name: str) -> RegisteredModel:
    """The model of that name. Raises `NotFound`."""
    found = registered_models.find(connection, name)
    if found is None:
        raise no_model(name)
    return found


def own_model(connection: Connection, name: str) -> int:
    """The number of the model of that name, which nobody else changes until the transaction ends."""
    number = registered_models.lock(connection, name)
    if number is None:
        raise no_model(name)
    return number


def version(connection: Connection, name: str, wanted: int) -> ModelVersion:
    """That version of a model, with its aliases. Raises `NotFound`, of the version, where there is no model too."""
    number = registered_models.number(connection, name)
    found = None if number is None else model_versions.find(connection, number, wanted)
    if number is None or found is None:
        raise no_version(name, wanted)
    named = registered_models.aliases(connection, number)
    return replace(found, aliases=tuple(alias for alias, version in named.items() if version == wanted))


def own_version(connection: Connection, name: str, wanted: int) -> tuple[int, ModelVersion]:
    """The model's number and that version of it, which nobody else changes until the transaction ends."""
    number = registered_models.lock(connection, name)
    found = None if number is None else model_versions.find(connection, number, wanted)
    if number is None or found is None:
        raise no_version(name, wanted)
    return number, found


def version_by_alias(connection: Connection, name: str, alias: str) -> ModelVersion:
    """The version that the alias stands for, `latest` for the highest, with its aliases."""
    number = registered_models.number(connection, name)
    if number is None:
        raise no_model(name)
    if alias.lower() == LATEST:
        highest = model_versions.highest(connection, number)
        if highest is None:
            raise NotFound(f"Latest version not found for model {name}.")
        return version(connection, name, highest)
    wanted = registered_models.aliases(connection, number).get(alias)
    if wanted is None:
        # Not `NotFound`: MLflow answers 400 here, and its clients rely on it.
        raise InvalidParameter(f"Registered model alias {alias} not found.")
    return version(connection, name, wanted)


def no_model(name: str) -> NotFound:
    """The error for a name that no registered model has."""
    return NotFound(f"Registered Model with name={name} not found")


def no_version(name: str, wanted: int) -> NotFound:
    """The error for a version that is not there, or no more."""
    return NotFound(f"Model Version (name={name}, version={wanted}) not found")


def name_taken(connection: Connection, name: str, tags: Sequence[Tag]) -> AlreadyExists:
    """The error for a new model or prompt whose name another has. It says which of both that is."""
    old = _kind(model(connection, name).tags)
    new = _kind(tags)
    if old == new:
        return AlreadyExists(f"{new} (name={name}) already exists.")
    return AlreadyExists(
        f"Tried to create a {new.lower()} with name {name!r}, but the name is already taken by a {old.lower()}. "
        "MLflow does not allow creating a model and a prompt with the same name."
    )


def _kind(tags: Sequence[Tag]) -> str:
    return "Prompt" if any(tag.key == IS_PROMPT for tag in tags) else "Registered Model"
