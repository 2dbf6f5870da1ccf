"""MLflow's paths, bodies and documents, as functions; the clients themselves are in tests/acceptance."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.api import mlflow_gateway
from gateway.errors import BadRequest
from gateway.routes import Deployment, Limits, Route, RouteTask, Task


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/gateway/chat/invocations", "chat"),
        ("/endpoints/chat/invocations", "chat"),
        ("/endpoints/chat/invocations/", "chat"),
        ("/gateway/chat/mlflow/invocations", "chat"),
        ("/gateway/org/model:1/invocations", "org/model:1"),
        ("/gateway/a@b/invocations", "a@b"),
        ("/gateway/invocations", None),
        ("/gateway//invocations", None),
        ("/gateway/chat", None),
        ("/gateway/chat/invocations/more", None),
        ("/api/2.0/endpoints/chat/invocations", None),
    ],
)
def test_the_route_of_a_path(path: str, name: str | None) -> None:
    assert mlflow_gateway.route_asked(path) == name


@pytest.mark.parametrize(
    ("body", "kind", "task"),
    [
        ({"messages": []}, RouteTask.CHAT, Task.CHAT),
        ({"prompt": "x"}, RouteTask.CHAT, Task.COMPLETIONS),
        ({"input": "x"}, RouteTask.EMBEDDINGS, Task.EMBEDDINGS),
        # A body for another task is for the route to refuse.
        ({"input": "x"}, RouteTask.CHAT, Task.EMBEDDINGS),
        ({}, RouteTask.CHAT, Task.CHAT),
        ({}, RouteTask.EMBEDDINGS, Task.EMBEDDINGS),
        ({"input": "x"}, RouteTask.MODERATIONS, Task.MODERATIONS),
        ({"prompt": "x"}, RouteTask.IMAGES, Task.IMAGES),
    ],
)
def test_what_a_body_asks(body: dict[str, Any], kind: RouteTask, task: Task) -> None:
    assert mlflow_gateway.task(body, kind) is task


def routes(count: int) -> list[Route]:
    return [Route(f"r{number}", (Deployment("openai", "gpt-4o"),)) for number in range(count)]


def test_a_route_described() -> None:
    deployments = (Deployment("openai", "gpt-4o", 2), Deployment("azure", "dep"))
    described = mlflow_gateway.described(Route("chat", deployments, limits=Limits(rpm=9)))
    assert described == {
        "name": "chat",
        "endpoint_type": "llm/v1/chat",
        "model": {"name": "gpt-4o", "provider": "openai"},
        "endpoint_url": "/gateway/chat/invocations",
        "limit": {"calls": 9, "key": None, "renewal_period": "minute"},
    }
    embed = mlflow_gateway.described(Route("embed", deployments, RouteTask.EMBEDDINGS))
    assert (embed["endpoint_type"], embed["limit"]) == ("llm/v1/embeddings", None)


def test_pages_hold_every_route_once() -> None:
    names, token, pages = [], None, 0
    while pages == 0 or token is not None:
        page = mlflow_gateway.listed(routes(5), token, size=2)
        names += [one["name"] for one in page["endpoints"]]
        token, pages = page.get("next_page_token"), pages + 1
    assert (names, pages) == (["r0", "r1", "r2", "r3", "r4"], 3)
    assert "next_page_token" not in mlflow_gateway.listed(routes(4), None, size=4)


@pytest.mark.parametrize("token", ["", "x", "eyJpbmRleCI6IC0xfQ==", "eyJpbmRleCI6ICJhIn0=", "W10=", "é"])
def test_a_token_of_no_page(token: str) -> None:
    with pytest.raises(BadRequest, match="page_token"):
        mlflow_gateway.listed(routes(1), token)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, b'{"error": {"message": "no", "code": "x"}}', "RESOURCE_DOES_NOT_EXIST", "no"),
        (429, b'{"error": {"message": "slow"}}', "REQUEST_LIMIT_EXCEEDED", "slow"),
        (422, b'{"error": {}}', "BAD_REQUEST", "HTTP 422"),
        (500, b"not JSON", "INTERNAL_ERROR", "HTTP 500"),
        (500, b"[]", "INTERNAL_ERROR", "HTTP 500"),
    ],
)
def test_an_error_in_mlflows_shape(status: int, body: bytes, code: str, message: str) -> None:
    said = orjson.loads(mlflow_gateway.refusal(status, body))
    assert (said["error_code"], said["message"]) == (code, message)
    # What the data plane said is there too.
    assert body == b"not JSON" or body == b"[]" or said["error"] == orjson.loads(body)["error"]
