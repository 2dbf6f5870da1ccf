"""A lab that is closed says so, on connections that are still open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlab.workbench.app import Workbench


@pytest.mark.filterwarnings("ignore:SSR mode")
async def test_after_its_end_it_refuses_in_words(tmp_path: Path) -> None:
    workbench = Workbench("http://127.0.0.1:9", "sk-py-x", "1", tmp_path)
    await workbench.start()
    await workbench.close()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/lab/status", "query_string": b"", "headers": []}
    await workbench(scope, receive, send)
    assert [message.get("status", message.get("body")) for message in sent] == [503, b"The server is stopping."]
