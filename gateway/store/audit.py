"""The audit's lines in SQL: appended in the transaction of what they tell of, each sealed with the one before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.store.tables import audit, key_changes

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from gateway.database import Database

#: What the first line is sealed with.
START = 64 * "0"
_PAGE = 1000


class Deed(NamedTuple):
    """What somebody did: `by` is a key's id or where it was done, `detail` what JSON can say of it, no secrets."""

    by: str
    action: str
    subject: str
    detail: Any = None


class AuditLine(NamedTuple):
    """One line: `time` in UTC epoch microseconds, `detail` as JSON text, `seal` over all of it and the seal before."""

    id: int
    time: int
    by: str
    action: str
    subject: str
    detail: str
    seal: str

    def sealed(self, before: str) -> str:
        """The seal that this line must have after the one that ends with `before`."""
        said = json.dumps([before, self.time, self.by, self.action, self.subject, self.detail])
        return hashlib.sha256(said.encode()).hexdigest()


def one_at_a_time(connection: Connection) -> None:
    """Have every other writer of keys and of the audit wait for this transaction, and every process look again."""
    raising = update(key_changes).values(version=key_changes.c.version + 1)
    if connection.execute(raising).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(key_changes).values(id=1, version=1))
    except IntegrityError:  # another process made the row at the same moment
        connection.execute(raising)


def append(connection: Connection, deed: Deed) -> None:
    """Add a line. After `one_at_a_time`: else two lines could be sealed with the same one before."""
    last = connection.scalar(select(audit.c.seal).order_by(audit.c.id.desc()).limit(1))
    detail = json.dumps(deed.detail, sort_keys=True)
    line = AuditLine(0, int(time.time() * 1e6), deed.by, deed.action, deed.subject, detail, "")
    named = {name: value for name, value in line._asdict().items() if name != "id"}
    connection.execute(insert(audit).values({**named, "seal": line.sealed(last or START)}))


class AuditStore:
    """The audit of one database. Lines are appended by the stores of what they tell of, and here by nobody else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, deed: Deed) -> None:
        """Add a line of its own."""

        def work(connection: Connection) -> None:
            one_at_a_time(connection)
            append(connection, deed)

        self._database.write(work)

    def newest(self, limit: int, before: int | None = None) -> list[AuditLine]:
        """At most `limit` lines, the newest first, of those before the line `before`."""
        statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(audit.c.id < before)
        with self._database.read() as connection:
            return [_line(row) for row in connection.execute(statement)]

    def lines(self) -> Iterator[AuditLine]:
        """Every line, the oldest first."""
        last = 0
        while True:
            statement = select(audit).where(audit.c.id > last).order_by(audit.c.id).limit(_PAGE)
            with self._database.read() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            for row in rows:
                yield _line(row)
            last = rows[-1].id


def _line(row: Row[Any]) -> AuditLine:
    return AuditLine(*(getattr(row, name) for name in AuditLine._fields))
