"""Every dialect there is, by the task that is asked in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.chat import ChatDialect, CompletionsDialect
from gateway.dialects.count_tokens import CountTokensDialect
from gateway.dialects.dialect import Conversation, Dialect
from gateway.dialects.messages import MessagesDialect
from gateway.dialects.plain import NOT_JSON, PLAIN
from gateway.dialects.plain_tally import BytesTally
from gateway.dialects.responses import ResponsesDialect
from gateway.dialects.sse import EVENTS, Tally, Through
from gateway.routes import Task

CONVERSATIONS: Mapping[Task, Conversation] = {
    Task.CHAT: ChatDialect(),
    Task.MESSAGES: MessagesDialect(),
    Task.RESPONSES: ResponsesDialect(),
}
DIALECTS: Mapping[Task, Dialect] = {
    **CONVERSATIONS,
    Task.COMPLETIONS: CompletionsDialect(),
    Task.COUNT_TOKENS: CountTokensDialect(),
    **PLAIN,
}


def tally_of(task: Task, body: Mapping[str, Any], headers: Mapping[str, str], through: Through | None = None) -> Tally:
    """What reads an upstream's stream that began with `headers` (`Dialect.tally`): events, or bytes that are none."""
    if task in NOT_JSON and not headers.get("content-type", "").lower().startswith(EVENTS):
        return BytesTally()
    return DIALECTS[task].tally(body, through)
