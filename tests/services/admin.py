"""What tests of the admin API say to it, and what they make of its answers."""

from __future__ import annotations

from typing import Any

import httpx

ROUTES = """\
providers:
  fake: {type: fake}
  broken: {type: fake, script: [{error: {status: 500, message: broken}}]}
routes:
  chat: {deployments: [{provider: fake, model: echo}]}
  other: {deployments: [{provider: fake, model: echo-2}]}
  broken: {deployments: [{provider: broken, model: none}]}
"""


def made(admin: httpx.Client, **wanted: Any) -> dict[str, Any]:
    """A new key, with its secret."""
    answer = admin.post("/admin/keys", json={"name": "of the test", **wanted})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def say(client: httpx.Client, model: str = "chat", **more: Any) -> httpx.Response:
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "one two"}], **more}
    )


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error
