"""Connections and transactions; where SQLite and Postgres differ, the difference is here.

Durability, by what a row is worth after a power cut:
* `write`: keys, projects, templates survive it once they are acknowledged (SQLite synchronous=FULL).
* `track`: the life of a sandbox. An SQLite file is on the machine whose sandboxes it describes, and they end with the
  power too, so it does not wait for that disk (6 ms on a small machine, twice per create). On Postgres it waits: there
  the sandboxes may be elsewhere. A crash of the server alone loses none of it.
* `note`: metrics, logs, last use of a key. Waits for no disk.
A power cut never costs the consistency of the file.

Locks: a transaction of SQLite has the whole file to itself (BEGIN IMMEDIATE). On Postgres it has what it locks, so
whatever reads first and then decides takes the row that stands for the question with FOR UPDATE: the project for its
quota, the sandbox for the numbers of its log, the server for its heartbeat. SQLAlchemy leaves that out for SQLite.
Changes of state are one UPDATE with the expected state in its WHERE, which is the same in both.

SQLite: one writing connection, so that writers of this process queue fairly in order, and a few reading ones, which
WAL lets work beside it. Other processes (the CLI) wait for the write lock up to `LOCK_WAIT_S`.
"""

import asyncio
import contextlib
import enum
import fcntl
import os
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from warren.model.errors import BadRequest, Unavailable
from warren.store.foreign_errors import translated

LOCK_WAIT_S = 5
"""Seconds to wait for a lock that another process or server holds; then the caller is told Busy."""
QUEUE_WAIT_S = 20
"""Seconds to wait for a connection of this process: a burst of 1,000 creates writes for 5 on a small machine."""
STATEMENT_DEADLINE_S = 15
"""Seconds for one statement on Postgres; above LOCK_WAIT_S, so that the exact reason comes first."""
READERS = 4
"""SQLite connections that read; each is a thread."""
POSTGRES_CONNECTIONS = 10
"""Connections to Postgres of one server; its default maximum is 100, for all servers together."""

P = ParamSpec("P")
T = TypeVar("T")

_WORTH = "warren_worth"
"""The execution option that carries a transaction's `_Worth` to where it begins."""

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class _Worth(enum.Enum):
    ALWAYS = enum.auto()
    WHILE_MACHINE_RUNS = enum.auto()
    LITTLE = enum.auto()


class Database:
    def __init__(self, url: str) -> None:
        self._working: set[asyncio.Task[Any]] = set()
        self._url = with_async_driver(url)
        self._reader: AsyncEngine | None = None
        self._writer: AsyncEngine | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    async def open(self) -> None:
        if self._url.get_backend_name() == "sqlite":
            with translated():
                await asyncio.to_thread(_make_ready, Path(self._url.database or ""))
            self._writer = _sqlite_engine(self._url, connections=1)
            self._reader = _sqlite_engine(
                self._url,
                connections=READERS,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                pool_reset_on_return=None,
            )
            event.listen(self._writer.sync_engine, "begin", _begin_sqlite_write)
        else:
            try:
                self._writer = _postgres_engine(self._url)
            except ModuleNotFoundError as error:
                raise Unavailable("cannot use Postgres: its driver is not installed; pip install asyncpg") from error
            event.listen(self._writer.sync_engine, "begin", _begin_postgres_write)
            self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        """Wait for the transactions under way, then let go of the connections."""
        engines = [engine for engine in (self._reader, self._writer) if engine is not None]
        self._reader = self._writer = None
        if self._working:
            await asyncio.wait(self._working)
        for engine in engines:
            await engine.dispose()

    async def read(
        self,
        work: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work`, made of single SELECTs: each sees one moment, none opens a transaction."""

        async def reading(engine: AsyncEngine) -> T:
            async with engine.connect() as connection:
                return await work(connection, *args, **kwargs)

        return await self._finished(self._reader, reading)

    async def write(
        self,
        work: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work` as one transaction that survives a power cut once it is answered."""
        return await self._transaction(_Worth.ALWAYS, work, *args, **kwargs)

    async def track(
        self,
        work: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `write`, for what is true of processes of this machine."""
        return await self._transaction(_Worth.WHILE_MACHINE_RUNS, work, *args, **kwargs)

    async def note(
        self,
        work: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `write`, for observations."""
        return await self._transaction(_Worth.LITTLE, work, *args, **kwargs)

    async def _transaction(
        self,
        worth: "_Worth",
        work: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async def writing(engine: AsyncEngine) -> T:
            async with engine.connect() as connection:
                await connection.execution_options(**{_WORTH: worth})
                async with connection.begin():
                    return await work(connection, *args, **kwargs)

        return await self._finished(self._writer, writing)

    async def _finished(self, engine: AsyncEngine | None, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
        """Let the work reach its end although the caller is cancelled: a driver that is cut in the middle of a
        statement can keep the write lock. It takes milliseconds, and each of its waits has a deadline."""
        if engine is None:
            raise Unavailable("cannot use the store: it is not open")
        # Its parent is this call, which ends after it also when cancelled; a TaskGroup would cancel it.
        task = asyncio.create_task(work(engine))  # noqa: TID251
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        with translated():
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise


def insert_new(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """INSERT that leaves a row alone that is already there."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def plain_url(url: str) -> URL:
    """Without a driver, for what is not SQLAlchemy."""
    parsed = with_async_driver(url)
    return parsed.set(drivername=parsed.get_backend_name())


def with_async_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # Without the value: there may be a password in it.
        raise BadRequest("cannot read the database's URL; write postgresql://user:password@host/database") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise BadRequest(f"cannot use a {parsed.get_backend_name()} database: give a sqlite or postgresql URL")
    return parsed.set(drivername=driver)


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _make_ready(path: Path) -> None:
    """A private file in WAL mode. SQLite does not wait for its lock while it changes that mode, so servers that
    start together take turns here."""
    _make_private(path)
    turn = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)  # held for milliseconds, and let go by the kernel if its holder dies
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        os.close(turn)


def _sqlite_engine(url: URL, connections: int, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=QUEUE_WAIT_S,
        connect_args={"timeout": LOCK_WAIT_S},
        **options,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else the driver opens transactions of its own, and late
    cursor = connection.cursor()
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite_write(connection: Connection) -> None:
    """IMMEDIATE: a transaction that takes the write lock only at its first write can fail after it has read."""
    level = "FULL" if connection.get_execution_options().get(_WORTH) is _Worth.ALWAYS else "NORMAL"
    if connection.info.get("synchronous", "FULL") != level:
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.info["synchronous"] = level
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=POSTGRES_CONNECTIONS,
        max_overflow=0,
        pool_timeout=QUEUE_WAIT_S,
        pool_pre_ping=True,
        connect_args={
            "timeout": LOCK_WAIT_S,
            "command_timeout": STATEMENT_DEADLINE_S,
            "server_settings": {"application_name": "warren", "lock_timeout": f"{LOCK_WAIT_S}s"},
        },
    )


def _begin_postgres_write(connection: Connection) -> None:
    if connection.get_execution_options().get(_WORTH) is _Worth.LITTLE:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
