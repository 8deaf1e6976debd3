"""The line's database: a SQLite file beside the results, or a PostgreSQL server that several stations share.

What `write` has committed is on the disk. In SQLite: write-ahead log, `synchronous=FULL`, foreign keys, and writers
that wait for each other: those of one process for a lock, since SQLite itself looks again after growing pauses.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from energyad.errors import DataError, SettingsError, os_reason
from energyad.extras import require
from energyad.line.audit import record_all
from energyad.line.locks import one_at_a_time
from energyad.line.tables import (
    Arrival,
    AuditEntry,
    Base,
    Delivery,
    ImageLabel,
    Part,
    PartView,
    Result,
    SchemaVersion,
    ShadowResult,
)

BUSY_SECONDS: Final = 30.0
"""How long one writer waits for another."""


def _add_labels(connection: Connection) -> None:
    ImageLabel.__table__.create(connection)  # type: ignore[attr-defined]


def _add_indexes_of_reviews(connection: Connection) -> None:
    wanted = {"arrival_sha256", "result_verdict"}
    for index in (*Arrival.__table__.indexes, *Result.__table__.indexes):  # type: ignore[attr-defined]
        if index.name in wanted:
            index.create(connection)


def _add_audit(connection: Connection) -> None:
    AuditEntry.__table__.create(connection)  # type: ignore[attr-defined]
    record_all(connection)


def _add_parts(connection: Connection) -> None:
    """Parts, and deliveries that may be of a part: SQLite lets no column become nullable, so the rows are copied."""
    for table in (Part, PartView):
        table.__table__.create(connection)  # type: ignore[attr-defined]
    connection.execute(text("ALTER TABLE streams ADD COLUMN last_part_number BIGINT NOT NULL DEFAULT 0"))
    deliveries = Delivery.__table__
    columns = [column["name"] for column in inspect(connection).get_columns("deliveries")]
    names = ", ".join(columns)
    connection.execute(text("CREATE TEMPORARY TABLE deliveries_before AS SELECT * FROM deliveries"))
    deliveries.drop(connection)  # type: ignore[attr-defined]
    deliveries.create(connection)  # type: ignore[attr-defined]
    connection.execute(text(f"INSERT INTO deliveries ({names}) SELECT {names} FROM deliveries_before"))
    connection.execute(text("DROP TABLE deliveries_before"))
    if connection.dialect.name == "postgresql":
        sequence = "pg_get_serial_sequence('deliveries', 'id')"
        connection.execute(
            text(f"SELECT setval({sequence}, 1 + (SELECT COALESCE(MAX(id), 0) FROM deliveries))")
        )


def _add_shadow_results(connection: Connection) -> None:
    ShadowResult.__table__.create(connection, checkfirst=True)  # type: ignore[attr-defined]


def _add_faults(connection: Connection) -> None:
    if "fault" not in {column["name"] for column in inspect(connection).get_columns("part_views")}:
        connection.execute(text("ALTER TABLE part_views ADD COLUMN fault VARCHAR(16)"))


MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (
    _add_labels,
    _add_indexes_of_reviews,
    _add_audit,
    _add_parts,
    _add_shadow_results,
    _add_faults,
)
"""What makes version n + 2 of the tables from version n + 1: SQL for both kinds of database, in one transaction.

