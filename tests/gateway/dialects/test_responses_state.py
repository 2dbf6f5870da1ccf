"""Nothing is stored with a credential that callers share, and what a provider offers beside passes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.responses import ResponsesDialect
from gateway.errors import BadRequest
from tests.gateway.dialects.test_responses_request import THOUGHT, USER, parts, result

RESPONSES = ResponsesDialect()

STORED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"background": True}, "background"),
    ({"store": True}, "store"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"input": [USER, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
    ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ({"input": parts({"type": "input_file", "file_id": "file-1"})}, "input[0].content[1].file_id"),
    ({"input": [result("c1", [{"type": "input_image", "file_id": "file-1"}])]}, "input[0].output[0].file_id"),
    ({"input": [{"type": "computer_call_output", "output": {"file_id": "file-1"}}]}, "input[0].output.file_id"),
    ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
    ({"tools": [{"type": "code_interpreter", "container": {"file_ids": ["file-1"]}}]}, "tools[0].container.file_ids"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].vector_store_ids"),
    ({"tools": [{"type": "shell", "environment": {"container_id": "c"}}]}, "tools[0].environment.container_id"),
    (
        {"tools": [{"type": "shell", "environment": {"skills": [{"type": "inline"}, {"skill_id": "s"}]}}]},
        "tools[0].environment.skills[1].skill_id",
    ),
    (
        {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "f"}}]},
        "tools[0].input_image_mask.file_id",
    ),
]


@pytest.mark.parametrize(("fields", "name"), STORED)
def test_what_is_stored_with_a_shared_credential_is_refused_with_the_reason(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest, match="credential, which callers of this gateway share") as refused:
        RESPONSES.check({"model": "m", "input": "Hi", **fields})
    assert refused.value.param == name


def test_hosted_tools_and_encrypted_reasoning_pass_to_a_provider_of_the_same_dialect() -> None:
    body = {
        "model": "m",
        "input": [USER, {**THOUGHT, "id": "rs_1"}, {"type": "web_search_call", "id": "ws_1"}],
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "new"}],
        "max_output_tokens": 50,
        "brand_new": [1],
    }
    RESPONSES.check(body)
    assert RESPONSES.prepare(body, None, stream=True) == {**body, "store": False}
    assert RESPONSES.prepare(body, 20, stream=False)["max_output_tokens"] == 20
    assert RESPONSES.prepare(body, 90, stream=False)["max_output_tokens"] == 50
    assert RESPONSES.prepare({"input": "Hi"}, 90, stream=False)["max_output_tokens"] == 90
    assert (RESPONSES.output(body), RESPONSES.output({})) == (
        (50, 1, "max_output_tokens"),
        (None, 1, "max_output_tokens"),
    )


def test_reasoning_that_a_provider_would_look_up_is_not_sent_to_it() -> None:
    with pytest.raises(BadRequest, match=r"reasoning\.encrypted_content") as refused:
        RESPONSES.prepare({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, None, stream=False)
    assert refused.value.param == "input[0]"


@pytest.mark.parametrize("fields", [{}, {"input": 3}, {"input": []}, {"input": ["Hi"]}, {"input": {"role": "user"}}])
def test_no_input_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="item") as refused:
        RESPONSES.check({"model": "m", **fields})
    assert str(refused.value.param).startswith("input")
