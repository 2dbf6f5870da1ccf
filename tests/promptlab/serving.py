"""The tracking server on a port of its own, for tests that speak to it as clients do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from gateway.database import open_database
from promptlab.api.app import create


@contextmanager
def serving(database_url: str, artifact_root: Path, *, private_webhooks: bool = False) -> Iterator[str]:
    """The server's address while it runs, in a thread of this process."""
    database = open_database(database_url)
    listening = socket.create_server(("127.0.0.1", 0))
    app = create(database, artifact_root, private_webhooks=private_webhooks)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
        app.state.close()
        database.close()
