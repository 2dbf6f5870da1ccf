"""What an upstream's stream of Responses events says."""

from __future__ import annotations

from typing import Any

from gateway.dialects import responses_usage, sse
from gateway.errors import UpstreamFailed

#: The events that end a stream, and those whose `delta` a model wrote.
ENDS = ("response.completed", "response.incomplete")
_DELTAS = (
    *("response.output_text.delta", "response.refusal.delta", "response.function_call_arguments.delta"),
    *("response.reasoning_summary_text.delta", "response.reasoning_text.delta"),
    *("response.custom_tool_call_input.delta", "response.mcp_call_arguments.delta"),
    *("response.code_interpreter_call_code.delta", "response.audio.transcript.delta"),
)


class ResponsesTally(sse.Tally):
    """Reads Responses events: the last one says the usage, and ends the stream."""

    __slots__ = ()

    def _note(self, document: dict[str, Any]) -> bool:
        of = document.get("type")
        if of in _DELTAS:
            self.say(document.get("delta"))
        elif of in ENDS:
            self.finished = self.done = True
            response = document.get("response")
            usage = response.get("usage") if isinstance(response, dict) else None
            if isinstance(usage, dict) and isinstance(response, dict):
                self.usage = responses_usage.read(usage)
                self.usage.tier = sse.served(response)
        elif of in ("error", "response.failed") or (of is None and document.get("error")):
            raise failure(document)
        return False


def failure(document: dict[str, Any]) -> UpstreamFailed:
    """What an event or an answer that says it failed is raised as: OpenAI writes its message in three places."""
    response = document.get("response")
    found = document.get("error") or (response.get("error") if isinstance(response, dict) else None)
    return UpstreamFailed(
        f"The provider broke its answer off: {sse.said(found or document.get('message') or 'it failed')}"
    )
