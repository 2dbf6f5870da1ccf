"""The one door to SQL: SQLite or PostgreSQL behind the same five calls.

It satisfies `promptlab.ports.Database` by its shape, so neither package imports the other for it.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import StaticPool

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from alembic.operations import Operations

T = TypeVar("T")

# How long a statement waits for another process (the command line) that holds SQLite's write lock.
_BUSY_SECONDS = 20
# A group closes when this many writers joined it or it has run this long: its first waits for its last.
_GROUP_SIZE = 256
_GROUP_SECONDS = 0.02
_ATTEMPTS = 8
# serialization_failure and deadlock_detected: https://www.postgresql.org/docs/current/errcodes-appendix.html
_RETRYABLE = frozenset({"40001", "40P01"})
# Any fixed number: it names our migrations among PostgreSQL's advisory locks.
_MIGRATION_LOCK = 7_236_145_219

_versions = sa.Table(
    "schema_versions",
    sa.MetaData(),
    sa.Column("component", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class Step(Protocol):
    """One step of a schema's history; see `promptlab.ports.Migration`."""

    @property
    def version(self) -> int: ...

    @property
    def apply(self) -> Callable[[Operations], None]: ...


class Database(ABC):
    """A SQL database as the stores use it. Safe to call from any thread, never from the event loop's."""

    dialect: str

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """A connection to read with, in a transaction of its own that sees every answered write."""

    @abstractmethod
    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result once it is durable.

        `work` may be run again after a conflict, so it must change nothing but the
        database. What it raises reaches this caller only, its changes rolled back.
        """

    @abstractmethod
    def _migrating(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction that no other process migrates beside."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was begun and close every connection. Safe to call twice."""

    def migrate(self, component: str, metadata: sa.MetaData, steps: Sequence[Step]) -> None:
        """Bring `component`'s tables to their newest version: all made at once when new, else step by step.

        All or nothing, and safe when two processes start together. Raises `ConfigError`
        where the database cannot be used, or the tables are newer than this program or not ours.
        """
        try:
            self._migrate(component, metadata, steps)
        except DBAPIError as error:
            # `from None`: what a person reads is the driver's first line; it names host and user, never the password.
            why = str(error.orig).partition("\n")[0]
            raise ConfigError(f"The database cannot be used ({self!r}): {why}") from None

    def _migrate(self, component: str, metadata: sa.MetaData, steps: Sequence[Step]) -> None:
        newest = max((step.version for step in steps), default=1)
        with self._migrating() as connection:
            _versions.create(connection, checkfirst=True)
            current = connection.scalar(sa.select(_versions.c.version).where(_versions.c.component == component))
            if current is None:
                self._create(connection, component, metadata, newest)
            elif current > newest:
                raise ConfigError(
                    f"The {component} tables are of version {current}, made by a newer Promptyard; "
                    f"this one knows versions up to {newest}. Start the newer one, or restore a backup."
                )
            elif current < newest:
                self._upgrade(connection, component, [step for step in steps if step.version > current])

    def _create(self, connection: Connection, component: str, metadata: sa.MetaData, version: int) -> None:
        foreign = sorted(set(sa.inspect(connection).get_table_names()) & set(metadata.tables))
        if foreign:
            raise ConfigError(
                f"The database already holds tables that Promptyard did not make ({', '.join(foreign)}): "
                "give it a database of its own."
            )
        metadata.create_all(connection, checkfirst=False)
        connection.execute(sa.insert(_versions).values(component=component, version=version))

    def _upgrade(self, connection: Connection, component: str, steps: Sequence[Step]) -> None:
        # Imported here: it costs a tenth of a second of every start, and is needed once in a release.
        from alembic.migration import MigrationContext
        from alembic.operations import Operations

        operations = Operations(MigrationContext.configure(connection))
        for step in sorted(steps, key=lambda step: step.version):
            step.apply(operations)
            connection.execute(
                sa.update(_versions).where(_versions.c.component == component).values(version=step.version)
            )


