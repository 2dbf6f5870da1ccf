"""Registered models over HTTP, prompts among them, with their tags and aliases."""

from __future__ import annotations

from typing import Any

from promptlab.api import render_registry
from promptlab.api.wire import KEY_VALUE, Arguments, Endpoints, Field, ListOf, integer, message, required, string
from promptlab.entities import Tag
from promptlab.lab import Lab

_NAME = {"name": required(string)}
_ALIAS = {**_NAME, "alias": required(string)}
_TAGS = Field(ListOf(message(KEY_VALUE)), default=())
_SEARCH = {
    "filter": Field(string, default=""),
    "max_results": Field(integer, default=100),
    "order_by": Field(ListOf(string), default=()),
    "page_token": Field(string),
}
_LATEST = {**_NAME, "stages": Field(ListOf(string), default=())}

served = Endpoints()


@served.post("registered-models/create", {**_NAME, "tags": _TAGS, "description": Field(string)})
def create(lab: Lab, call: Arguments) -> Any:
    """A new registered model, without versions."""
    tags = [Tag(**tag) for tag in call["tags"]]
    return {
        "registered_model": render_registry.model(lab.registry.create_model(call["name"], call["description"], tags))
    }


@served.get("registered-models/get", _NAME)
def get(lab: Lab, call: Arguments) -> Any:
    """The registered model of that name, with the latest version of each stage."""
    return {"registered_model": render_registry.model(lab.registry.model(call["name"]))}


@served.patch("registered-models/update", {**_NAME, "description": Field(string, default="")})
def update(lab: Lab, call: Arguments) -> Any:
    """The registered model with another description."""
    return {"registered_model": render_registry.model(lab.registry.update_model(call["name"], call["description"]))}


@served.post("registered-models/rename", {**_NAME, "new_name": required(string)})
def rename(lab: Lab, call: Arguments) -> Any:
    """The registered model under its new name."""
    return {"registered_model": render_registry.model(lab.registry.rename_model(call["name"], call["new_name"]))}


@served.delete("registered-models/delete", _NAME)
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove a registered model and its versions."""
    lab.registry.delete_model(call["name"])
    return {}


# R asks with POST, which MLflow's own server does not answer.
@served.post("registered-models/search", _SEARCH)
@served.get("registered-models/search", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the registered models a filter finds, and the token of the next page if there is one."""
    page = lab.registry.search_models(call["filter"], call["order_by"], call["max_results"], call["page_token"])
    answer: dict[str, Any] = {}
    if page.items:
        answer["registered_models"] = [render_registry.model(found) for found in page.items]
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.post("registered-models/get-latest-versions", _LATEST)
@served.get("registered-models/get-latest-versions", _LATEST)
def latest_versions(lab: Lab, call: Arguments) -> Any:
    """The highest version of each stage asked for."""
    found = lab.registry.latest_versions(call["name"], call["stages"])
    return {"model_versions": [render_registry.version(one) for one in found]} if found else {}


@served.post("registered-models/set-tag", {**_NAME, **KEY_VALUE})
def set_tag(lab: Lab, call: Arguments) -> Any:
    """Set a tag of a registered model, in place of one with that key."""
    lab.registry.set_model_tag(call["name"], Tag(call["key"], call["value"]))
    return {}


@served.delete("registered-models/delete-tag", {**_NAME, "key": required(string)})
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a registered model."""
    lab.registry.delete_model_tag(call["name"], call["key"])
    return {}


@served.post("registered-models/alias", {**_ALIAS, "version": required(string)})
def set_alias(lab: Lab, call: Arguments) -> Any:
    """Let an alias stand for a version."""
    lab.registry.set_alias(call["name"], call["alias"], call["version"])
    return {}


@served.delete("registered-models/alias", _ALIAS)
def delete_alias(lab: Lab, call: Arguments) -> Any:
    """Take an alias from a registered model."""
    lab.registry.delete_alias(call["name"], call["alias"])
    return {}


@served.get("registered-models/alias", _ALIAS)
def version_by_alias(lab: Lab, call: Arguments) -> Any:
    """The version that an alias stands for."""
    return {"model_version": render_registry.version(lab.registry.version_by_alias(call["name"], call["alias"]))}