A new database is made in the newest version at once. One table and one list do this: with so few versions, Alembic
would bring more files than it saves.
"""


class DatabaseUnavailable(DataError):
    """The database cannot be reached or written at the moment; it may be later, and nothing was written."""


class Database:
    """An open database, its tables made or brought to this version. Safe to share between threads.

    Args:
        location: A path of a SQLite file, which is made where there is none, or a URL such as
            `postgresql://user:password@host/name`.
        create: False to refuse a database that does not exist yet.

    Raises:
        SettingsError: The URL is of no kind that is supported.
        MissingExtraError: The server's driver is not installed.
        DataError: It cannot be opened, or a newer energyad made it.

    Example:
        >>> with Database("energyad.db") as database, database.read() as session:
        ...     session.scalars(select(Result.line)).all()
    """

    def __init__(self, location: str | Path, *, create: bool = True) -> None:
        url = _url_of(location)
        self.is_server = url.get_backend_name() != "sqlite"
        self.file = None if self.is_server else Path(url.database or "")
        self.name = url.render_as_string(hide_password=True) if self.file is None else str(self.file)
        if self.file is not None:
            self._prepare_file(self.file, create=create)
        self._engine = _engine(url)
        self._writing = self._engine.execution_options(writes=True)
        self._writing_soon = self._engine.execution_options(writes=True, waits_for_disk=False)
        self._turn = contextlib.nullcontext() if self.is_server else threading.Lock()
        try:
            with self._errors_named(), self._writing.begin() as connection:
                _bring_up_to_date(connection, self.name)
        except BaseException:
            self.close()
            raise
        self._inode = self._current_inode()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads. Raises DataError where the database fails."""
        with self._errors_named(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session that only reads, all of it as it was at one moment. Raises DataError where the database fails."""
        with self.read() as session:
            if self.is_server:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """A session whose changes are stored when the block ends, all or, where it raises, none.

        Args:
            durable: Wait until they are on the disk. Where it is False, they outlive this process in any case, and not
                always a power failure; they are on the disk when a later change is that was waited for.

        Raises:
            DatabaseUnavailable: The disk is full, the server is away, or another writer took too long.
            DataError: The database is damaged, or its file was removed or replaced.
        """
        if self._current_inode() != self._inode:
            raise DataError(f"{self.name}: was removed or replaced while in use; put it back and start again")
        with (
            self._turn,
            self._errors_named(),
            Session(self._writing if durable else self._writing_soon, expire_on_commit=False) as session,
            session.begin(),
        ):
            if not durable and self.is_server:
                session.execute(text("SET LOCAL synchronous_commit = off"))
            yield session

    def checkpoint(self) -> None:
        """Copy SQLite's write-ahead log into the database, so that no transaction has to. Holds up nobody."""
        if self.is_server:
            return
        with (
            contextlib.suppress(sqlite3.Error),  # a transaction does it then, or says why not
            contextlib.closing(self._engine.raw_connection()) as connection,
        ):
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare_file(self, file: Path, *, create: bool) -> None:
        if not create and not file.exists():
            raise DataError(f"{file}: no such database; give the --database of `energyad watch`")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = os_reason(error)
            raise DataError(f"{file}: cannot be made: {reason}; give another --database") from error

    def _current_inode(self) -> int | None:
        if self.file is None:
            return None
        try:
            return self.file.stat().st_ino
        except OSError:
            return -1

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0] if error.orig is not None else str(error)
            if _is_damage(error.orig):
                raise DataError(
                    f"{self.name}: no database, or a damaged one ({reason}); restore it, or move it away"
                ) from error
            if error.connection_invalidated or _is_passing(error.orig):
                raise DatabaseUnavailable(
                    f"{self.name}: not available ({reason}); check the disk or the server"
                ) from error
            raise


def _url_of(location: str | Path) -> URL:
    if "://" not in str(location):
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(str(location))
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise SettingsError(
            "database: not a URL of a database; give a file, or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    if backend in ("postgresql", "postgres"):
        require("postgres", "a PostgreSQL database")
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database:
        return url
    raise SettingsError(f"database: {backend} is not supported; give a SQLite file or a postgresql:// URL")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError("it needs a local disk, for its write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: one that read first could not get it any more.
    options = connection.get_execution_options()
    writes = options.get("writes", False)
    if writes:
        waits = options.get("waits_for_disk", True)
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if waits else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(connection: Connection, name: str) -> None:
    newest = 1 + len(MIGRATIONS)
    one_at_a_time(connection)
    if not inspect(connection).has_table(SchemaVersion.__tablename__):
        Base.metadata.create_all(connection)
        connection.execute(SchemaVersion.__table__.insert().values(version=newest))  # type: ignore[attr-defined]
        return
    version = connection.scalar(select(SchemaVersion.version)) or 0
    if version > newest:
        raise DataError(
            f"{name}: tables of version {version}, made by a newer energyad than this; update energyad"
        )
    for migrate in MIGRATIONS[version - 1 :]:
        migrate(connection)
    if version != newest:
        connection.execute(SchemaVersion.__table__.update().values(version=newest))  # type: ignore[attr-defined]


def _is_damage(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_passing(error: BaseException | None) -> bool:
    """Whether the fault is the disk's, the network's or another writer's, which may pass."""
    if error is None:
        return False
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)
