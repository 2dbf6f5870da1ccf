"""Every dialect there is, by the task that is asked in it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.dialects.chat import ChatDialect, CompletionsDialect
from gateway.dialects.dialect import Conversation, Dialect
from gateway.dialects.messages import MessagesDialect
from gateway.dialects.plain import EMBEDDINGS
from gateway.dialects.responses import ResponsesDialect
from gateway.routes import Task

CONVERSATIONS: Mapping[Task, Conversation] = {
    Task.CHAT: ChatDialect(),
    Task.MESSAGES: MessagesDialect(),
    Task.RESPONSES: ResponsesDialect(),
}
DIALECTS: Mapping[Task, Dialect] = {
    **CONVERSATIONS,
    Task.COMPLETIONS: CompletionsDialect(),
    Task.EMBEDDINGS: EMBEDDINGS,
}
