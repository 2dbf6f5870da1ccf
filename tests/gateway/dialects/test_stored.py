"""What a provider stores with a shared credential is referred to in no dialect."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.registry import DIALECTS
from gateway.errors import BadRequest
from gateway.routes import Task

FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("task", "fields", "name"),
    [
        (Task.CHAT, said({"type": "file", "file": {"file_id": "file-1"}}), "messages[1].content[0].file.file_id"),
        (Task.MESSAGES, said({"type": "text", "text": "x"}, FILE), "messages[1].content[1].source.file_id"),
        (
            Task.MESSAGES,
            said({"type": "tool_result", "tool_use_id": "t", "content": [FILE]}),
            "messages[1].content[0].content[0].source.file_id",
        ),
        (Task.MESSAGES, said({"type": "container_upload", "file_id": "f"}), "messages[1].content[0].file_id"),
        (Task.MESSAGES, {**said(), "container": "container_1"}, "container"),
        (Task.MESSAGES, {**said(), "container": {"id": "container_1"}}, "container.id"),
        (
            Task.MESSAGES,
            {**said(), "container": {"skills": [{"type": "anthropic"}, {"type": "custom", "skill_id": "s"}]}},
            "container.skills[1].skill_id",
        ),
        (Task.COUNT_TOKENS, said(FILE), "messages[1].content[0].source.file_id"),
    ],
)
def test_what_is_stored_is_refused_by_name(task: Task, fields: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest, match="credential, which callers of this gateway share") as refused:
        DIALECTS[task].check({"model": "m", **fields})
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (Task.CHAT, said({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}}, {"file": 3})),
        (Task.MESSAGES, {**said(), "container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}}),
        (Task.MESSAGES, said({"type": "document", "source": {"type": "base64", "data": "AA=="}}, {"content": 3})),
    ],
)
def test_what_is_in_the_request_itself_passes(task: Task, fields: dict[str, Any]) -> None:
    DIALECTS[task].check({"model": "m", **fields})
