"""What an admin does is on record with who it was, and the command says whether the record is whole."""

from __future__ import annotations

import sqlite3

from tests.acceptance.test_cli import data, run
from tests.conftest import StartServer
from tests.services.admin import ROUTES, made, refusal


def test_who_did_what(start_server: StartServer) -> None:
    server = start_server(ROUTES)
    home, where = server.data.parent, ("--data", str(server.data))
    with server.client() as admin:
        other = made(admin, name="second admin", scopes=["admin"])
        with server.client(other["key"]) as client:
            created = made(client, name="bot")
            client.patch(f"/admin/keys/{created['id']}", json={"rpm": 5})
            client.post("/admin/reload")
            refusal(client.patch(f"/admin/keys/{created['id']}", json={"rpm": 0}), 400)
        data("keys", "revoke", created["id"], *where, cwd=home)
        page = admin.get("/admin/audit", params={"limit": 3}).json()
        rest = admin.get("/admin/audit", params={"before": page["next"]}).json()
    lines = [*page["data"], *rest["data"]][::-1]
    assert [(one["by"], one["action"]) for one in lines] == [
        ("admin", "key.create"),
        (other["id"], "key.create"),
        (other["id"], "key.update"),
        (other["id"], "config.reload"),
        ("command line", "key.revoke"),
    ]
    assert lines[2]["detail"] == {"rpm": 5}
    assert rest["next"] is None
    assert data("audit", "list", "--limit", "3", *where, cwd=home) == page["data"]
    verdict = data("audit", "verify", *where, cwd=home)
    assert (verdict["lines"], verdict["broken"], verdict["last"]) == (5, None, lines[-1]["seal"])
    done = run("audit", "verify", "--seal", lines[1]["seal"], *where, cwd=home)
    assert (done.returncode, "5 lines: all as they were written" in done.stdout) == (0, True)
    with sqlite3.connect(server.data / "gateway.db") as database:
        database.execute("UPDATE gateway_audit SET detail = '{\"rpm\": 500}' WHERE id = 3")
    done = run("audit", "verify", *where, cwd=home)
    assert (done.returncode, done.stdout) == (1, "Line 3 is not what was written, or one before it was taken out.\n")
    done = run("audit", "verify", "--seal", "f" * 64, *where, cwd=home)
    assert done.returncode == 1
