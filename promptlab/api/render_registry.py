"""The registry's words as MLflow's messages. What is unset is left out, as on MLflow's wire."""

from __future__ import annotations

from typing import Any

from promptlab.api.render import label
from promptlab.entities_registry import ModelVersion, RegisteredModel


def model(found: RegisteredModel) -> dict[str, Any]:
    """A `RegisteredModel` message."""
    shown: dict[str, Any] = {
        "name": found.name,
        "creation_timestamp": found.created,
        "last_updated_timestamp": found.updated,
    }
    if found.description:
        shown["description"] = found.description
    if found.latest:
        shown["latest_versions"] = [version(one) for one in found.latest]
    if found.tags:
        shown["tags"] = [label(tag) for tag in found.tags]
    if found.aliases:
        shown["aliases"] = [{"alias": one.alias, "version": str(one.version)} for one in found.aliases]
    return shown


def version(found: ModelVersion) -> dict[str, Any]:
    """A `ModelVersion` message."""
    shown: dict[str, Any] = {
        "name": found.name,
        "version": str(found.version),
        "creation_timestamp": found.created,
        "last_updated_timestamp": found.updated,
        "current_stage": found.stage,
        "source": found.source,
        "run_id": found.run_id,
        "status": "READY",
        "run_link": found.run_link,
    }
    if found.description is not None:
        shown["description"] = found.description
    if found.tags:
        shown["tags"] = [label(tag) for tag in found.tags]
    if found.aliases:
        shown["aliases"] = list(found.aliases)
    return shown