def open_database(url: str, *, connections: int = 20) -> Database:
    """The database at `url`: `sqlite:///path/to/file` (made when missing) or `postgresql://user:password@host/name`.

    `connections` bounds what is open to PostgreSQL at once. Connects at first use.
    Raises `ConfigError`, which never repeats the URL: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("The database URL cannot be parsed: write sqlite:///FILE or postgresql://…") from None
    match parsed.get_backend_name():
        case "sqlite":
            return _SQLite(parsed)
        case "postgresql" | "postgres":
            return _PostgreSQL(parsed.set(drivername="postgresql+psycopg"), connections)
        case other:
            raise ConfigError(f"No support for a {other} database: write sqlite:///FILE or postgresql://…")


# ── SQLite ───────────────────────────────────────────────────────────────────────────────────────


class _SQLite(Database):
    dialect = "sqlite"

    def __init__(self, url: URL) -> None:
        if url.database in (None, "", ":memory:"):
            raise ConfigError("SQLite needs a file, for example sqlite:///data/tracking.db")
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        self._url = url
        self._readers = _sqlite_engine(url, "BEGIN", pool_size=8, max_overflow=120)
        self._writer = _GroupWriter(_sqlite_engine(url, "BEGIN IMMEDIATE", poolclass=StaticPool))

    def __repr__(self) -> str:
        return f"<SQLite {self._url.database}>"

    def read(self) -> AbstractContextManager[Connection]:
        return self._readers.begin()

    def write(self, work: Callable[[Connection], T]) -> T:
        return self._writer.run(work)

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        # Steps that rebuild a table drop the old one; with foreign keys on that would delete its children.
        engine = _sqlite_engine(self._url, "BEGIN IMMEDIATE", foreign_keys=False, poolclass=StaticPool)
        try:
            with engine.begin() as connection:
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken is not None:
                    raise ConfigError(f"The migration would leave rows of {broken[0]} without their {broken[2]}.")
        finally:
            engine.dispose()

    def close(self) -> None:
        self._writer.close()
        self._readers.dispose()


def _sqlite_engine(url: URL, begin: str, *, foreign_keys: bool = True, **pool: Any) -> Engine:
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions by its own rules; we say BEGIN ourselves.
        connection.isolation_level = None
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        # As MLflow has it, and as PostgreSQL: LIKE tells case, ILIKE (lower() on both sides) does not.
        connection.execute("PRAGMA case_sensitive_like=ON")
        # SQLite's own lower() knows ASCII only.
        connection.create_function("lower", 1, _lower, deterministic=True)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _use_wal(connection: Any) -> None:
    # Two processes that make the file together: switching the mode ignores the busy timeout.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class _Job:
    __slots__ = ("answer", "result", "work")

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.answer: Future[Any] = Future()


class _GroupWriter:
    """One thread that runs every writer and makes many durable with one sync of the disk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Connection], T]) -> T:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a write inside a write would wait for itself")
        job = _Job(work)
        with self._gate:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._jobs.put(job)
        result: T = job.answer.result()
        return result

    def close(self) -> None:
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()
        self._engine.dispose()

    def _serve(self) -> None:
        while (job := self._next(wait=True)) is not None:
            self._commit_group(job)

    def _commit_group(self, first: _Job) -> None:
        """Run `first` and whoever arrives meanwhile in one transaction, then answer them all."""
        group = [first]
        deadline = time.monotonic() + _GROUP_SECONDS
        try:
            with self._engine.begin() as connection:
                self._run_alone(connection, first)
                while len(group) < _GROUP_SIZE and time.monotonic() < deadline:
                    job = self._next(wait=False)
                    if job is None:
                        break
                    group.append(job)
                    self._run_alone(connection, job)
        except BaseException as error:
            # Nothing of the group is on disk: it has failed for each of its callers.
            for failed in group:
                if not failed.answer.done():
                    failed.answer.set_exception(error)
            return
        for done in group:
            if not done.answer.done():
                done.answer.set_result(done.result)

    def _run_alone(self, connection: Connection, job: _Job) -> None:
        """Run one job; one that raises is undone by itself and answered at once."""
        savepoint = connection.begin_nested()
        try:
            job.result = job.work(connection)
        except BaseException as error:
            # This raises where SQLite has undone the whole transaction (disk full): then the group fails.
            savepoint.rollback()
            job.answer.set_exception(error)
        else:
            savepoint.commit()

    def _next(self, *, wait: bool) -> _Job | None:
        if self._stopping:
            return None
        try:
            job = self._jobs.get(block=wait)
        except queue.Empty:
            return None
        self._stopping = job is None
        return job


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────


class _PostgreSQL(Database):
    dialect = "postgresql"

    def __init__(self, url: URL, connections: int) -> None:
        self._engine = sa.create_engine(
            url, hide_parameters=True, pool_size=connections, max_overflow=0, pool_pre_ping=True
        )
        # One snapshot for all statements of a read, as on SQLite.
        self._readers = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def __repr__(self) -> str:
        return f"<PostgreSQL {self._engine.url.host or 'local'}/{self._engine.url.database}>"

    def read(self) -> AbstractContextManager[Connection]:
        return self._readers.begin()

    def write(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRYABLE or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.005 * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            yield connection

    def close(self) -> None:
        self._engine.dispose()
