"""A signal counts at whatever instruction it comes."""

from __future__ import annotations

import signal
from typing import Any

from gateway import server_process


async def test_a_signal_that_comes_while_the_drain_is_looked_at_is_not_lost() -> None:
    class App:
        """Busy for ever; and whoever asks whether it is is interrupted."""

        app: Any = None
        protocol: Any = None

        def drain(self) -> None:
            """It takes no more."""

        @property
        def busy(self) -> bool:
            server.handle_exit(signal.SIGINT, None)
            return True

    app: Any = App()
    server = server_process.Server(app, 30.0, "")
    server.handle_exit(signal.SIGTERM, None)
    assert await server.on_tick(1)
