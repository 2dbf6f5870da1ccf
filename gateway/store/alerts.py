"""Alerts in SQL: each is there once, whichever process saw it first, until somebody was told."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from gateway.store.tables import alerts
from gateway.types import Alert

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from gateway.database import Database

_FIELDS = [field.name for field in dataclasses.fields(Alert)]


class AlertStore:
    """The alerts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, alert: Alert) -> bool:
        """Add one; False where as much of that budget in that window was told of before."""
        same = (
            (alerts.c.scope == alert.scope)
            & (alerts.c.soft == alert.soft)
            & (alerts.c.window_start == alert.window_start)
            & (alerts.c.budget == alert.budget)
            & (alerts.c.percent >= alert.percent)
        )

        def work(connection: Connection) -> bool:
            if connection.scalar(select(func.count()).where(same)):
                return False
            connection.execute(insert(alerts).values({name: getattr(alert, name) for name in _FIELDS}))
            return True

        return self._database.write(work)

    def due(self, now: float) -> list[Alert]:
        """Those that somebody is to be told of by now, the oldest first."""
        statement = select(alerts).where(alerts.c.next_try <= now).order_by(alerts.c.next_try).limit(100)
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(statement).mappings()]

    def take(self, alert: Alert, until: float) -> bool:
        """Leave `alert` to this process until then; False where another was quicker."""
        theirs = (alerts.c.id == alert.id) & (alerts.c.next_try == alert.next_try)
        statement = update(alerts).where(theirs).values(next_try=until)
        return self._database.write(lambda connection: connection.execute(statement).rowcount > 0)

    def told(self, alert_id: str, at: float) -> None:
        """Note that somebody was told."""
        values = {"told_at": at, "next_try": None, "error": None, "tries": alerts.c.tries + 1}
        statement = update(alerts).where(alerts.c.id == alert_id).values(values)
        self._database.write(lambda connection: connection.execute(statement))

    def failed(self, alert_id: str, error: str, again: float | None) -> None:
        """Note why nobody could be told, and when that is tried again (None: no more)."""
        values = {"error": error[:200], "next_try": again, "tries": alerts.c.tries + 1}
        statement = update(alerts).where(alerts.c.id == alert_id).values(values)
        self._database.write(lambda connection: connection.execute(statement))

    def newest(self, limit: int, team_id: str | None = None) -> list[Alert]:
        """At most `limit`, the newest first; of one team where it is named."""
        statement = select(alerts).order_by(alerts.c.time.desc(), alerts.c.id).limit(limit)
        if team_id is not None:
            statement = statement.where(alerts.c.team_id == team_id)
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(statement).mappings()]


def _alert(row: RowMapping) -> Alert:
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    return Alert(**values)
