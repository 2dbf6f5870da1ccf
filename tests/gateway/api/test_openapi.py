"""The data plane's description holds together: every path, every reference, every name once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.api.openapi import with_data_plane
from gateway.routes import Task

OWN = {"get": {"operationId": "mine", "responses": {"200": {"description": "OK"}}}}
DOCUMENT = with_data_plane(
    {
        "openapi": "3.0.3",
        "info": {"title": "t", "version": "1"},
        "paths": {"/admin/mine": OWN},
        "components": {"schemas": {"Mine": {"type": "object"}}},
    }
)
OPERATIONS = [(path, verb, operation) for path, verbs in DOCUMENT["paths"].items() for verb, operation in verbs.items()]
OTHERS = {
    "/v1/messages/count_tokens", "/v1/models", "/v1/models/{id}", "/health", "/health/ready",
    "/gateway/{name}/invocations", "/endpoints/{name}/invocations", "/admin/mine",
}  # fmt: skip


def values(value: Any, name: str) -> Iterator[Any]:
    """Everything that stands under `name`, at any depth."""
    if isinstance(value, dict):
        yield from [value[name]] if name in value else []
        for each in value.values():
            yield from values(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from values(each, name)


@pytest.mark.parametrize("task", Task)
def test_every_task_has_its_path(task: Task) -> None:
    asked = DOCUMENT["paths"][f"/v1/{task.value}"]["post"]["requestBody"]["content"]
    assert list(asked) == ["multipart/form-data" if "transcriptions" in task.value else "application/json"]


def test_what_fastapi_described_is_still_there() -> None:
    assert DOCUMENT["paths"].keys() >= OTHERS
    assert DOCUMENT["components"]["schemas"]["Mine"] == {"type": "object"}


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    led = set()
    for reference in values(DOCUMENT, "$ref"):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        led.add(reference)
    assert {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]} - led == {
        "#/components/schemas/Mine"
    }


def test_every_operation_has_a_name_of_its_own_and_says_how_it_can_fail() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    for path, verb, operation in OPERATIONS:
        placed = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path" and one["required"]}
        assert placed == set(re.findall(r"{(\w+)}", path)), path
        assert ("requestBody" in operation) == (verb == "post")
        if verb == "post":
            assert {"400", "401", "403", "404", "429", "502", "503", "504"} <= operation["responses"].keys()


def test_health_needs_no_key_and_the_rest_any_of_three() -> None:
    free = {path for path, _, operation in OPERATIONS if operation.get("security") == []}
    assert free == {"/health", "/health/ready"}
    assert [name for one in DOCUMENT["security"] for name in one] == list(DOCUMENT["components"]["securitySchemes"])


def test_messages_fail_in_anthropics_shape() -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        shapes = DOCUMENT["paths"][path]["post"]["responses"]
        assert shapes["429"] == {"$ref": "#/components/responses/MessagesError429"}
    assert DOCUMENT["paths"]["/v1/responses"]["post"]["responses"]["429"]["$ref"].endswith("/Error429")


TEXT, NULL = {"type": "string"}, {"type": "null"}


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ({"anyOf": [TEXT, NULL], "title": "T"}, {"type": "string", "nullable": True, "title": "T"}),
        ({"anyOf": [TEXT, {"type": "integer"}, NULL]}, {"anyOf": [TEXT, {"type": "integer"}], "nullable": True}),
        ({"anyOf": [{"$ref": "#/x"}, NULL]}, {"anyOf": [{"$ref": "#/x"}], "nullable": True}),
        ({"anyOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}]}),
        (
            {"anyOf": [{"type": "number", "exclusiveMinimum": 0.0, "maximum": 9}, NULL]},
            {"type": "number", "minimum": 0.0, "exclusiveMinimum": True, "maximum": 9, "nullable": True},
        ),
        ({"exclusiveMaximum": 5}, {"maximum": 5, "exclusiveMaximum": True}),
    ],
)
def test_what_pydantic_describes_is_put_into_3_0(newer: dict[str, Any], older: dict[str, Any]) -> None:
    given = {"components": {"schemas": {"Mine": {"type": "object", "properties": {"mine": newer}}}}}
    assert with_data_plane(given)["components"]["schemas"]["Mine"]["properties"]["mine"] == older


def test_optional_text_is_said_as_openapi_3_0_says_it() -> None:
    """The bundled Swagger reads 3.0: `nullable`, no type `null`, no list of types, no `const`."""
    kinds = [kind for kind in values(DOCUMENT["components"], "type") if not isinstance(kind, dict)]
    assert all(isinstance(kind, str) and kind != "null" for kind in kinds)
    assert not list(values(DOCUMENT, "const"))
