"""A Python for which there is no network beyond this machine: what it wants from there is refused and written down.

It sees what Python's own sockets do, as every library does that fetches something when it is imported.
"""

from __future__ import annotations

from pathlib import Path

#: Every Python runs a module of this name before anything else.
_NAME = "sitecustomize.py"
_WATCH = '''\
"""Written by tests/services/shut.py."""
import os, sys
NEAR = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None, b"127.0.0.1", b"localhost")
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if host not in NEAR:
        with open(os.environ["TEST_SHUT_LOG"], "a") as log:
            log.write(f"{event} {host} {sys.argv}\\n")
        raise PermissionError(f"the network is shut: {host}")
sys.addaudithook(watch)
'''


def environment(home: Path) -> dict[str, str]:
    """The environment variables that shut the network; `home` takes what is needed for that."""
    folder = home / "shut"
    folder.mkdir()
    (folder / _NAME).write_text(_WATCH)
    return {"PYTHONPATH": str(folder), "TEST_SHUT_LOG": str(folder / "wanted")}


def wanted(home: Path) -> str:
    """What was wanted from beyond this machine, one line each."""
    log = home / "shut" / "wanted"
    return log.read_text() if log.exists() else ""
