"""Model versions over HTTP, those of prompts among them, and the files of a version."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from promptlab.api import artifacts, render_registry
from promptlab.api.wire import (
    KEY_VALUE,
    Arguments,
    Endpoints,
    Field,
    ListOf,
    arguments,
    boolean,
    guarded,
    integer,
    message,
    required,
    string,
)
from promptlab.artifacts import proxied_path
from promptlab.entities import Tag
from promptlab.entities_registry import NewVersion
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab
from promptlab.ports import Stored

_ID = {"name": required(string), "version": required(string)}
_ANY_ID = {"name": Field(string, default=""), "version": Field(string, default="")}
_NEW = {
    "name": required(string),
    "source": required(string),
    "run_id": Field(string),
    "tags": Field(ListOf(message(KEY_VALUE)), default=()),
    "run_link": Field(string, default=""),
    # MLflow's versions have an empty description where their maker gives none.
    "description": Field(string, default=""),
    "model_id": Field(string),
}
_SEARCH = {
    "filter": Field(string, default=""),
    "max_results": Field(integer, default=200_000),
    "order_by": Field(ListOf(string), default=()),
    "page_token": Field(string),
}

served = Endpoints()


@served.post("model-versions/create", _NEW)
def create(lab: Lab, call: Arguments) -> Any:
    """The next version of a registered model."""
    tags = tuple(Tag(**tag) for tag in call.pop("tags"))
    return {"model_version": render_registry.version(lab.registry.create_version(NewVersion(**call, tags=tags)))}


@served.get("model-versions/get", _ID)
def get(lab: Lab, call: Arguments) -> Any:
    """One version, with the aliases that stand for it."""
    return {"model_version": render_registry.version(lab.registry.version(call["name"], call["version"]))}


@served.patch("model-versions/update", {**_ID, "description": Field(string)})
def update(lab: Lab, call: Arguments) -> Any:
    """The version with another description."""
    found = lab.registry.update_version(call["name"], call["version"], call["description"])
    return {"model_version": render_registry.version(found)}


@served.post(
    "model-versions/transition-stage",
    {**_ID, "stage": required(string), "archive_existing_versions": Field(boolean, default=False)},
)
def transition(lab: Lab, call: Arguments) -> Any:
    """The version in another stage."""
    found = lab.registry.transition_version(
        call["name"], call["version"], call["stage"], archive=call["archive_existing_versions"]
    )
    return {"model_version": render_registry.version(found)}


@served.delete("model-versions/delete", _ID)
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove a version; its number stays taken."""
    lab.registry.delete_version(call["name"], call["version"])
    return {}


@served.get("model-versions/search", _SEARCH)
def search(lab: Lab, call: Arguments) -> Any:
    """One page of the versions a filter finds, and the token of the next page if there is one."""
    page = lab.registry.search_versions(call["filter"], call["order_by"], call["max_results"], call["page_token"])
    answer: dict[str, Any] = {}
    if page.items:
        answer["model_versions"] = [render_registry.version(found) for found in page.items]
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.get("model-versions/get-download-uri", _ANY_ID)
def download_uri(lab: Lab, call: Arguments) -> Any:
    """Where the files of a version are."""
    return {"artifact_uri": lab.registry.location(call["name"], call["version"])}


@served.post("model-versions/set-tag", {**_ID, **KEY_VALUE})
def set_tag(lab: Lab, call: Arguments) -> Any:
    """Set a tag of a version, in place of one with that key."""
    lab.registry.set_version_tag(call["name"], call["version"], Tag(call["key"], call["value"]))
    return {}


@served.delete("model-versions/delete-tag", {**_ID, "key": required(string)})
def delete_tag(lab: Lab, call: Arguments) -> Any:
    """Take a tag from a version."""
    lab.registry.delete_version_tag(call["name"], call["version"], call["key"])
    return {}


def raw(lab: Lab) -> APIRouter:
    """`/model-versions/get-artifact`: one file of a version, as an attachment."""

    @guarded
    async def artifact(request: Request) -> Response:
        call = arguments(request, b"", {**_ID, "path": required(string)})

        def find() -> Stored:
            root = lab.registry.location(call["name"], call["version"])
            located = proxied_path(root, call["path"])
            if located is None:
                raise InvalidParameter(f"The files of this version are at {root}, which this server does not serve.")
            return lab.artifacts.open(located)

        return artifacts.attachment(await to_thread.run_sync(find))

    router = APIRouter()
    router.add_api_route("/model-versions/get-artifact", artifact, methods=["GET"], response_model=None)
    return router
