"""MLflow's own deployments client calls our routes, unmodified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.services.promptyard import Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROUTES = """\
providers:
  fake: {type: fake}
  down: {type: fake, script: [{error: {status: 400, message: no such tool}}]}
routes:
  chat: {deployments: [{provider: fake, model: echo}], limits: {rpm: 1000}}
  org/embed: {task: embeddings, deployments: [{provider: fake, model: echo}]}
  down: {deployments: [{provider: down, model: x}]}
  one: {deployments: [{provider: fake, model: echo}], limits: {rpm: 1}}
"""
MESSAGES = [{"role": "user", "content": "Hello there"}]


@pytest.fixture(scope="module")
def server(start_servers: StartServer) -> Server:
    """A running server with an admin key."""
    return start_servers(ROUTES)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    """MLflow's deployments client; the key travels as its tracking token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setitem(os.environ, "MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setitem(os.environ, "MLFLOW_TRACKING_TOKEN", server.admin_key or "")
        from mlflow.deployments import get_deploy_client

        yield get_deploy_client(server.url)


def test_it_predicts(client: Any) -> None:
    chat = client.predict(endpoint="chat", inputs={"messages": MESSAGES, "max_tokens": 50})
    assert "Hello there" in chat["choices"][0]["message"]["content"]
    assert chat["usage"]["total_tokens"] > 0
    completion = client.predict(endpoint="chat", inputs={"prompt": "Hello there"})
    assert "Hello there" in completion["choices"][0]["text"]
    embedded = client.predict(endpoint="org/embed", inputs={"input": ["a", "b"]})
    assert [one["index"] for one in embedded["data"]] == [0, 1]


def test_it_lists_and_gets(client: Any, server: Server) -> None:
    listed = client.list_endpoints()
    assert [one.name for one in listed] == ["chat", "org/embed", "down", "one"]
    chat = client.get_endpoint("chat")
    assert chat.model_dump() == listed[0].model_dump()
    assert (chat.endpoint_type, chat.model.name, chat.model.provider) == ("llm/v1/chat", "echo", "fake")
    assert chat.endpoint_url == f"{server.url}/gateway/chat/invocations"
    assert (chat.limit.calls, chat.limit.renewal_period) == (1000, "minute")
    assert client.get_endpoint("org/embed").endpoint_type == "llm/v1/embeddings"
    # The address it was given is one that answers.
    answer = httpx.post(chat.endpoint_url, headers=server.headers, json={"messages": MESSAGES})
    assert answer.status_code == 200


def test_it_says_what_was_refused(client: Any) -> None:
    import requests

    with pytest.raises(requests.HTTPError, match=r"404.*RESOURCE_DOES_NOT_EXIST.*'nope' does not exist"):
        client.predict(endpoint="nope", inputs={"messages": MESSAGES})
    with pytest.raises(requests.HTTPError, match=r"400.*INVALID_PARAMETER_VALUE.*no such tool"):
        client.predict(endpoint="down", inputs={"messages": MESSAGES})
    with pytest.raises(requests.HTTPError, match=r"404.*'nope' does not exist"):
        client.get_endpoint("nope")


REFUSED: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "a model in the body": ("POST", "/gateway/chat/invocations", {"model": "down", "messages": MESSAGES}, 400, "model"),
    "no messages": ("POST", "/gateway/chat/invocations", {}, 400, "messages"),
    "an input for chat": ("POST", "/endpoints/chat/invocations", {"input": "x"}, 400, "embeddings"),
    "the wrong verb": ("GET", "/gateway/chat/invocations", {}, 405, "takes POST"),
    "the other wrong verb": ("POST", "/api/2.0/endpoints/", {}, 405, "takes GET"),
    "no such path": ("GET", "/gateway/chat", {}, 404, "There is no GET /gateway/chat"),
    "a near miss": ("GET", "/api/2.0/endpointsx", {}, 404, "There is no GET"),
    "a token": ("GET", "/api/2.0/endpoints/?page_token=x", {}, 400, "page_token"),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "said"), REFUSED.values(), ids=REFUSED)
def test_refusals(method: str, path: str, body: dict[str, Any], status: int, said: str, server: Server) -> None:
    with server.client() as http:
        answer = http.request(method, path, json=body if method == "POST" else None)
    assert answer.status_code == status
    assert said in answer.json()["message"]
    assert answer.json()["error_code"]


def test_a_caller_without_a_key(server: Server) -> None:
    for answer in (httpx.get(f"{server.url}/api/2.0/endpoints/"), httpx.post(f"{server.url}/gateway/chat/invocations")):
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_a_limit_says_when_to_come_again(server: Server) -> None:
    with server.client() as http:
        answers = [http.post("/gateway/one/invocations", json={"messages": MESSAGES}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert int(answers[1].headers["retry-after"]) > 0


def test_a_stream_is_a_stream(server: Server) -> None:
    asked = {"messages": MESSAGES, "stream": True}
    with (
        server.client() as http,
        http.stream("POST", "/endpoints/chat/invocations", json=asked) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert len(lines) > 2
    assert lines[-1] == "data: [DONE]"


def test_the_paths_of_the_tracking_servers_gateway(server: Server) -> None:
    """MLflow 3.9 moved its gateway into the tracking server, where calls go by these paths."""
    with server.client() as http:
        named = http.post("/gateway/chat/mlflow/invocations", json={"messages": MESSAGES})
        spoken = http.post("/gateway/mlflow/v1/chat/completions", json={"model": "chat", "messages": MESSAGES})
        refused = http.post("/gateway/openai/v1/chat/completions", json={"model": "nope", "messages": MESSAGES})
    assert named.json()["choices"] == spoken.json()["choices"]
    assert refused.json()["error"]["code"] == "model_not_found"
